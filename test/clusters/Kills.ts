/**
 * A probe's runner, killed (SIGKILL, in a process of its own) right after each object it makes and right before each it
 * deletes; one sweep must then leave nothing of it.
 */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import * as Sweeper from "../../src/agent/Sweeper.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { make } from "../../src/infra/kube/KubeResource.ts"
import type { AnyProbe } from "../../src/probes/Probe.ts"
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

/** How many boundaries there were. Runs three processes at a time. */
export const atEachBoundary = Effect.fnUntraced(function*(
  probe: Pick<AnyProbe, "id">,
  options: { readonly config?: Readonly<Record<string, unknown>>; readonly workerImage?: string } = {}
) {
  const { cluster, kube } = yield* TestCluster
  const die = (boundary: "create" | "delete") => (at: number) =>
    Effect.scoped(Effect.gen(function*() {
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
      const before = yield* left(runId)
      if (killed && boundary === "create") assert.isNotEmpty(before, `killed after create ${at}`)
      return { killed, runId }
    }))
  const count = Effect.fnUntraced(function*(boundary: "create" | "delete") {
    let boundaries = 0
    for (let at = 1; at < 60; at += 3) {
      const ended = yield* Effect.forEach([at, at + 1, at + 2], die(boundary), { concurrency: 3 })
      // One sweep for the three, and not before all have ended: to it, each is expired from its start.
      yield* Effect.provideService(Sweeper.sweep({}), Kube, kube)
      yield* Effect.forEach(ended, ({ runId }) => eventually(left(runId), (names) => names.length === 0))
      boundaries += ended.filter(({ killed }) => killed).length
      if (ended.some(({ killed }) => !killed)) return boundaries
    }
    return boundaries
  })
  return { creates: yield* count("create"), deletes: yield* count("delete") }
})
