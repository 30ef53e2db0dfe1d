/**
 * The codes of a probe: what it can say, what each means, and what to do about it.
 *
 * Declaring a code and using it are one thing: `make` turns a table of specifications into constructors, so a probe
 * cannot report a code it has not documented, and `kubeprober probe describe` prints the same table.
 */
import { Data, Effect, Schema } from "effect"
import { Code as CodeName, type Evidence, type Finding, type Subject } from "../domain/Report.ts"
import type { Status } from "../domain/Status.ts"

/** What a code stands for. */
export interface CodeSpec {
  readonly status: Exclude<Status, "PASS">
  /** One sentence: what is the case when this is reported. */
  readonly means: string
  /** One sentence: where to look or what to do next. */
  readonly fix: string
}

/** What is said about one occurrence. */
export interface Occurrence {
  /** Names the object and the numbers; read without the code beside it. */
  readonly message: string
  readonly subject?: Subject | undefined
  readonly evidence?: Evidence | undefined
}

/** The run ends here, with this finding as its result: there is nothing left to look at. */
export class TargetFault extends Data.TaggedError("TargetFault")<{ readonly finding: Finding }> {
  override get message(): string {
    return `${this.finding.code}: ${this.finding.message}`
  }
}

/** Makes findings of one code. */
export interface Code {
  (occurrence: Occurrence): Finding
  /** Fails the run at once with this finding, when there is nothing left to look at. */
  readonly fail: (occurrence: Occurrence) => Effect.Effect<never, TargetFault>
  readonly code: string
  readonly spec: CodeSpec
}

/** The codes of a probe by name. */
export type Codes<Name extends string = string> = { readonly [K in Name]: Code }

const isCodeName = Schema.is(CodeName)

const code = (name: string, spec: CodeSpec): Code => {
  // `Uppercase<string>` lets "NOT-READY" and "3_NODES" pass.
  if (!isCodeName(name)) {
    throw new TypeError(
      `${JSON.stringify(name)} is no code: a letter, then letters, digits and underscores, upper-case`
    )
  }
  const finding = ({ evidence, message, subject }: Occurrence): Finding => ({
    status: spec.status,
    code: name,
    blame: spec.status === "UNKNOWN" ? "checker" : "target",
    message,
    ...(subject === undefined ? {} : { subject }),
    ...(evidence === undefined ? {} : { evidence })
  })
  return Object.assign(finding, {
    fail: (occurrence: Occurrence) => Effect.fail(new TargetFault({ finding: finding(occurrence) })),
    code: name,
    spec
  })
}

/**
 * Declare a probe's codes. Keys are the codes themselves: upper-case letters, digits and underscores, stable, never
 * reworded. Throws on any other key.
 */
export const make = <const Specs extends Record<Uppercase<string>, CodeSpec>>(
  specs: Specs
): Codes<Extract<keyof Specs, string>> =>
  Object.fromEntries(Object.entries<CodeSpec>(specs).map(([name, spec]) => [name, code(name, spec)])) as Codes<
    Extract<keyof Specs, string>
  >

/** The cluster is broken in this respect. */
export const error = (means: string, fix: string): CodeSpec => ({ status: "ERROR", means, fix })

/** It works, and will not for long, or not as well as it should. */
export const warn = (means: string, fix: string): CodeSpec => ({ status: "WARN", means, fix })

/** Worth knowing, nothing to do. */
export const info = (means: string, fix: string): CodeSpec => ({ status: "INFO", means, fix })

/** The checker could not look. */
export const unknown = (means: string, fix: string): CodeSpec => ({ status: "UNKNOWN", means, fix })
