/**
 * The permissions of the operators, as data: `scripts/deploy.ts` writes their manifests, tests hold them against what the
 * operators do on a real API server.
 *
 * What probes need comes from the catalogue. The operators' own needs are stated here, each with its user.
 */
import { NODE_KEY_SECRET } from "../src/agent/nodes/nodeAgents.ts"
import { resourcesFor } from "../src/agent/Sweeper.ts"
import { kinds } from "../src/domain/kinds/Kinds.ts"
import { permits } from "../src/domain/Profile.ts"
import { catalogue } from "../src/probes/Catalogue.ts"
import * as Needs from "../src/probes/Needs.ts"
import * as Roles from "../src/probes/Roles.ts"
import { NODE_AGENT_NAMESPACE, needs as NodeNeeds } from "../src/probes/workers/Nodes.ts"

/** Where both operators live; the agent's is the probe namespace too. */
export const NAMESPACE = "kubeprober"

/** Where Clusters and Probes of the fleet are, as for the original. */
export const RESOURCE_NAMESPACE = "default"

const OURS = "kubeprober.erda.cloud"
const here: Needs.NeedOptions = { namespace: Needs.probeNamespace }
const READ = ["get", "list", "watch"]
/** Server-side apply of an object that may not be there yet asks for `create` besides `patch`. */
const WRITE = ["create", "delete", "patch"]

/** For a Lease: RBAC cannot limit `create` by name. */
const lease = (name: string) => [
  ...Needs.create("leases", { ...here, group: "coordination.k8s.io" }),
  ...Needs.verbs(["get", "patch"], "leases", { ...here, group: "coordination.k8s.io", names: [name] })
]

/** For a Secret whose name is known. Nobody can list Secrets with this, or read another. */
const secret = (name: string) => [
  ...Needs.create("secrets", here),
  ...Needs.verbs(["get", "patch"], "secrets", { ...here, names: [name] })
]

const events = (namespace: Needs.NeedNamespace) =>
  Needs.verbs(["create", "patch"], "events", { group: "events.k8s.io", namespace })

/** What the agent runs as it is installed. */
const standard = catalogue.filter(({ writes }) => permits("standard", writes))

/** What these do. */
const prober = standard.flatMap(({ needs }) => needs)

/** What the profile `full` adds: probes that make namespaces, and the sweeper of those. */
const full = [
  ...catalogue.filter(({ writes }) => writes === "cluster").flatMap(({ needs }) => needs),
  ...Needs.verbs(["list", "delete"], "namespaces")
]

/** What the sweeper does with what they may leave behind. */
const sweeper = resourcesFor(standard).flatMap(({ group, plural }) =>
  Needs.verbs(["list", "delete"], plural, { ...here, group })
)

/** Whether a need is in the namespace of node agents, which is installed apart. */
const isAtNodes = (need: Needs.Need): boolean => need._tag === "ResourceNeed" && need.namespace === NODE_AGENT_NAMESPACE

/** The key of node agents, written where they find it, and read by nobody. */
const nodeKey = (namespace: Needs.NeedNamespace) => [
  ...Needs.create("secrets", { namespace }),
  ...Needs.patch("secrets", { namespace, names: [NODE_KEY_SECRET] })
]

/** Who answers, and the key. */
const atNodes = [...NodeNeeds.filter(isAtNodes), ...prober.filter(isAtNodes), ...nodeKey(NODE_AGENT_NAMESPACE)]

const agent = [
  // Desired Probes come in from the master, or from people; their results go out.
  ...Needs.verbs([...READ, ...WRITE], "probes", { ...here, group: OURS }),
  ...Needs.verbs(["get", "patch"], "probes/status", { ...here, group: OURS }),
  ...Needs.verbs([...READ, ...WRITE], "probestatuses", { ...here, group: OURS }),
  ...Needs.verbs(["get", "patch"], "probestatuses/status", { ...here, group: OURS }),
  // A container probe is a Job, whose pod is watched and whose last lines say why it died.
  // It is made suspended and resumed by a patch; its events say why it has no pod.
  ...Needs.verbs([...READ, ...WRITE], "jobs", { ...here, group: "batch" }),
  ...Needs.verbs(["list"], "events", { ...here, group: "events.k8s.io" }),
  ...Needs.verbs([...READ, "delete"], "pods", here),
  ...Needs.get("pods/log", here),
  // The token with which a Job reports, in a Secret that goes with the Job.
  ...Needs.create("secrets", here),
  // The original's `extra-config`, and what the sweeper looks for.
  ...Needs.verbs([...READ, ...WRITE], "configmaps", here),
  ...sweeper,
  ...lease("kubeprober-agent"),
  ...nodeKey(Needs.probeNamespace),
  ...events(Needs.probeNamespace)
]

