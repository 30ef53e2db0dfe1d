/**
 * k8s.api.deprecations: nothing that is in use goes away with the next upgrade.
 *
 * The API server counts which deprecated APIs were requested since it started, whatever the client
 * (https://kubernetes.io/docs/reference/using-api/deprecation-guide/#locate-use-of-deprecated-apis). Each counts for itself, so
 * each is read: behind a balancer one would be another every time.
 */
import { Effect, Option, Result, Schema } from "effect"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { EndpointSlice } from "../../infra/kube/resources/discovery.ts"
import { CustomResourceDefinition } from "../../infra/kube/resources/extensions.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { Count, Names, setting } from "../Setting.ts"
import { addressesOf } from "./apiHealth.ts"

export const ApiDeprecationsConfig = Schema.Struct({
  minorsAhead: setting(Count, {
    default: 1,
    description: "Use of an API that is removed within this many minor releases is an ERROR; upgrades go one by one."
  }),
  ignore: setting(Names, {
    default: [],
    description:
      "Deprecated APIs that may be used, as `<resource>.<version>.<group>`, such as `ipaddresses.v1beta1.networking.k8s.io`."
  })
})
export type ApiDeprecationsConfig = typeof ApiDeprecationsConfig.Type

export const codes = Codes.make({
  DEPRECATED_API_REMOVED_SOON: Codes.error(
    "An API that clients have requested since this API server started is gone after the next upgrade.",
    "Find the client in the audit log (annotation k8s.io/deprecated) and move it to the API's successor before the upgrade."
  ),
  DEPRECATED_API_REQUESTED: Codes.warn(
    "An API that clients have requested since this API server started is deprecated, and will be removed.",
    "Find the client in the audit log (annotation k8s.io/deprecated) and move it to the API's successor."
  ),
  DEPRECATED_VERSION_REQUESTED: Codes.warn(
    "Clients have requested a version of a custom resource that its definition calls deprecated, since this API server started.",
    "Move the clients to a newer version before an upgrade of the definition drops this one."
  ),
  STORED_VERSION_NOT_SERVED: Codes.warn(
    "Objects of a kind may still be stored in a version that is not served any more; a definition without that version is " +
      "refused, or makes them unreadable.",
    "Rewrite the objects in the storage version, then take the old one out of the definition's status.storedVersions."
  ),
  API_SERVERS_NOT_READ: Codes.info(
    "Only some of the API servers could be asked what clients request of them; what is requested of the others is not known.",
    "Run the prober where it reaches each API server by the addresses of Service default/kubernetes, such as inside the cluster."
  )
})

const METRICS = "/metrics"
const VERSION = "/version"
/** Some MiB, and a few dozen in large clusters with many kinds. */
const MAXIMUM_METRICS = 64 * 1024 * 1024
/** UTF-16 code units of a sample; its labels are names of an API, so those of the API server have some hundred. */
const MAXIMUM_LINE = 64 * 1024
/** As many as k8s.api.health asks. */
const MAXIMUM_REPLICAS = 16
/** Some at a time, since each answer is large. */
const REPLICAS_AT_ONCE = 4
/** One that is out of reach is silent for the 5 s of a connection; a busy one takes a second or two. */
const REPLICA_TIMEOUT = "8 seconds"

/** A deprecated API that was requested. */
export interface Requested {
  readonly group: string
  readonly version: string
  readonly resource: string
  /** `1.37`; none when no removal is planned. */
  readonly removed: string | undefined
  /** By all clients since this API server started. */
  readonly requests: number
}

type Labels = Readonly<Record<string, string>>

/** The samples of one metric in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/). */
export const samplesOf = (text: string, metric: string): ReadonlyArray<readonly [labels: Labels, value: number]> => {
  const samples: Array<readonly [Labels, number]> = []
  const start = `${metric}{`
  let from = 0
  // A search by lines would copy megabytes to find a few of them.
  while ((from = text.indexOf(start, from)) >= 0) {
    const end = text.indexOf("\n", from)
    const line = text.slice(from, end < 0 ? text.length : end)
    const isStart = from === 0 || text[from - 1] === "\n"
    from += line.length
    const close = line.lastIndexOf("}")
    if (!isStart || close < 0 || line.length > MAXIMUM_LINE) continue
    const labels = Object.fromEntries(
      [...line.slice(start.length, close).matchAll(/\b(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name = "", value = ""]) =>
        [name, value] as const
      )
    )
    samples.push([labels, Number(line.slice(close + 1).trim().split(" ")[0])])
  }
  return samples
}

const apiOf = ({ group = "", resource = "", version = "" }: Labels | Requested): string =>
  `${resource}.${version}.${group}`

