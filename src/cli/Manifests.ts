/** Probe manifests from files: the checks of each, for clusters in which nothing is installed. */
import { Effect, FileSystem, Schema } from "effect"
import * as ProbeKind from "../domain/kinds/Probe.ts"
import { apiVersion } from "../infra/kube/KubeResource.ts"
import { Failure } from "./Failure.ts"

const Document = Schema.Struct({
  apiVersion: Schema.optionalKey(Schema.String),
  kind: Schema.optionalKey(Schema.String),
  metadata: Schema.optionalKey(Schema.Struct({ name: Schema.optionalKey(Schema.String) })),
  spec: Schema.optionalKey(Schema.Unknown)
})

const PROBE = { apiVersion: apiVersion(ProbeKind.Probe), kind: ProbeKind.Probe.kind }

/** What `-` stands for, as in kubectl. */
const STANDARD_INPUT = "/dev/stdin"

/**
 * Every check of every Probe in `file`, YAML or JSON, one document or many. The policy's timeout and retries hold for
 * checks that have none of their own; when and where to run is not for a single look.
 */
export const load = Effect.fn("Manifests.load")(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const failure = (reason: string) => new Failure({ reason: `--filename ${file}: ${reason}` })
  const text = yield* fs.readFileString(file === "-" ? STANDARD_INPUT : file).pipe(
    Effect.mapError((error) => failure(error.reason._tag === "NotFound" ? "there is no such file" : error.message))
  )
  const yaml = yield* Effect.promise(() => import("yaml"))
  const documents = yaml.parseAllDocuments(text)
  const checks: Array<ProbeKind.Check> = []
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
        `${
          kind || "an object"
        } ${name} is not a ${PROBE.kind} of ${PROBE.apiVersion}, the only kind that can be checked`
      )
    }
    const decoded = yield* Schema.decodeUnknownEffect(ProbeKind.ProbeSpec, { onExcessProperty: "error" })(spec).pipe(
      Effect.mapError((error) => failure(`Probe ${name} is not valid: ${error.message}`))
    )
    if (decoded.checks === undefined) {
      return yield* failure(
        `Probe ${name} runs a pod of its own, which takes an agent in the cluster; only checks run here`
      )
    }
    const { retries, timeout } = decoded.policy ?? {}
    checks.push(...decoded.checks.map((check) => ({
      ...(retries === undefined ? {} : { retries }),
      ...(timeout === undefined ? {} : { timeout }),
      ...check
    })))
  }
  if (checks.length === 0) return yield* failure("there is no Probe in it")
  return checks
})