/** Of an agent with a master: its identity outlives the pod. */
const linkedAgent = secret("kubeprober-agent")

/** The caller's own rights in the managed cluster decide; these let the agent speak in the caller's name. */
const kubeAccess = [...Needs.verbs(["impersonate"], "users"), ...Needs.verbs(["impersonate"], "groups")]

const fleet: Needs.NeedOptions = { group: OURS, namespace: RESOURCE_NAMESPACE }

const master = [
  ...["clusters", "probes", "proberuns"].flatMap((plural) => [
    ...Needs.verbs([...READ, ...WRITE], plural, fleet),
    ...Needs.verbs(["get", "patch"], `${plural}/status`, fleet)
  ]),
  // Who is a member, revoked or not, and the number of its link: one Lease a Cluster, beside it.
  ...Needs.verbs([...READ, ...WRITE], "leases", { group: "coordination.k8s.io", namespace: RESOURCE_NAMESPACE }),
  ...events(RESOURCE_NAMESPACE),
  // The authority that signs agents, and the hashes of join tokens.
  ...Needs.verbs(["get", "list", ...WRITE], "secrets", here),
  ...lease("kubeprober-master"),
  // Who is calling, and may they?
  ...Needs.create("tokenreviews", { group: "authentication.k8s.io" }),
  ...Needs.create("subjectaccessreviews", { group: "authorization.k8s.io" })
]

type Manifest =
  | Roles.BindingManifest
  | (Roles.RoleManifest & { readonly metadata: { readonly labels?: Readonly<Record<string, string>> } })

const granted = (
  name: string,
  needs: ReadonlyArray<Needs.Need>,
  serviceAccount: string
): ReadonlyArray<Manifest> => {
  const roles = Roles.forNeeds(needs, { name, probeNamespace: NAMESPACE })
  return [...roles, ...Roles.bindings(roles, [{ kind: "ServiceAccount", name: serviceAccount, namespace: NAMESPACE }])]
}

/** A role for people, bound to nobody here. */
const forPeople = (
  name: string,
  plurals: ReadonlyArray<string>,
  verbs: ReadonlyArray<string>,
  labels?: Readonly<Record<string, string>>
) =>
  Roles.forNeeds(plurals.flatMap((plural) => Needs.verbs(verbs, plural, { group: OURS })), {
    name,
    probeNamespace: NAMESPACE
  }).map((role): Manifest => ({ ...role, metadata: { ...role.metadata, ...(labels === undefined ? {} : { labels }) } }))

/**
 * Who may see workloads may see what probes say of them. Clusters and Alerts of the original hold credentials, so seeing
 * these is granted by name; and so is writing, because whoever writes Probes decides what runs in every cluster.
 */
const people = [
  ...forPeople("kubeprober-results", ["probes", "probestatuses", "proberuns"], READ, {
    "rbac.authorization.k8s.io/aggregate-to-view": "true"
  }),
  ...forPeople("kubeprober-view", ["clusters", "probes", "proberuns", "probestatuses"], READ),
  ...forPeople("kubeprober-edit", kinds.map(({ plural }) => plural), [...READ, ...WRITE, "update"]),
  // To reach the API servers of clusters through the master, as whom their own roles then decide.
  ...forPeople("kubeprober-proxy", ["clusters/proxy"], READ)
]

/** Manifests by their file below `deploy`. */
export const roleFiles: Readonly<Record<string, ReadonlyArray<Manifest>>> = {
  "crds/people.yaml": people,
  "base/agent/roles.yaml": [
    ...granted("kubeprober-prober", prober.filter((need) => !isAtNodes(need)), "kubeprober-agent"),
    ...granted("kubeprober-agent", agent, "kubeprober-agent")
  ],
  "nodes/roles.yaml": granted("kubeprober-nodes", atNodes, "kubeprober-agent"),
  "agent/components/profile-full/roles.yaml": granted("kubeprober-prober-full", full, "kubeprober-agent"),
  "agent/roles.yaml": granted("kubeprober-agent-identity", linkedAgent, "kubeprober-agent"),
  "agent/components/kube-access/roles.yaml": granted("kubeprober-kube-access", kubeAccess, "kubeprober-agent"),
  "master/roles.yaml": granted("kubeprober-master", master, "kubeprober-master")
}
