/**
 * k8s.service.clusterip: Services route, from nodes, to all their pods, and stop when they are deleted.
 *
 * Two pods answer behind a Service of the run's own; a pod on each looked-at node asks its address, again and again. Not
 * through the API server's proxy, which dials endpoints itself and proves nothing of nodes.
 */
import { Clock, Duration, Effect, Schedule, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Node, Pod, Service } from "../../infra/kube/resources/core.ts"
import { EndpointSlice } from "../../infra/kube/resources/discovery.ts"
import { findingOfWorkerFault } from "../Attempt.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { RunContext } from "../RunContext.ts"
import { Scratch } from "../Scratch.ts"
import { Count, setting } from "../Setting.ts"
import { gather } from "../workers/Gather.ts"
import { sample, usable } from "../workers/SampleNodes.ts"
import { type HttpGets, httpGets } from "../workers/tasks/httpGets.ts"
import { type Responder, WorkerFault, Workers, needs as workerNeeds } from "../workers/Workers.ts"

/** Each connection chooses a pod anew: with 20, that one of two is never chosen by chance happens once in 500,000 runs. */
const TIMES = 20

/** Patience for one answer. A Service that drops packets is told by this. */
const ANSWER_WITHIN = Duration.seconds(2)

/** kube-proxy follows EndpointSlices within a second or two (its `--iptables-min-sync-period`); a busy one is let be. */
const ROUTED_WITHIN = Duration.seconds(10)

export const ServiceClusterIpConfig = Schema.Struct({
  nodes: setting(Count, { default: 3, description: "Nodes asked from in a run; of more, others each time." }),
  programmedWarn: setting(DurationString, {
    default: "10s",
    description: "How long a new Service's pods may take to be in its EndpointSlices before it is a WARN."
  }),
  programmedError: setting(DurationString, { default: "30s", description: "The same before it is an ERROR." }),
  deletion: setting(Schema.Boolean, {
    default: true,
    description: "Whether the Service is also deleted, and asked once more, when it must not answer."
  })
})
export type ServiceClusterIpConfig = typeof ServiceClusterIpConfig.Type

const LOOK_AT_PROXY =
  "Look at kube-proxy (or what stands in for it) on the node in the message, and at its conntrack table."

export const codes = Codes.make({
  SERVICE_UNREACHABLE_FROM_NODE: Codes.error(
    "From a node, a Service answers nothing at all, though its pods run.",
    LOOK_AT_PROXY
  ),
  SERVICE_UNRELIABLE_FROM_NODE: Codes.warn(
    "From a node, a Service answers some connections and loses others.",
    "Look whether the lost ones are those to pods of one other node: then at the network between the two; else at kube-proxy."
  ),
  SERVICE_ONE_SIDED: Codes.warn(
    "From a node, a Service leads to only some of its ready pods.",
    LOOK_AT_PROXY
  ),
  ENDPOINTS_SLOW: Codes.warn(
    "The pods of a new Service were in its EndpointSlices late.",
    "Look at kube-controller-manager (EndpointSlice controller) and at how busy the API server is."
  ),
  ENDPOINTS_MISSING: Codes.error(
    "The pods of a new Service did not get into its EndpointSlices.",
    "Look at kube-controller-manager (EndpointSlice controller)."
  ),
  SERVICE_STILL_ANSWERS: Codes.warn(
    "From a node, a Service answered after it was deleted.",
    LOOK_AT_PROXY
  ),
  NO_NODE: Codes.info("No node can run a pod now, so there is no Service to call.", "See k8s.node.readiness.")
})

/** What one node got from the Service. */
export interface Asked {
  readonly node: string
  readonly got: HttpGets
}

/** Whether a pod that answered still does, for all the cluster knows: it is there, Ready, and at the same address. */
export const lives = ({ ip }: Pick<Responder, "ip">, pod: Pod | undefined): boolean =>
  pod !== undefined && pod.metadata.deletionTimestamp === undefined && pod.status.podIP === ip &&
  pod.status.conditions.some(({ status, type }) => type === "Ready" && status === "True")

