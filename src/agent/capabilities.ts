/** What this agent can do, as it tells its master: one word for each procedure of `Control`. */
export const CAPABILITIES: ReadonlyArray<string> = ["describe", "applyProbes", "runNow", "cancel"]
