/**
 * k8s.dns.cluster: names resolve in pods, by every way and by every server.
 *
 * Pods on different nodes ask as programs ask (resolv.conf), the DNS Service over UDP and TCP, and each of its pods by
 * itself: an API name, a name that was made a moment ago, and one that does not exist.
 */
import { Duration, Effect, Random, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Node, Service } from "../../infra/kube/resources/core.ts"
import { EndpointSlice } from "../../infra/kube/resources/discovery.ts"
import * as Codes from "../Codes.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { RunContext } from "../RunContext.ts"
import { Scratch } from "../Scratch.ts"
import { Count, Names, setting } from "../Setting.ts"
import * as Watch from "../Watch.ts"
import { gather } from "../workers/Gather.ts"
import { sample, usable } from "../workers/SampleNodes.ts"
import { CLUSTER_DOMAIN, type Looked, type Lookup, dnsLookups } from "../workers/tasks/dnsLookups.ts"
import { Workers, needs as workerNeeds } from "../workers/Workers.ts"

const NAMESPACE = "kube-system"

/** Answers timed from each node: of so many, the slowest one is beyond the 95th percentile, and so is a moment's business. */
const TIMED = 20

/** CoreDNS' Service keeps the name of what it replaced, so that every installer calls it so. */
const SERVICE = "kube-dns"

/** Pods of the DNS Service asked by themselves; of more, others in each run. */
const MAX_ENDPOINTS = 10

export const DnsClusterConfig = Schema.Struct({
  nodes: setting(Count, { default: 3, description: "Nodes asked from in a run; of more, others each time." }),
  slow: setting(DurationString, {
    default: "100ms",
    description:
      "A 95th percentile of 20 answers of the DNS Service above this, from most nodes asked, is a WARN; so is half of the " +
      "answers to one node."
  }),
  timeout: setting(DurationString, { default: "2s", description: "Patience for one answer." }),
  tries: setting(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10 })), {
    default: 3,
    description: "How often each name is asked for, of each server."
  }),
  freshWithin: setting(DurationString, {
    default: "15s",
    description:
      "How soon a new Service's name must resolve. CoreDNS caches for 30 s what it knows, and not what is new."
  }),
  external: setting(Names.check(Schema.isMaxLength(5)), {
    default: [],
    description: "Names outside of the cluster that must resolve in pods, at most 5."
  })
})
export type DnsClusterConfig = typeof DnsClusterConfig.Type

const LOOK_AT_COREDNS = "Look at the pods of CoreDNS in kube-system: replicas, logs, memory and CPU limits."

export const codes = Codes.make({
  DNS_SERVICE_FAILED: Codes.error(
    "The DNS Service resolves no name of the cluster, from any node asked.",
    LOOK_AT_COREDNS
  ),
  DNS_FAILS_ON_NODE: Codes.error(
    "From a node, the DNS Service resolves no name of the cluster, though it does from others.",
    "Look at kube-proxy and the pod network of that node."
  ),
  DNS_UNRELIABLE: Codes.warn(
    "The DNS Service leaves some questions unanswered, or answers them wrongly.",
    "Look for the pod of CoreDNS that does not answer, and at the network to it; then at conntrack races of UDP (NodeLocal DNSCache)."
  ),
  DNS_TCP_FAILED: Codes.warn(
    "The DNS Service answers over UDP and not over TCP, so long answers are lost.",
    "Look at the Service's ports and at network policies for port 53/TCP."
  ),
  DNS_ENDPOINT_FAILED: Codes.warn(
    "One pod of the DNS Service resolves nothing, so a share of all look-ups fails.",
    "Look at the log of the pod in the message, and at the network of its node; delete the pod."
  ),
  DNS_NO_ENDPOINTS: Codes.error("The DNS Service has no ready pod.", LOOK_AT_COREDNS),
  DNS_POD_PATH_FAILED: Codes.error(
    "The DNS Service resolves names, and programs in pods that use resolv.conf do not get them.",
    "Look at clusterDNS and clusterDomain of the kubelet on that node, and at NodeLocal DNSCache where it is used."
  ),
  DNS_SLOW: Codes.warn("The DNS Service answers slowly.", LOOK_AT_COREDNS),
  DNS_STALE: Codes.error(
    "The name of a new Service does not resolve in time: CoreDNS does not follow the cluster.",
    "Look at CoreDNS' log for errors of its watch of the API, and at its rights on EndpointSlices."
  ),
  DNS_ANSWERS_EVERYTHING: Codes.warn(
    "A name that does not exist is answered otherwise than that it does not exist.",
    "Look for a wildcard, a rewrite or a forward of the cluster's domain in CoreDNS' Corefile."
  ),
  DNS_EXTERNAL_FAILED: Codes.warn(
    "A name outside of the cluster does not resolve in pods.",
    "Look at `forward` in CoreDNS' Corefile and at the name servers it leads to."
  ),
  DNS_SERVICE_NOT_FOUND: Codes.info(
    "There is no Service kube-system/kube-dns; names were asked for as programs ask only.",
    "Nothing to do, where DNS of pods is served otherwise."
  ),
  NO_NODE: Codes.info("No node can run a pod now, so nothing can be asked from one.", "See k8s.node.readiness.")
})

