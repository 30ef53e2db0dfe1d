/**
 * k8s.config.drift: clusters that are meant to be alike are alike.
 *
 * The probe collects facts of its cluster. With a pinned baseline it judges them itself. Without one they travel in its
 * report, and a master holds each cluster against the majority of its group (`src/master/Drift.ts`); its verdict has the
 * name of the check with `/fleet` behind it.
 */
import { Effect, Option, Schema } from "effect"
import { Yaml } from "effect/encoding"
import { createHash } from "node:crypto"
import { counted } from "../../domain/counted.ts"
import * as Facts from "../../domain/Facts.ts"
import { matches } from "../../domain/NamePattern.ts"
import { type Finding, MAX_EVIDENCE_TEXT } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import type { KubeError } from "../../infra/kube/KubeError.ts"
import { type KubeObject, type KubeResource, listOf, make, maybe, part } from "../../infra/kube/KubeResource.ts"
import {
  MutatingWebhookConfiguration,
  ValidatingWebhookConfiguration,
  type Webhook
} from "../../infra/kube/resources/admission.ts"
import { ConfigMap, Node } from "../../infra/kube/resources/core.ts"
import { CustomResourceDefinition } from "../../infra/kube/resources/extensions.ts"
import { ClusterRoleBinding } from "../../infra/kube/resources/rbac.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { Names, setting } from "../Setting.ts"
import * as Watch from "../Watch.ts"

const SYSTEM = "kube-system"

/** A family with more facts than this is told as one: how many there are, and a hash of all. */
const MAX_FAMILY = 200

const StorageClass = make({
  group: "storage.k8s.io",
  kind: "StorageClass",
  plural: "storageclasses",
  scope: "Cluster",
  fields: { provisioner: Schema.String }
})

const PriorityClass = make({
  group: "scheduling.k8s.io",
  kind: "PriorityClass",
  plural: "priorityclasses",
  scope: "Cluster",
  fields: { value: maybe(Schema.Int), globalDefault: maybe(Schema.Boolean), preemptionPolicy: maybe(Schema.String) }
})

/** Stable since Kubernetes 1.33 (KEP-1880). */
const ServiceCIDR = make({
  group: "networking.k8s.io",
  kind: "ServiceCIDR",
  plural: "servicecidrs",
  scope: "Cluster",
  fields: { spec: part({ cidrs: listOf(Schema.String) }) }
})

/** A pod as far as its command lines go. */
const StaticPod = make({
  kind: "Pod",
  plural: "pods",
  scope: "Namespaced",
  fields: {
    spec: part({
      containers: listOf(Schema.Struct({ command: listOf(Schema.String), args: listOf(Schema.String) }))
    })
  }
})

/**
 * Flags of kube-apiserver that clusters are meant to share. Others name hosts, files and keys, which differ for good reason
 * or are nobody's business.
 */
const FLAGS: ReadonlySet<string> = new Set([
  "admission-control-config-file",
  "allow-privileged",
  "anonymous-auth",
  "audit-log-maxage",
  "audit-policy-file",
  "authentication-config",
  "authorization-config",
  "authorization-mode",
  "default-not-ready-toleration-seconds",
  "default-unreachable-toleration-seconds",
  "disable-admission-plugins",
  "enable-admission-plugins",
  "enable-aggregator-routing",
  "enable-bootstrap-token-auth",
  "encryption-provider-config",
  "event-ttl",
  "feature-gates",
  "goaway-chance",
  "max-mutating-requests-inflight",
  "max-requests-inflight",
  "profiling",
  "request-timeout",
  "runtime-config",
  "service-cluster-ip-range",
  "service-node-port-range",
  "tls-cipher-suites",
  "tls-min-version"
])

export const ConfigDriftConfig = Schema.Struct({
  baseline: setting(
    Schema.Record(Schema.String, Schema.String).check(Schema.isMaxProperties(1_000)),
    {
      default: {},
      description: "Pinned facts, by key. `absent` pins that there is no such fact; a key that ends with `*`, pinned " +
        "`absent`, that there is none but those pinned by name. `kubeprober check -o json` prints the facts of a cluster."
    }
  ),
  critical: setting(Names, {
    default: [],
    description: "Keys whose deviation is an ERROR; `*` at the end matches any rest."
  }),
  ignore: setting(Names, {
    default: [],
    description:
      "Keys that are not looked at; `*` at the end matches any rest. An object that comes with some clusters " +
      "only, such as a cloud's own webhook, belongs here."
  })
})
export type ConfigDriftConfig = typeof ConfigDriftConfig.Type

