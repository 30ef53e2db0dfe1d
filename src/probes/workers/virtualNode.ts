/** Nodes behind which there is no machine of the cluster's. */
import type { Node } from "../../infra/kube/resources/core.ts"

/** Of EKS Fargate, as label and as taint: such a node is made for one pod and goes with it. */
const FARGATE = "eks.amazonaws.com/compute-type"

/** The taint that Virtual Kubelet gives its node unless told otherwise (cmd/virtual-kubelet), and with it AKS and others. */
const PROVIDER_TAINT = "virtual-kubelet.io/provider"

/**
 * Whether pods of this node run on machines of its provider's, one by one, and not on a machine that is this node: EKS
 * Fargate, virtual nodes of AKS, and others of Virtual Kubelet (label `type=virtual-kubelet`). No DaemonSet runs there, the
 * node takes as many pods as its provider says, and a pod that is meant for it proves nothing of a machine.
 */
export const isVirtual = ({ metadata: { labels = {} }, spec: { taints } }: Pick<Node, "metadata" | "spec">): boolean =>
  labels[FARGATE] === "fargate" || labels["type"] === "virtual-kubelet" ||
  taints.some(({ key, value }) => key === PROVIDER_TAINT || (key === FARGATE && value === "fargate"))
