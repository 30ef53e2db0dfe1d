import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, type Duration, Duration as D, Effect, Schema } from "effect"
import { PersistentVolume, PersistentVolumeClaim } from "../../src/infra/kube/resources/core.ts"
import { PodVolumes } from "../../src/infra/kube/resources/pods.ts"
import { CSINode, StorageClass, VolumeAttachment } from "../../src/infra/kube/resources/storage.ts"
import { StorageHealthConfig, asksForPods, judge, storageHealth } from "../../src/probes/kubernetes/storageHealth.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blindToAll } from "../proofs/blindness.ts"
import { blind, fault, healthy } from "../proofs/proof.ts"

const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
const ago = (duration: Duration.Input) =>
  DateTime.formatIso(DateTime.subtractDuration(NOW, D.fromInputUnsafe(duration)))

const claim = (phase: string, age: Duration.Input, spec: object = {}) =>
  Schema.decodeUnknownSync(PersistentVolumeClaim.object)({
    metadata: { name: "data", namespace: "shop", creationTimestamp: ago(age) },
    spec,
    status: { phase }
  })

const storageClass = (name: string, volumeBindingMode: string, isDefault = false) =>
  Schema.decodeUnknownSync(StorageClass.object)({
    metadata: { name, annotations: { "storageclass.kubernetes.io/is-default-class": String(isDefault) } },
    provisioner: "csi.example",
    volumeBindingMode
  })

const csiVolume = (name: string) =>
  Schema.decodeUnknownSync(PersistentVolume.object)({
    metadata: { name },
    spec: { csi: { driver: "csi.example" } },
    status: { phase: "Bound" }
  })

const csiNode = (name: string, drivers: ReadonlyArray<string>, written: Duration.Input) =>
  Schema.decodeUnknownSync(CSINode.object)({
    metadata: { name, creationTimestamp: ago("10 days"), managedFields: [{ time: ago(written) }] },
    spec: { drivers: drivers.map((name) => ({ name })) }
  })

const attachment = (
  options: { readonly age: Duration.Input; readonly status?: object; readonly deleted?: Duration.Input }
) =>
  Schema.decodeUnknownSync(VolumeAttachment.object)({
    metadata: {
      name: "csi-1",
      creationTimestamp: ago(options.age),
      ...(options.deleted === undefined ? {} : { deletionTimestamp: ago(options.deleted) })
    },
    spec: { attacher: "csi.example", nodeName: "a", source: { persistentVolumeName: "pv" } },
    status: options.status ?? { attached: true }
  })

const pod = (
  age: Duration.Input,
  options: { readonly phase?: string; readonly node?: string; readonly gated?: boolean } = {}
) =>
  Schema.decodeUnknownSync(PodVolumes.object)({
    metadata: { name: "web", namespace: "shop", creationTimestamp: ago(age) },
    spec: {
      ...(options.node === undefined ? {} : { nodeName: options.node }),
      ...(options.gated === true ? { schedulingGates: [{ name: "wait" }] } : {}),
      volumes: [{ name: "data", persistentVolumeClaim: { claimName: "data" } }]
    },
    status: { phase: options.phase ?? "Pending" }
  })

type Parts = Partial<Omit<Parameters<ReturnType<typeof judge>>[0], "now">>
const config = Schema.decodeSync(StorageHealthConfig)({})
const seenOf = (parts: Parts) => ({
  claims: [],
  volumes: [],
  attachments: [],
  csiNodes: [],
  classes: [],
  ...parts,
  now: NOW
})
const says = (parts: Parts, pods: ReadonlyArray<PodVolumes> = []) =>
  judge(config)(seenOf(parts), pods).findings.map(({ code, status }) => `${status} ${code}`)