export const codes = Codes.make({
  DRIFTED: Codes.warn(
    "A fact of the cluster is not what the baseline says.",
    "Change the cluster back, or pin the new value in `baseline`."
  ),
  DRIFTED_CRITICAL: Codes.error(
    "A fact that `critical` names is not what the baseline says.",
    "Change the cluster back at once, or pin the new value in `baseline`."
  ),
  FACT_NEW: Codes.info(
    "The cluster has something of a kind that the baseline pins, which the baseline does not name.",
    "Pin it in `baseline`, or name it in `ignore`."
  ),
  FACT_UNSEEN: Codes.info(
    "A pinned fact cannot be seen in this cluster, because nothing there shows it.",
    "Take the key out of `baseline` if that is how this cluster is meant to be."
  ),
  FLEET_DRIFTED: Codes.warn(
    "A fact of the cluster is not what most clusters of its group have.",
    "Align the cluster with the others, or name the key in `ignore`."
  ),
  FLEET_DRIFTED_CRITICAL: Codes.error(
    "A fact that `critical` names is not what most clusters of its group have.",
    "Align the cluster with the others at once; look for who changed it."
  ),
  FLEET_FACT_NEW: Codes.info(
    "The cluster has something that most clusters of its group do not have.",
    "Remove it, roll it out to the others, or name the key in `ignore`."
  ),
  FLEET_TOO_SMALL: Codes.info(
    `Fewer than ${Facts.MIN_CLUSTERS} clusters of a group have told their facts, so there is no majority to compare with.`,
    `Nothing to do; pin a \`baseline\`, or give clusters a common label ${Facts.GROUP_LABEL}.`
  )
})

/** What was read of a cluster. Absent where the API has no such object. */
export interface Seen {
  readonly version: { readonly gitVersion: string; readonly platform: string }
  readonly corefile: string | undefined
  readonly kubeProxy: string | undefined
  readonly kubeadm: string | undefined
  readonly serviceCidrs: ReadonlyArray<typeof ServiceCIDR.object.Type>
  readonly storageClasses: ReadonlyArray<typeof StorageClass.object.Type>
  readonly priorityClasses: ReadonlyArray<typeof PriorityClass.object.Type>
  readonly validating: ReadonlyArray<ValidatingWebhookConfiguration>
  readonly mutating: ReadonlyArray<ValidatingWebhookConfiguration>
  readonly definitions: ReadonlyArray<CustomResourceDefinition>
  readonly bindings: ReadonlyArray<ClusterRoleBinding>
  readonly nodes: ReadonlyArray<Node>
  readonly apiServers: ReadonlyArray<typeof StaticPod.object.Type>
}

const hashOf = (text: string): string => `sha256:${createHash("sha256").update(text).digest("hex")}`

/** What is too long for a report is told by its hash. */
const short = (text: string): string => text.length <= MAX_EVIDENCE_TEXT ? text : hashOf(text)

const distinct = (values: Iterable<string | undefined>): string =>
  [...new Set(values)].filter((value) => value !== undefined && value !== "").toSorted().join(", ")

type Pair = readonly [key: string, value: string | undefined]

const KubeProxyConfig = Schema.Struct({
  mode: Schema.optionalKey(Schema.NullOr(Schema.String)),
  clusterCIDR: Schema.optionalKey(Schema.NullOr(Schema.String))
})

const KubeadmConfig = Schema.Struct({
  networking: Schema.optionalKey(Schema.Struct({
    podSubnet: Schema.optionalKey(Schema.NullOr(Schema.String)),
    serviceSubnet: Schema.optionalKey(Schema.NullOr(Schema.String)),
    dnsDomain: Schema.optionalKey(Schema.NullOr(Schema.String))
  }))
})

/** What people may have edited by hand need not be YAML, or not of this form: then it tells nothing. */
const parsed = <A>(schema: Schema.Codec<A, unknown>, text: string | undefined): A | undefined =>
  text === undefined
    ? undefined
    : Option.liftThrowable(Yaml.parse)(text).pipe(
      Option.flatMap(Schema.decodeUnknownOption(schema)),
      Option.getOrUndefined
    )

/** Without the end of lines and the empty ones: they change nothing, and editors do. */
const normal = (text: string): string =>
  text.split("\n").map((line) => line.trimEnd()).filter((line) => line !== "").join("\n")

