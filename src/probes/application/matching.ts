/**
 * Regular expressions and JSON paths of configurations.
 *
 * Expressions are those of RE2 (https://github.com/google/re2/wiki/Syntax), which take time in proportion to the text: an
 * answer must not be able to stop the prober. Paths are those of RFC 9535. Both libraries are loaded when first used.
 */
import { Effect, Schema } from "effect"
import type { JsonValue } from "jsonpath-rfc9535"
import { checkerCodes } from "../CheckerCodes.ts"
import type { TargetFault } from "../Codes.ts"

/** What was found; nothing when nothing was. */
export type Find = (text: string) => string | undefined

const why = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

const load = <A>(module: () => Promise<A>) => Effect.promise(module)

/** Finds the first match of an expression: its first group, or all of it when it has none. */
export const pattern = Effect.fnUntraced(function*(expression: string): Effect.fn.Return<Find, TargetFault> {
  const { RE2JS } = yield* load(() => import("re2js"))
  const compiled = yield* Effect.try({ try: () => RE2JS.compile(expression, RE2JS.MULTILINE), catch: why }).pipe(
    Effect.catch((detail) =>
      checkerCodes.INVALID_CONFIG.fail({ message: `no regular expression: ${JSON.stringify(expression)}: ${detail}` })
    )
  )
  return (text) => {
    const matcher = compiled.matcher(text)
    if (!matcher.find()) return undefined
    return matcher.groupCount() > 0 ? matcher.group(1) ?? "" : matcher.group() ?? ""
  }
})

/** The first value a path leads to, or none. */
export type Walk = (document: Schema.Json) => { readonly value: Schema.Json } | undefined

const isJson = Schema.is(Schema.Json)

export const jsonPath = Effect.fnUntraced(function*(path: string): Effect.fn.Return<Walk, TargetFault> {
  const { default: parse, query } = yield* load(async () => {
    const [{ default: parse }, { query }] = await Promise.all([
      import("jsonpath-rfc9535/parser"),
      import("jsonpath-rfc9535")
    ])
    return { default: parse, query }
  })
  yield* Effect.try({ try: () => parse(path), catch: why }).pipe(
    Effect.catch((detail) =>
      checkerCodes.INVALID_CONFIG.fail({ message: `no JSON path (RFC 9535): ${JSON.stringify(path)}: ${detail}` })
    )
  )
  return (document) => {
    // Declared mutable, and only read.
    const [value] = query(document as JsonValue, path)
    return isJson(value) ? { value } : undefined
  }
})

const decodeDocument = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Json))

/** A text as JSON, if it is. A byte order mark before it is left out, as parsers may do (RFC 8259, 8.1). */
export const document = (text: string) => decodeDocument(text.replace(/^\uFEFF/u, ""))
