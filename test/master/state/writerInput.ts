/** What `writer.main.ts` is told, and what it writes. */
import { Schema } from "effect"

export const WriterInput = Schema.Struct({ file: Schema.String, acknowledged: Schema.Int })

/** Of one delivery. */
export const RECORDS = 20

export const runOf = (delivery: number): string => `run-${delivery}`
