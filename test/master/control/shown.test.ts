import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration } from "effect"
import type { DesiredProbe } from "../../../src/domain/DesiredSet.ts"
import type { RefusedProbe } from "../../../src/domain/rpc/Control.ts"
import { cellsOf, keyOf } from "../../../src/master/fleet/shown.ts"
import type { CellState } from "../../../src/master/History.ts"

const NOW = DateTime.makeUnsafe("2026-01-02T00:00:00Z")
const ago = (duration: Duration.Input) => DateTime.subtractDuration(NOW, Duration.fromInputUnsafe(duration))
const ref = { namespace: "kubeprober", name: "p" }

const passed = (checker: string, lastRun: DateTime.Utc): CellState => ({
  cluster: "c",
  probe: ref,
  checker,
  layer: "kubernetes",
  state: { name: checker, status: "PASS", message: "fine", lastRun, since: lastRun, consecutiveFailures: 0 }
})

const cells = (
  spec: DesiredProbe["spec"],
  known: ReadonlyArray<CellState>,
  refused: ReadonlyArray<RefusedProbe> = []
) =>
  cellsOf({
    probes: [{ ...ref, spec }],
    known: new Map(known.map((cell) => [keyOf(cell), cell])),
    refused,
    linked: true,
    now: NOW
  }).map(({ cell }) => cell)

const shows = (spec: DesiredProbe["spec"], ...known: ReadonlyArray<CellState>) =>
  cells(spec, known).map((cell) => `${cell.checker} ${cell.status} ${cell.freshness}`)

const check = { checks: [{ name: "a", use: "k8s.node.readiness" }] } as const
const template = { template: { containers: [{ name: "c", image: "i" }] } } as const
const minutely = { interval: Duration.minutes(1) }

describe("what is shown of a checker", () => {
  it("is green for as long as it is vouched for", () => {
    assert.deepStrictEqual(shows({ ...check, policy: minutely }, passed("a", ago("90 seconds"))), ["a PASS fresh"])
    assert.deepStrictEqual(shows({ ...check, policy: minutely }, passed("a", ago("3 minutes"))), ["a UNKNOWN stale"])
    assert.deepStrictEqual(shows({ ...check, policy: minutely }), ["a UNKNOWN stale"])
  })

  it("grows stale while its Probe is suspended", () =>
    assert.deepStrictEqual(
      shows({ ...check, policy: { ...minutely, suspend: true } }, passed("a", ago("3 minutes"))),
      ["a UNKNOWN stale"]
    ))

  it("is not green when its Probe cannot be followed, which agents refuse", () =>
    assert.deepStrictEqual(
      shows({ ...check, policy: { cron: "0 5 * * *", timeZone: "Mars/Phobos" } }, passed("a", ago("1 minute"))),
      ["a UNKNOWN stale"]
    ))

  it("is not green when the agent has refused its Probe, and says why", () => {
    const both = { checks: [...check.checks, { name: "b", use: "k8s.node.readiness" }], policy: minutely } as const
    const refused = { probe: ref, reason: "made here by someone else" }
    assert.deepStrictEqual(
      cells(both, [passed("a", ago("10 seconds"))], [refused]).map(({ message, status }) => `${status} ${message}`),
      Array.from(
        { length: 2 },
        () => `UNKNOWN the cluster's agent does not run this Probe as it is now: ${refused.reason}`
      )
    )
    const other = { ...refused, probe: { ...ref, name: "other" } }
    assert.deepStrictEqual(
      cells(both, [passed("a", ago("10 seconds"))], [other]).map(({ status }) => status),
      ["PASS", "UNKNOWN"]
    )
  })

  it("is not green of a clock that is ahead", () =>
    assert.deepStrictEqual(shows({ ...check, policy: minutely }, passed("a", DateTime.add(NOW, { days: 300 }))), [
      "a UNKNOWN stale"
    ]))

  it("goes when a prober no longer has it, and stays when the prober is silent as a whole", () => {
    const policy = minutely
    assert.deepStrictEqual(
      shows({ ...template, policy }, passed("old", ago("5 minutes")), passed("new", ago("10 seconds"))),
      ["new PASS fresh"]
    )
    assert.deepStrictEqual(
      shows({ ...template, policy }, passed("one", ago("5 minutes")), passed("two", ago("6 minutes"))),
      ["one UNKNOWN stale", "two UNKNOWN stale"]
    )
  })
})
