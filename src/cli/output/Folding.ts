/** One cause that many checks tell of is told once. */
import { counted } from "../../domain/counted.ts"
import { checkerCodes } from "../../probes/CheckerCodes.ts"

/** What a check said, as far as folding asks. */
export interface Told {
  readonly checker: string
  /** Absent when it said more than one thing. */
  readonly code?: string | undefined
  readonly message: string
}

/** What is told, and how many other checks say the same. */
export interface Folded<A> {
  readonly told: A
  readonly others: number
}

/** So many checks without rights are told together: what each of them lacks is a long list. */
const MANY = 3

/** It speaks for the others: it is what they all depend on. */
const FIRST = "k8s.api.health"

const unauthenticated = checkerCodes.UNAUTHENTICATED.code
const accessMissing = checkerCodes.ACCESS_MISSING.code

/** Codes that any check may end with because nobody could look. */
const blind: ReadonlySet<string> = new Set(
  Object.values(checkerCodes).filter(({ spec }) => spec.status === "UNKNOWN").map(({ code }) => code)
)

/** Names a cause. What each request of a refused identity says differs in the request alone. */
const causeOf = ({ code, message }: Told): string | undefined =>
  code === undefined || !blind.has(code) ? undefined : code === unauthenticated ? code : `${code} ${message}`

/** Of one cluster: each cause once, in the order given, and what lacks rights where that is many. */
export const fold = <A extends Told>(
  all: ReadonlyArray<A>
): { readonly shown: ReadonlyArray<Folded<A>>; readonly lacking: ReadonlyArray<A> } => {
  const without = all.filter(({ code }) => code === accessMissing)
  const lacking = without.length >= MANY ? without : []
  const rest = all.filter((told) => !lacking.includes(told))
  const shown = rest.flatMap((told, index): ReadonlyArray<Folded<A>> => {
    const cause = causeOf(told)
    const alike = cause === undefined ? [told] : rest.filter((other) => causeOf(other) === cause)
    const speaker = alike.find(({ checker }) => checker === FIRST) ?? alike[0] ?? told
    return alike.length === 1 || speaker === rest[index] ? [{ told, others: alike.length - 1 }] : []
  })
  return { shown, lacking }
}

const checks = (count: number): string => counted(count, "check")

/** How many others say the same; nothing when none does. */
export const othersInWords = ({ others, told }: Folded<Told>): ReadonlyArray<string> =>
  others === 0
    ? []
    : told.code === unauthenticated
    ? [`${checks(others)} ${others === 1 ? "was" : "were"} not run because of it`]
    : [`${others} more ${others === 1 ? "check says" : "checks say"} the same`]

/** So many lack rights, and what gives them. Nothing when `lacking` is empty. */
export const lackingInWords = (lacking: ReadonlyArray<Told>): ReadonlyArray<string> =>
  lacking.length === 0
    ? []
    : [
      `${checks(lacking.length)} lack rights (${accessMissing}): ${
        lacking.slice(0, MANY).map(({ checker }) => checker).join(", ")
      }${lacking.length > MANY ? ", ..." : ""}`,
      "next: `kubeprober probe roles --to NAMESPACE/SERVICEACCOUNT` prints them; -o wide shows what each check lacks"
    ]