/** A server of the DNS Service. */
export interface Endpoint {
  readonly address: string
  readonly pod: string
}

/** What was asked from one node. */
export interface Asked {
  readonly node: string
  readonly looked: ReadonlyArray<Looked>
}

const API_NAME = `kubernetes.default.svc.${CLUSTER_DOMAIN}`

/** Pods of the DNS Service that are ready. A slice's `ready` is absent where it is (API documentation of EndpointConditions). */
export const readyEndpoints = (slices: ReadonlyArray<EndpointSlice>): ReadonlyArray<Endpoint> =>
  slices.flatMap(({ endpoints }) =>
    endpoints.filter(({ conditions }) => conditions.ready !== false).flatMap(({ addresses, targetRef }) =>
      addresses.slice(0, 1).map((address): Endpoint => ({ address, pod: targetRef?.name ?? address }))
    )
  )

/** Of these, those that are still ready: a pod that a rollout or a drain takes away answers nobody in the end. */
export const stillReady = (
  endpoints: ReadonlyArray<Endpoint>,
  now: ReadonlyArray<EndpointSlice>
): ReadonlyArray<Endpoint> => {
  const ready = new Set(readyEndpoints(now).map(({ address, pod }) => `${address} ${pod}`))
  return endpoints.filter(({ address, pod }) => ready.has(`${address} ${pod}`))
}

/**
 * Of which family a cluster's addresses are: as that of its DNS Service, or of the pods of one without an address. In a
 * cluster of IPv6 alone no name has an A record, and in one of both every name of a Service has what comes first.
 */
export const familyOf = (service: string | undefined, endpoints: ReadonlyArray<Endpoint>): "IPv4" | "IPv6" => {
  const address = service === undefined || service === "None" || service === "" ? endpoints[0]?.address ?? "" : service
  return address.includes(":") ? "IPv6" : "IPv4"
}

/** The only endpoint of a name that is new, at an address of a network for documentation (RFC 5737, RFC 3849). */
export const freshSlice = (
  { host, name, namespace }: { readonly name: string; readonly namespace: string; readonly host: number },
  family: "IPv4" | "IPv6"
) => ({
  metadata: {
    name,
    namespace,
    labels: {
      "kubernetes.io/service-name": name,
      "endpointslice.kubernetes.io/managed-by": "kubeprober.erda.cloud"
    }
  },
  addressType: family,
  ports: [{ name: "http", port: 80, protocol: "TCP" }],
  endpoints: [{
    addresses: [family === "IPv4" ? `203.0.113.${host}` : `2001:db8::${host.toString(16)}`],
    conditions: { ready: true }
  }]
})

