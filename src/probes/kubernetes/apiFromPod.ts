/**
 * k8s.api.frompod: programs in pods reach the API server, and it accepts their tokens.
 *
 * Every operator and controller that runs in a pod depends on this way: from its node through the Service's address to an API
 * server, with a projected token and the cluster's own authority. It is walked by name too, which adds DNS.
 */
import { Duration, Effect, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { Node } from "../../infra/kube/resources/core.ts"
import * as Codes from "../Codes.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { Count, setting } from "../Setting.ts"
import { gather } from "../workers/Gather.ts"
import { sample, usable } from "../workers/SampleNodes.ts"
import { API_NAME, type ApiReady, type Way, apiReady } from "../workers/tasks/apiReady.ts"
import { Workers, needs as workerNeeds } from "../workers/Workers.ts"

/** One lost packet is no verdict, nor is one moment. */
const TIMES = 3
const PAUSE = Duration.millis(500)

/** What all pods ask, when none of them gets an answer. */
const SERVICE: Subject = { kind: "Service", name: "kubernetes", namespace: "default" }

export const ApiFromPodConfig = Schema.Struct({
  slow: setting(DurationString, {
    default: "1s",
    description: "A median answer that takes longer, connection and TLS included, is a WARN."
  }),
  timeout: setting(DurationString, { default: "5s", description: "Patience for one answer." }),
  nodes: setting(Count, { default: 10, description: "Nodes asked from in a run; of more, others each time." })
})
export type ApiFromPodConfig = typeof ApiFromPodConfig.Type

const LOOK_AT_NODE =
  "Look at kube-proxy (or what stands in for it) and the CNI plugin on that node, and at firewalls between it and the API servers."
const LOOK_AT_SERVICE =
  "Look at the endpoints of Service default/kubernetes, and whether pods may reach the API servers' own addresses."

export const codes = Codes.make({
  API_UNREACHABLE_FROM_NODE: Codes.error(
    "Pods on a node cannot reach the API server, though others can.",
    LOOK_AT_NODE
  ),
  API_UNREACHABLE_FROM_PODS: Codes.error("No pod that asked can reach the API server.", LOOK_AT_SERVICE),
  API_UNRELIABLE_FROM_NODE: Codes.warn(
    "Pods on a node reach the API server at some times and not at others.",
    LOOK_AT_NODE
  ),
  API_SLOW_FROM_NODE: Codes.warn(
    "Pods on a node wait long for an answer of the API server.",
    "Look at the network between that node and the API servers; k8s.api.health tells whether the server itself is slow."
  ),
  API_NAME_FAILS: Codes.warn(
    "Pods reach the API server by its address and not by its name.",
    "Look at CoreDNS and the way to it from that node; k8s.dns.cluster says more."
  ),
  API_UNTRUSTED: Codes.error(
    "What answers pods at the API server's address has no certificate that the cluster's own authority has signed for it.",
    "Compare ConfigMap kube-root-ca.crt with the API server's certificate and its names; look for what intercepts connections."
  ),
  TOKEN_REJECTED: Codes.error(
    "The API server does not accept the token that it has issued for a pod.",
    "Compare --service-account-issuer, --service-account-key-file and --api-audiences of all API servers; look at their clocks."
  ),
  NO_NODE: Codes.info("No node can run a pod now, so there is nobody to ask.", "See k8s.node.readiness.")
})

/** What the pod on one node got. */
export interface Asked {
  readonly node: string
  readonly got: ApiReady
}

const failureOf = ({ byAddress: { failure, good, times } }: ApiReady): Codes.Code | undefined => {
  if (good === times) return undefined
  if (good > 0) return codes.API_UNRELIABLE_FROM_NODE
  if (failure?.status === 401) return codes.TOKEN_REJECTED
  return failure?.kind === "tls" ? codes.API_UNTRUSTED : codes.API_UNREACHABLE_FROM_NODE
}

/** Of these, that every node has one is said once, of the Service. */
const COMMON: ReadonlyMap<Codes.Code, Codes.Code> = new Map([
  [codes.API_UNREACHABLE_FROM_NODE, codes.API_UNREACHABLE_FROM_PODS],
  [codes.TOKEN_REJECTED, codes.TOKEN_REJECTED],
  [codes.API_UNTRUSTED, codes.API_UNTRUSTED]
])

const said = ({ failure, good, times }: Way): string =>
  `${good} of ${times} answers${failure === undefined ? "" : `; last failure: ${failure.kind}, ${failure.detail}`}`

/** The verdict on what pods got, of at least one node. */
export const judge = (
  { slow }: Pick<ApiFromPodConfig, "slow">,
  asked: ReadonlyArray<Asked>,
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> => {
  const [first] = asked
  const verdicts = asked.map(({ got }) => failureOf(got))
  const common = verdicts[0] === undefined ? undefined : COMMON.get(verdicts[0])
  if (
    first !== undefined && common !== undefined && asked.length > 1 && verdicts.every((code) => code === verdicts[0])
  ) {
    const { address, byAddress } = first.got
    return [common({
      message: `pods on all ${asked.length} nodes asked from fail at the API server (${address}): ${said(byAddress)}`,
      subject: SERVICE,
      evidence: { nodes: asked.length, kind: byAddress.failure?.kind ?? "" }
    })]
  }
  return asked.flatMap(({ got: { address, byAddress, byName }, node }, index) => {
    const subject = { kind: "Node", name: node }
    const evidence = {
      byAddress: byAddress.good,
      byName: byName.good,
      of: byAddress.times,
      p50Millis: Math.round(byAddress.p50Millis),
      kind: (byAddress.failure ?? byName.failure)?.kind ?? ""
    }
    const code = verdicts[index]
    if (code !== undefined) {
      return [
        code({
          message: `a pod on node ${node} asked the API server (${address}): ${said(byAddress)}`,
          subject,
          evidence
        })
      ]
    }
    const took = Duration.millis(byAddress.p50Millis)
    return [
      ...byName.good > 0 ? [] : [codes.API_NAME_FAILS({
        message: `a pod on node ${node} reaches the API server at ${address} and not as ${API_NAME}: ${said(byName)}`,
        subject,
        evidence
      })],
      ...limits.takesLonger(took, slow, { code: codes.API_SLOW_FROM_NODE, subject })
        ? [codes.API_SLOW_FROM_NODE({
          message: `a pod on node ${node} waited ${evidence.p50Millis} ms for the API server (${
            Hysteresis.text(Duration.format(slow), Duration.isGreaterThan(took, slow))
          })`,
          subject,
          evidence
        })]
        : []
    ]
  })
}

export const apiFromPod = Probe.make("k8s.api.frompod", {
  layer: "kubernetes",
  proves: "Pods reach the API server through its Service, trust it, and have their tokens accepted.",
  writes: "namespace",
  placement: "workers",
  costs: "A pod on each of at most 10 nodes, which asks /readyz 6 times, and about 3 API requests a pod.",
  needs: [Needs.list("nodes"), workerNeeds],
  codes,
  config: ApiFromPodConfig,
  timeout: "3 minutes",
  interval: "10 minutes",
  // Pods ask several times by themselves, and all within the seconds that an API server takes to start anew.
  confirm: { unless: ["API_UNTRUSTED", "TOKEN_REJECTED"] },
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: ApiFromPodConfig) {
    const kube = yield* Kube
    const workers = yield* Workers
    const limits = yield* Hysteresis.limits
    const { items } = yield* kube.list(Node)
    const available = usable(items)
    const names = yield* sample(available, config.nodes)
    if (names.length === 0) return Outcome.make("", [codes.NO_NODE({ message: "no node can run a pod now" })])
    const input = {
      times: TIMES,
      timeoutMillis: Duration.toMillis(config.timeout),
      pauseMillis: Duration.toMillis(PAUSE)
    }
    const { blind, done: asked } = yield* gather(
      names.map((node) =>
        Effect.map(
          workers.run(apiReady, input, { node, name: "api", apiToken: true }),
          ({ output }): Asked => ({ node, got: output })
        )
      )
    )
    const slowest = Math.max(0, ...asked.map(({ got }) => got.byAddress.p50Millis))
    return Outcome.make(
      `pods on ${asked.length} of ${available.length} nodes have their tokens accepted by the API server within ${
        Math.round(slowest)
      } ms`,
      [...judge(config, asked, limits), ...blind]
    )
  })
})