const staying = <A extends KubeObject>(items: ReadonlyArray<A>): ReadonlyArray<A> =>
  items.filter(({ metadata }) => metadata.deletionTimestamp === undefined)

/** A webhook as far as it should be the same elsewhere: not its CA, which each cluster makes for itself, nor its URL. */
const webhookText = ({ clientConfig: { service }, ...webhook }: Webhook): string =>
  JSON.stringify({ ...webhook, service: service ?? null })

const webhookFacts = (kind: string, items: ReadonlyArray<ValidatingWebhookConfiguration>): ReadonlyArray<Pair> =>
  staying(items).map(({ metadata, webhooks }) => [
    `webhook/${kind}/${metadata.name ?? ""}`,
    `${counted(webhooks.length, "webhook")} ` +
    `(${distinct(webhooks.map(({ failurePolicy }) => failurePolicy ?? "Fail"))}), ` +
    hashOf(webhooks.map(webhookText).toSorted().join("\n"))
  ])

const definitionFacts = (items: ReadonlyArray<CustomResourceDefinition>): ReadonlyArray<Pair> =>
  staying(items).map(({ metadata, spec }) => [
    `crd/${metadata.name ?? ""}`,
    spec.versions.map(({ name, served, storage }) =>
      `${name}${storage ? " (stored)" : ""}${served ? "" : " (not served)"}`
    ).toSorted().join(", ")
  ])

const bindingFacts = (items: ReadonlyArray<ClusterRoleBinding>): ReadonlyArray<Pair> =>
  staying(items).filter(({ roleRef }) => roleRef.kind === "ClusterRole" && roleRef.name === "cluster-admin").map((
    { metadata, subjects }
  ) => [
    `cluster-admin/${metadata.name ?? ""}`,
    distinct(
      subjects.map(({ kind, name, namespace }) => `${kind} ${namespace === undefined ? "" : `${namespace}/`}${name}`)
    ) || "nobody"
  ])

const nodeFacts = (nodes: ReadonlyArray<Node>): ReadonlyArray<Pair> => {
  const infos = staying(nodes).map(({ status }) => status.nodeInfo)
  return [
    ["node/architecture", distinct(infos.map(({ architecture }) => architecture))],
    ["node/kernel", distinct(infos.map(({ kernelVersion }) => kernelVersion))],
    ["node/kubelet", distinct(infos.map(({ kubeletVersion }) => kubeletVersion))],
    ["node/os", distinct(infos.map(({ osImage }) => osImage))],
    ["node/runtime", distinct(infos.map(({ containerRuntimeVersion }) => containerRuntimeVersion))]
  ]
}

/** `--flag=value`, `--flag value` and `--flag`, of those that are meant to be shared. */
export const flagsOf = (words: ReadonlyArray<string>): ReadonlyMap<string, string> => {
  const flags = new Map<string, string>()
  for (const [index, word] of words.entries()) {
    const [, name, value] = /^--?([a-z0-9-]+)(?:=(.*))?$/s.exec(word) ?? []
    if (name === undefined || !FLAGS.has(name)) continue
    const next = words[index + 1]
    flags.set(name, value ?? (next === undefined || next.startsWith("-") ? "true" : next))
  }
  return flags
}

const apiServerFacts = (pods: ReadonlyArray<typeof StaticPod.object.Type>): ReadonlyArray<Pair> => {
  const replicas = staying(pods).map(({ spec: { containers } }) =>
    flagsOf(containers.flatMap(({ args, command }) => [...command, ...args]))
  )
  const names = new Set(replicas.flatMap((flags) => [...flags.keys()]))
  return [...names].map((name) => [`apiserver/${name}`, distinct(replicas.map((flags) => flags.get(name) ?? "unset"))])
}

const isDefault = ({ metadata: { annotations = {} } }: KubeObject): boolean =>
  annotations["storageclass.kubernetes.io/is-default-class"] === "true"

/** What is missing or was left out is no fact; a family of very many is told as one. */
const bounded = (pairs: ReadonlyArray<Pair>): ReadonlyMap<string, string> => {
  const known = pairs.flatMap(([key, value]): ReadonlyArray<readonly [string, string]> =>
    value === undefined || value === "" ? [] : [[key, short(value)]]
  )
  return new Map(
    [...Map.groupBy(known, ([key]) => Facts.familyOf(key))].flatMap(([family, facts]) =>
      facts.length <= MAX_FAMILY ? facts : [
        [
          `${family}/all`,
          `${facts.length}, ${hashOf(facts.map((fact) => fact.join("=")).toSorted().join("\n"))}`
        ] as const
      ]
    )
  )
}