/** What is asked for, in the ids that {@link judge} knows. */
export const lookupsOf = (
  config: Pick<DnsClusterConfig, "external" | "freshWithin">,
  target: { readonly service: string | undefined; readonly endpoints: ReadonlyArray<Endpoint> },
  made: { readonly fresh: string; readonly absent: string }
): ReadonlyArray<Lookup> => {
  const { endpoints, service } = target
  const type = familyOf(service, endpoints) === "IPv6" ? "AAAA" : "A"
  const base = { port: 53, protocol: "udp", type, wanted: "address" } as const
  return [
    { ...base, id: "pod", name: "kubernetes.default" },
    ...config.external.map((name, index): Lookup => ({
      ...base,
      id: `external/${index}`,
      name: name.endsWith(".") ? name : `${name}.`
    })),
    ...service === undefined ? [] : [
      { ...base, id: "udp", name: API_NAME, server: service },
      { ...base, id: "timed", name: API_NAME, server: service, timed: TIMED },
      { ...base, id: "tcp", name: API_NAME, server: service, protocol: "tcp" } as const,
      { ...base, id: "absent", name: made.absent, server: service, wanted: "nothing" } as const,
      {
        ...base,
        id: "fresh",
        name: made.fresh,
        server: service,
        untilMillis: Duration.toMillis(config.freshWithin)
      }
    ],
    ...endpoints.map(({ address }): Lookup => ({ ...base, id: `endpoint/${address}`, name: API_NAME, server: address }))
  ]
}

const round = (millis: number): number => Math.round(millis * 10) / 10

/**
 * Whether the DNS Service is slow: its late answers, as most nodes see them, or what is usual to one. A single node's
 * late answers are not: a busy node, or a busy pod on it, looks like that.
 */
const judgePace = (
  slow: Duration.Duration,
  subject: Subject,
  timed: ReadonlyArray<Looked & { readonly node: string }>,
  limits: Hysteresis.Limits
): ReadonlyArray<Finding> => {
  const limitMillis = Duration.toMillis(slow)
  const isSlow = (millis: number) => limits.exceeds(millis, limitMillis, { code: codes.DNS_SLOW, subject })
  const say = (millis: number, what: string, more: Finding["evidence"]) => [codes.DNS_SLOW({
    message: `the DNS Service answers within ${round(millis)} ms ${what} (${
      Hysteresis.text(Duration.format(slow), millis > limitMillis)
    })`,
    subject,
    evidence: { ...more, limitMillis }
  })]
  const p95s = timed.map(({ p95Millis }) => p95Millis).sort((a, b) => b - a)
  // As slow as this, or slower, it is from more than half of the nodes.
  const most = p95s[Math.floor(p95s.length / 2)] ?? 0
  if (isSlow(most)) {
    return say(most, `at the 95th percentile, from most of ${timed.length} nodes asked`, { p95Millis: round(most) })
  }
  const worst = timed.reduce((a, b) => (a?.p50Millis ?? 0) >= (b.p50Millis ?? 0) ? a : b, timed[0])
  const usual = worst?.p50Millis ?? 0
  return worst === undefined || !isSlow(usual)
    ? []
    : say(usual, `in half of all cases only, from node ${worst.node}`, { p50Millis: round(usual), node: worst.node })
}

/**
 * The verdict on what pods got.
 *
 * @param endpoints pods of the DNS Service that were ready before and after.
 */
