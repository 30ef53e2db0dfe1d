/** Probe manifests from files: whole, for a master; or the checks of each, for clusters in which nothing is installed. */
import { Effect, FileSystem, Schema } from "effect"
import * as ProbeKind from "../domain/kinds/Probe.ts"
import { apiVersion } from "../infra/kube/KubeResource.ts"
import * as ConfigFault from "../probes/ConfigFault.ts"
import type { AnyProbe } from "../probes/Probe.ts"
import { Failure, closest } from "./Failure.ts"

const Document = Schema.Struct({
  apiVersion: Schema.optionalKey(Schema.String),
  kind: Schema.optionalKey(Schema.String),
  metadata: Schema.optionalKey(Schema.Struct({
    name: Schema.optionalKey(Schema.String),
    labels: Schema.optionalKey(Schema.Record(Schema.String, Schema.String))
  })),
  spec: Schema.optionalKey(Schema.Unknown)
})

const PROBE = { apiVersion: apiVersion(ProbeKind.Probe), kind: ProbeKind.Probe.kind }

/** What `-` stands for, as in kubectl. */
const STANDARD_INPUT = "/dev/stdin"

/** A Probe as a manifest asks for it. */
export interface ProbeManifest {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly spec: ProbeKind.ProbeSpec
}

const failureOf = (file: string) => (reason: string) => new Failure({ reason: `--filename ${file}: ${reason}` })

/** Every Probe in `file`, YAML or JSON, one document or many; at least one. */
export const loadProbes = Effect.fn("Manifests.loadProbes")(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const failure = failureOf(file)
  const text = yield* fs.readFileString(file === "-" ? STANDARD_INPUT : file).pipe(
    Effect.mapError((error) => failure(error.reason._tag === "NotFound" ? "there is no such file" : error.message))
  )
  const yaml = yield* Effect.promise(() => import("yaml"))
  const documents = yaml.parseAllDocuments(text)
  const probes: Array<ProbeManifest> = []
  for (const document of Array.isArray(documents) ? documents : []) {
    const [error] = document.errors
    if (error !== undefined) return yield* failure(error.message)
    const content: unknown = document.toJS()
    if (content === null) continue
    const { apiVersion = "", kind = "", metadata, spec } = yield* Schema.decodeUnknownEffect(Document)(content).pipe(
      Effect.mapError((error) => failure(`it is no Kubernetes manifest: ${error.message}`))
    )
    const name = metadata?.name ?? ""
    if (apiVersion !== PROBE.apiVersion || kind !== PROBE.kind) {
      return yield* failure(
        `${kind || "an object"} ${name} is not a ${PROBE.kind} of ${PROBE.apiVersion}, the only kind that is taken here`
      )
    }
    const decoded = yield* Schema.decodeUnknownEffect(ProbeKind.ProbeSpec, { onExcessProperty: "error" })(spec).pipe(
      Effect.mapError((error) => failure(`Probe ${name} is not valid: ${ConfigFault.describe(error)}`))
    )
    probes.push({ name, labels: metadata?.labels ?? {}, spec: decoded })
  }
  if (probes.length === 0) return yield* failure("there is no Probe in it")
  return probes
})

/**
 * Every check of every Probe in `file`. The policy's timeout and retries hold for checks that have none of their own; when
 * and where to run is not for a single look.
 */
export const load = Effect.fn("Manifests.load")(function*(file: string) {
  const probes = yield* loadProbes(file)
  return (yield* Effect.forEach(probes, ({ name, spec }) => {
    if (spec.checks === undefined) {
      return failureOf(file)(
        `Probe ${name} runs a pod of its own, which takes an agent in the cluster; only checks run here`
      )
    }
    const { retries, timeout } = spec.policy ?? {}
    return Effect.succeed(spec.checks.map((check) => ({
      ...(retries === undefined ? {} : { retries }),
      ...(timeout === undefined ? {} : { timeout }),
      ...check
    })))
  })).flat()
})

/**
 * Whether the checks of a Probe can work, as far as `available` tells: fails with what a probe does not take, and returns
 * what is said of checks that only agents with probes of their own can run.
 */
export const examine = Effect.fn("Manifests.examine")(
  function*({ name, spec }: ProbeManifest, available: ReadonlyArray<AnyProbe>) {
    const strangers = yield* Effect.forEach(
      spec.checks ?? [],
      Effect.fnUntraced(function*({ name: check, use, with: written = {} }) {
        const probe = available.find(({ id }) => id === use)
        if (probe === undefined) {
          const [near] = closest(use, available.map(({ id }) => id))
          return [
            `Probe ${name}: ${use} is not in the catalogue${near === undefined ? "." : `; did you mean ${near}?`} ` +
            "It runs where an agent was started with --probes that have it, and is UNKNOWN elsewhere."
          ]
        }
        yield* ConfigFault.decode(probe, written).pipe(
          Effect.mapError((fault) =>
            new Failure({
              reason: `Probe ${name}: check ${check} cannot work: ${fault} ` +
                `(\`kubeprober probe describe ${use}\` lists all fields)`
            })
          )
        )
        return []
      })
    )
    return strangers.flat()
  }
)
