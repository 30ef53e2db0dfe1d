/** k8s.finalizers.stuck: what was deleted goes away. */
import { DateTime, Duration, Effect, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { type KubeObject, make } from "../../infra/kube/KubeResource.ts"
import { Namespace } from "../../infra/kube/resources/core.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { setting } from "../Setting.ts"
import * as Watch from "../Watch.ts"

/** Of these kinds only metadata is asked for: there are many of them, or they are large. */
const METADATA = [
  make({ kind: "Pod", plural: "pods", scope: "Namespaced", metadataOnly: true, fields: {} }),
  make({
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    scope: "Namespaced",
    metadataOnly: true,
    fields: {}
  }),
  make({ kind: "PersistentVolume", plural: "persistentvolumes", scope: "Cluster", metadataOnly: true, fields: {} }),
  make({
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    scope: "Cluster",
    metadataOnly: true,
    fields: {}
  })
]

/** What Kubernetes' own finalizers wait for (https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/). */
const WAITS_FOR: Readonly<Record<string, string>> = {
  "kubernetes.io/pvc-protection": "a pod that still uses the claim",
  "kubernetes.io/pv-protection": "a claim that is still bound to the volume",
  "foregroundDeletion": "its dependents to be deleted",
  "orphan": "the garbage collector of kube-controller-manager",
  "customresourcecleanup.apiextensions.k8s.io": "the objects of this kind to be deleted"
}

export const FinalizersStuckConfig = Schema.Struct({
  infoAfter: setting(DurationString, { default: "1m", description: "Deletions that take longer are mentioned." }),
  warnAfter: setting(DurationString, { default: "10m", description: "Deletions that take longer are a WARN." }),
  errorAfter: setting(DurationString, { default: "1h", description: "Deletions that take longer are an ERROR." })
})
export type FinalizersStuckConfig = typeof FinalizersStuckConfig.Type

export const codes = Codes.make({
  DELETION_STUCK: Codes.error(
    "An object was deleted long ago and is still there: what its finalizers wait for does not happen.",
    "Revive the controller that owns the finalizer named; remove the finalizer by hand only when its work was done."
  ),
  DELETION_LATE: Codes.warn(
    "An object was deleted a while ago and is still there.",
    "Look at the controller that owns the finalizer named."
  ),
  DELETION_SLOW: Codes.info("A deletion takes longer than a moment.", "Nothing to do, unless it stays so.")
})

/** A deleted object that is still there, with what is known of why. */
export interface Lingering {
  readonly kind: string
  readonly object: KubeObject
  /** What the object itself says about its deletion, such as a namespace's conditions. */
  readonly said: string
}

const waitingFor = ({ kind, object: { metadata }, said }: Lingering): string => {
  const finalizers = metadata.finalizers ?? []
  const named = finalizers.map((finalizer) =>
    WAITS_FOR[finalizer] === undefined ? finalizer : `${finalizer} (${WAITS_FOR[finalizer]})`
  )
  if (named.length > 0) return `waits for finalizer ${named.join(", ")}${said === "" ? "" : `; ${said}`}`
  if (said !== "") return said
  return kind === "Pod" ? "waits for the kubelet of its node to confirm that it ended" : "has no finalizer of its own"
}

/** The verdict on one object; none when it is not being deleted, or has not been for long. */
export const judge =
  (config: FinalizersStuckConfig, now: DateTime.Utc) => (lingering: Lingering): Finding | undefined => {
    const { kind, object: { metadata } } = lingering
    // For a pod this is when its grace period ends.
    if (metadata.deletionTimestamp === undefined) return undefined
    const age = Elapsed.between(metadata.deletionTimestamp, now)
    const [code, limit] = Duration.isGreaterThan(age, config.errorAfter)
      ? [codes.DELETION_STUCK, config.errorAfter] as const
      : Duration.isGreaterThan(age, config.warnAfter)
      ? [codes.DELETION_LATE, config.warnAfter] as const
      : [codes.DELETION_SLOW, config.infoAfter] as const
    if (!Duration.isGreaterThan(age, limit)) return undefined
    const { name = "", namespace } = metadata
    return code({
      message: `${kind} ${namespace === undefined ? "" : `${namespace}/`}${name} is being deleted for ` +
        `${Elapsed.text(age)} (limit ${Elapsed.text(limit)}): it ${waitingFor(lingering)}`,
      subject: { kind, name, ...(namespace === undefined ? {} : { namespace }) },
      evidence: {
        deletedAt: DateTime.formatIso(metadata.deletionTimestamp),
        finalizers: (metadata.finalizers ?? []).join(", ")
      }
    })
  }

/** What a namespace says about its own deletion: conditions that hold, in the namespace controller's words. */
export const conditionsOf = ({ status }: Namespace): string =>
  status.conditions.filter((condition) => condition.status === "True").map((condition) =>
    `${condition.type}: ${condition.message ?? condition.reason ?? ""}`
  ).join("; ")

/** Something that held up a deletion changed, or it is over. That a deletion begins is no news for a minute. */
const released: Watch.When<Namespace> = (before, after) =>
  before?.metadata.deletionTimestamp !== undefined && conditionsOf(before) !== "" &&
  (after === undefined || conditionsOf(before) !== conditionsOf(after))

export const finalizersStuck = Probe.make("k8s.finalizers.stuck", {
  layer: "kubernetes",
  proves: "Namespaces, pods, volumes, claims and custom resource definitions that were deleted are gone.",
  writes: "nothing",
  costs: "6 API requests, and one more for each further 500 objects of a kind.",
  needs: [
    Needs.list("namespaces"),
    ...METADATA.map(({ group, plural }) => Needs.list(plural, { group })),
    ServerTime.needs
  ],
  codes,
  config: FinalizersStuckConfig,
  interval: "5 minutes",
  timeout: "30 seconds",
  timed: [],
  onChange: [Watch.of(Namespace, { when: released })],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: FinalizersStuckConfig) {
    const kube = yield* Kube
    const isDeleted = ({ metadata }: KubeObject) => metadata.deletionTimestamp !== undefined
    const namespaces = Effect.map(kube.list(Namespace), ({ items }) => ({
      read: items.length,
      lingering: items.filter(isDeleted).map((object): Lingering => ({
        kind: "Namespace",
        object,
        said: conditionsOf(object)
      }))
    }))
    const others = METADATA.map((resource) =>
      Effect.map(kube.list(resource), ({ items }) => ({
        read: items.length,
        lingering: items.filter(isDeleted).map((object): Lingering => ({ kind: resource.kind, object, said: "" }))
      }))
    )
    const lists = yield* Effect.all([namespaces, ...others], { concurrency: 2 })
    const judged = lists.flatMap(({ lingering }) => lingering).map(judge(config, yield* ServerTime.nowOrOurs))
    return Outcome.make(
      `none of ${lists.reduce((sum, { read }) => sum + read, 0)} objects waits long for its deletion`,
      judged.filter((finding) => finding !== undefined)
    )
  })
})
