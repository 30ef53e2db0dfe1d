/** An agent as a process of its own, from its start to its end. */
import { Effect, FileSystem, Option, Redacted } from "effect"
import * as Agent from "../agent/Agent.ts"
import * as KubernetesJobs from "../agent/jobs/KubernetesJobs.ts"
import type { ClusterBudget } from "../domain/ClusterBudget.ts"
import type { Profile } from "../domain/Profile.ts"
import { catalogue } from "../probes/Catalogue.ts"
import type { Address } from "./commands/flags.ts"
import { Failure, closest } from "./Failure.ts"
import * as OneCluster from "./OneCluster.ts"
import * as Plan from "./Plan.ts"
import { version } from "./version.ts"

export interface AgentProcessOptions extends OneCluster.OneClusterOptions {
  /** None: standalone. */
  readonly master: Option.Option<string>
  readonly joinTokenFile: Option.Option<string>
  readonly store: "resources" | "memory"
  readonly namespace: string
  readonly profile: Option.Option<Profile>
  /** Ids of probes that may run whatever they write. */
  readonly allow: ReadonlyArray<string>
  readonly credentials: Option.Option<string>
  /** None: the agent's own, where it is a pod. */
  readonly workerImage: Option.Option<string>
  readonly budget: ClusterBudget
  readonly modules: ReadonlyArray<string>
  readonly state: string
  readonly reportListen: Option.Option<Address>
  readonly reportUrl: Option.Option<string>
  readonly healthListen: Option.Option<Address>
}

/** The token in the file. A file that is gone is no fault of an agent that is enrolled. */
const joinToken = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const text = yield* fs.readFileString(file).pipe(
    Effect.asSome,
    Effect.catchIf((error) => error.reason._tag === "NotFound", () => Effect.succeedNone),
    Effect.mapError((error) => new Failure({ reason: `--join-token-file ${file}: ${error.message}` }))
  )
  if (Option.isNone(text)) {
    yield* Effect.logWarning(`there is no join token at ${file}; only an enrolled agent needs none`)
  }
  return Option.map(Option.filter(text, (found) => found.trim() !== ""), (found) => Redacted.make(found.trim()))
})

/** Works until it is interrupted. */
export const run = Effect.fn("AgentProcess.run")(function*(options: AgentProcessOptions) {
  const connection = yield* OneCluster.connection(options)
  const own = (yield* Effect.forEach(options.modules, Plan.loadModule)).flat()
  const available = [...catalogue, ...own.map(({ probe }) => probe)]
  const ids = available.map(({ id }) => id)
  const stranger = options.allow.find((id) => !ids.includes(id))
  if (stranger !== undefined) {
    const near = closest(stranger, ids)
    return yield* new Failure({
      reason: `--allow ${stranger}: there is no such probe${
        near.length === 0 ? "" : `; did you mean ${near.join(" or ")}?`
      }`
    })
  }
  const token = Option.isSome(options.joinTokenFile) ? yield* joinToken(options.joinTokenFile.value) : Option.none()
  yield* Effect.logInfo("the agent starts").pipe(Effect.annotateLogs({
    cluster: connection.server,
    master: Option.getOrElse(options.master, () => "none"),
    state: options.state
  }))
  return yield* Agent.run({
    connection,
    probeNamespace: options.namespace,
    mode: options.store,
    stateFolder: options.state,
    available,
    named: new Set(options.allow),
    version,
    credentials: Option.getOrUndefined(options.credentials),
    ...Option.match(options.workerImage, { onNone: () => ({}), onSome: (workerImage) => ({ workerImage }) }),
    budget: options.budget,
    ...Option.match(options.profile, { onNone: () => ({}), onSome: (profile) => ({ profile }) }),
    ...Option.match(options.master, { onNone: () => ({}), onSome: (master) => ({ master }) }),
    ...Option.match(token, { onNone: () => ({}), onSome: (joinToken) => ({ joinToken }) }),
    ...Option.match(options.reportListen, {
      onNone: () => ({}),
      onSome: (address) => ({
        jobs: KubernetesJobs.layer({ ...address, reportUrl: Option.getOrUndefined(options.reportUrl) })
      })
    }),
    ...Option.match(options.healthListen, { onNone: () => ({}), onSome: (health) => ({ health }) })
  })
})
