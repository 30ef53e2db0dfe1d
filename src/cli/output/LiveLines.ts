/** Lines of a terminal that are drawn again in place while what they show changes. */
import { Effect, Schedule } from "effect"
import { counted } from "../../domain/counted.ts"
import type { Surface } from "../Screen.ts"
import * as Table from "./Table.ts"

const REDRAW_EVERY = "100 millis"

const CLEAR_BELOW = "\u001B[0J"
const up = (lines: number): string => lines === 0 ? "\r" : `\r\u001B[${lines}A`

/** Lines to draw on before anybody knows the terminal's height: what terminals had before they could be asked. */
const HEIGHT = 24

/** The rest of what does not fit, in words. */
export const more = (lines: number): string =>
  `${counted(lines, "more line")}; enlarge the terminal to see ${lines === 1 ? "it" : "them"}`

/**
 * What a terminal shows of `elements`, which may be of several lines each: a line scrolled off, or one that wraps, would
 * be redrawn in the wrong place.
 */
export const fit = (
  elements: ReadonlyArray<string>,
  { height, width }: { readonly height: number; readonly width: number | undefined }
): ReadonlyArray<string> => {
  const lines = elements.flatMap((element) => element.split("\n"))
  const shown = lines.length <= height
    ? lines
    : [...lines.slice(0, Math.max(0, height - 1)), more(lines.length - Math.max(0, height - 1))]
  return width === undefined ? shown : shown.map((line) => Table.clip(line, width))
}

/**
 * Draws until the scope closes, then removes what it drew, so that something final can take its place. Does nothing where
 * there is no terminal.
 *
 * @param lines what to show now, for so many columns and lines
 * @param last what takes its place at the end, whole, however long
 */
export const make = Effect.fnUntraced(function*(
  surface: Surface,
  lines: (
    size: { readonly width: number | undefined; readonly height: number }
  ) => Effect.Effect<ReadonlyArray<string>>,
  last: Effect.Effect<ReadonlyArray<string>> = Effect.succeed([])
) {
  if (!surface.isTerminal) return
  let drawn = 0
  let shown = ""
  const draw = Effect.gen(function*() {
    const width = yield* surface.width
    const height = Math.max(1, ((yield* surface.height) ?? HEIGHT) - 1)
    const text = fit(yield* lines({ width, height }), { width, height }).join("\n")
    if (text === shown) return
    yield* surface.write(`${up(drawn)}${CLEAR_BELOW}${text}`)
    shown = text
    drawn = text.split("\n").length - 1
  })
  yield* Effect.addFinalizer(() =>
    Effect.flatMap(
      last,
      (final) => surface.write(`${up(drawn)}${CLEAR_BELOW}${final.map((line) => `${line}\n`).join("")}`)
    )
  )
  yield* draw.pipe(Effect.repeat(Schedule.spaced(REDRAW_EVERY)), Effect.forkScoped)
})