/** What a cluster is made of, as facts; and the families it does not show, with the reason. */
export const factsOf = (seen: Seen, { critical, ignore }: Pick<ConfigDriftConfig, "critical" | "ignore">): {
  readonly facts: Facts.Facts
  readonly unseen: ReadonlyMap<string, string>
} => {
  const proxy = parsed(KubeProxyConfig, seen.kubeProxy)
  const network = parsed(KubeadmConfig, seen.kubeadm)?.networking
  const pairs: ReadonlyArray<Pair> = [
    ["kubernetes/version", seen.version.gitVersion],
    ["kubernetes/platform", seen.version.platform],
    ["coredns/corefile", seen.corefile === undefined ? undefined : hashOf(normal(seen.corefile))],
    // Kubernetes picks one itself when none is written.
    ["kube-proxy/mode", proxy === undefined ? undefined : proxy.mode || "default"],
    ["cidr/pods", network?.podSubnet || proxy?.clusterCIDR || undefined],
    [
      "cidr/services",
      distinct(staying(seen.serviceCidrs).flatMap(({ spec: { cidrs } }) => cidrs)) ||
      network?.serviceSubnet || undefined
    ],
    ["dns/domain", network?.dnsDomain || undefined],
    [
      "storageclass/default",
      distinct(
        staying(seen.storageClasses).filter(isDefault).map(({ metadata, provisioner }) =>
          `${metadata.name ?? ""} (${provisioner})`
        )
      )
    ],
    ...staying(seen.priorityClasses).map(({ globalDefault, metadata, preemptionPolicy, value }): Pair => [
      `priorityclass/${metadata.name ?? ""}`,
      `${value ?? 0}${globalDefault === true ? ", default" : ""}${
        preemptionPolicy === "Never" ? ", never preempts" : ""
      }`
    ]),
    ...webhookFacts("validating", seen.validating),
    ...webhookFacts("mutating", seen.mutating),
    ...definitionFacts(seen.definitions),
    ...bindingFacts(seen.bindings),
    ...nodeFacts(seen.nodes),
    ...apiServerFacts(seen.apiServers)
  ]
  const values = bounded(pairs.filter(([key]) => !ignore.some((pattern) => matches(pattern, key))))
  const families = new Set([...values.keys()].map(Facts.familyOf))
  const unseen = new Map(
    ([
      ["node", "no node has told what it is"],
      ["apiserver", `no pod in ${SYSTEM} is labelled component=kube-apiserver`]
    ] as const).filter(([family]) => !families.has(family))
  )
  return {
    facts: {
      values,
      critical: new Set([...values.keys()].filter((key) => critical.some((pattern) => matches(pattern, key)))),
      unseen: new Set(unseen.keys())
    },
    unseen
  }
}

const told = (value: string | undefined): string => value ?? Facts.ABSENT

const evidenceOf = ({ actual, expected, key }: Facts.Deviation) => ({
  key,
  expected: told(expected),
  actual: told(actual)
})

/** The verdict on facts by a baseline. */
export const judge = (
  { baseline, critical, ignore }: ConfigDriftConfig,
  facts: Pick<Facts.Facts, "values" | "unseen">
): ReadonlyArray<Finding> => {
  const pinned = Object.fromEntries(
    Object.entries(baseline).filter(([key]) => !ignore.some((pattern) => matches(pattern, key)))
  )
  const { deviations, unseen } = Facts.againstBaseline(
    facts,
    pinned,
    (key) => critical.some((pattern) => matches(pattern, key))
  )
  return [
    ...deviations.map((deviation) => {
      const { actual, critical, expected, key } = deviation
      const about = { subject: { kind: "Fact", name: key }, evidence: evidenceOf(deviation) }
      if (expected === undefined && actual !== undefined && pinned[key] === undefined && !critical) {
        return codes.FACT_NEW({ ...about, message: `${key} is ${actual}, and the baseline does not name it` })
      }
      return (critical ? codes.DRIFTED_CRITICAL : codes.DRIFTED)({
        ...about,
        message: `${key} is ${told(actual)}, where the baseline says ${told(expected)}`
      })
    }),
    ...unseen.map((key) =>
      codes.FACT_UNSEEN({
        message: `${key} cannot be seen in this cluster, so the baseline's ${pinned[key] ?? ""} is not checked`,
        subject: { kind: "Fact", name: key }
      })
    )
  ]
}

