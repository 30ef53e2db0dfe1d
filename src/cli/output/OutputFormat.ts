/** How results can be printed. */
export const outputFormats = ["table", "wide", "json", "yaml", "junit"] as const
export type OutputFormat = typeof outputFormats[number]

/** For commands that list things. */
export const listFormats = ["table", "wide", "json", "yaml"] as const
export type ListFormat = typeof listFormats[number]
