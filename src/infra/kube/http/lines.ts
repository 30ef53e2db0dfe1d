/** Text by lines, each of bounded length, from bytes that come cut anywhere. */
import { Stream } from "effect"

/**
 * Split into lines, without their ends. A line of more than `maximum` characters comes in parts of that length, so that
 * memory is bounded whatever is sent. A last line without an end counts, unless `terminated`: for protocols in which it is
 * a message cut short.
 */
export const lines =
  (options: { readonly maximum: number; readonly terminated?: boolean }) =>
  <E, R>(bytes: Stream.Stream<Uint8Array, E, R>): Stream.Stream<string, E, R> =>
    bytes.pipe(
      Stream.decodeText,
      Stream.mapAccum(
        () => "",
        (rest, text): readonly [string, ReadonlyArray<string>] => {
          const joined = rest + text
          // Joining is cheap until the text is looked into, so a long line that comes in many chunks is not copied each time.
          if (!text.includes("\n") && joined.length <= options.maximum) return [joined, []]
          const parts = joined.split("\n")
          const last = chop(parts.pop() ?? "", options.maximum)
          const whole = parts.flatMap((line) => chop(line.endsWith("\r") ? line.slice(0, -1) : line, options.maximum))
          return [last.pop() ?? "", [...whole, ...last]]
        },
        { onHalt: (rest) => options.terminated === true || rest === "" ? [] : [rest] }
      )
    )

const chop = (line: string, maximum: number): Array<string> => {
  if (line.length <= maximum) return [line]
  const pieces: Array<string> = []
  for (let start = 0; start < line.length; start += maximum) pieces.push(line.slice(start, start + maximum))
  return pieces
}
