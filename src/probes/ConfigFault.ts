/** What is wrong with a probe's configuration, said for whoever wrote it. */
import { Effect, Schema, SchemaAST, type SchemaIssue } from "effect"
import * as EditDistance from "../domain/EditDistance.ts"
import { flatten } from "../domain/flatten.ts"
import type { AnyProbe } from "./Probe.ts"

/** A field that nobody reads is a typing error that would silently leave a default in force. */
const STRICT = { onExcessProperty: "error" } as const

interface UnknownField {
  readonly path: ReadonlyArray<PropertyKey>
  /** Fields that are read in its place. */
  readonly known: ReadonlyArray<string>
}

/** The first field that is not read. Not within alternatives: what one does not read, another may. */
const unknownFieldOf = (issue: SchemaIssue.Issue, path: ReadonlyArray<PropertyKey>): UnknownField | undefined => {
  switch (issue._tag) {
    case "Pointer":
      return unknownFieldOf(issue.issue, [...path, ...issue.path])
    case "Encoding":
    case "Filter":
      return unknownFieldOf(issue.issue, path)
    case "Composite":
      return issue.issues.map((each) => unknownFieldOf(each, path)).find((found) => found !== undefined)
    case "UnexpectedKey":
      return {
        path,
        known: SchemaAST.isObjects(issue.ast) ? issue.ast.propertySignatures.map(({ name }) => String(name)) : []
      }
    default:
      return undefined
  }
}

/** As people write it: `hosts[0].host`. */
const pathText = (path: ReadonlyArray<PropertyKey>): string =>
  path.map((part, index) => typeof part === "number" ? `[${part}]` : `${index === 0 ? "" : "."}${String(part)}`).join(
    ""
  )

/** One line: which field is not read, and which was meant; else what the schema says. */
export const describe = (error: Schema.SchemaError): string => {
  const unknown = unknownFieldOf(error.issue, [])
  if (unknown === undefined) return flatten(error)
  const { known, path } = unknown
  const [near] = EditDistance.closest(String(path.at(-1)), known)
  return `unknown field \`${pathText(path)}\`${near === undefined ? "" : `; did you mean \`${near}\`?`}`
}

/** What the probe makes of a configuration as people write it; fails with what is wrong with it. */
export const decode = ({ config }: AnyProbe, written: unknown): Effect.Effect<unknown, string> =>
  Effect.mapError(Schema.decodeUnknownEffect(config, STRICT)(written), describe)
