/**
 * Regular expressions and JSON paths of configurations.
 *
 * Expressions are those of RE2 (https://github.com/google/re2/wiki/Syntax), which take time in proportion to the text: an
 * answer must not be able to stop the prober. For the same reason paths are those of RFC 9535 without what takes more: its
 * functions `match()` and `search()`, whose expressions are JavaScript's here, and a second `..`. Both libraries are loaded
 * when first used.
 */
import { Effect, Option, Schema } from "effect"
import type { JsonValue } from "jsonpath-rfc9535"
import { isDeeperThan } from "../../domain/depth.ts"
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

/** Lists and objects in each other; the library walks them by recursion. Answers of APIs have a tenth of it. */
const MAXIMUM_DEPTH = 256

/** Parts of a path: all nodes of its syntax tree, found without recursion. */
const partsOf = (tree: object): ReadonlyArray<object> => {
  const parts: Array<object> = [tree]
  for (const part of parts) {
    for (const child of Object.values(part)) if (typeof child === "object" && child !== null) parts.push(child)
  }
  return parts
}

/** Why a path could take more time than an answer deserves, if it could. */
const costOf = (tree: object): string | undefined => {
  const parts = partsOf(tree)
  const type = (part: object): unknown => Reflect.get(part, "type")
  const named = parts.filter((part) => type(part) === "FunctionExpr").map((part) => Reflect.get(part, "name"))
  const slow = ["match", "search"].find((name) => named.includes(name))
  if (slow !== undefined) {
    return `${slow}() is not for paths here; give an expression as matches instead, which looks at what the path leads to`
  }
  return parts.filter((part) => type(part) === "DescendantSegment").length > 1
    ? "a path has `..` once at most; name the members in between"
    : undefined
}

/** Compiles a path. A document nested more than 256 deep has nothing to find. */
export const jsonPath = Effect.fnUntraced(function*(path: string): Effect.fn.Return<Walk, TargetFault> {
  const { default: parse, query } = yield* load(async () => {
    const [{ default: parse }, { query }] = await Promise.all([
      import("jsonpath-rfc9535/parser"),
      import("jsonpath-rfc9535")
    ])
    return { default: parse, query }
  })
  const refuse = (detail: string) =>
    checkerCodes.INVALID_CONFIG.fail({ message: `no JSON path (RFC 9535): ${JSON.stringify(path)}: ${detail}` })
  const tree = yield* Effect.try({ try: () => parse(path), catch: why }).pipe(Effect.catch(refuse))
  const cost = costOf(tree)
  if (cost !== undefined) return yield* refuse(cost)
  return (document) => {
    if (isDeeperThan(document, MAXIMUM_DEPTH)) return undefined
    // Declared mutable, and only read.
    const [value] = query(document as JsonValue, path)
    return isJson(value) ? { value } : undefined
  }
})

const decodeDocument = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Json))

/** A text as JSON, if it is, and nested no more than 256 deep. A byte order mark before it is left out, as parsers may do (RFC 8259, 8.1). */
export const document = (text: string) =>
  Option.filter(decodeDocument(text.replace(/^\uFEFF/u, "")), (json) => !isDeeperThan(json, MAXIMUM_DEPTH))
