/** Lines of a terminal that are drawn again in place while what they show changes. */
import { Effect, Schedule } from "effect"
import type { Surface } from "../Screen.ts"
import * as Table from "./Table.ts"

const REDRAW_EVERY = "100 millis"

const CLEAR_BELOW = "\u001B[0J"
const up = (lines: number): string => lines === 0 ? "\r" : `\r\u001B[${lines}A`

/**
 * Draws until the scope closes, then removes what it drew, so that something final can take its place. Does nothing where
 * there is no terminal.
 *
 * @param lines what to show now, for so many columns
 */
export const make = Effect.fnUntraced(function*(
  surface: Surface,
  lines: (width: number | undefined) => Effect.Effect<ReadonlyArray<string>>
) {
  if (!surface.isTerminal) return
  let drawn = 0
  let shown = ""
  const draw = Effect.gen(function*() {
    const width = yield* surface.width
    // A line scrolled off cannot be redrawn: while live, show what fits.
    const room = Math.max(1, ((yield* surface.height) ?? 24) - 1)
    const text = (yield* lines(width)).slice(0, room)
      // A line that wraps would take two, and be redrawn in the wrong place.
      .map((line) => width === undefined ? line : Table.clip(line, width))
      .join("\n")
    if (text === shown) return
    yield* surface.write(`${up(drawn)}${CLEAR_BELOW}${text}`)
    shown = text
    drawn = text.split("\n").length - 1
  })
  yield* Effect.addFinalizer(() => surface.write(`${up(drawn)}${CLEAR_BELOW}`))
  yield* draw.pipe(Effect.repeat(Schedule.spaced(REDRAW_EVERY)), Effect.forkScoped)
})
