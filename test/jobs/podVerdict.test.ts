import { assert, describe, it } from "@effect/vitest"
import { DateTime, Schema } from "effect"
import { judge } from "../../src/agent/jobs/podVerdict.ts"
import { Pod } from "../../src/infra/kube/resources/core.ts"

const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")

const pod = (status: object, metadata: object = {}) =>
  Schema.decodeUnknownSync(Pod.object)({
    metadata: { name: "p-1", namespace: "kubeprober", ...metadata },
    spec: {},
    status
  })

const code = (status: object, metadata?: object): string => {
  const ended = judge(pod(status, metadata), NOW)
  return ended === undefined ? "goes on" : ended._tag === "Well" ? "ended well" : ended.finding.code
}

const container = (state: object) => ({ containerStatuses: [{ name: "main", restartCount: 0, state, lastState: {} }] })
const waiting = (reason: string) => ({ phase: "Pending", ...container({ waiting: { reason, message: "why" } }) })
const unscheduled = (since: string, reason = "Unschedulable") => ({
  phase: "Pending",
  conditions: [{ type: "PodScheduled", status: "False", reason, message: "0/3 nodes", lastTransitionTime: since }]
})

describe("a prober's pod", () => {
  it("goes on while it may still end well", () => {
    assert.strictEqual(code({ phase: "Pending" }), "goes on")
    assert.strictEqual(code({ phase: "Running", ...container({ running: {} }) }), "goes on")
    assert.strictEqual(code(waiting("ContainerCreating")), "goes on")
    // The kubelet tries again; when it stays, ImagePullBackOff follows.
    assert.strictEqual(code(waiting("ErrImagePull")), "goes on")
    assert.strictEqual(code(unscheduled("2026-01-01T11:59:50Z")), "goes on")
    assert.strictEqual(code(unscheduled("2026-01-01T11:00:00Z", "SchedulingGated")), "goes on")
  })

  it("has ended well or badly, each cause with its own code", () => {
    assert.strictEqual(code({ phase: "Succeeded" }), "ended well")
    assert.strictEqual(code({ phase: "Failed", ...container({ terminated: { exitCode: 3 } }) }), "PROBER_CRASHED")
    assert.strictEqual(code({ phase: "Failed", reason: "Evicted", message: "disk pressure" }), "PROBER_EVICTED")
    assert.strictEqual(
      code({
        phase: "Failed",
        conditions: [{ type: "DisruptionTarget", status: "True", reason: "PreemptionByScheduler" }]
      }),
      "PROBER_EVICTED"
    )
    assert.strictEqual(code({ phase: "Running" }, { deletionTimestamp: "2026-01-01T12:00:00Z" }), "PROBER_EVICTED")
    for (const reason of ["ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"]) {
      assert.strictEqual(code(waiting(reason)), "PROBER_NOT_STARTED", reason)
    }
    assert.strictEqual(code(unscheduled("2026-01-01T11:59:30Z")), "PROBER_UNSCHEDULABLE")
  })

  it("names the container, the exit code and the reason of a crash", () => {
    const oom = { terminated: { exitCode: 137, reason: "OOMKilled" } }
    const ended = judge(pod({ phase: "Failed", ...container(oom) }), NOW)
    assert.strictEqual(ended?._tag, "Badly")
    if (ended?._tag === "Badly") {
      assert.include(ended.finding.message, "container main ended with exit code 137 (OOMKilled)")
      assert.deepStrictEqual([ended.finding.status, ended.finding.blame], ["UNKNOWN", "checker"])
    }
  })

  it("quotes its last words without a secret that their cut would hide", () => {
    const message = `${"x".repeat(270)} postgres://shop_rw:S3cr3t-Pa55@db:5432/shop`
    const ended = judge(pod({ phase: "Failed", ...container({ terminated: { exitCode: 1, message } }) }), NOW)
    assert.strictEqual(ended?._tag, "Badly")
    if (ended?._tag === "Badly") {
      assert.include(ended.finding.message, "xxx")
      assert.notInclude(ended.finding.message, "S3cr3t")
    }
  })
})
