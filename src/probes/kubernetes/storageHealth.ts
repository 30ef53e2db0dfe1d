/** k8s.storage.health: no claim waits, no volume is lost, every attachment works. */
import { type DateTime, Duration, Effect, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import type { KubeObject, KubeResource } from "../../infra/kube/KubeResource.ts"
import { PersistentVolume, PersistentVolumeClaim } from "../../infra/kube/resources/core.ts"
import { PodVolumes } from "../../infra/kube/resources/pods.ts"
import { CSINode, StorageClass, VolumeAttachment } from "../../infra/kube/resources/storage.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { setting } from "../Setting.ts"
import * as Watch from "../Watch.ts"

export const StorageHealthConfig = Schema.Struct({
  pendingAfter: setting(DurationString, {
    default: "10m",
    description:
      "A claim may wait this long for its volume, from when it, or its first pod where the class waits for " +
      "one, was created."
  }),
  settleFor: setting(DurationString, {
    default: "2m",
    description:
      "An attachment, a reclaim or the registration of a driver may fail this long: they are tried again, and " +
      "drivers restart when they are updated."
  })
})
export type StorageHealthConfig = typeof StorageHealthConfig.Type

export const codes = Codes.make({
  CLAIM_PENDING: Codes.warn(
    "A PersistentVolumeClaim waits for its volume for longer than allowed, so its pods cannot start.",
    "Look at the events of the claim and at the provisioner the message names."
  ),
  CLAIM_LOST: Codes.error(
    "The volume a PersistentVolumeClaim was bound to is gone, and what was on it with it.",
    "Restore the volume from a backup, then make the claim anew."
  ),
  VOLUME_FAILED: Codes.error(
    "A PersistentVolume could not be reclaimed after its claim was deleted.",
    "Read the volume's message; delete what is left of it in the storage, then the PersistentVolume."
  ),
  ATTACH_FAILED: Codes.error(
    "A volume cannot be attached to the node of its pod.",
    "Read the driver's error in the message; look at the CSI controller and whether another node still holds the volume."
  ),
  DETACH_FAILED: Codes.warn(
    "A volume cannot be detached from a node, so its pod cannot move to another.",
    "Read the driver's error in the message; look at the CSI controller and at that node."
  ),
  CSI_DRIVER_ABSENT: Codes.error(
    "A node is to use volumes of a CSI driver that is not registered with its kubelet.",
    "Look at the pod of the driver's DaemonSet on that node, and whether its tolerations let it run there."
  ),
  STORAGE_SETTLING: Codes.info(
    "An attachment, a reclaim or the registration of a driver failed a moment ago; it is tried again.",
    "Nothing to do, unless it stays so."
  ),
  SEVERAL_DEFAULT_CLASSES: Codes.warn(
    "Several StorageClasses are marked as default; claims that name none get the newest of them.",
    "Leave the annotation storageclass.kubernetes.io/is-default-class on one."
  ),
  NO_DEFAULT_CLASS: Codes.info(
    "There are StorageClasses, but none is the default: claims must name one. Some clusters want it so; claims that wait " +
      "for lack of a class are told by CLAIM_PENDING.",
    "Mark one with the annotation storageclass.kubernetes.io/is-default-class, unless it is meant."
  )
})

/** What a look at the cluster's storage saw. */
export interface Seen {
  readonly claims: ReadonlyArray<PersistentVolumeClaim>
  readonly volumes: ReadonlyArray<PersistentVolume>
  readonly attachments: ReadonlyArray<VolumeAttachment>
  readonly csiNodes: ReadonlyArray<CSINode>
  readonly classes: ReadonlyArray<StorageClass>
  readonly now: DateTime.Utc
}

const nameOf = ({ metadata }: KubeObject): string => metadata.name ?? ""
const keyOf = ({ metadata }: KubeObject): string => `${metadata.namespace ?? ""}/${metadata.name ?? ""}`

const ageOf = (since: DateTime.Utc | undefined, now: DateTime.Utc): Duration.Duration =>
  since === undefined ? Duration.zero : Elapsed.between(since, now)

const isDeleted = ({ metadata }: KubeObject): boolean => metadata.deletionTimestamp !== undefined

/** `storageclass.beta.kubernetes.io` is as old as Kubernetes 1.4 and still honoured. */
const isDefault = ({ metadata: { annotations = {} } }: StorageClass): boolean =>
  ["storageclass.kubernetes.io", "storageclass.beta.kubernetes.io"].some((prefix) =>
    annotations[`${prefix}/is-default-class`] === "true"
  )

const waitsForConsumer = ({ spec }: PersistentVolumeClaim, classes: Seen["classes"]): boolean =>
  (spec.volumeName ?? "") === "" &&
  classes.some((each) => nameOf(each) === spec.storageClassName && each.volumeBindingMode === "WaitForFirstConsumer")

/** Claims that wait for longer than allowed, counted from their creation. */
const overdue = ({ claims, now }: Seen, config: StorageHealthConfig): ReadonlyArray<PersistentVolumeClaim> =>
  claims.filter((claim) =>
    claim.status.phase === "Pending" && !isDeleted(claim) &&
    Duration.isGreaterThan(ageOf(claim.metadata.creationTimestamp, now), config.pendingAfter)
  )

/** Whether a pod still wants the volumes it names, and may be scheduled. */
const isConsumer = (pod: PodVolumes): boolean =>
  !isDeleted(pod) && pod.status.phase !== "Succeeded" && pod.status.phase !== "Failed" &&
  pod.spec.schedulingGates.length === 0

/** A generic ephemeral volume's claim is called after pod and volume (KEP-1698). */
const claimsOf = (pod: PodVolumes): ReadonlyArray<string> =>
  pod.spec.volumes.flatMap(({ ephemeral, name, persistentVolumeClaim }) =>
    persistentVolumeClaim !== undefined
      ? [`${pod.metadata.namespace ?? ""}/${persistentVolumeClaim.claimName}`]
      : ephemeral !== undefined
      ? [`${keyOf(pod)}-${name}`]
      : []
  )

/** Drivers of volumes that are bound. */
const driversInUse = ({ volumes }: Seen): ReadonlySet<string> =>
  new Set(volumes.flatMap(({ spec, status }) => status.phase === "Bound" && spec.csi ? [spec.csi.driver] : []))

const hasDriver = (node: CSINode, driver: string): boolean => node.spec.drivers.some(({ name }) => name === driver)

/**
 * Whether pods must be read to judge: who waits for a claim that waits for its first pod, and who uses volumes whose driver
 * is not everywhere. Mostly neither, and pods are many.
 */
export const asksForPods = (config: StorageHealthConfig, seen: Seen): boolean =>
  overdue(seen, config).some((claim) => waitsForConsumer(claim, seen.classes)) ||
  [...driversInUse(seen)].some((driver) => seen.csiNodes.some((node) => !hasDriver(node, driver)))

/** Whom a claim waits for. */
const waitingFor = (claim: PersistentVolumeClaim, { classes, volumes }: Seen): string => {
  const { storageClassName, volumeName = "" } = claim.spec
  if (volumeName !== "") {
    return volumes.some((volume) => nameOf(volume) === volumeName)
      ? `for PersistentVolume ${volumeName} to be bound to it`
      : `for PersistentVolume ${volumeName}, which does not exist`
  }
  if (storageClassName === undefined || storageClassName === "") {
    return "for a volume made by hand: it names no StorageClass" +
      (storageClassName === undefined ? ", and none is the default" : "")
  }
  const found = classes.find((each) => nameOf(each) === storageClassName)
  return found === undefined
    ? `for StorageClass ${storageClassName}, which does not exist`
    : `for StorageClass ${storageClassName}, whose provisioner is ${found.provisioner ?? "not named"}`
}

const judgeClaims = (
  seen: Seen,
  pods: ReadonlyArray<PodVolumes>,
  config: StorageHealthConfig
): ReadonlyArray<Finding> => {
  const lost = seen.claims.filter((claim) => claim.status.phase === "Lost" && !isDeleted(claim)).map((claim) =>
    codes.CLAIM_LOST({
      message: `PersistentVolumeClaim ${keyOf(claim)} has lost its volume ${claim.spec.volumeName ?? ""}`,
      subject: { kind: "PersistentVolumeClaim", name: nameOf(claim), namespace: claim.metadata.namespace ?? "" },
      evidence: { volume: claim.spec.volumeName ?? "" }
    })
  )
  const pending = overdue(seen, config).flatMap((claim) => {
    const consumers = pods.filter((pod) => isConsumer(pod) && claimsOf(pod).includes(keyOf(claim)))
    const patient = waitsForConsumer(claim, seen.classes)
    // For a claim that waits for its first pod, time runs from that pod on.
    const starts = patient ? consumers.map(({ metadata }) => metadata.creationTimestamp) : [
      claim.metadata.creationTimestamp
    ]
    const age = starts.map((start) => ageOf(start, seen.now)).reduce(Duration.max, Duration.zero)
    if (!Duration.isGreaterThan(age, config.pendingAfter)) return []
    const [consumer] = consumers
    return [codes.CLAIM_PENDING({
      message: `PersistentVolumeClaim ${keyOf(claim)} waits for ${Elapsed.text(age)} (limit ${
        Elapsed.text(config.pendingAfter)
      }) ${waitingFor(claim, seen)}${consumer === undefined ? "" : `; pod ${nameOf(consumer)} needs it`}`,
      subject: { kind: "PersistentVolumeClaim", name: nameOf(claim), namespace: claim.metadata.namespace ?? "" },
      evidence: { storageClass: claim.spec.storageClassName ?? "", volume: claim.spec.volumeName ?? "" }
    })]
  })
  return [...lost, ...pending]
}

/** `code` when it is so for longer than things may take to settle, a mention until then. */
const settled = (
  code: Codes.Code,
  age: Duration.Duration,
  config: StorageHealthConfig,
  occurrence: Codes.Occurrence
): Finding => (Duration.isGreaterThan(age, config.settleFor) ? code : codes.STORAGE_SETTLING)(occurrence)

const judgeVolumes = (seen: Seen, config: StorageHealthConfig): ReadonlyArray<Finding> =>
  seen.volumes.filter((volume) => volume.status.phase === "Failed").map((volume) => {
    const { claimRef } = volume.spec
    return settled(
      codes.VOLUME_FAILED,
      // Servers before 1.28 do not tell since when; then there is no reason to wait.
      volume.status.lastPhaseTransitionTime === undefined
        ? Duration.infinity
        : ageOf(volume.status.lastPhaseTransitionTime, seen.now),
      config,
      {
        message: `PersistentVolume ${nameOf(volume)} could not be reclaimed: ${
          volume.status.message ?? volume.status.reason ?? "no reason given"
        }`,
        subject: { kind: "PersistentVolume", name: nameOf(volume) },
        evidence: { claim: claimRef === undefined ? "" : `${claimRef.namespace ?? ""}/${claimRef.name ?? ""}` }
      }
    )
  })

const judgeAttachments = (seen: Seen, config: StorageHealthConfig): ReadonlyArray<Finding> =>
  seen.attachments.flatMap((attachment) => {
    const { spec: { attacher, nodeName, source }, status } = attachment
    const volume = source.persistentVolumeName ?? "an inline volume"
    const about = {
      subject: { kind: "VolumeAttachment", name: nameOf(attachment) },
      evidence: { driver: attacher, node: nodeName, volume }
    }
    const { deletionTimestamp } = attachment.metadata
    if (deletionTimestamp !== undefined) {
      return status.detachError === undefined ? [] : [
        settled(codes.DETACH_FAILED, ageOf(deletionTimestamp, seen.now), config, {
          ...about,
          message: `${volume} is not detached from node ${nodeName}: ${status.detachError.message ?? "no reason given"}`
        })
      ]
    }
    return status.attachError === undefined || status.attached ? [] : [
      settled(codes.ATTACH_FAILED, ageOf(attachment.metadata.creationTimestamp, seen.now), config, {
        ...about,
        message: `${volume} is not attached to node ${nodeName}: ${status.attachError.message ?? "no reason given"}`
      })
    ]
  })

/** Who needs a driver on a node, and since when. */
interface DriverNeed {
  readonly driver: string
  readonly node: string
  readonly since: DateTime.Utc | undefined
  readonly by: string
}

const driverNeeds = (seen: Seen, pods: ReadonlyArray<PodVolumes>): ReadonlyArray<DriverNeed> => {
  const volumes = new Map(seen.volumes.map((volume) => [nameOf(volume), volume]))
  const claims = new Map(seen.claims.map((claim) => [keyOf(claim), claim]))
  return [
    ...seen.attachments.filter((attachment) => !isDeleted(attachment)).map(({ metadata, spec }) => ({
      driver: spec.attacher,
      node: spec.nodeName,
      since: metadata.creationTimestamp,
      by: `volume ${spec.source.persistentVolumeName ?? ""}`
    })),
    ...pods.filter(isConsumer).flatMap((pod) => {
      const node = pod.spec.nodeName
      return node === undefined ? [] : claimsOf(pod).flatMap((key) => {
        const driver = volumes.get(claims.get(key)?.spec.volumeName ?? "")?.spec.csi?.driver
        return driver === undefined
          ? []
          : [{ driver, node, since: pod.metadata.creationTimestamp, by: `pod ${keyOf(pod)}` }]
      })
    })
  ]
}

const judgeDrivers = (
  seen: Seen,
  pods: ReadonlyArray<PodVolumes>,
  config: StorageHealthConfig
): ReadonlyArray<Finding> => {
  const needs = driverNeeds(seen, pods)
  // A node without a CSINode is not Ready, or is gone; k8s.node.readiness judges that.
  return seen.csiNodes.flatMap((node) => {
    // Its drivers have been these since it was last written, at least.
    const written = node.metadata.managedFields.flatMap(({ time }) => time === undefined ? [] : [time])
    const unchanged = [...written, ...written.length === 0 ? [node.metadata.creationTimestamp] : []]
      .map((time) => ageOf(time, seen.now)).reduce(Duration.min, Duration.infinity)
    const missing = needs.filter((need) => need.node === nameOf(node) && !hasDriver(node, need.driver))
    return [...new Set(missing.map(({ driver }) => driver))].flatMap((driver) => {
      const waiting = missing.filter((need) => need.driver === driver)
      const longest = waiting.map(({ since }) => ageOf(since, seen.now)).reduce(Duration.max, Duration.zero)
      const age = Duration.min(longest, unchanged)
      return [settled(codes.CSI_DRIVER_ABSENT, age, config, {
        message: `CSI driver ${driver} is not registered on node ${nameOf(node)} for ${Elapsed.text(age)}, where ${
          waiting[0]?.by ?? ""
        }${waiting.length > 1 ? ` and ${waiting.length - 1} more` : ""} need it`,
        subject: { kind: "Node", name: nameOf(node) },
        evidence: { driver, needs: waiting.length }
      })]
    })
  })
}

const judgeClasses = ({ classes }: Seen): ReadonlyArray<Finding> => {
  const defaults = classes.filter((each) => isDefault(each) && !isDeleted(each)).map(nameOf)
  const [first] = defaults
  if (defaults.length > 1 && first !== undefined) {
    return [codes.SEVERAL_DEFAULT_CLASSES({
      message: `${defaults.length} StorageClasses are the default: ${defaults.slice(0, 5).join(", ")}`,
      subject: { kind: "StorageClass", name: first },
      evidence: { defaults: defaults.length }
    })]
  }
  return classes.length > 0 && first === undefined
    ? [codes.NO_DEFAULT_CLASS({
      message: `none of ${classes.length} StorageClasses is the default`,
      evidence: { classes: classes.length }
    })]
    : []
}

/** The verdict on what was seen; `pods` where {@link asksForPods}, else none. */
export const judge = (config: StorageHealthConfig) => (seen: Seen, pods: ReadonlyArray<PodVolumes>): Outcome.Outcome =>
  Outcome.make(
    `${seen.claims.length} claims, ${seen.volumes.length} volumes and ${seen.attachments.length} attachments are as ` +
      `they should be`,
    [
      ...judgeClaims(seen, pods, config),
      ...judgeVolumes(seen, config),
      ...judgeAttachments(seen, config),
      ...judgeDrivers(seen, pods, config),
      ...judgeClasses(seen)
    ]
  )

export const storageHealth = Probe.make("k8s.storage.health", {
  layer: "kubernetes",
  proves: "Claims have their volumes, attachments work, and CSI drivers are on the nodes that need them.",
  writes: "nothing",
  costs: "6 list requests, and one of pods when claims wait for their first pod or a CSI driver is not on every node.",
  needs: [
    Needs.list("persistentvolumeclaims"),
    Needs.list("persistentvolumes"),
    Needs.list("volumeattachments", { group: "storage.k8s.io" }),
    Needs.list("csinodes", { group: "storage.k8s.io" }),
    Needs.list("storageclasses", { group: "storage.k8s.io" }),
    Needs.list("pods"),
    ServerTime.needs
  ],
  codes,
  config: StorageHealthConfig,
  interval: "5 minutes",
  timeout: "30 seconds",
  timed: [],
  onChange: [
    Watch.of(PersistentVolumeClaim, { when: Watch.differsIn(({ status }) => status.phase) }),
    Watch.of(VolumeAttachment, {
      when: Watch.differsIn(({ status }) => [status.attached, status.attachError !== undefined])
    })
  ],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: StorageHealthConfig) {
    const kube = yield* Kube
    /** A kind that is not served has no objects. */
    const all = <A extends KubeObject>(resource: KubeResource<A>) =>
      kube.list(resource).pipe(
        Effect.map(({ items }) => items),
        Effect.catchIf(
          ({ reason }) => reason._tag === "NotFound" && reason.what === "resource",
          () => Effect.succeed<ReadonlyArray<A>>([])
        )
      )
    const [claims, volumes, attachments, csiNodes, classes] = yield* Effect.all([
      all(PersistentVolumeClaim),
      all(PersistentVolume),
      all(VolumeAttachment),
      all(CSINode),
      all(StorageClass)
    ], { concurrency: 3 })
    const seen = { claims, volumes, attachments, csiNodes, classes, now: yield* ServerTime.nowOrOurs }
    return judge(config)(seen, asksForPods(config, seen) ? yield* all(PodVolumes) : [])
  })
})
