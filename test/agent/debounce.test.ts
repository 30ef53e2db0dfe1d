/** When checks run on changes, as a pure machine: for any changes and runs of any length. */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Debounce from "../../src/agent/debounce.ts"

interface Simulated {
  readonly changes: ReadonlyArray<number>
  readonly starts: ReadonlyArray<number>
}

/** Plays changes with these pauses between them (ms) against runs of these lengths, as the scheduler does. */
const simulate = (pauses: ReadonlyArray<number>, lengths: ReadonlyArray<number>): Simulated => {
  let state = Debounce.initial
  const changes: Array<number> = []
  const starts: Array<number> = []
  let at = 0
  for (const pause of pauses) changes.push(at += pause)
  let next = 0
  let free = 0
  while (true) {
    const change = changes[next]
    const due = Debounce.dueAt(state)
    const start = due === undefined ? Infinity : Math.max(due, free)
    if (change !== undefined && change <= start) {
      state = Debounce.changed(state, change)
      next++
    } else if (start === Infinity) return { changes, starts }
    else {
      state = Debounce.started(state, start)
      free = start + (lengths[starts.length % lengths.length] ?? 0)
      starts.push(start)
    }
  }
}

const pauses = Schema.Array(
  Schema.Union([
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 150 })),
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 30_000 }))
  ])
).check(Schema.isMaxLength(200))
const lengths = Schema.NonEmptyArray(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 20_000 }))).check(
  Schema.isMaxLength(5)
)

describe("debouncing changes", () => {
  it.prop("no change is lost: a run starts after the last of them", { pauses, lengths }, ({ pauses, lengths }) => {
    const { changes, starts } = simulate(pauses, lengths)
    if (changes.length === 0) return assert.deepStrictEqual(starts, [])
    assert.isAtLeast(starts.at(-1) ?? -1, changes.at(-1) ?? 0)
  })

  it.prop("no window has more runs than the burst and its share of the spacing", { pauses, lengths }, (input) => {
    const { starts } = simulate(input.pauses, input.lengths)
    for (const [index, first] of starts.entries()) {
      for (const [more, last] of starts.slice(index).entries()) {
        assert.isAtMost(more + 1, Debounce.BURST + Math.floor((last - first) / Debounce.SPACING) + 1e-6)
      }
    }
  })

  it.prop("every run has a change of its own to look at", { pauses, lengths }, (input) => {
    const { changes, starts } = simulate(input.pauses, input.lengths)
    for (const [index, start] of starts.entries()) {
      const before = starts[index - 1] ?? -Infinity
      assert.isTrue(changes.some((change) => change >= before && change <= start))
    }
  })

  it.prop("with runs to spend and none going on, a change waits between the quiet time and the longest", {
    pauses: Schema.NonEmptyArray(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 400 }))).check(
      Schema.isMaxLength(20)
    )
  }, ({ pauses }) => {
    const { changes, starts } = simulate(pauses, [0])
    const wait = (starts[0] ?? Infinity) - (changes[0] ?? 0)
    assert.isAtLeast(wait, Debounce.QUIET)
    assert.isAtMost(wait, Debounce.LONGEST)
  })

  it("changes that come together are one run; a storm is followed at its spacing, to its last change", () => {
    assert.deepStrictEqual(simulate([1000, 20, 20, 20], [50]).starts, [1160])
    assert.deepStrictEqual(simulate([0, ...Array.from({ length: 10 }, () => 50)], [50]).starts, [300, 600])
    const { changes, starts } = simulate(Array.from({ length: 6000 }, () => 10), [50])
    // A minute of changes: three at once, then six at their spacing.
    assert.isAtMost(starts.length, 3 + 6 + 1)
    assert.isAtLeast(starts.at(-1) ?? 0, changes.at(-1) ?? Infinity)
  })

  it("a change during a run is followed by one more", () => {
    assert.deepStrictEqual(simulate([0, 500, 100, 100], [5000]).starts, [100, 5100])
  })

  it("a run for another reason covers what changed before it, and spends nothing", () => {
    const state = Debounce.covered(Debounce.changed(Debounce.initial, 10))
    assert.isUndefined(Debounce.dueAt(state))
    assert.strictEqual(state.tokens, Debounce.BURST)
  })
})
