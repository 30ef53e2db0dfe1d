/**
 * Label selectors as typed after `-l`
 * (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors): `a=b`, `a==b`, `a!=b`,
 * `a in (b, c)`, `a notin (b, c)`, `a`, `!a`, joined by commas.
 */
import { Effect } from "effect"
import type { ClusterSelector, Requirement } from "../domain/ClusterSelector.ts"
import { Failure } from "./Failure.ts"

const KEY = "[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?"
const VALUE = "([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?"

const SET = new RegExp(`^(${KEY})\\s+(in|notin)\\s+\\(([^()]*)\\)$`, "u")
const EQUALITY = new RegExp(`^(${KEY})\\s*(==|=|!=)\\s*(${VALUE})$`, "u")
const PRESENCE = new RegExp(`^(!?)\\s*(${KEY})$`, "u")

const requirementOf = (text: string): Requirement | undefined => {
  const set = SET.exec(text)
  if (set !== null) {
    const values = (set[4] ?? "").split(",").map((value) => value.trim())
    return values.every((value) => new RegExp(`^${VALUE}$`, "u").test(value))
      ? { key: set[1] ?? "", operator: set[3] === "in" ? "In" : "NotIn", values }
      : undefined
  }
  const equality = EQUALITY.exec(text)
  if (equality !== null) {
    return {
      key: equality[1] ?? "",
      operator: equality[3] === "!=" ? "NotIn" : "In",
      values: [equality[4] ?? ""]
    }
  }
  const presence = PRESENCE.exec(text)
  return presence === null
    ? undefined
    : { key: presence[2] ?? "", operator: presence[1] === "!" ? "DoesNotExist" : "Exists" }
}

/** The selector a person typed. */
export const parse = Effect.fnUntraced(function*(text: string) {
  // Commas between parentheses belong to a set.
  const parts = text.split(/,(?![^(]*\))/u).map((part) => part.trim())
  const matchExpressions = yield* Effect.forEach(parts, (part) => {
    const requirement = requirementOf(part)
    return requirement === undefined
      ? Effect.fail(
        new Failure({
          reason: `--selector ${text}: ${
            part === "" ? "a requirement is empty" : `${part} is not a requirement`
          }; write it like env=prod,region!=eu,tier in (a,b),!legacy`
        })
      )
      : Effect.succeed(requirement)
  })
  return { matchExpressions } satisfies ClusterSelector
})
