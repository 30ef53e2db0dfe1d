/** Nodes without a machine, and cordoned ones: who looks at them and who does not. */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { readFileSync } from "node:fs"
import { resolve } from "node:path"
import { parse } from "yaml"
import { root } from "../../scripts/bundle.ts"
import { agentNodes } from "../../src/agent/nodes/KubernetesNodes.ts"
import { Node } from "../../src/infra/kube/resources/core.ts"
import { usable } from "../../src/probes/workers/SampleNodes.ts"
import { isVirtual } from "../../src/probes/workers/virtualNode.ts"

const node = (
  name: string,
  labels: Readonly<Record<string, string>> = {},
  spec: Readonly<Record<string, unknown>> = {}
) =>
  Schema.decodeUnknownSync(Node.object)({
    metadata: { name, labels: { "kubernetes.io/os": "linux", ...labels } },
    spec,
    status: { conditions: [{ type: "Ready", status: "True" }] }
  })

const taint = (key: string, value?: string) => ({ taints: [{ key, value, effect: "NoSchedule" }] })

const machines = [
  node("plain"),
  node("managed", { "eks.amazonaws.com/compute-type": "auto", type: "fast" }),
  node("kept", {}, taint("team", "a"))
]
const virtual = [
  node("fargate-ip-10-0-0-1", { "eks.amazonaws.com/compute-type": "fargate" }),
  node("fargate-ip-10-0-0-2", {}, taint("eks.amazonaws.com/compute-type", "fargate")),
  node("virtual-node-aci-linux", { type: "virtual-kubelet" }),
  node("other", {}, taint("virtual-kubelet.io/provider", "azure"))
]

describe("nodes without a machine", () => {
  it("are told by their labels and taints", () => {
    assert.deepStrictEqual(machines.filter(isVirtual), [])
    assert.lengthOf(virtual.filter(isVirtual), virtual.length)
  })

  it("get no pods of probes, and are not missed by those who ask node agents", () => {
    assert.deepStrictEqual(usable([...machines, ...virtual], { cordoned: true }), ["plain", "managed", "kept"])
    assert.deepStrictEqual(agentNodes([...machines, ...virtual]), machines)
  })

  it("get no node agent either", () => {
    const { spec } = parse(readFileSync(resolve(root, "deploy/nodes/daemonset.yaml"), "utf8"))
    const [term] =
      spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms
    const takes = ({ metadata: { labels = {} } }: Node) =>
      term.matchExpressions.every((one: { key: string; operator: string; values: ReadonlyArray<string> }) =>
        one.operator === "NotIn" && !one.values.includes(labels[one.key] ?? "")
      )
    assert.lengthOf(machines.filter(takes), machines.length)
    // What is told by its taint alone has no such label; kubelets of providers have.
    assert.deepStrictEqual(virtual.filter(takes).map(({ metadata }) => metadata.name), ["fargate-ip-10-0-0-2", "other"])
  })
})

it("a cordoned node is left alone, unless every node is looked at", () => {
  const nodes = [node("a"), node("b", {}, { unschedulable: true })]
  assert.deepStrictEqual(usable(nodes), ["a"])
  assert.deepStrictEqual(usable(nodes, { cordoned: true }), ["a", "b"])
})
