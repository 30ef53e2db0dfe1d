/**
 * Cluster: a managed cluster, in the managing one. Labels decide which Probes it runs; its status says what its agent
 * tells.
 */
import { Schema } from "effect"
import * as Rule from "../crd/Rule.ts"
import { Timestamp } from "../Timestamp.ts"
import { Conditions } from "./Condition.ts"
import * as Kind from "./Kind.ts"

const Ignored = "Accepted as in the original and never used: the agent dials out and no credential is kept."

/** Read as a secret, so that what old manifests carry is never printed. */
const Credential = Schema.RedactedFromValue(Schema.String)

/** The original's way into a cluster. Of all this only the namespace still matters. */
export const ClusterConfig = Schema.Struct({
  address: Schema.optionalKey(Schema.String.pipe(Rule.described("The API server's URL.", Ignored))),
  token: Schema.optionalKey(Credential.pipe(Rule.described("A bearer token.", Ignored))),
  caCert: Schema.optionalKey(Schema.String.pipe(Rule.described("The API server's CA certificate.", Ignored))),
  certData: Schema.optionalKey(Credential.pipe(Rule.described("A client certificate.", Ignored))),
  keyData: Schema.optionalKey(Credential.pipe(Rule.described("A client key.", Ignored))),
  probeNamespaces: Schema.optionalKey(Schema.String.pipe(Rule.described(
    "The namespace in the managed cluster where probes run; kubeprober when absent."
  )))
})
export type ClusterConfig = typeof ClusterConfig.Type

/** A name and its value for probers. */
const ExtraInfo = Schema.Struct({
  name: Schema.String.pipe(Rule.described("The key in the ConfigMap and the variable in probers.")),
  value: Schema.optionalKey(Schema.String.pipe(Rule.described("Its value; empty when absent.")))
})

/** What is wanted of a cluster. */
export const ClusterSpec = Schema.Struct({
  k8sVersion: Schema.optionalKey(Schema.String.pipe(Rule.described(
    "The Kubernetes version, as in the original. What the cluster runs is in status.versions."
  ))),
  clusterConfig: Schema.optionalKey(ClusterConfig.pipe(Rule.described(
    "The original's connection settings; only probeNamespaces still has an effect."
  ))),
  extraInfo: Schema.optionalKey(
    Schema.Array(ExtraInfo).pipe(Rule.described(
      "Becomes ConfigMap extra-config in the managed cluster's probe namespace, and the environment of its probers."
    ))
  )
})
export type ClusterSpec = typeof ClusterSpec.Type

/** The spec as it may be stored by us: without the credentials old manifests carry. */
export const withoutCredentials = (spec: ClusterSpec): ClusterSpec => {
  if (spec.clusterConfig === undefined) return spec
  const { certData: _cert, keyData: _key, token: _token, ...clusterConfig } = spec.clusterConfig
  return { ...spec, clusterConfig }
}

/** Whether an old manifest's credentials are present, which a condition then says are ignored. */
export const carriesCredentials = ({ clusterConfig }: ClusterSpec): boolean =>
  clusterConfig !== undefined &&
  [clusterConfig.token, clusterConfig.certData, clusterConfig.keyData].some((credential) => credential !== undefined)

/** A one-shot run of the original's plugin. */
const OnceProbe = Schema.Struct({
  id: Schema.optionalKey(Schema.String.pipe(Rule.described("The run's id."))),
  createTime: Schema.optionalKey(Schema.String.pipe(Rule.described("When it was asked for."))),
  finishTime: Schema.optionalKey(Schema.String.pipe(Rule.described("When it was over."))),
  probes: Schema.optionalKey(Schema.Array(Schema.String).pipe(Rule.described("The Probes that ran.")))
})

/** The one outbound connection from the cluster's agent. */
const Link = Schema.Struct({
  state: Schema.Literals(["Connected", "Disconnected"]).pipe(Rule.described("Whether the agent is linked now.")),
  since: Timestamp.pipe(Rule.described("Since when.")),
  master: Schema.optionalKey(Schema.String.pipe(Rule.described("The master that holds the link.")))
})