describe("judging storage", () => {
  it("has nothing to say of a cluster without storage", () => assert.deepStrictEqual(says({}), []))

  it("lets claims wait a while, and those that wait for a pod until there is one", () => {
    const classes = [storageClass("late", "WaitForFirstConsumer", true)]
    const late = { storageClassName: "late" }
    assert.deepStrictEqual(says({ claims: [claim("Pending", "5 minutes")] }), [])
    assert.deepStrictEqual(says({ claims: [claim("Pending", "11 minutes")] }), ["WARN CLAIM_PENDING"])
    assert.deepStrictEqual(says({ claims: [claim("Bound", "11 minutes")] }), [])
    const waiting = { claims: [claim("Pending", "2 days", late)], classes }
    assert.isTrue(asksForPods(config, seenOf(waiting)))
    assert.deepStrictEqual(says(waiting), [])
    assert.deepStrictEqual(says(waiting, [pod("5 minutes")]), [], "its pod is young")
    assert.deepStrictEqual(says(waiting, [pod("11 minutes")]), ["WARN CLAIM_PENDING"])
    assert.deepStrictEqual(says(waiting, [pod("11 minutes", { phase: "Succeeded" })]), [])
    assert.deepStrictEqual(says(waiting, [pod("11 minutes", { gated: true })]), [])
  })

  it("says whom a claim waits for", () => {
    const message = (spec: object, classes: ReadonlyArray<StorageClass> = []) =>
      judge(config)(seenOf({ claims: [claim("Pending", "1 hour", spec)], classes }), []).findings[0]?.message
    assert.include(message({}), "names no StorageClass, and none is the default")
    assert.include(message({ storageClassName: "gone" }), "StorageClass gone, which does not exist")
    assert.include(
      message({ storageClassName: "s" }, [storageClass("s", "Immediate", true)]),
      "provisioner is csi.example"
    )
    assert.include(message({ volumeName: "pv" }), "PersistentVolume pv, which does not exist")
  })

  it("tells an attachment that fails from one that failed once", () => {
    const failing = { attached: false, attachError: { message: "no" } }
    assert.deepStrictEqual(says({ attachments: [attachment({ age: "1 minute", status: failing })] }), [
      "INFO STORAGE_SETTLING"
    ])
    assert.deepStrictEqual(says({ attachments: [attachment({ age: "3 minutes", status: failing })] }), [
      "ERROR ATTACH_FAILED"
    ])
    assert.deepStrictEqual(says({ attachments: [attachment({ age: "1 hour", status: { attached: true } })] }), [])
    const detaching = { attached: true, detachError: { message: "busy" } }
    assert.deepStrictEqual(
      says({ attachments: [attachment({ age: "1 hour", deleted: "3 minutes", status: detaching })] }),
      [
        "WARN DETACH_FAILED"
      ]
    )
    assert.deepStrictEqual(
      says({ attachments: [attachment({ age: "1 hour", deleted: "3 minutes", status: failing })] }),
      []
    )
  })

  it("misses a driver only where it is needed, and for longer than its update takes", () => {
    const needed = { attachments: [attachment({ age: "1 hour" })] }
    assert.deepStrictEqual(says({ ...needed, csiNodes: [csiNode("a", ["csi.example"], "1 hour")] }), [])
    assert.deepStrictEqual(says({ ...needed, csiNodes: [csiNode("a", [], "1 minute")] }), ["INFO STORAGE_SETTLING"])
    assert.deepStrictEqual(says({ ...needed, csiNodes: [csiNode("a", [], "1 hour")] }), ["ERROR CSI_DRIVER_ABSENT"])
    assert.deepStrictEqual(says({ ...needed, csiNodes: [csiNode("b", [], "1 hour")] }), [])
    assert.deepStrictEqual(says(needed), [], "a node without a CSINode is not Ready")
    const mounted = {
      claims: [claim("Bound", "1 day", { volumeName: "pv" })],
      volumes: [csiVolume("pv")],
      csiNodes: [csiNode("a", [], "1 hour"), csiNode("b", [], "1 hour")]
    }
    assert.isTrue(asksForPods(config, seenOf(mounted)))
    assert.deepStrictEqual(says(mounted), [])
    assert.deepStrictEqual(says(mounted, [pod("1 hour", { node: "a", phase: "Running" })]), ["ERROR CSI_DRIVER_ABSENT"])
    assert.deepStrictEqual(says(mounted, [pod("1 minute", { node: "a" })]), ["INFO STORAGE_SETTLING"])
    assert.isFalse(asksForPods(config, seenOf({ ...mounted, csiNodes: [csiNode("a", ["csi.example"], "1 hour")] })))
  })

  it("wants one default class at most", () => {
    const [a, b] = [storageClass("a", "Immediate", true), storageClass("b", "Immediate", true)]
    assert.deepStrictEqual(says({ classes: [a] }), [])
    assert.deepStrictEqual(says({ classes: [a, b] }), ["WARN SEVERAL_DEFAULT_CLASSES"])
    assert.deepStrictEqual(says({ classes: [storageClass("c", "Immediate")] }), ["INFO NO_DEFAULT_CLASS"])
  })
})

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

/** Everything counts after a second. */
const strict = Probe.configure(storageHealth, { pendingAfter: "1s", settleFor: "1s" })

const until = (wanted: string) =>
  Effect.flatMap(
    TestCluster,
    ({ run }) => eventually(run(strict), (report) => verdict(report) === wanted, { every: "300 millis" })
  )

const yamlClass = (name: string, options: { readonly isDefault?: boolean; readonly late?: boolean } = {}) => ({
  apiVersion: "storage.k8s.io/v1",
  kind: "StorageClass",
  metadata: {
    name,
    annotations: { "storageclass.kubernetes.io/is-default-class": String(options.isDefault ?? false) }
  },
  provisioner: "kubernetes.io/no-provisioner",
  volumeBindingMode: options.late === true ? "WaitForFirstConsumer" : "Immediate"
})

