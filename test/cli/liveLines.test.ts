import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect } from "effect"
import { TestClock } from "effect/testing"
import * as FleetTable from "../../src/cli/output/FleetTable.ts"
import * as LiveLines from "../../src/cli/output/LiveLines.ts"
import { coloured, plain } from "../../src/cli/output/Style.ts"
import * as Table from "../../src/cli/output/Table.ts"
import type { Surface } from "../../src/cli/Screen.ts"
import { type Cell, type MatrixRow, NEVER_RAN } from "../../src/domain/rpc/Fleet.ts"
import { NOW, cell, row } from "./fleetRows.ts"

const ERASE_BELOW = "\u001B[0J"

/** As much of a terminal as the program uses: it wraps, scrolls, goes up and erases below. */
const terminal = (width: number, height: number) => {
  const lines = [""]
  let top = 0
  let at = 0
  const next = () => {
    at += 1
    if (at === lines.length) lines.push("")
    if (at - top >= height) top += 1
  }
  const put = (text: string) => {
    // A line is always written anew here, as the program erases before it draws.
    for (const character of text) {
      if ((lines[at] ?? "").length === width) next()
      lines[at] = (lines[at] ?? "") + character
    }
  }
  const surface: Surface = {
    isTerminal: true,
    width: Effect.succeed(width),
    height: Effect.succeed(height),
    style: plain,
    write: (text) =>
      Effect.sync(() => {
        // oxlint-disable-next-line no-control-regex
        for (const part of text.split(/(\n|\r|\u001B\[\d+[AJ])/u)) {
          if (part === "\n") next()
          else if (part === ERASE_BELOW) lines.splice(at, Infinity, "")
          else if (part.startsWith("\u001B[")) at = Math.max(top, at - Number.parseInt(part.slice(2), 10))
          else if (part !== "\r") put(part)
        }
      })
  }
  return { surface, scrolled: () => lines.slice(0, top), shown: () => lines.slice(top) }
}

const LONG =
  "node worker-1.example has reported nothing for 4m10s, which is longer than the 40s that it may be silent, " +
  "and its Lease was last renewed at 11:55:50"

const failing = cell("k8s.node.readiness", { status: "ERROR", code: "NODE_NOT_READY", message: LONG })

const many = (count: number, options: Partial<Cell> = {}): ReadonlyArray<Cell> =>
  Array.from({ length: count }, (_, index) => cell(`k8s.check.${String(index).padStart(2, "0")}`, options))

const drawn = (rows: ReadonlyArray<MatrixRow>, width: number, height: number) =>
  Effect.scoped(Effect.gen(function*() {
    const screen = terminal(width, height)
    let turn = 0
    yield* LiveLines.make(screen.surface, (size) =>
      Effect.sync(() => [
        ...FleetTable.frame(rows, { style: plain, wide: false, now: NOW, width, height: size.height }).slice(0, -1),
        `turn ${turn++}`
      ]))
    // Each turn differs, so each is drawn.
    for (let index = 0; index < 3; index++) yield* TestClock.adjust("100 millis")
    return { scrolled: screen.scrolled(), shown: screen.shown() }
  }))

describe("a table drawn again and again", () => {
  it.effect("has the whole message of a failing check, broken between words", () =>
    Effect.gen(function*() {
      const { scrolled, shown } = yield* drawn([row("local-1", [failing, ...many(3)], { status: "ERROR" })], 80, 30)
      assert.deepStrictEqual(scrolled, [])
      assert.include(shown.map((line) => line.trim()).join(" "), LONG)
      assert.isTrue(
        shown.some((line) => line === "ERROR local-1 k8s.node.readiness NODE_NOT_READY for 1m30s, looked 1m30s ago")
      )
    }))

  it.effect("never draws more lines than the terminal has, and says how many it does not show", () =>
    Effect.gen(function*() {
      const bad = many(18, { status: "ERROR", code: "X", message: LONG })
      const { scrolled, shown } = yield* drawn([row("local-1", bad, { status: "ERROR" })], 80, 24)
      assert.deepStrictEqual(scrolled, [])
      assert.isAtMost(shown.length, 24)
      assert.match(shown.at(-1) ?? "", /^\d+ more lines; enlarge the terminal/u)
    }))

  it("has the sum and what is wrong first where room is short, and counts what is well", () => {
    const rows = [row("local-1", [...many(17), cell("k8s.noted", { status: "INFO", code: "NOTED" }), failing], {
      status: "ERROR"
    })]
    const lines = FleetTable.frame(rows, { style: plain, wide: false, now: NOW, width: 80, height: 23 })
    assert.isAtMost(lines.length, 23)
    const text = lines.join("\n")
    assert.match(lines[0] ?? "", /^1 cluster, 1 linked; 19 checkers: 1 ERROR/u)
    assert.strictEqual(lines[1], "all: local-1 ERROR")
    assert.match(lines[2] ?? "", /^ERROR local-1 k8s\.node\.readiness/u)
    assert.include(text, "  k8s.node.readiness")
    assert.include(text, "kubernetes (18 without a fault)")
    assert.match(text, /^all +ERROR$/mu)
    assert.notInclude(text, "k8s.check.00")
  })

  it("breaks a line behind its margin, coloured or not, and a word that is longer than a line", () => {
    assert.deepStrictEqual(Table.wrap("  one two three", 9), ["  one two", "  three"])
    assert.deepStrictEqual(
      Table.wrap(coloured.dim("  one two three"), 9),
      ["  \u001B[2mone two", "  three\u001B[0m"]
    )
    assert.deepStrictEqual(Table.wrap("abcdefgh i", 5), ["abcde", "fgh i"])
  })

  it.effect("leaves its last words when it ends, and nothing else", () =>
    Effect.gen(function*() {
      const screen = terminal(40, 10)
      const last = Array.from({ length: 12 }, (_, index) => `row ${index}`)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* LiveLines.make(screen.surface, () => Effect.succeed(["live"]), Effect.succeed(last))
        yield* TestClock.adjust("100 millis")
        assert.deepStrictEqual(screen.shown(), ["live"])
      }))
      assert.deepStrictEqual([...screen.scrolled(), ...screen.shown()], [...last, ""])
    }))
})