/**
 * The verdict on what a node got, given the pods that were ready behind the Service.
 *
 * @param gone of these, those that are so no more: what was lost may have been lost with them.
 */
export const judge = (
  ready: ReadonlyArray<string>,
  { got, node }: Asked,
  gone: ReadonlySet<string> = new Set()
): ReadonlyArray<Finding> => {
  const subject = { kind: "Node", name: node }
  const evidence = {
    good: got.good,
    of: got.times,
    pods: Object.keys(got.pods).length,
    ...(got.why === undefined ? {} : { why: got.why })
  }
  const last = got.why === undefined ? "" : `; the last failure: ${got.why}`
  if (got.good === 0) {
    return ready.every((pod) => gone.has(pod)) ? [] : [codes.SERVICE_UNREACHABLE_FROM_NODE({
      message: `from node ${node} a Service answered none of ${got.times} connections${last}`,
      subject,
      evidence
    })]
  }
  // A first packet that is lost is sent again too late for one answer's patience, and is no fault.
  if (got.good < got.times - 1) {
    return gone.size > 0 ? [] : [codes.SERVICE_UNRELIABLE_FROM_NODE({
      message: `from node ${node} a Service answered ${got.good} of ${got.times} connections${last}`,
      subject,
      evidence
    })]
  }
  const unheard = ready.filter((pod) => got.pods[pod] === undefined && !gone.has(pod))
  return unheard.length === 0 ? [] : [codes.SERVICE_ONE_SIDED({
    message: `from node ${node} ${got.times} connections to a Service reached ${
      ready.length - unheard.length
    } of its ${ready.length} pods; not ${unheard.join(", ")}`,
    subject,
    evidence
  })]
}