const yamlClaim = (name: string, storageClassName: string) => ({
  apiVersion: "v1",
  kind: "PersistentVolumeClaim",
  metadata: { name, namespace: "default" },
  spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Mi" } }, storageClassName }
})

const yamlVolume = (name: string, storageClassName: string, persistentVolumeReclaimPolicy = "Retain") => ({
  apiVersion: "v1",
  kind: "PersistentVolume",
  metadata: { name },
  spec: {
    accessModes: ["ReadWriteOnce"],
    capacity: { storage: "1Mi" },
    // The controller manager's own reclaimer deletes below /tmp alone, and refuses this.
    hostPath: { path: "/var/nowhere" },
    persistentVolumeReclaimPolicy,
    storageClassName
  }
})

const yamlAttachment = {
  apiVersion: "storage.k8s.io/v1",
  kind: "VolumeAttachment",
  metadata: { name: "csi-test" },
  spec: { attacher: "csi.test.example", nodeName: "storage-node", source: { persistentVolumeName: "elsewhere" } }
}

const yamlCsiNode = (drivers: ReadonlyArray<string>) => ({
  apiVersion: "storage.k8s.io/v1",
  kind: "CSINode",
  metadata: { name: "storage-node" },
  spec: { drivers: drivers.map((name) => ({ name, nodeID: "storage-node" })) }
})

const unfinalized = ["--type=merge", "--patch={\"metadata\":{\"finalizers\":null}}"]

/** Volumes are bound in a second and not in 15. */
const CLUSTER = TestCluster.layer({
  name: "storage-health",
  extraFlags: { "kube-controller-manager": ["--pvclaimbinder-sync-period=1s"] }
})

