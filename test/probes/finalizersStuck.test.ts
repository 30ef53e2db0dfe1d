import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Effect, Schema } from "effect"
import { FinalizersStuckConfig, finalizersStuck, judge } from "../../src/probes/kubernetes/finalizersStuck.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blindToAll } from "../proofs/blindness.ts"
import { blind, fault, healthy } from "../proofs/proof.ts"

const config = Schema.decodeSync(FinalizersStuckConfig)({})
const now = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
const deleted = (kind: string, ago: { readonly minutes: number }, finalizers: ReadonlyArray<string> = []) => ({
  kind,
  object: {
    metadata: { name: "a", namespace: "shop", finalizers, deletionTimestamp: DateTime.subtract(now, ago) }
  },
  said: ""
})

describe("judging deletions", () => {
  it("goes by age: a moment, long, too long", () => {
    const codes = [0, 2, 11, 61].map((minutes) => judge(config, now)(deleted("Pod", { minutes }))?.code)
    assert.deepStrictEqual(codes, [undefined, "DELETION_SLOW", "DELETION_LATE", "DELETION_STUCK"])
  })

  it("leaves alone what is not deleted, and what is to be deleted by a clock ahead of ours", () => {
    assert.isUndefined(judge(config, now)({ kind: "Pod", object: { metadata: { name: "a" } }, said: "" }))
    assert.isUndefined(judge(config, now)(deleted("Pod", { minutes: -5 })))
  })

  it("says what is waited for", () => {
    const message = (kind: string, finalizers: ReadonlyArray<string>) =>
      judge(config, now)(deleted(kind, { minutes: 90 }, finalizers))?.message
    assert.strictEqual(
      message("PersistentVolumeClaim", ["kubernetes.io/pvc-protection"]),
      "PersistentVolumeClaim shop/a is being deleted for 1h 30m (limit 1h): it waits for finalizer " +
        "kubernetes.io/pvc-protection (a pod that still uses the claim)"
    )
    assert.include(message("Pod", []), "kubelet")
    assert.include(message("Pod", ["example.com/x"]), "example.com/x")
  })
})

const HOLD = "kubeprober.test/hold"

/** One object of each kind that is looked at, held by a finalizer of nobody. */
const held = (finalizers: ReadonlyArray<string>) => [
  { apiVersion: "v1", kind: "Namespace", metadata: { name: "held", finalizers } },
  {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "held", namespace: "default", finalizers },
    spec: { containers: [{ name: "main", image: "none" }], nodeSelector: { "kubeprober.test/nowhere": "" } }
  },
  {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name: "held", namespace: "default", finalizers },
    spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Mi" } }, storageClassName: "none" }
  },
  {
    apiVersion: "v1",
    kind: "PersistentVolume",
    metadata: { name: "held", finalizers },
    spec: { accessModes: ["ReadWriteOnce"], capacity: { storage: "1Mi" }, hostPath: { path: "/nowhere" } }
  },
  {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: "things.kubeprober.test", finalizers },
    spec: {
      group: "kubeprober.test",
      names: { kind: "Thing", plural: "things" },
      scope: "Cluster",
      versions: [{ name: "v1", served: true, storage: true, schema: { openAPIV3Schema: { type: "object" } } }]
    }
  }
]

describe("k8s.finalizers.stuck", () => {
  layer(TestCluster.layer({ name: "finalizers" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect(
        healthy(finalizersStuck, "passes with no rights but to read, so it creates nothing"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            assert.isTrue(
              finalizersStuck.needs.every((need) =>
                need._tag === "ResourceNeed" && ["list", "watch"].includes(need.verb)
              )
            )
            const report = yield* run(finalizersStuck, { as: yield* userWith(finalizersStuck.needs) })
            assert.strictEqual(report.status, "PASS", report.message)
          })
      )

      it.effect(
        blind(finalizersStuck, "ACCESS_MISSING", "is UNKNOWN without one of its rights, and names it"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            for (const lacking of finalizersStuck.needs.filter((need) => !need.optional)) {
              const as = yield* userWith(finalizersStuck.needs.filter((need) => need !== lacking))
              const report = yield* run(finalizersStuck, { as })
              assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN ACCESS_MISSING")
              assert.include(report.message, Needs.describe(lacking))
            }
          })
      )

      blindToAll(it, finalizersStuck)

      it.effect(
        fault(
          finalizersStuck,
          "DELETION_STUCK",
          "sees each kind held by a finalizer, names it, and passes when it is let go"
        ),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl, run } = yield* TestCluster
            yield* apply(...held([HOLD]))
            assert.strictEqual((yield* run(finalizersStuck)).status, "PASS")
            yield* kubectl("delete", "--wait=false", "namespace/held", "pv/held", "crd/things.kubeprober.test")
            yield* kubectl("delete", "--wait=false", "--namespace=default", "pod/held", "pvc/held", "--grace-period=1")

            const strict = Probe.configure(finalizersStuck, { infoAfter: "1ms", warnAfter: "1ms", errorAfter: "1s" })
            const report = yield* eventually(
              run(strict),
              ({ findings }) =>
                findings.filter(({ code, message }) => code === "DELETION_STUCK" && message.includes(HOLD)).length === 5
            )
            assert.strictEqual(report.status, "ERROR")
            assert.deepStrictEqual(
              report.findings.filter(({ code }) => code === "DELETION_STUCK").map(({ subject }) =>
                `${subject?.kind} ${subject?.namespace ?? ""}/${subject?.name}`
              )
                .sort(),
              [
                "CustomResourceDefinition /things.kubeprober.test",
                "Namespace /held",
                "PersistentVolume /held",
                "PersistentVolumeClaim default/held",
                "Pod default/held"
              ]
            )
            const mention = yield* run(Probe.configure(finalizersStuck, { infoAfter: "1ms" }))
            assert.strictEqual(`${mention.status} ${mention.code}`, "INFO DELETION_SLOW")

            const release = ["--type=merge", "--patch={\"metadata\":{\"finalizers\":null}}"]
            yield* Effect.forEach(
              ["namespace/held", "pv/held", "crd/things.kubeprober.test", "pod/held", "pvc/held"],
              (object) => kubectl("patch", "--namespace=default", object, ...release)
            )
            yield* eventually(run(strict), ({ status }) => status === "PASS")
          })
      )

      it.effect(
        fault(finalizersStuck, "DELETION_LATE", "warns of one that a finalizer holds for a while"),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl, run } = yield* TestCluster
            const [namespace = {}] = held([HOLD])
            yield* apply(namespace)
            yield* kubectl("delete", "--wait=false", "namespace/held")
            const check = Probe.configure(finalizersStuck, { infoAfter: "1ms", warnAfter: "1ms" })
            const late = yield* eventually(run(check), ({ code }) => code === "DELETION_LATE")
            assert.strictEqual(late.status, "WARN")
            assert.deepStrictEqual(late.findings[0]?.subject, { kind: "Namespace", name: "held" })
            assert.include(late.message, HOLD)
            yield* kubectl("patch", "namespace/held", "--type=merge", "--patch={\"metadata\":{\"finalizers\":null}}")
            yield* eventually(run(check), ({ status }) => status === "PASS")
          })
      )
    }
  )
})
