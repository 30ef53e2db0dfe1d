/** How many pods a request asks the cluster for. */
import { Schema } from "effect"
import type { GatedRequest } from "../../infra/kube/KubeGate.ts"

/**
 * Kinds whose objects are pods or become pods. How many a DaemonSet becomes its nodes say, and a CronJob time; each counts as
 * one.
 */
const KINDS: ReadonlySet<string> = new Set([
  "pods",
  "replicationcontrollers",
  "replicasets.apps",
  "deployments.apps",
  "statefulsets.apps",
  "daemonsets.apps",
  "jobs.batch",
  "cronjobs.batch"
])

const Counted = Schema.Struct({
  spec: Schema.Struct({
    replicas: Schema.optionalKey(Schema.Int),
    parallelism: Schema.optionalKey(Schema.Int)
  })
})
const isCounted = Schema.is(Counted)

/** An object's apply may create it; what is applied to one that is there counts again. */
const CREATES: ReadonlySet<string> = new Set(["create", "patch"])

const isManifest = (body: unknown): boolean =>
  typeof body === "object" && body !== null && "apiVersion" in body && "kind" in body

/** Of what is created; a scale-up of what is there does not count. */
export const podsOf = ({ body, call, stores }: GatedRequest): number => {
  if (!stores || !CREATES.has(call.verb) || !KINDS.has(kindOf(call)) || !isManifest(body)) return 0
  return isCounted(body) ? Math.max(0, body.spec.replicas ?? body.spec.parallelism ?? 1) : 1
}

const kindOf = ({ group, resource }: GatedRequest["call"]): string =>
  group === undefined || group === "" ? resource : `${resource}.${group}`

/** Names what is created and deleted; none where the server chooses the name. */
export const podKeyOf = ({ call }: GatedRequest): string | undefined =>
  call.name === undefined ? undefined : `${kindOf(call)}/${call.namespace ?? ""}/${call.name}`