describe("k8s.storage.health", () => {
  layer(CLUSTER, { excludeTestServices: true, timeout: "120 seconds" })("on a real server", (it) => {
    it.effect(
      healthy(storageHealth, "passes with no rights but to read, with and without storage"),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl, run, userWith } = yield* TestCluster
          assert.isTrue(
            storageHealth.needs.every((need) => need._tag === "ResourceNeed" && ["list", "watch"].includes(need.verb))
          )
          const as = yield* userWith(storageHealth.needs, { optional: false })
          const empty = yield* run(storageHealth, { as })
          assert.strictEqual(verdict(empty), "PASS", empty.message)
          yield* apply(yamlClass("by-hand", { isDefault: true }), yamlVolume("pv-healthy", "by-hand"))
          yield* apply(yamlClaim("healthy", "by-hand"))
          yield* until("PASS")
          const bound = yield* eventually(run(strict, { as }), ({ message }) => message.includes("1 claims, 1 volumes"))
          assert.strictEqual(verdict(bound), "PASS", bound.message)
          yield* kubectl("delete", "-n", "default", "pvc/healthy")
          yield* kubectl("delete", "pv/pv-healthy")
        })
    )

    it.effect(
      blind(storageHealth, "ACCESS_MISSING", "is UNKNOWN without one of the rights it must have"),
      () =>
        Effect.gen(function*() {
          const { run, userWith } = yield* TestCluster
          for (const lacking of storageHealth.needs.filter(({ optional }) => !optional)) {
            const report = yield* run(storageHealth, {
              as: yield* userWith(storageHealth.needs.filter((need) => need !== lacking))
            })
            assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
            assert.include(report.message, Needs.describe(lacking))
          }
        })
    )

    blindToAll(it, storageHealth)

    it.effect(
      fault(storageHealth, "CLAIM_PENDING", "sees a claim that nobody provisions"),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          yield* apply(yamlClaim("waiting", "by-hand"))
          const report = yield* until("WARN CLAIM_PENDING")
          assert.deepStrictEqual(report.findings[0]?.subject, {
            kind: "PersistentVolumeClaim",
            name: "waiting",
            namespace: "default"
          })
          yield* apply(yamlVolume("pv-waiting", "by-hand"))
          yield* until("PASS")
          yield* kubectl("delete", "-n", "default", "pvc/waiting")
          yield* kubectl("delete", "pv/pv-waiting")
        })
    )

    it.effect(
      fault(storageHealth, "CLAIM_PENDING", "sees a claim that waits for its first pod once there is one, not before"),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          yield* apply(yamlClass("late", { late: true }), yamlClaim("patient", "late"))
          // Younger, so that by the time it counts the patient one is old enough as well.
          yield* apply(yamlClaim("impatient", "by-hand"))
          const other = yield* until("WARN CLAIM_PENDING")
          assert.deepStrictEqual(other.findings.map(({ subject }) => subject?.name), ["impatient"])
          yield* kubectl("delete", "-n", "default", "pvc/impatient")
          yield* until("PASS")
          yield* apply({
            apiVersion: "v1",
            kind: "Pod",
            metadata: { name: "consumer", namespace: "default" },
            spec: {
              containers: [{ name: "main", image: "none" }],
              volumes: [{ name: "data", persistentVolumeClaim: { claimName: "patient" } }]
            }
          })
          const report = yield* until("WARN CLAIM_PENDING")
          assert.include(report.message, "pod consumer needs it")
          yield* kubectl("delete", "-n", "default", "pod/consumer")
          yield* until("PASS")
          yield* kubectl("delete", "-n", "default", "pvc/patient")
          yield* kubectl("delete", "storageclass/late")
        })
    )

    it.effect(
      fault(storageHealth, "CLAIM_LOST", "sees a claim whose volume was deleted under it"),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          yield* apply(yamlVolume("pv-lost", "by-hand"), yamlClaim("lost", "by-hand"))
          yield* eventually(
            kubectl("get", "-n", "default", "pvc/lost", "-o", "jsonpath={.status.phase}"),
            (phase) => phase === "Bound"
          )
          yield* kubectl("delete", "--wait=false", "pv/pv-lost")
          yield* kubectl("patch", "pv/pv-lost", ...unfinalized)
          const report = yield* until("ERROR CLAIM_LOST")
          assert.include(report.message, "PersistentVolumeClaim default/lost has lost its volume pv-lost")
          yield* kubectl("delete", "-n", "default", "pvc/lost")
          yield* until("PASS")
        })
    )

    it.effect(
      fault(storageHealth, "VOLUME_FAILED", "sees a volume that could not be reclaimed"),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          yield* apply(yamlVolume("pv-failed", "by-hand", "Delete"), yamlClaim("failed", "by-hand"))
          yield* eventually(
            kubectl("get", "-n", "default", "pvc/failed", "-o", "jsonpath={.status.phase}"),
            (phase) => phase === "Bound"
          )
          yield* kubectl("delete", "-n", "default", "pvc/failed")
          const report = yield* until("ERROR VOLUME_FAILED")
          assert.deepStrictEqual(report.findings[0]?.subject, { kind: "PersistentVolume", name: "pv-failed" })
          yield* kubectl("delete", "pv/pv-failed")
          yield* until("PASS")
        })
    )

    it.effect(
      fault(
        storageHealth,
        "ATTACH_FAILED",
        fault(storageHealth, "DETACH_FAILED", "sees an attachment whose status says so, written as its attacher would")
      ),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          yield* apply(yamlAttachment)
          const status = (value: object) =>
            kubectl(
              "patch",
              "volumeattachment/csi-test",
              "--subresource=status",
              "--type=merge",
              `--patch=${JSON.stringify({ status: value })}`
            )
          yield* status({ attached: false, attachError: { message: "the disk is in use elsewhere" } })
          const report = yield* until("ERROR ATTACH_FAILED")
          assert.include(report.message, "not attached to node storage-node: the disk is in use elsewhere")
          yield* status({ attached: true, attachError: null })
          yield* until("PASS")
          yield* kubectl(
            "patch",
            "volumeattachment/csi-test",
            "--type=merge",
            "--patch={\"metadata\":{\"finalizers\":[\"test.example/attacher\"]}}"
          )
          yield* kubectl("delete", "--wait=false", "volumeattachment/csi-test")
          yield* status({ attached: true, detachError: { message: "the node does not let go" } })
          const detaching = yield* until("WARN DETACH_FAILED")
          assert.include(detaching.message, "the node does not let go")
          yield* kubectl("patch", "volumeattachment/csi-test", ...unfinalized)
          yield* until("PASS")
        })
    )

    it.effect(
      fault(storageHealth, "CSI_DRIVER_ABSENT", "sees a node without the driver of a volume attached to it"),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          yield* apply(yamlCsiNode([]), yamlAttachment)
          const report = yield* until("ERROR CSI_DRIVER_ABSENT")
          assert.deepStrictEqual(report.findings[0]?.subject, { kind: "Node", name: "storage-node" })
          assert.strictEqual(report.findings[0]?.evidence?.["driver"], "csi.test.example")
          yield* apply(yamlCsiNode(["csi.test.example"]))
          yield* until("PASS")
          yield* kubectl("delete", "volumeattachment/csi-test", "csinode/storage-node")
        })
    )

    it.effect(
      fault(storageHealth, "SEVERAL_DEFAULT_CLASSES", "sees a second default StorageClass"),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          yield* apply(yamlClass("second", { isDefault: true }))
          const report = yield* until("WARN SEVERAL_DEFAULT_CLASSES")
          assert.include(report.message, "by-hand, second")
          yield* kubectl("delete", "storageclass/second")
          yield* until("PASS")
        })
    )
  })
})