describe("a fleet that has just started", () => {
  const waiting = { status: "UNKNOWN", message: NEVER_RAN.linked, freshness: "stale" } as const
  const { lastRun: _run, since: _since, ...bare } = cell("x", waiting)
  const cells = ["a", "b"].map((checker): Cell => ({ ...bare, checker }))
  const options = { style: plain, wide: false, now: NOW, startedAt: NOW }

  it("waits, in one line, instead of telling of an outage", () => {
    const text = FleetTable.render([row("local-1", cells, { status: "UNKNOWN" })], options).join("\n")
    assert.match(text, /^ {2}a +waiting$/mu)
    assert.match(text, /^all +waiting$/mu)
    assert.include(text, "2 checks have not run yet")
    assert.notInclude(text, "UNKNOWN")
    assert.notInclude(text, "never")
    const unlinked = cells.map((one): Cell => ({ ...one, freshness: "unreachable", message: NEVER_RAN.unlinked }))
    const before = FleetTable.render([row("local-1", unlinked, { status: "UNKNOWN", linked: false })], options)
    assert.notInclude(before.join("\n"), "UNKNOWN")
    assert.include(before.join("\n"), "local-1 has no link yet")
  })

  it("does not count what waits as well, where room is short", () => {
    const rows = [row("local-1", [...cells, cell("c"), cell("d")], { status: "UNKNOWN" })]
    const text = FleetTable.frame(rows, { ...options, height: 5 }).join("\n")
    assert.include(text, "kubernetes (2 without a fault, 2 waiting)")
    const many = Array.from({ length: 9 }, (_, index) => row(`c${index}`, index < 4 ? cells : [cell("c")]))
    assert.include(
      FleetTable.frame(many, { ...options, height: 5 }).join("\n"),
      "and 9 clusters (5 without a fault, 4 waiting)"
    )
  })

  it("tells of what is known already, and why a check is never run", () => {
    const refused: Cell = { ...bare, checker: "c", message: "policy.interval: 1s is shorter than the timeout" }
    const text = FleetTable.render([row("local-1", [...cells, refused], { status: "UNKNOWN" })], options).join("\n")
    assert.match(text, /^all +UNKNOWN$/mu)
    assert.match(text, /^UNKNOWN local-1 c\n {2}policy\.interval/mu)
    assert.include(text, "1 UNKNOWN, 2 not run yet")
  })

  it("waits no longer than first runs take, by the age of the link", () => {
    const linked = (minutes: number) =>
      FleetTable.render(
        [row("local-1", cells, {
          status: "UNKNOWN",
          linkedSince: DateTime.subtract(NOW, { minutes })
        })],
        { style: plain, wide: false, now: NOW }
      ).join("\n")
    assert.match(linked(1), /^ {2}a +waiting$/mu)
    const late = linked(5)
    assert.match(late, /^ {2}a +UNKNOWN not run yet$/mu)
    assert.match(late, /^all +UNKNOWN$/mu)
    assert.match(late, /^UNKNOWN local-1 2 checks have not run yet, and its agent is linked for 5m/mu)
    assert.notInclude(late, "waiting")
    const never = FleetTable.render([row("local-1", cells, { status: "UNKNOWN", linked: false })], {
      style: plain,
      wide: false,
      now: NOW
    }).join("\n")
    assert.include(never, "UNKNOWN not run yet")
    assert.include(never, "local-1 has no link: ")
  })

  it("has no age of zero", () => {
    const failed = cell("a", { status: "ERROR", code: "X", lastRun: NOW, since: NOW })
    const text = FleetTable.messages([row("local-1", [failed])], options).join("\n")
    assert.include(text, "ERROR local-1 a X looked just now")
  })

  it("counts one as one", () => {
    assert.include(FleetTable.summary([row("a", [cell("x")])], plain), "1 cluster, 1 linked; 1 checker: 1 PASS")
  })
})
