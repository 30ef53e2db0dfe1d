/** One check as a person sees it: progress while it runs, then the result in the asked format. */
import { Effect, type Option } from "effect"
import type { Profile } from "../domain/Profile.ts"
import type { KubeConnection } from "../infra/kube/KubeConnection.ts"
import { checkerCodes } from "../probes/CheckerCodes.ts"
import type { Check } from "../probes/Probe.ts"
import * as CheckClusters from "./CheckClusters.ts"
import * as CheckOutput from "./output/CheckOutput.ts"
import * as LiveTable from "./output/LiveTable.ts"
import type { OutputFormat } from "./output/OutputFormat.ts"
import type { Plan } from "./Plan.ts"
import { Screen, note, print } from "./Screen.ts"

export interface SessionOptions {
  readonly connections: ReadonlyArray<KubeConnection>
  readonly plan: Plan
  readonly profile: Profile
  readonly probeNamespace: Option.Option<string>
  readonly workerImage: Option.Option<string>
  readonly concurrency: number
  /** The folder of credentials. */
  readonly credentials: Option.Option<string>
  readonly output: OutputFormat
}

/** What to do about a code of one of these checks. */
const fixes = (checks: ReadonlyArray<Check>) => {
  const byName = new Map(checks.map((check) => [check.name, check.probe.codes]))
  const shared: Readonly<Record<string, { readonly spec: { readonly fix: string } }>> = checkerCodes
  return (checker: string, code: string): string | undefined =>
    (byName.get(checker.replace(/\/cleanup$/u, ""))?.[code] ?? shared[code])?.spec.fix
}

/** Check, show, and answer the result. */
export const run = Effect.fn("CheckSession.run")(function*(options: SessionOptions) {
  const screen = yield* Screen
  const { checks } = options.plan
  const rows = checks.map((check) => ({ checker: check.name, layer: check.probe.layer }))
  const forPeople = options.output === "table" || options.output === "wide"
  const matrix = { style: screen.out.style, fixOf: fixes(checks) }

  const result = yield* Effect.scoped(Effect.gen(function*() {
    const show = forPeople
      ? yield* LiveTable.make({
        surface: screen.out,
        clusters: options.connections.map((connection) => connection.cluster),
        rows,
        matrix: { ...matrix, wide: false }
      })
      : () => Effect.void
    return yield* CheckClusters.run({
      connections: options.connections,
      checks,
      named: options.plan.named,
      profile: options.profile,
      probeNamespace: options.probeNamespace,
      workerImage: options.workerImage,
      concurrency: options.concurrency,
      credentials: options.credentials,
      onEvent: (event) =>
        event._tag === "Swept"
          ? note([
            `${event.cluster}: ${
              event.swept.error === undefined ? "removed" : "could not remove"
            } ${event.swept.kind} ${
              event.swept.namespace === undefined ? "" : `${event.swept.namespace}/`
            }${event.swept.name}, left by run ${event.swept.run}`
          ]).pipe(Effect.provideService(Screen, screen))
          : show(event)
    })
  }))

  const width = yield* screen.out.width
  const text = yield* CheckOutput.render({
    format: options.output,
    result,
    planned: rows,
    matrix: { ...matrix, width }
  })
  yield* print([text])
  return result
})
