/**
 * `npm run proofs`: writes `docs/proofs.md` from the reports of the last full `npm test`; `--check` compares instead.
 *
 * The table says which tests prove what of each probe. It is made of the names of tests that have passed
 * (`test/proofs/proof.ts`), so it holds nothing that was not seen to be so, and no times: two runs that prove the same
 * make the same file.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Data, Effect, FileSystem, Path, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { catalogue } from "../src/probes/Catalogue.ts"
import { unproven } from "../test/proofs/unproven.ts"
import { root } from "./bundle.ts"
import { type PassedTest, render } from "./proofsTable.ts"
import { type VitestReport, VitestReportJson, reportFile } from "./vitestReport.ts"

const TABLE = "docs/proofs.md"

/** The committed table is not what the tests have proven. */
export class ProofsDiffer extends Data.TaggedError("ProofsDiffer")<{ readonly line: string }> {
  override get message(): string {
    return `${TABLE} is not what this run has proven (first difference: ${this.line}); when that is meant, run ` +
      "`npm run proofs` after a full run, or `npm test -- --update-proofs`, and commit it"
  }
}

/** Something that must be proven is not, nobody has said why, or what was said is not so. */
export class ProofsMissing extends Data.TaggedError("ProofsMissing")<{ readonly missing: ReadonlyArray<string> }> {
  override get message(): string {
    return `without a proof that passed, or with a wrong reason in test/proofs/unproven.ts:\n  ${
      this.missing.join("\n  ")
    }`
  }
}

/** There was no full run. */
export class ReportsMissing extends Data.TaggedError("ReportsMissing")<{ readonly file: string }> {
  override get message(): string {
    return `there is no report ${this.file}; run \`npm test\` first, in full`
  }
}

const passedOf = ({ testResults }: VitestReport): ReadonlyArray<PassedTest> =>
  testResults.flatMap(({ assertionResults, name }) =>
    assertionResults.filter(({ status }) => status === "passed").map(({ title }) => ({
      // Reports name files absolutely.
      file: name.slice(name.lastIndexOf("/test/") + 1),
      title
    }))
  )

const firstDifference = (a: string, b: string): string => {
  const [left, right] = [a.split("\n"), b.split("\n")]
  const at = left.findIndex((line, index) => line !== right[index])
  return (right[at === -1 ? left.length : at] ?? "the end").slice(0, 200)
}

/** Writes the table of these reports, or compares it with the committed one. */
export const proofs = Effect.fn("proofs")(
  function*(reports: ReadonlyArray<VitestReport>, options: { readonly update: boolean }) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const file = path.join(root, TABLE)
    const { missing, text } = render(catalogue, reports.flatMap(passedOf), unproven)
    if (options.update) yield* fs.writeFileString(file, text)
    if (missing.length > 0) return yield* new ProofsMissing({ missing })
    const committed = yield* Effect.orElseSucceed(fs.readFileString(file), () => "")
    if (committed !== text) return yield* new ProofsDiffer({ line: firstDifference(committed, text) })
  }
)

const command = Command.make(
  "proofs",
  {
    check: Flag.Boolean("check").pipe(
      Flag.withDefault(false),
      Flag.withDescription("Write nothing; exit 1 when the table differs")
    )
  },
  Effect.fn("proofs.command")(function*({ check }) {
    const fs = yield* FileSystem.FileSystem
    const reports = yield* Effect.forEach(
      ["unit", "integration"],
      (project) =>
        fs.readFileString(reportFile(project)).pipe(
          Effect.flatMap(Schema.decodeEffect(VitestReportJson)),
          Effect.mapError(() => new ReportsMissing({ file: reportFile(project) }))
        )
    )
    yield* proofs(reports, { update: !check })
    yield* Console.log(`${TABLE} is what the last full run has proven`)
  })
).pipe(Command.withDescription("Write the table of proofs from the last full run"))

if (import.meta.main) {
  command.pipe(
    Command.run({ version: "0" }),
    Effect.catch((error) => Console.error(error.message).pipe(Effect.andThen(Effect.sync(() => process.exitCode = 1)))),
    Effect.provide(NodeServices.layer),
    NodeRuntime.runMain
  )
}
