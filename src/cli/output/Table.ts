/** Columns aligned with spaces, as kubectl prints them. Cells may carry colour. */
import { stripVTControlCharacters } from "node:util"

/** Characters a terminal shows of a text that may carry colour. */
export const visibleLength = (cell: string): number => stripVTControlCharacters(cell).length

/** Blanks between columns. */
export const GAP = 3

/** The first `width` characters that a terminal shows, colour kept and ended. */
export const clip = (line: string, width: number): string => {
  if (visibleLength(line) <= width) return line
  let shown = 0
  const kept = line.replace(
    // The colour sequences that Style writes.
    // oxlint-disable-next-line no-control-regex
    /(\u001B\[[0-9;]*m)|[^]/gu,
    (text, colour: string | undefined) => colour !== undefined ? text : shown++ < width ? text : ""
  )
  return kept
}

/** Pieces of at most `width` characters; a text that carries colour is clipped instead, lest its end be lost. */
const pieces = (word: string, width: number): ReadonlyArray<string> =>
  visibleLength(word) <= width
    ? [word]
    : visibleLength(word) < word.length
    ? [clip(word, width)]
    : Array.from(
      { length: Math.ceil(word.length / width) },
      (_, index) => word.slice(index * width, (index + 1) * width)
    )

/** The line as lines of at most `width` characters, broken between words; all begin as far in as the first. */
export const wrap = (line: string, width: number): ReadonlyArray<string> => {
  if (visibleLength(line) <= width) return [line]
  const margin = /^ */u.exec(stripVTControlCharacters(line))?.[0] ?? ""
  const indent = margin.length < width ? margin : ""
  // The margin may stand behind a colour.
  // oxlint-disable-next-line no-control-regex
  const text = line.replace(/^((?:\u001B\[[0-9;]*m)*) +/u, "$1")
  const lines: Array<string> = []
  let current = ""
  for (const piece of text.split(" ").flatMap((word) => pieces(word, width - indent.length))) {
    const longer = current === "" ? piece : `${current} ${piece}`
    if (visibleLength(longer) <= width - indent.length) {
      current = longer
      continue
    }
    lines.push(`${indent}${current}`)
    current = piece
  }
  return [...lines, `${indent}${current}`]
}

/** One line a row; the last column is not padded, so lines carry no trailing blanks. */
export const render = (rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths: Array<number> = []
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, visibleLength(cell))
    })
  }
  return rows.map((row) =>
    row.map((cell, column) =>
      column === row.length - 1 ? cell : cell + " ".repeat((widths[column] ?? 0) - visibleLength(cell) + GAP)
    ).join("").trimEnd()
  )
}
