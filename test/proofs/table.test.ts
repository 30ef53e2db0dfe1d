import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type PassedTest, proofsOf, render } from "../../scripts/proofsTable.ts"
import * as Codes from "../../src/probes/Codes.ts"
import { Outcome } from "../../src/probes/index.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { blind, fault, faults, healthy, killed } from "./proof.ts"

const probe = (id: string, writes: Probe.AnyProbe["writes"]): Probe.AnyProbe =>
  Probe.make(id, {
    layer: "kubernetes",
    proves: "that tables are right",
    writes,
    needs: [],
    codes: Codes.make({
      BROKEN: Codes.error("It is broken.", "Mend it."),
      WORN: Codes.warn("It is worn.", "Mind it."),
      NOTED: Codes.info("It is there.", "Nothing."),
      HIDDEN: Codes.unknown("It is out of sight.", "Look closer.")
    }),
    config: Probe.NoConfig,
    timeout: "1 second",
    run: () => Effect.succeed(Outcome.make("fine"))
  })

const reader = probe("test.reader", "nothing")
const writer = probe("test.writer", "namespace")

const passed = (...titles: ReadonlyArray<string>): ReadonlyArray<PassedTest> =>
  titles.map((title) => ({ file: "test/probes/x.test.ts", title }))

describe("the table of proofs", () => {
  it("reads every proof of a name, and shows the name without them", () => {
    const title = faults(reader, blind(reader, "HIDDEN", "sees it break"), "BROKEN", "WORN")
    assert.deepStrictEqual(
      proofsOf({ file: "test/probes/x.test.ts", title }).map(({ code, kind, test }) => [kind, code, test.title]),
      [["blind", "HIDDEN", "sees it break"], ["fault", "BROKEN", "sees it break"], ["fault", "WORN", "sees it break"]]
    )
    assert.deepStrictEqual(proofsOf({ file: "test/a.test.ts", title: "says [nothing] of proofs" }), [])
  })

  it("is whole when each WARN, ERROR and UNKNOWN is proven or explained", () => {
    const tests = passed(
      healthy(reader, "is well"),
      fault(reader, "BROKEN", "breaks"),
      blind(reader, "ACCESS_MISSING", "is blind")
    )
    assert.deepStrictEqual(render([reader], tests, {}).missing, [
      "test.reader WORN: not proven, and no reason is given",
      "test.reader HIDDEN: not proven, and no reason is given"
    ])
    const { missing, text } = render([reader], tests, { "test.reader": { WORN: "too slow", HIDDEN: "too dark" } })
    assert.deepStrictEqual(missing, [])
    assert.include(text, "| Killed | writes nothing |")
    assert.include(text, "`BROKEN`: breaks (`probes/x.test.ts`)<br>`WORN`: not proven: too slow")
    assert.include(text, "`ACCESS_MISSING`: is blind (`probes/x.test.ts`)<br>`HIDDEN`: not proven: too dark")
    assert.notInclude(text, "NOTED")
    assert.include(text, "| [`test.reader`](#testreader) | yes | 1 of 2 | yes | writes nothing |")
  })

  it("misses what a probe must prove, unless a reason is given", () => {
    assert.deepStrictEqual(
      render([writer], [], {}).missing,
      ["healthy", "BROKEN", "WORN", "HIDDEN", "blind", "killed"].map((what) =>
        `test.writer ${what}: not proven, and no reason is given`
      )
    )
    const reasons = {
      "test.writer": { healthy: "a", BROKEN: "b", WORN: "e", HIDDEN: "f", blind: "c", killed: "d" }
    }
    const { missing, text } = render([writer], [], reasons)
    assert.deepStrictEqual(missing, [])
    assert.include(text, "`BROKEN`: not proven: b")
  })

  it("refuses reasons that are wrong", () => {
    const tests = passed(
      healthy(writer, "is well"),
      fault(writer, "BROKEN", "breaks"),
      blind(writer, "HIDDEN", "is blind"),
      killed(writer, "is killed")
    )
    const { missing } = render([writer], tests, {
      "test.writer": { BROKEN: "too hard", NOTED: "why not", WORN: "too slow" },
      "test.gone": { BROKEN: "it was" }
    })
    assert.deepStrictEqual(missing, [
      "test.gone: reasons are given for a probe that is not in the catalogue",
      "test.writer BROKEN: a reason is given for what is proven",
      "test.writer NOTED: a reason is given for what there is not to prove"
    ])
  })

  it("is the same in whatever order tests ran", () => {
    const tests = passed(healthy(writer, "b"), healthy(writer, "a"), fault(writer, "BROKEN", "c"), healthy(reader, "d"))
    assert.strictEqual(
      render([reader, writer], tests, {}).text,
      render([writer, reader], tests.toReversed(), {}).text
    )
  })
})