const Version = Schema.fromJsonString(Schema.Struct({ gitVersion: Schema.String, platform: Schema.String }))

const serverVersion = Effect.gen(function*() {
  const kube = yield* Kube
  const { body, status } = yield* kube.raw("/version")
  if (status === 403) {
    return yield* checkerCodes.ACCESS_MISSING.fail({ message: "not allowed to get /version; grant this rule" })
  }
  const version = Schema.decodeOption(Version)(body)
  if (status === 200 && Option.isSome(version)) return version.value
  return yield* checkerCodes.UNEXPECTED_ANSWER.fail({
    message: `/version answered ${status} without a version that can be read`,
    evidence: { status }
  })
})

/** The text under a key of a ConfigMap in kube-system; nothing where a distribution has none of the name. */
const textOf = (name: string, key: string) =>
  Effect.flatMap(Kube, (kube) => kube.get(ConfigMap, { name, namespace: SYSTEM })).pipe(
    Effect.map(({ data }) => data[key]),
    Effect.catchIf((error) => error.reason._tag === "NotFound", () => Effect.undefined)
  )

const all = <A extends KubeObject>(resource: KubeResource<A>) =>
  Effect.flatMap(Kube, (kube) => Effect.map(kube.list(resource), ({ items }) => items))

const isNotServed = (error: KubeError): boolean => error.reason._tag === "NotFound" && error.reason.what === "resource"

const see = Effect.gen(function*() {
  const kube = yield* Kube
  return yield* Effect.all({
    version: serverVersion,
    corefile: textOf("coredns", "Corefile"),
    kubeProxy: textOf("kube-proxy", "config.conf"),
    kubeadm: textOf("kubeadm-config", "ClusterConfiguration"),
    serviceCidrs: Effect.catchIf(all(ServiceCIDR), isNotServed, () => Effect.succeed([])),
    storageClasses: all(StorageClass),
    priorityClasses: all(PriorityClass),
    validating: all(ValidatingWebhookConfiguration),
    mutating: all(MutatingWebhookConfiguration),
    definitions: all(CustomResourceDefinition),
    bindings: all(ClusterRoleBinding),
    nodes: all(Node),
    apiServers: Effect.map(
      kube.list(StaticPod, { namespace: SYSTEM, labelSelector: "component=kube-apiserver" }),
      ({ items }) => items
    )
  }, { concurrency: 4 })
})

export const configDrift = Probe.make("k8s.config.drift", {
  layer: "kubernetes",
  proves: "The cluster is made as its baseline says; without one, its facts are known and a master compares them.",
  writes: "nothing",
  costs: "13 API requests, and one more for every further 500 nodes, CustomResourceDefinitions or ClusterRoleBindings.",
  needs: [
    Needs.path("/version"),
    Needs.get("configmaps", { namespace: SYSTEM, names: ["coredns", "kube-proxy", "kubeadm-config"] }),
    Needs.list("servicecidrs", { group: "networking.k8s.io" }),
    Needs.list("storageclasses", { group: "storage.k8s.io" }),
    Needs.list("priorityclasses", { group: "scheduling.k8s.io" }),
    Needs.list("validatingwebhookconfigurations", { group: "admissionregistration.k8s.io" }),
    Needs.list("mutatingwebhookconfigurations", { group: "admissionregistration.k8s.io" }),
    Needs.list("customresourcedefinitions", { group: "apiextensions.k8s.io" }),
    Needs.list("clusterrolebindings", { group: "rbac.authorization.k8s.io" }),
    Needs.list("nodes"),
    Needs.list("pods", { namespace: SYSTEM })
  ],
  codes,
  config: ConfigDriftConfig,
  interval: "10 minutes",
  timeout: "30 seconds",
  timed: [],
  onChange: [
    Watch.of(ValidatingWebhookConfiguration),
    Watch.of(MutatingWebhookConfiguration),
    Watch.of(ClusterRoleBinding)
  ],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: ConfigDriftConfig) {
    const { facts, unseen } = factsOf(yield* see, config)
    const pinned = Object.keys(config.baseline).length
    return pinned > 0
      ? Outcome.make(
        `${facts.values.size} facts, and those ${pinned} that are pinned are as they should be`,
        judge(config, facts)
      )
      : Outcome.make(
        `${facts.values.size} facts collected; no baseline is pinned, so a master compares them with other clusters`,
        Facts.toFindings(facts, unseen)
      )
  })
})
