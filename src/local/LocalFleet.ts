import { Context, type DateTime, Effect, FileSystem, Layer, Option, Path, Schedule, Schema } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { ClusterExists, ClusterNotFound, LocalIoError, NotReady, SupervisorFailed } from "./LocalError.ts"
import { LocalPaths } from "./LocalPaths.ts"
import { type ClusterRecord, LocalStore } from "./LocalStore.ts"
import type { OnProgress } from "./Progress.ts"
import { SupervisorEvent, SupervisorOptions } from "./Supervision.ts"

/** A local cluster that runs now. */
export interface ClusterStatus {
  readonly name: string
  readonly nodes: number
  /** The process that owns it. */
  readonly pid: number
  readonly createdAt: DateTime.Utc
  /** None while it comes up. */
  readonly ready: Option.Option<{
    readonly kubernetesVersion: string
    readonly server: string
    readonly context: string
  }>
}

/**
 * Local clusters that outlive the program which starts them: each belongs to a supervisor, a process in the background.
 * Clusters that other programs hold in a scope are seen here as well.
 */
export class LocalFleet extends Context.Service<LocalFleet, {
  /** Starts a supervisor and waits until its cluster is ready. Interrupting it takes the cluster down again. */
  readonly up: (
    options: SupervisorOptions & { readonly onProgress?: OnProgress }
  ) => Effect.Effect<ClusterStatus, ClusterExists | SupervisorFailed | LocalIoError>
  /** Ends the owner of a cluster, and waits until nothing of the cluster is left. */
  readonly down: (name: string) => Effect.Effect<void, ClusterNotFound | NotReady | LocalIoError>
  readonly status: Effect.Effect<ReadonlyArray<ClusterStatus>, LocalIoError>
  /** A kubeconfig with the contexts of all clusters that are ready; no such file when there is none. */
  readonly kubeconfigPath: string
}>()("kubeprober/local/LocalFleet") {
  static readonly layer = Layer.effect(
    LocalFleet,
    Effect.gen(function*() {
      const store = yield* LocalStore
      const { environment, state, supervisor } = yield* LocalPaths
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const spawner = yield* ChildProcessSpawner.ChildProcessSpawner

      const find = (name: string) =>
        Effect.map(store.list, (records) => Option.fromNullishOr(records.find((record) => record.name === name)))

      const up = Effect.fn("LocalFleet.up")(
        function*({ onProgress = () => Effect.void, ...options }: Parameters<LocalFleet["Service"]["up"]>[0]) {
          const { name } = options
          const before = yield* find(name)
          if (Option.isSome(before)) {
            return yield* new ClusterExists({ cluster: name, directory: path.join(state, name) })
          }
          const argument = yield* Effect.orDie(Schema.encodeEffect(Schema.fromJsonString(SupervisorOptions))(options))
          // A file and not a pipe, because nobody reads on when the cluster is ready.
          const output = yield* fs.makeTempFileScoped({ prefix: "kubeprober-local-" })
          const handle = yield* spawner.spawn(ChildProcess.make(
            "sh",
            ["-c", `exec "$@" >"$0" 2>&1`, output, process.execPath, supervisor, argument],
            { cwd: "/", env: environment, extendEnv: true, stdin: "ignore", stdout: "ignore", stderr: "ignore" }
          ))
          let told = 0
          const listen = Effect.gen(function*() {
            const isRunning = yield* handle.isRunning
            const lines = (yield* fs.readFileString(output)).split("\n").slice(0, -1)
            const events = yield* Effect.forEach(lines.slice(told), (line) => Effect.option(decodeEvent(line)))
            told = lines.length
            for (const event of events.flatMap(Option.toArray)) {
              if (event._tag === "Ready") return true
              if (event._tag === "GaveUp") return yield* new SupervisorFailed({ cluster: name, reason: event.message })
              yield* onProgress(event)
            }
            if (isRunning) return false
            const reason = lines.slice(-10).join("\n") || "Its supervisor ended without a word."
            return yield* new SupervisorFailed({ cluster: name, reason })
          })
          yield* Effect.repeat(listen, { until: (ready) => ready, schedule: Schedule.spaced("100 millis") })
          yield* Effect.asVoid(handle.unref)
          const record = yield* find(name)
          if (Option.isSome(record)) return toStatus(record.value)
          return yield* new SupervisorFailed({ cluster: name, reason: "It was taken down as soon as it was ready." })
        },
        Effect.scoped,
        Effect.catchTag(
          "PlatformError",
          (cause) => Effect.fail(new LocalIoError({ doing: "Starting a supervisor", cause }))
        )
      )

      const down = Effect.fn("LocalFleet.down")(function*(name: string) {
        const records = yield* store.list
        const record = records.find((record) => record.name === name)
        if (record === undefined) {
          return yield* new ClusterNotFound({ cluster: name, running: records.map(({ name }) => name) })
        }
        yield* Effect.sync(() => Option.liftThrowable(process.kill)(record.pid, "SIGTERM"))
        yield* find(name).pipe(
          Effect.repeat({ until: Option.isNone, schedule: Schedule.spaced("100 millis") }),
          Effect.timeoutOrElse({
            duration: DOWN_WITHIN,
            orElse: () =>
              Effect.fail(
                new NotReady({
                  what: `The end of local cluster ${name}`,
                  after: DOWN_WITHIN,
                  last: `process ${record.pid} is still there`
                })
              )
          })
        )
      })

      return LocalFleet.of({
        up,
        down,
        status: Effect.map(store.list, (records) => records.map(toStatus)),
        kubeconfigPath: store.kubeconfigPath
      })
    })
  )
}

const DOWN_WITHIN = "60 seconds"

const decodeEvent = Schema.decodeEffect(Schema.fromJsonString(SupervisorEvent))

/** Without the credentials. */
const toStatus = ({ createdAt, name, nodes, pid, ready }: ClusterRecord): ClusterStatus => ({
  name,
  nodes,
  pid,
  createdAt,
  ready: Option.map(
    Option.fromNullishOr(ready),
    ({ context, kubernetesVersion, server }) => ({ context, kubernetesVersion, server })
  )
})
