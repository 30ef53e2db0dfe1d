/** Ages of things, as probes judge and print them. */
import { DateTime, Duration } from "effect"

/** From `since` to `now`; nothing when `since` lies ahead, as it does when clocks differ a little. */
export const between = (since: DateTime.DateTime, now: DateTime.DateTime): Duration.Duration =>
  Duration.max(Duration.zero, DateTime.distance(since, now))

/** The two largest units, such as `3m 20s` or `2d 4h`: nobody decides by milliseconds. */
export const text = (duration: Duration.Duration): string => {
  if (!Duration.isFinite(duration)) return "an unknown time"
  const seconds = Math.floor(Duration.toSeconds(duration))
  return seconds < 1 ? "less than 1s" : Duration.format(Duration.seconds(seconds)).split(" ").slice(0, 2).join(" ")
}
