/** Which runs wait for which, on a clock that the test moves. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { Budget } from "../../src/agent/Budget.ts"
import { Execution } from "../../src/agent/Execution.ts"
import * as NoJobs from "../../src/agent/noJobs.ts"
import { Outbox } from "../../src/agent/Outbox.ts"
import type { StoredProbe } from "../../src/agent/ProbeStore.ts"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import { Standings } from "../../src/agent/Standings.ts"
import { StatusWriter } from "../../src/agent/StatusWriter.ts"
import { Sweeping } from "../../src/agent/Sweeping.ts"
import type { ProbeSpec } from "../../src/domain/kinds/Probe.ts"
import type { Trigger } from "../../src/domain/Run.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import { check, withoutServer } from "./Checks.ts"

/** As long as something is broken. */
const SLOW = "60 seconds"

const looks = check("test.looks", () => Effect.succeed(Outcome.make("looked")))
const waits = check("test.waits", () => Effect.as(Effect.sleep(SLOW), Outcome.make("came to be")), {
  writes: "namespace",
  timeout: "2 minutes"
})

/** A Probe with so many checks of these. */
const probeOf = (name: string, ...uses: ReadonlyArray<string>): StoredProbe => {
  const [first, ...rest] = uses.map((use, index) => ({ name: `${use}-${index}`, use }))
  const spec: ProbeSpec = first === undefined ? {} : { checks: [first, ...rest] }
  return { namespace: "kubeprober", name, spec }
}

const four = (use: string): ReadonlyArray<string> => Array.from({ length: 4 }, () => use)

/** The checkers told so far, and how to run a Probe. */
const agent = Effect.gen(function*() {
  const told: Array<string> = []
  const execution = yield* Execution
  const run = (probe: StoredProbe, trigger: Trigger) =>
    Effect.forkChild(execution.run({
      probe,
      run: `run-${probe.name}`,
      trigger,
      onRecord: ({ report }) => Effect.sync(() => void told.push(`${probe.name}/${report.checker}`))
    }))
  return { told, run }
})

const test = <E>(name: string, body: Effect.Effect<void, E, Execution>) =>
  it.effect(name, () =>
    body.pipe(
      Effect.provide(
        Execution.layer({
          available: [looks.probe, waits.probe],
          probeNamespace: "kubeprober",
          profile: "standard",
          named: new Set(),
          inside: false,
          world: ProbeWorld.make({})
        }).pipe(Layer.provide([
          Budget.layer(),
          NoJobs.layer,
          Outbox.layerNone,
          Standings.layerMemory,
          StatusWriter.layerNone,
          Sweeping.layerNone
        ]))
      ),
      withoutServer,
      Effect.scoped
    ))

describe("runs that wait for what becomes of objects", () => {
  for (const trigger of ["schedule", "manual", "watch"] as const) {
    test(
      `do not hold up those that look (${trigger})`,
      Effect.gen(function*() {
        const { run, told } = yield* agent
        for (const name of ["a", "b", "c"]) yield* run(probeOf(name, ...four("test.waits")), trigger)
        yield* TestClock.adjust("1 second")
        const quick = yield* run(probeOf("quick", ...four("test.looks")), trigger)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(told, [0, 1, 2, 3].map((index) => `quick/test.looks-${index}`))
        yield* Fiber.join(quick)
        // They themselves are so many at a time.
        yield* TestClock.adjust(SLOW)
        assert.strictEqual(told.length, 4 + 8)
        yield* TestClock.adjust(SLOW)
        assert.strictEqual(told.length, 4 + 12)
      })
    )
  }

  test(
    "come after those that look within one Probe",
    Effect.gen(function*() {
      const { run, told } = yield* agent
      yield* run(probeOf("mixed", ...four("test.waits"), "test.looks"), "schedule")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(told, ["mixed/test.looks-4"])
    })
  )
})
