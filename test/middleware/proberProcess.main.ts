/** The other side of `ProberProcess.ts`: runs what standard input describes. */
import { Console, Effect, Schema } from "effect"
import { readFileSync } from "node:fs"
import { catalogue } from "../../src/probes/Catalogue.ts"
import * as Prober from "./Prober.ts"

const Input = Schema.fromJsonString(Schema.Struct({
  probe: Schema.String,
  config: Schema.Record(Schema.String, Schema.Unknown),
  folder: Schema.String
}))

const program = Effect.gen(function*() {
  const { config, folder, probe: id } = yield* Schema.decodeUnknownEffect(Input)(readFileSync(0, "utf8"))
  const probe = yield* Effect.fromNullishOr(catalogue.find((known) => known.id === id))
  const report = yield* Prober.probe({ probe, config, folder })
  yield* Console.log(`${report.status} ${report.message}`)
})

Effect.runPromise(program).then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(error)
    process.exit(1)
  }
)