/** What was requested of what is deprecated; none when these are not the metrics of an API server. */
export const requestedOf = (text: string): ReadonlyArray<Requested> | undefined => {
  const requests = new Map<string, number>()
  const counted = samplesOf(text, "apiserver_request_total")
  if (counted.length === 0) return undefined
  for (const [labels, value] of counted) requests.set(apiOf(labels), (requests.get(apiOf(labels)) ?? 0) + value)
  const found = new Map<string, Requested>()
  for (const [labels, value] of samplesOf(text, "apiserver_requested_deprecated_apis")) {
    if (!(value > 0)) continue
    const { group = "", removed_release: removed = "", resource = "", version = "" } = labels
    found.set(apiOf(labels), {
      group,
      version,
      resource,
      removed: removed === "" ? undefined : removed,
      requests: requests.get(apiOf(labels)) ?? 0
    })
  }
  return [...found.values()]
}

/** What was requested of several API servers together. */
export const together = (servers: Iterable<ReadonlyArray<Requested>>): ReadonlyArray<Requested> => {
  const found = new Map<string, Requested>()
  for (const requested of servers) {
    for (const each of requested) {
      const requests = (found.get(apiOf(each))?.requests ?? 0) + each.requests
      found.set(apiOf(each), { ...each, requests })
    }
  }
  return [...found.values()]
}

/** `networking.k8s.io/v1beta1 ipaddresses` */
const titleOf = ({ group, resource, version }: Requested): string =>
  `${group === "" ? version : `${group}/${version}`} ${resource}`

/** Number of a minor release: 135 of `1.35` and of `1.35+`, so that 2.0 comes after all of 1. */
const minorOf = (release: string): number => {
  const [, major = "", minor = ""] = /^v?(\d+)\.(\d+)/.exec(release) ?? []
  return Number(major) * 1000 + Number(minor)
}

/** Whether the definition of a requested API is a custom one. */
const definitionOf = ({ group, resource }: Requested, crds: ReadonlyArray<CustomResourceDefinition>) =>
  crds.find(({ spec }) => spec.group === group && spec.names.plural === resource)

/** What one requested API means for upgrades from `release`; none when nobody plans to remove it. */
export const judgeRequested = (
  config: ApiDeprecationsConfig,
  release: string,
  crds: ReadonlyArray<CustomResourceDefinition>
) =>
(requested: Requested): Finding | undefined => {
  const { group, removed, requests, resource, version } = requested
  if (config.ignore.includes(apiOf({ group, resource, version }))) return undefined
  const title = titleOf(requested)
  const often = requests === 0 ? "" : `, ${requests} times`
  const evidence = { api: title, requests, ...(removed === undefined ? {} : { removedIn: removed }) }
  const crd = definitionOf(requested, crds)
  if (crd !== undefined) {
    return codes.DEPRECATED_VERSION_REQUESTED({
      message: `${title} is deprecated by its definition, and was requested since this API server started${often}`,
      subject: { kind: "CustomResourceDefinition", name: crd.metadata.name ?? "" },
      evidence
    })
  }
  if (removed === undefined) return undefined
  const about = { subject: { kind: "API", name: title }, evidence }
  return minorOf(removed) <= minorOf(release) + config.minorsAhead
    ? codes.DEPRECATED_API_REMOVED_SOON({
      ...about,
      message:
        `${title} is removed in ${removed}, this is ${release}, and it was requested since this API server started${often}`
    })
    : codes.DEPRECATED_API_REQUESTED({
      ...about,
      message:
        `${title} is deprecated and removed in ${removed}, and was requested since this API server started${often}`
    })
}

/** Versions that objects may be stored in and that nobody can ask for. */
export const judgeStored = ({ metadata, spec, status }: CustomResourceDefinition): ReadonlyArray<Finding> => {
  if (metadata.deletionTimestamp !== undefined) return []
  const served = spec.versions.filter(({ served }) => served).map(({ name }) => name)
  const left = status.storedVersions.filter((version) => !served.includes(version))
  // A definition of which nothing is served is being retired as a whole.
  return served.length === 0 || left.length === 0 ? [] : [codes.STORED_VERSION_NOT_SERVED({
    message: `${metadata.name} may have objects stored in ${left.join(", ")}, which it does not serve (it serves ${
      served.join(", ")
    })`,
    subject: { kind: "CustomResourceDefinition", name: metadata.name ?? "" },
    evidence: { stored: left.join(", "), served: served.join(", ") }
  })]
}

const decodeVersion = Schema.decodeUnknownOption(
  Schema.fromJsonString(Schema.Struct({ major: Schema.String, minor: Schema.String }))
)

/** GET of a path that answers 200 to whoever may read it. */
const read = Effect.fnUntraced(function*(path: string) {
  const kube = yield* Kube
  const { body, status } = yield* kube.raw(path, { maximumBytes: MAXIMUM_METRICS })
  if (status === 200) return body
  return yield* status === 401 || status === 403
    ? checkerCodes.ACCESS_MISSING.fail({
      message: `not allowed to get ${path}; grant this rule to the prober`,
      evidence: { missing: `get ${path}` }
    })
    : checkerCodes.API_FAULT.fail({ message: `${kube.server} answered ${status} at ${path}` })
})

