import { Context, Effect, FileSystem, Layer, Option, Path, Schema, Scope } from "effect"
import type { PlatformError } from "effect/PlatformError"
import type { ChildProcessSpawner } from "effect/process"
import * as Kubeconfig from "./Kubeconfig.ts"
import * as Leftovers from "./Leftovers.ts"
import { ClusterExists, LocalIoError } from "./LocalError.ts"
import { LocalPaths } from "./LocalPaths.ts"
import * as FileLock from "./process/FileLock.ts"

/** What is known of a running cluster without asking it. */
export class ClusterRecord extends Schema.Class<ClusterRecord>("ClusterRecord")({
  name: Schema.String,
  /** The process that owns it. */
  pid: Schema.Int,
  createdAt: Schema.DateTimeUtcFromString,
  nodes: Schema.Int,
  /** Present once the cluster is ready. */
  ready: Schema.optionalKey(Schema.Struct({
    kubernetesVersion: Schema.String,
    context: Schema.String,
    server: Schema.String,
    ca: Schema.String,
    client: Schema.Struct({ cert: Schema.String, key: Schema.String })
  }))
}) {}

const ClusterRecordJson = Schema.fromJsonString(ClusterRecord)

/** The folder of one cluster, which is this process' own until its scope closes. */
export interface Claim {
  readonly directory: string
  /** Makes the state of the cluster known to other processes. */
  readonly publish: (record: ClusterRecord) => Effect.Effect<void, LocalIoError>
}

/**
 * The folder with the state of every local cluster of this user, which processes share. A cluster belongs to the
 * process that made it, for as long as that lives: what a killed process left is removed before anything else is done.
 */
export class LocalStore extends Context.Service<LocalStore, {
  /** Takes the name. Closing the scope removes the folder and everything in it. */
  readonly claim: (name: string) => Effect.Effect<Claim, ClusterExists | LocalIoError, Scope.Scope>
  /** The clusters that run now, by name. */
  readonly list: Effect.Effect<ReadonlyArray<ClusterRecord>, LocalIoError>
  /** A kubeconfig with the contexts of all clusters that are ready. It is gone when there is none. */
  readonly kubeconfigPath: string
}>()("kubeprober/local/LocalStore") {
  static readonly layer = Layer.effect(
    LocalStore,
    Effect.gen(function*() {
      const { state } = yield* LocalPaths
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const services = yield* Effect.context<
        FileSystem.FileSystem | Path.Path | ChildProcessSpawner.ChildProcessSpawner
      >()
      const kubeconfigPath = path.join(state, KUBECONFIG)

      const ioError = (cause: PlatformError | FileLock.LockFailed) =>
        Effect.fail(new LocalIoError({ doing: `Using the state folder ${state}`, cause }))

      /** One process at a time looks at the folder; none of them takes long. */
      const exclusively = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.scoped(Effect.gen(function*() {
          yield* fs.makeDirectory(state, { recursive: true, mode: 0o700 })
          yield* FileLock.lock(path.join(state, LOCK))
          return yield* effect
        }))

      const ownerLock = (directory: string) => path.join(directory, "owner.lock")
      const recordFile = (directory: string) => path.join(directory, "cluster.json")

      const remove = Effect.fnUntraced(function*(directory: string) {
        yield* Leftovers.remove(directory)
        yield* fs.remove(directory, { recursive: true, force: true })
      })

      /** Removes what dead owners left, and tells the folders of live ones. */
      const sweep = Effect.gen(function*() {
        const entries = yield* fs.readDirectoryEntries(state)
        const directories = entries
          .filter(({ type }) => type === "Directory")
          .map(({ name }) => path.join(state, name))
        const live = yield* Effect.filter(directories, (directory) =>
          Effect.scoped(
            FileLock.tryLock(ownerLock(directory)).pipe(
              Effect.andThen(Effect.as(remove(directory), false)),
              Effect.catchTag("LockBusy", () => Effect.succeed(true))
            )
          ))
        if (live.length < directories.length) yield* writeKubeconfig(live)
        return live
      })

      const records = Effect.fnUntraced(function*(directories: ReadonlyArray<string>) {
        const found = yield* Effect.forEach(directories, (directory) =>
          fs.readFileString(recordFile(directory)).pipe(
            Effect.flatMap(Schema.decodeEffect(ClusterRecordJson)),
            // A claim without a record yet, or of a version of this program that writes other records.
            Effect.option
          ))
        return found.flatMap(Option.toArray)
      })

      const write = Effect.fnUntraced(function*(file: string, content: string) {
        yield* fs.writeFileString(`${file}.new`, content, { mode: 0o600 })
        yield* fs.rename(`${file}.new`, file)
      })

      const writeKubeconfig = Effect.fnUntraced(function*(live: ReadonlyArray<string>) {
        const entries = (yield* records(live)).flatMap(({ ready }) => ready === undefined ? [] : [ready])
        if (entries.length > 0) yield* write(kubeconfigPath, Kubeconfig.render(entries))
        else yield* fs.remove(kubeconfigPath, { force: true })
      })

      const claim = Effect.fn("LocalStore.claim")(function*(name: string, scope: Scope.Scope) {
        const directory = path.join(state, name)
        yield* Effect.uninterruptible(exclusively(Effect.gen(function*() {
          if ((yield* sweep).includes(directory)) return yield* new ClusterExists({ cluster: name, directory })
          yield* fs.makeDirectory(directory, { mode: 0o700 })
          yield* Scope.provide(FileLock.tryLock(ownerLock(directory)), scope).pipe(
            Effect.catchTag("LockBusy", Effect.die)
          )
          yield* Scope.addFinalizer(
            scope,
            exclusively(Effect.andThen(remove(directory), Effect.flatMap(sweep, writeKubeconfig))).pipe(
              Effect.provideContext(services),
              Effect.catch((error) => Effect.logWarning("A local cluster was not removed completely", error))
            )
          )
        })))
        const claimed: Claim = {
          directory,
          publish: (record: ClusterRecord) =>
            Schema.encodeEffect(ClusterRecordJson)(record).pipe(
              Effect.orDie,
              Effect.flatMap((json) => write(recordFile(directory), json)),
              Effect.andThen(exclusively(Effect.flatMap(sweep, writeKubeconfig))),
              Effect.catchTag(IO, ioError),
              Effect.provideContext(services)
            )
        }
        return claimed
      })

      return LocalStore.of({
        claim: (name) =>
          // The scope of the caller: among the services there is one as well, that of the layer.
          Effect.flatMap(Effect.scope, (scope) =>
            claim(name, scope).pipe(Effect.catchTag(IO, ioError), Effect.provideContext(services))),
        list: exclusively(Effect.flatMap(sweep, records)).pipe(
          Effect.catchTag(IO, ioError),
          Effect.provideContext(services)
        ),
        kubeconfigPath
      })
    })
  )
}

const IO = ["PlatformError", "LockFailed"] as const

const LOCK = ".lock"
const KUBECONFIG = "kubeconfig"

/** Names that the folder of clusters uses itself. */
export const isReserved = (name: string): boolean => name === KUBECONFIG