export const judge = (
  config: Pick<DnsClusterConfig, "external" | "slow">,
  endpoints: ReadonlyArray<Endpoint>,
  asked: ReadonlyArray<Asked>,
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> => {
  const service = { kind: "Service", name: SERVICE, namespace: NAMESPACE }
  const findings: Array<Finding> = []
  const of = (id: string) =>
    asked.flatMap(({ looked, node }) => looked.filter((one) => one.id === id).map((one) => ({ ...one, node })))
  const fails = (one: Looked | undefined): boolean => one !== undefined && one.good === 0
  const why = (ones: ReadonlyArray<Looked>): string => {
    const last = ones.find((one) => one.why !== undefined)?.why
    return last === undefined ? "" : `: ${last}`
  }

  const udp = of("udp")
  const dead = udp.filter(fails)
  const serviceFails = udp.length > 0 && dead.length === udp.length
  if (serviceFails) {
    findings.push(codes.DNS_SERVICE_FAILED({
      message: `the DNS Service resolves nothing, asked from ${asked.length} nodes${why(dead)}`,
      subject: service,
      evidence: { nodes: asked.length }
    }))
  } else {
    findings.push(...dead.map(({ node, ...one }) =>
      codes.DNS_FAILS_ON_NODE({
        message: `from node ${node} the DNS Service resolves nothing, though it does from others${why([one])}`,
        subject: { kind: "Node", name: node }
      })
    ))
    const alive = udp.filter((one) => !fails(one))
    const partly = alive.filter(({ good, tries }) => good < tries)
    // A datagram that is lost is asked for again by whoever misses it, and is no fault.
    if (partly.reduce((sum, { good, tries }) => sum + tries - good, 0) > 1) {
      const good = alive.reduce((sum, one) => sum + one.good, 0)
      const tries = alive.reduce((sum, one) => sum + one.tries, 0)
      findings.push(codes.DNS_UNRELIABLE({
        message: `the DNS Service answered ${good} of ${tries} questions${why(partly)}`,
        subject: service,
        evidence: { good, of: tries, nodes: partly.map(({ node }) => node).join(", ") }
      }))
    }
    const healthy = new Set(alive.map(({ node }) => node))
    const there = (id: string) => of(id).filter(({ node }) => healthy.has(node))
    findings.push(...judgePace(config.slow, service, there("timed").filter((one) => !fails(one)), limits))
    const tcp = there("tcp").filter(fails)
    if (tcp.length > 0) {
      findings.push(codes.DNS_TCP_FAILED({
        message: `the DNS Service does not answer over TCP, asked from ${tcp.map(({ node }) => node).join(", ")}${
          why(tcp)
        }`,
        subject: service
      }))
    }
    const fresh = there("fresh").filter(fails)
    if (fresh.length > 0 && fresh.length === there("fresh").length) {
      findings.push(codes.DNS_STALE({
        message: `the name of a new Service did not resolve in time${why(fresh)}`,
        subject: service
      }))
    }
    const absent = there("absent").filter((one) => fails(one) && (one.why ?? "").startsWith("answered"))
    if (absent.length > 0) {
      findings.push(codes.DNS_ANSWERS_EVERYTHING({
        message: `a name that does not exist is ${absent[0]?.why ?? "answered"}`,
        subject: service
      }))
    }
    findings.push(
      ...there("pod").filter(fails).map(({ node, ...one }) =>
        codes.DNS_POD_PATH_FAILED({
          message: `programs in pods on node ${node} cannot resolve kubernetes.default, though the DNS Service does${
            why([one])
          }`,
          subject: { kind: "Node", name: node }
        })
      )
    )
    findings.push(...config.external.flatMap((name, index) => {
      const failed = there(`external/${index}`).filter(fails)
      return failed.length === 0 ? [] : [codes.DNS_EXTERNAL_FAILED({
        message: `${name} does not resolve in pods${why(failed)}`,
        evidence: { name }
      })]
    }))
  }
  findings.push(...endpoints.flatMap(({ address, pod }) => {
    const ones = of(`endpoint/${address}`)
    return ones.length === 0 || !ones.every(fails) || serviceFails ? [] : [codes.DNS_ENDPOINT_FAILED({
      message: `pod ${pod} (${address}) of the DNS Service resolves nothing${why(ones)}`,
      subject: { kind: "Pod", name: pod, namespace: NAMESPACE },
      evidence: { address }
    })]
  }))
  // Without a Service to ask, what programs get is all there is.
  if (udp.length === 0) {
    findings.push(
      ...of("pod").filter(fails).map(({ node, ...one }) =>
        codes.DNS_POD_PATH_FAILED({
          message: `programs in pods on node ${node} cannot resolve kubernetes.default${why([one])}`,
          subject: { kind: "Node", name: node }
        })
      )
    )
  }
  return findings
}

export const dnsCluster = Probe.make("k8s.dns.cluster", {
  layer: "kubernetes",
  proves:
    "Names of the cluster resolve in pods on every node asked: as programs ask, over UDP and TCP, by every DNS pod.",
  writes: "namespace",
  placement: "workers",
  costs:
    "A Service without a selector and its EndpointSlice, a pod on each of at most 3 nodes, about 3 API requests a pod and 9 more.",
  needs: [
    Needs.list("nodes"),
    Needs.get("services", { namespace: NAMESPACE, names: [SERVICE] }),
    Needs.list("endpointslices", { group: "discovery.k8s.io", namespace: NAMESPACE }),
    Needs.verbs(["create", "delete"], "services", { namespace: Needs.probeNamespace }),
    Needs.verbs(["create", "delete"], "endpointslices", { group: "discovery.k8s.io", namespace: Needs.probeNamespace }),
    workerNeeds
  ],
  codes,
  config: DnsClusterConfig,
  timeout: "2 minutes",
  // Every name is asked for several times, from several nodes. Only a machine that was busy for a moment looks like slow DNS.
  confirm: { unless: Object.keys(codes).filter((code) => code !== "DNS_SLOW") },
  onChange: [Watch.of(EndpointSlice, {
    namespace: NAMESPACE,
    selector: `kubernetes.io/service-name=${SERVICE}`,
    when: Watch.differsIn(({ endpoints }) =>
      endpoints.map(({ addresses, conditions }) => [addresses, conditions.ready])
    )
  })],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: DnsClusterConfig) {
    const kube = yield* Kube
    const workers = yield* Workers
    const scratch = yield* Scratch
    const limits = yield* Hysteresis.limits
    const { probeNamespace: namespace } = yield* RunContext
    const slicesNow = Effect.map(
      kube.list(EndpointSlice, {
        namespace: NAMESPACE,
        labelSelector: `kubernetes.io/service-name=${SERVICE}`
      }),
      ({ items }) => items
    )
    const [{ items: nodes }, service, slices] = yield* Effect.all([
      kube.list(Node),
      kube.get(Service, { name: SERVICE, namespace: NAMESPACE }).pipe(
        Effect.asSome,
        Effect.catchIf(({ reason }) => reason._tag === "NotFound", () => Effect.succeedNone)
      ),
      slicesNow
    ], { concurrency: 3 })
    const address = service._tag === "None" ? undefined : service.value.spec.clusterIP
    const endpoints = readyEndpoints(slices)
    const subject = { kind: "Service", name: SERVICE, namespace: NAMESPACE }
    if (address !== undefined && endpoints.length === 0) {
      return yield* codes.DNS_NO_ENDPOINTS.fail({ message: "the DNS Service has no ready pod", subject })
    }
    const available = usable(nodes)
    if (available.length === 0) return Outcome.make("", [codes.NO_NODE({ message: "no node can run a pod now" })])
    const names = yield* sample(available, config.nodes)
    const some = new Set(yield* sample(endpoints.map(({ address }) => address), MAX_ENDPOINTS))
    const looked = endpoints.filter(({ address }) => some.has(address))

    // A name nobody can have asked for before.
    const name = yield* scratch.name("dns")
    const host = yield* Random.nextIntBetween(1, 254)
    yield* scratch.create(Service, {
      metadata: { name, namespace },
      spec: { clusterIP: "None", ports: [{ name: "http", port: 80, protocol: "TCP" }] }
    })
    yield* scratch.create(EndpointSlice, freshSlice({ name, namespace, host }, familyOf(address, endpoints)))
    const lookups = lookupsOf(config, { service: address === "None" ? undefined : address, endpoints: looked }, {
      fresh: `${name}.${namespace}.svc.${CLUSTER_DOMAIN}`,
      absent: `${name}-absent.${namespace}.svc.${CLUSTER_DOMAIN}`
    })
    const input = { lookups, tries: config.tries, timeoutMillis: Duration.toMillis(config.timeout) }
    const { blind, done: asked } = yield* gather(
      names.map((node) =>
        Effect.map(
          workers.run(dnsLookups, input, { node, name: "dns" }),
          ({ output }): Asked => ({ node, looked: output.looked })
        )
      )
    )
    const still = stillReady(looked, yield* slicesNow)
    const absent = address === undefined
      ? [codes.DNS_SERVICE_NOT_FOUND({ message: `there is no Service ${NAMESPACE}/${SERVICE}`, subject })]
      : []
    return Outcome.make(
      `names resolve in pods on ${asked.length} of ${names.length} nodes asked, by each of ${still.length} DNS pods`,
      [...judge(config, still, asked, limits), ...blind, ...absent]
    )
  })
})
