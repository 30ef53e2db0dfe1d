/** From passed tests to the table of proofs. Pure. */
import type { AnyProbe } from "../src/probes/Probe.ts"
import { cell, table } from "./probeDocs.ts"

export interface PassedTest {
  /** Relative to the project: `test/probes/apiCrud.test.ts`. */
  readonly file: string
  readonly title: string
}

/** As the names of tests say it (`test/proofs/proof.ts`). */
interface Proof {
  readonly kind: "healthy" | "fault" | "blind" | "killed"
  readonly probe: string
  readonly code: string
  readonly test: PassedTest
}

const MARK = / ?\[(healthy|fault|blind|killed) ([^\s\]]+)(?: ([^\s\]]+))?\]/gu

const isKind = (text: string): text is Proof["kind"] => ["healthy", "fault", "blind", "killed"].includes(text)

export const proofsOf = (test: PassedTest): ReadonlyArray<Proof> =>
  [...test.title.matchAll(MARK)].flatMap(([, kind = "", probe = "", code = ""]) =>
    isKind(kind) ? [{ kind, probe, code, test: { ...test, title: test.title.replaceAll(MARK, "") } }] : []
  )

export interface Table {
  readonly text: string
  /** What must be proven or explained and is neither, and explanations of what is proven or unknown. */
  readonly missing: ReadonlyArray<string>
}

type Reasons = Readonly<Record<string, Readonly<Record<string, string>>>>

const HEADER = "<!-- Generated from passed tests by `npm run proofs`. Do not edit. -->"

const INTRODUCTION =
  "What tests on real components have proven of each probe, made of the names of the tests that passed in a full run. " +
  "**Healthy**: nothing is wrong, and the probe says so. **Faults**: each code was reported for a fault made for real, " +
  "blaming the right object, and was gone when it was mended. **Blind**: the probe could not look, and was UNKNOWN. " +
  "**Killed**: its runner was killed at every boundary where something is made or removed, and one sweep left nothing."

const byText = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0

/** `title` (file), several apart by `<br>`. */
const testsText = (proofs: ReadonlyArray<Proof>): string =>
  [...new Set(proofs.map(({ test }) => `${cell(test.title)} (\`${test.file.replace(/^test\//u, "")}\`)`))]
    .sort(byText).join("<br>")

const storesSomething = ({ writes }: AnyProbe): boolean => writes !== "nothing" && writes !== "dry-run"

/** Codes of the probe's own that speak of the target, or of its being out of sight; INFO has nothing to prove. */
const codesToProve = ({ codes }: AnyProbe) =>
  Object.values(codes).filter(({ spec }) => spec.status !== "INFO").map(({ code, spec }) => ({
    code,
    kind: spec.status === "UNKNOWN" ? "blind" as const : "fault" as const
  }))

export const render = (
  probes: ReadonlyArray<AnyProbe>,
  tests: ReadonlyArray<PassedTest>,
  reasons: Reasons
): Table => {
  const all = tests.flatMap(proofsOf)
  const missing: Array<string> = []
  const known = new Set(probes.map(({ id }) => id))
  for (const id of Object.keys(reasons)) {
    if (!known.has(id)) missing.push(`${id}: reasons are given for a probe that is not in the catalogue`)
  }

  const rows = [...probes].sort((a, b) => byText(a.id, b.id)).map((probe) => {
    const own = all.filter((proof) => proof.probe === probe.id)
    const of = (kind: Proof["kind"], code?: string) =>
      own.filter((proof) => proof.kind === kind && (code === undefined || proof.code === code))
    const said = reasons[probe.id] ?? {}
    const proven = new Set<string>([
      ...own.filter(({ kind }) => kind !== "fault").map(({ kind }) => kind),
      ...own.map(({ code }) => code)
    ])
    const meant = new Set<string>(["healthy", "blind", "killed", ...codesToProve(probe).map(({ code }) => code)])
    for (const what of Object.keys(said)) {
      if (!meant.has(what)) missing.push(`${probe.id} ${what}: a reason is given for what there is not to prove`)
      if (proven.has(what)) missing.push(`${probe.id} ${what}: a reason is given for what is proven`)
    }

    const notProven = (what: string): string => {
      const reason = said[what]
      if (reason === undefined) missing.push(`${probe.id} ${what}: not proven, and no reason is given`)
      return `not proven: ${reason === undefined ? "no reason is given" : cell(reason)}`
    }
    const whole = (kind: "healthy" | "killed"): string => of(kind).length > 0 ? testsText(of(kind)) : notProven(kind)

    const byCode = (kind: "fault" | "blind"): string => {
      const expected = codesToProve(probe).filter((each) => each.kind === kind).map(({ code }) => code)
      const lines = [...new Set([...expected, ...of(kind).map(({ code }) => code)])].sort(byText).map((code) => {
        const proofs = of(kind, code)
        return `\`${code}\`: ${proofs.length > 0 ? testsText(proofs) : notProven(code)}`
      })
      if (kind === "blind" && of(kind).length === 0) lines.unshift(notProven("blind"))
      return lines.length === 0 ? "has no such code" : lines.join("<br>")
    }

    return {
      id: probe.id,
      counts: [
        `[\`${probe.id}\`](#${probe.id.replaceAll(".", "")})`,
        of("healthy").length > 0 ? "yes" : "no",
        `${
          codesToProve(probe).filter(({ code, kind }) => kind === "fault" && of("fault", code).length > 0).length
        } of ${codesToProve(probe).filter(({ kind }) => kind === "fault").length}`,
        of("blind").length > 0 ? "yes" : "no",
        storesSomething(probe) ? of("killed").length > 0 ? "yes" : "no" : "writes nothing"
      ],
      details: [
        ["Healthy", whole("healthy")],
        ["Faults", byCode("fault")],
        ["Blind", byCode("blind")],
        ["Killed", storesSomething(probe) ? whole("killed") : "writes nothing"]
      ]
    }
  })

  const text = [
    HEADER,
    "# Proofs",
    INTRODUCTION,
    table(["Probe", "Healthy", "Codes of faults", "Blind", "Killed"], rows.map(({ counts }) => counts)),
    ...rows.flatMap(({ details, id }) => [
      `## ${id}`,
      table(["Proof", "By"], details.map(([name = "", value = ""]) => [name, value]))
    ])
  ].join("\n\n") + "\n"
  return { text, missing }
}