export const serviceClusterIp = Probe.make("k8s.service.clusterip", {
  layer: "kubernetes",
  proves: "A new Service routes connections from nodes to all its pods, and answers no more once it is deleted.",
  writes: "namespace",
  placement: "workers",
  costs:
    "A Service, 2 pods that answer, 2 pods on each of at most 3 nodes that ask; about 3 API requests a pod and 8 more.",
  needs: [
    Needs.list("nodes"),
    Needs.verbs(["create", "delete"], "services", { namespace: Needs.probeNamespace }),
    Needs.list("endpointslices", { group: "discovery.k8s.io", namespace: Needs.probeNamespace }),
    workerNeeds
  ],
  codes,
  config: ServiceClusterIpConfig,
  timeout: "3 minutes",
  interval: "10 minutes",
  // Each node is asked from twenty times over, which is a confirmation; pods are dear.
  confirm: "none",
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: ServiceClusterIpConfig) {
    const kube = yield* Kube
    const workers = yield* Workers
    const scratch = yield* Scratch
    const { probeNamespace: namespace } = yield* RunContext
    const { items: nodes } = yield* kube.list(Node)
    const available = usable(nodes)
    if (available.length === 0) return Outcome.make("", [codes.NO_NODE({ message: "no node can run a pod now" })])
    const names = yield* sample(available, config.nodes)
    const name = yield* scratch.name("service")
    const labels = { "kubeprober.io/service": name }

    // On different nodes where there are two, so that routes between nodes are taken too.
    const homes = [names[0], names[1] ?? names[0]]
    const responders: ReadonlyArray<Responder> = yield* Effect.forEach(
      homes,
      (node) => workers.respond({ node, name: "service", labels }),
      { concurrency: 2 }
    )
    const first = responders[0]
    if (first === undefined) return yield* checkerCodes.CHECKER_FAILED.fail({ message: "no pod answers" })
    /** Of pods that a drain, or somebody, has ended meanwhile: what is asked of them says nothing of the Service. */
    const ended = Effect.map(
      Effect.forEach(responders, (responder) =>
        kube.get(Pod, { name: responder.pod, namespace }).pipe(
          Effect.catchIf(({ reason }) => reason._tag === "NotFound", () => Effect.undefined),
          Effect.map((pod) =>
            lives(responder, pod) ? [] : [
              new WorkerFault({
                stage: "Evicted",
                detail: "ended by others, or not Ready any more, while the Service was asked",
                pod: responder.pod,
                node: responder.node
              })
            ]
          )
        ), { concurrency: 2 }),
      (faults) => faults.flat()
    )
    const created = yield* Clock.currentTimeMillis
    const { spec } = yield* scratch.create(Service, {
      metadata: { name, namespace },
      spec: { selector: labels, ports: [{ name: "http", port: 80, targetPort: first.port, protocol: "TCP" }] }
    })
    const ready = kube.list(EndpointSlice, { namespace, labelSelector: `kubernetes.io/service-name=${name}` }).pipe(
      Effect.map(({ items }) =>
        items.flatMap(({ endpoints }) =>
          endpoints.flatMap(({ conditions, targetRef }) =>
            conditions.ready === false || targetRef === undefined ? [] : [targetRef.name ?? ""]
          )
        )
      )
    )
    const listed = yield* ready.pipe(
      Effect.repeat({
        until: (pods) => pods.length >= responders.length,
        schedule: Schedule.spaced("250 millis")
      }),
      Effect.timeoutOrElse({ duration: config.programmedError, orElse: () => ready })
    )
    const took = Duration.millis((yield* Clock.currentTimeMillis) - created)
    const late = Duration.isGreaterThan(took, config.programmedWarn)
    const subject = { kind: "Service", name, namespace }
    if (listed.length < responders.length) {
      const [fault] = yield* ended
      if (fault !== undefined) return yield* fault
      return yield* codes.ENDPOINTS_MISSING.fail({
        message:
          `${listed.length} of ${responders.length} ready pods are in the EndpointSlices of a new Service after ${
            Duration.format(config.programmedError)
          }`,
        subject
      })
    }
    const address = spec.clusterIP ?? spec.clusterIPs[0] ?? ""
    const url = `http://${address.includes(":") ? `[${address}]` : address}/`

    const askFrom = (times: number, until: "answered" | "silent") =>
      gather(names.map((node) =>
        Effect.map(
          workers.run(httpGets, {
            url,
            times,
            timeoutMillis: Duration.toMillis(ANSWER_WITHIN),
            first: { until, pods: responders.length, withinMillis: Duration.toMillis(ROUTED_WITHIN) }
          }, { node, name: "caller" }),
          ({ output }): Asked => ({ node, got: output })
        )
      ))
    const { blind, done: asked } = yield* askFrom(TIMES, "answered")
    const pods = responders.map(({ pod }) => pod)
    const faults = asked.some((one) => judge(pods, one).length > 0) ? yield* ended : []
    const gone = new Set(faults.flatMap(({ pod }) => pod ?? []))
    const findings = [
      ...late
        ? [codes.ENDPOINTS_SLOW({
          message: `the pods of a new Service were in its EndpointSlices after ${Duration.format(took)} (limit ${
            Duration.format(config.programmedWarn)
          })`,
          subject,
          evidence: { tookMillis: Duration.toMillis(took) }
        })]
        : [],
      ...asked.flatMap((one) => judge(pods, one, gone)),
      ...faults.map(findingOfWorkerFault),
      ...blind
    ]
    const summary =
      `${asked.length} of ${names.length} nodes reach both pods of a Service with ${TIMES} of ${TIMES} connections`
    if (!config.deletion || findings.length > 0) return Outcome.make(summary, findings)

    yield* kube.delete(Service, { name, namespace })
    const after = yield* askFrom(1, "silent")
    return Outcome.make(`${summary}, and none after it is deleted`, [
      ...after.done.filter(({ got }) => got.good > 0).map(({ node }) =>
        codes.SERVICE_STILL_ANSWERS({
          message: `from node ${node} a Service answered after it was deleted`,
          subject: { kind: "Node", name: node }
        })
      ),
      ...after.blind
    ])
  })
})