/** What runs in the cluster. */
export const Versions = Schema.Struct({
  kubernetes: Schema.optionalKey(Schema.String.pipe(Rule.described("The API server's version."))),
  agent: Schema.optionalKey(Schema.String.pipe(Rule.described("The agent's version.")))
})
export type Versions = typeof Versions.Type

/** The most facts kept of a cluster. */
export const MAX_FACTS = 256

/** Small things known of a cluster, for comparing clusters. */
export const Facts = Schema.Record(Schema.String, Schema.String).check(Schema.isMaxProperties(MAX_FACTS))

/** What the cluster's agent tells. */
export const ClusterState = Schema.Struct({
  heartBeatTimeStamp: Schema.optionalKey(Schema.String.pipe(Rule.described(
    "When the agent was last heard, as the original writes it; heartbeat is the same time for machines."
  ))),
  nodeCount: Schema.optionalKey(Schema.Natural.pipe(Rule.described("How many nodes the cluster has."))),
  attachedProbes: Schema.optionalKey(
    Schema.Array(Schema.String).pipe(Rule.described("The Probes that run on the cluster."))
  ),
  checkers: Schema.optionalKey(Schema.String.pipe(Rule.described(
    "How many checkers there are and how many show ERROR, as in 14/2."
  ))),
  onceProbeList: Schema.optionalKey(
    Schema.Array(OnceProbe).pipe(Rule.described("The latest one-shot runs, newest last."))
  ),
  extraStatus: Schema.optionalKey(
    Schema.Record(Schema.String, Schema.String).pipe(Rule.described("What the original's agent tells besides."))
  ),
  link: Schema.optionalKey(Link.pipe(Rule.described("The agent's connection."))),
  epoch: Schema.optionalKey(Schema.Natural.pipe(Rule.described(
    "Number of the agent's latest link; older links are no longer heard."
  ))),
  heartbeat: Schema.optionalKey(Timestamp.pipe(Rule.described("When the agent was last heard."))),
  clusterUid: Schema.optionalKey(Schema.String.pipe(Rule.described(
    "Uid of the kube-system namespace of the cluster that took this name when it first linked; another one is refused."
  ))),
  versions: Schema.optionalKey(Versions.pipe(Rule.described("What runs in the cluster."))),
  facts: Schema.optionalKey(Facts.pipe(Rule.described("Small things known of the cluster, for comparing clusters."))),
  conditions: Schema.optionalKey(Conditions)
})
export type ClusterState = typeof ClusterState.Type

export const Cluster = Kind.make({
  kind: "Cluster",
  plural: "clusters",
  shortNames: ["kpcl"],
  description: "A managed cluster. Its labels decide which Probes run on it.",
  columns: [
    { name: "Version", type: "string", jsonPath: ".spec.k8sVersion" },
    { name: "NodeCount", type: "string", jsonPath: ".status.nodeCount" },
    { name: "PROBENAMESPACE", type: "string", jsonPath: ".spec.clusterConfig.probeNamespaces" },
    { name: "PROBE", type: "string", jsonPath: ".status.attachedProbes" },
    { name: "TOTAL/ERROR", type: "string", jsonPath: ".status.checkers" },
    { name: "HEARTBEATTIME", type: "string", jsonPath: ".status.heartBeatTimeStamp" },
    { name: "LINK", type: "string", jsonPath: ".status.link.state" },
    { name: "AGENT", type: "string", jsonPath: ".status.versions.agent", wide: true },
    { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" }
  ],
  fields: {
    spec: Schema.optionalKey(ClusterSpec.pipe(Rule.described("What is wanted of the cluster."))),
    status: Schema.optionalKey(ClusterState.pipe(Rule.described("What the cluster's agent tells.")))
  }
})
