/**
 * A probe's runner, killed (SIGKILL, in a process of its own) right after objects of each kind that it makes and right
 * before those that it deletes; one sweep must then leave nothing of it.
 */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import * as Sweeper from "../../src/agent/Sweeper.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { make } from "../../src/infra/kube/KubeResource.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { RUN_LABEL } from "../../src/probes/Scratch.ts"
import * as ProbeProcess from "./ProbeProcess.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "./TestCluster.ts"

/** Not swept by itself: it goes with its owner. */
const Secret = make({ kind: "Secret", plural: "secrets", scope: "Namespaced", fields: {}, metadataOnly: true })

/** Everything of a run that is there, as `Kind name`. */
const left = (run: string) =>
  Effect.gen(function*() {
    const { kube } = yield* TestCluster
    const kinds = [...Sweeper.SWEPT_NAMESPACED, ...Sweeper.SWEPT_CLUSTER, Secret]
    const found = yield* Effect.forEach(kinds, (kind) =>
      kube.list(kind, { labelSelector: `${RUN_LABEL}=${run}` }).pipe(
        Effect.map(({ items }) => items.map(({ metadata }) => `${kind.kind} ${metadata.name}`)),
        Effect.catchIf(({ reason }) => reason._tag === "NotFound", () => Effect.succeed([]))
      ), { concurrency: 4 })
    return found.flat()
  })

interface KillOptions {
  readonly config?: Readonly<Record<string, unknown>>
  readonly workerImage?: string
}

/** The `at`th object that a run makes or deletes. */
interface Boundary {
  readonly boundary: "create" | "delete"
  readonly at: number
}

/** Configuration of probes that start pods on several nodes: with more there are only more boundaries of the same kinds. */
export const ONE_NODE = { nodes: 1 } as const

const QUESTIONS = /^SelfSubject/u

/** The kinds that a whole run makes and deletes, in its order. */
const recorded = Effect.fnUntraced(function*(probe: Probe.AnyProbe, options: KillOptions) {
  const { kube, run } = yield* TestCluster
  const create: Array<string> = []
  const deleted: Array<string> = []
  const recording = Kube.of({
    ...kube,
    create: (resource, manifest, options) =>
      Effect.tap(kube.create(resource, manifest, options), () =>
        Effect.sync(() => {
          if (options?.dryRun !== true && !QUESTIONS.test(resource.kind)) create.push(resource.kind)
        })),
    delete: (resource, ref, options) =>
      Effect.suspend(() => {
        deleted.push(resource.kind)
        return kube.delete(resource, ref, options)
      })
  })
  const { workerImage: image } = options
  yield* run(Probe.configure<unknown, unknown>(probe, options.config ?? {}), {
    as: recording,
    world: ProbeWorld.make(image === undefined ? {} : { workers: Effect.succeed({ image, imagePullPolicy: "Never" }) })
  })
  return { create, delete: deleted }
})

/** The first and the last of each kind, counted from 1: what one piece of code makes in a row is let go by one, too. */
const telling = (kinds: ReadonlyArray<string>): ReadonlyArray<number> =>
  kinds.flatMap((kind, at) => kinds.indexOf(kind) === at || kinds.lastIndexOf(kind) === at ? [at + 1] : [])

/** Processes at a time: each starts pods besides. */
const AT_ONCE = 3

/** How many boundaries a run has. */
export const atEachBoundary = Effect.fnUntraced(function*(probe: Probe.AnyProbe, options: KillOptions = {}) {
  const { cluster, kube } = yield* TestCluster
  const kinds = yield* recorded(probe, options)
  const die = Effect.fnUntraced(function*({ at, boundary }: Boundary) {
    const runId = `killed-${boundary}-${at}`
    const process = yield* ProbeProcess.start(cluster, probe, {
      ...options,
      runId,
      namespace: PROBE_NAMESPACE,
      // Expired from the start, so that one sweep after the kill may remove all of it.
      expiresInMillis: -60_000,
      die: { boundary, at }
    })
    const killed = yield* process.wasKilled
    if (boundary === "create") {
      assert.isTrue(killed, `not killed after create ${at} of ${kinds.create.join()}`)
      assert.isNotEmpty(yield* left(runId), `killed after create ${at}`)
    }
    return { killed, runId }
  }, Effect.scoped)
  const boundaries = (["create", "delete"] as const).flatMap((boundary) =>
    telling(kinds[boundary]).map((at): Boundary => ({ boundary, at }))
  )
  let kills = 0
  for (let from = 0; from < boundaries.length; from += AT_ONCE) {
    const ended = yield* Effect.forEach(boundaries.slice(from, from + AT_ONCE), die, { concurrency: AT_ONCE })
    // One sweep for all of them, and not before all have ended: to it, each is expired from its start.
    yield* Effect.provideService(Sweeper.sweep({}), Kube, kube)
    yield* Effect.forEach(ended, ({ runId }) => eventually(left(runId), (names) => names.length === 0))
    kills += ended.filter(({ killed }) => killed).length
  }
  assert.isAtLeast(kills, boundaries.length - 1, "an order that varies may spare one")
  return { creates: kinds.create.length, deletes: kinds.delete.length }
})
