/** What a local cluster tells while it comes up, for people: one line that changes on a terminal, few lines elsewhere. */
import { Duration, Effect } from "effect"
import type { OnProgress, Progress } from "../local/Progress.ts"
import { Screen } from "./Screen.ts"

const seconds = (elapsed: Duration.Duration): string => `${Math.round(Duration.toSeconds(elapsed))}s`

const wordsFor = (event: Progress): string => {
  switch (event._tag) {
    case "Building":
      return `building ${event.binary} (${event.step} of ${event.of}, ${seconds(event.elapsed)}); this happens once`
    case "Waiting":
      return `another process builds ${event.binary} (${event.step} of ${event.of}, ${seconds(event.elapsed)})`
    case "Built":
      return `built ${event.binary} in ${seconds(event.elapsed)}`
    case "Reached":
      return `${event.cluster}: ${event.stage} ready (${seconds(event.elapsed)})`
  }
}

/** How often a log is told that a build is still going on. */
const REPEAT_SECONDS = 30

/** To standard error, so that results stay alone on standard output. One reporter serves all clusters of a command. */
export const reporter: Effect.Effect<OnProgress, never, Screen> = Effect.gen(function*() {
  const { err } = yield* Screen
  const told = new Map<string, number>()
  const building = new Set<string>()
  const built = new Set<string>()

  /** Whether a build that goes on is worth another line. */
  const isNews = (event: Extract<Progress, { readonly _tag: "Building" | "Waiting" }>): boolean => {
    if (event._tag === "Building") building.add(event.binary)
    // A cluster that waits for a build which another cluster of this command has started.
    else if (building.has(event.binary)) return false
    if (err.isTerminal) return true
    const period = Math.floor(Duration.toSeconds(event.elapsed) / REPEAT_SECONDS)
    if (told.get(event.binary) === period) return false
    told.set(event.binary, period)
    return true
  }

  return (event) => {
    const passing = event._tag === "Building" || event._tag === "Waiting"
    if (passing && !isNews(event)) return Effect.void
    if (event._tag === "Built") {
      if (built.has(event.binary)) return Effect.void
      built.add(event.binary)
    }
    const words = wordsFor(event)
    return err.write(err.isTerminal ? `\r\u001B[2K${words}${passing ? "" : "\n"}` : `${words}\n`)
  }
})