/** What was requested of the API server we are told to use. */
const readServer = Effect.flatMap(read(METRICS), (metrics) => {
  const requested = requestedOf(metrics)
  return requested === undefined
    ? Effect.flatMap(Kube, ({ server }) =>
      checkerCodes.UNEXPECTED_ANSWER.fail({
        message: `${METRICS} of ${server} does not count requests, so nothing is known of what was requested`
      }))
    : Effect.succeed(requested)
})

/** The same of the one at this address; none when it is out of reach or does not tell. */
const readReplica = Effect.fnUntraced(
  function*(address: string) {
    const kube = yield* Kube
    const { body, status } = yield* kube.raw(METRICS, { server: `https://${address}`, maximumBytes: MAXIMUM_METRICS })
    return status === 200 ? requestedOf(body) : undefined
  },
  Effect.timeoutOrElse({ duration: REPLICA_TIMEOUT, orElse: () => Effect.undefined }),
  Effect.orElseSucceed(() => undefined)
)

/** What was requested, and what is not known of it. */
const readAll = Effect.fnUntraced(function*() {
  const kube = yield* Kube
  const slice = yield* Effect.result(kube.get(EndpointSlice, { name: "kubernetes", namespace: "default" }))
  if (Result.isFailure(slice)) {
    return {
      requested: yield* readServer,
      servers: 1,
      unread: slice.failure.reason._tag === "NotFound" ? [] : [codes.API_SERVERS_NOT_READ({
        message: `1 API server was asked, of how many is not known: ${slice.failure.message}`
      })]
    }
  }
  const addresses = addressesOf(slice.success)
  if (addresses.length <= 1) return { requested: yield* readServer, servers: 1, unread: [] }
  const answers = yield* Effect.forEach(addresses.slice(0, MAXIMUM_REPLICAS), readReplica, {
    concurrency: REPLICAS_AT_ONCE
  })
  const known = answers.filter((answer) => answer !== undefined)
  if (known.length === addresses.length) return { requested: together(known), servers: known.length, unread: [] }
  const requested = known.length === 0 ? yield* readServer : together(known)
  const servers = Math.max(1, known.length)
  return {
    requested,
    servers,
    unread: [codes.API_SERVERS_NOT_READ({
      message: `${servers} of ${addresses.length} API servers told what was requested of them`,
      evidence: { read: servers, servers: addresses.length }
    })]
  }
})

export const apiDeprecations = Probe.make("k8s.api.deprecations", {
  layer: "kubernetes",
  proves: "No client uses an API that will be removed, and no kind has objects in a version that is not served.",
  writes: "nothing",
  costs:
    "One read of each API server's metrics (some MiB; 16 servers at most), three requests more: their addresses, a version, " +
    "a list of definitions.",
  needs: [
    Needs.path(METRICS),
    Needs.path(VERSION),
    Needs.get("endpointslices", {
      group: "discovery.k8s.io",
      namespace: "default",
      names: ["kubernetes"],
      optional: true
    }),
    Needs.list("customresourcedefinitions", { group: "apiextensions.k8s.io" })
  ],
  codes,
  config: ApiDeprecationsConfig,
  interval: "1 hour",
  timeout: "45 seconds",
  timed: [],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: ApiDeprecationsConfig) {
    const kube = yield* Kube
    const [{ requested, servers, unread }, version, { items: crds }] = yield* Effect.all([
      readAll(),
      read(VERSION),
      kube.list(CustomResourceDefinition)
    ], { concurrency: 3 })
    const release = Option.map(
      decodeVersion(version),
      ({ major, minor }) => `${major}.${/^\d*/.exec(minor)?.[0] ?? ""}`
    )
    if (Option.isNone(release)) {
      return yield* checkerCodes.UNEXPECTED_ANSWER.fail({ message: `${VERSION} of ${kube.server} names no version` })
    }
    const judge = judgeRequested(config, release.value, crds)
    const staying = requested.filter((each) => each.removed === undefined && judge(each) === undefined).map(titleOf)
    return Outcome.make(
      `no API that will be removed was requested since ${
        servers === 1 ? `this API server (${release.value})` : `these ${servers} API servers (${release.value})`
      } started, and every stored version of ${crds.length} definitions is served${
        staying.length === 0 ? "" : `; deprecated, but to stay: ${staying.slice(0, 5).join(", ")}`
      }`,
      [
        ...requested.flatMap((each) => {
          const finding = judge(each)
          return finding === undefined ? [] : [finding]
        }),
        ...crds.flatMap(judgeStored),
        ...unread
      ]
    )
  })
})
