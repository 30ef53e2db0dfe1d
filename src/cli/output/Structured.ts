/** Values for programs to read. */
import { Effect } from "effect"

/** Without a final newline. */
export const render = (value: unknown, format: "json" | "yaml"): Effect.Effect<string> =>
  format === "json"
    ? Effect.sync(() => JSON.stringify(value, null, 2))
    : Effect.map(Effect.promise(() => import("yaml")), (yaml) => yaml.stringify(value).trimEnd())
