/**
 * k8s.crd.conversion: custom resources can be read in every version they are served in.
 *
 * Two looks, because the kinds are known only when a run sees them, and no role can name them. Conversion webhooks of all
 * definitions are judged by what the API tells of them: Service, endpoints, CA. Kinds that the prober is granted are read
 * as well, one object of each version: its list, and where a webhook converts also the object itself, because the API
 * server answers lists from its cache, where objects are converted already.
 */
import { DateTime, Duration, Effect, Option, Result, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { type KubeError, Unreachable } from "../../infra/kube/KubeError.ts"
import { type KubeObject, type KubeResource, make } from "../../infra/kube/KubeResource.ts"
import { SelfSubjectRulesReview } from "../../infra/kube/resources/authorization.ts"
import { CustomResourceDefinition } from "../../infra/kube/resources/extensions.ts"
import { findingOfKubeError } from "../Attempt.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Preflight from "../Preflight.ts"
import * as Probe from "../Probe.ts"
import { RunContext } from "../RunContext.ts"
import * as ServerTime from "../ServerTime.ts"
import { Names, setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"
import * as Watch from "../Watch.ts"
import { type Backends, backendFault, backendsOf } from "./admissionWebhooks.ts"
import { ofBundle, standing } from "./certExpiry.ts"

export const CrdConversionConfig = Schema.Struct({
  kinds: setting(Names, {
    default: [],
    description:
      "Custom resources that must be read, as `<plural>.<group>`; grant the prober list and get of each. Others are read " +
      "where it is granted that anyway."
  }),
  startWithin: setting(DurationString, {
    default: "2m",
    description: "A definition made less than this ago may still be waiting for its webhook."
  }),
  slow: setting(DurationString, { default: "1s", description: "Reading one object may take this long." }),
  caWarnBefore: setting(DurationString, {
    default: "720h",
    description:
      "Warn this long before the last certificate of a caBundle expires, or when a fifth of its life is left, " +
      "whichever is later."
  })
})
export type CrdConversionConfig = typeof CrdConversionConfig.Type

export const codes = Codes.make({
  CONVERSION_FAILED: Codes.error(
    "The API server cannot convert objects of a kind between its versions: who asks for another version than the stored one " +
      "gets an error, and so do namespace deletion and garbage collection.",
    "Restore the conversion webhook named: its pods, Service, certificate and caBundle."
  ),
  CONVERSION_BACKEND_DOWN: Codes.error(
    "The webhook that converts a kind between its versions has no backend.",
    "Restore the Service and its pods; when their operator is gone, delete the definition or set its conversion to None."
  ),
  CONVERSION_CA_INVALID: Codes.error(
    "The caBundle of a conversion webhook holds no certificate that is valid now, so calls to it fail.",
    "Renew the certificate and the caBundle; look at the controller that injects it."
  ),
  CONVERSION_CA_MISSING: Codes.warn(
    "A conversion webhook served by a Service has no caBundle, and no public authority certifies names in `.svc`.",
    "Look at the controller that should inject the caBundle."
  ),
  CONVERSION_CA_EXPIRING: Codes.warn(
    "The caBundle of a conversion webhook expires soon.",
    "Renew the certificate and the caBundle; look at the controller that injects it."
  ),
  CONVERSION_STARTING: Codes.info(
    "A definition made a moment ago has a conversion webhook that cannot be called yet.",
    "Nothing to do, unless it stays so."
  ),
  CRD_NOT_ESTABLISHED: Codes.error(
    "A definition is not accepted, so its kind is not served.",
    "Read the message: names that another definition has already must be changed."
  ),
  RESOURCE_UNREADABLE: Codes.error(
    "The API server answers with an error when objects of a kind are read.",
    "Read the message: objects in etcd may be stored in a version that the definition no longer has."
  ),
  RESOURCE_SLOW: Codes.warn(
    "Reading an object of a kind takes long.",
    "Look at the conversion webhook where there is one; otherwise at the size and number of objects."
  ),
  RESOURCES_NOT_READ: Codes.info(
    "Kinds that a webhook converts were judged by the webhook's Service and certificate alone, because the prober may not read them.",
    "Grant the prober list and get of the kinds named, if you want them read."
  ),
  KIND_UNKNOWN: Codes.unknown(
    "`kinds` names something that no definition defines.",
    "Correct the name, as `<plural>.<group>`, or install the definition."
  )
})

/** How many versions of kinds are read in a run; those that a webhook converts first. */
const MAXIMUM_READ = 64
/** Slowness is confirmed by the median of three. */
const CONFIRMATIONS = 3
/** With three confirmations each this is what one connection pool sends at a time. */
const CONCURRENCY = 5
/** The API server waits 30 s for a webhook (apiextensions-apiserver, webhook_converter.go); people do not. */
const READ_TIMEOUT = Duration.seconds(5)

const nameOf = ({ metadata }: CustomResourceDefinition): string => metadata.name ?? ""
const subject = (crd: CustomResourceDefinition) => ({ kind: "CustomResourceDefinition", name: nameOf(crd) })
const clientConfigOf = ({ spec: { conversion } }: CustomResourceDefinition) =>
  conversion.strategy === "Webhook" ? conversion.webhook?.clientConfig : undefined

/**
 * Whether the webhook is ever called: objects may be stored in one version and asked for in another. Many operators ship
 * one with a single version, and then it does not matter that it is not there.
 */
export const isConverted = ({ spec, status }: CustomResourceDefinition): boolean =>
  spec.conversion.strategy === "Webhook" &&
  new Set([...spec.versions.filter(({ served }) => served).map(({ name }) => name), ...status.storedVersions]).size > 1

const isEstablished = ({ status }: CustomResourceDefinition): boolean =>
  status.conditions.some(({ status, type }) => type === "Established" && status === "True")

const decodeBase64 = Schema.decodeUnknownOption(Schema.StringFromBase64)

const judgeCaBundle = (crd: CustomResourceDefinition, config: CrdConversionConfig, now: DateTime.Utc) => {
  const { caBundle, service } = clientConfigOf(crd) ?? {}
  const title = `the webhook that converts ${nameOf(crd)}`
  if (caBundle === undefined || caBundle === "") {
    return service === undefined ? [] : [codes.CONVERSION_CA_MISSING({
      message: `${title} has no caBundle, so the API server cannot trust Service ${service.namespace}/${service.name}`,
      subject: subject(crd)
    })]
  }
  const validity = Option.getOrUndefined(Option.flatMap(decodeBase64(caBundle), ofBundle))
  if (validity === undefined) {
    return [codes.CONVERSION_CA_INVALID({
      message: `the caBundle of ${title} holds no readable certificate`,
      subject: subject(crd)
    })]
  }
  const until = DateTime.formatIso(validity.notAfter)
  const about = { subject: subject(crd), evidence: { notAfter: until } }
  const stands = standing(validity, { warn: config.caWarnBefore, error: Duration.zero }, now)
  switch (stands._tag) {
    case "Expired":
      return [codes.CONVERSION_CA_INVALID({
        ...about,
        message: `the caBundle of ${title} expired ${
          Elapsed.text(Elapsed.between(validity.notAfter, now))
        } ago (${until})`
      })]
    case "ExpiringSoon":
      return [codes.CONVERSION_CA_EXPIRING({
        ...about,
        message: `the caBundle of ${title} expires in ${
          Elapsed.text(Elapsed.between(now, validity.notAfter))
        } (${until})`
      })]
    default:
      return []
  }
}

/** What the API tells of one definition and its webhook. */
export const judge = (config: CrdConversionConfig, backends: Backends, now: DateTime.Utc) =>
(
  crd: CustomResourceDefinition
): ReadonlyArray<Finding> => {
  const { creationTimestamp, deletionTimestamp } = crd.metadata
  if (deletionTimestamp !== undefined) return []
  const isYoung = creationTimestamp !== undefined &&
    Duration.isLessThan(Elapsed.between(creationTimestamp, now), config.startWithin)
  if (!isEstablished(crd)) {
    const refused = crd.status.conditions.find(({ status, type }) => type === "NamesAccepted" && status === "False")
    return isYoung && refused === undefined ? [] : [codes.CRD_NOT_ESTABLISHED({
      message: `${nameOf(crd)} is not served: ${refused?.message ?? refused?.reason ?? "it is not established"}`,
      subject: subject(crd),
      evidence: { reason: refused?.reason ?? "" }
    })]
  }
  if (!isConverted(crd)) return []
  const { service } = clientConfigOf(crd) ?? {}
  const fault = service === undefined ? undefined : backendFault(service, backends)
  const findings = [
    ...fault === undefined ? [] : [codes.CONVERSION_BACKEND_DOWN({
      message: `${
        nameOf(crd)
      } cannot be converted between its versions: the webhook cannot be called, because ${fault}`,
      subject: subject(crd),
      evidence: { service: `${service?.namespace}/${service?.name}` }
    })],
    ...judgeCaBundle(crd, config, now)
  ]
  const [first] = findings
  return isYoung && first !== undefined
    ? [codes.CONVERSION_STARTING({
      message: `${first.message}; it was made ${Elapsed.text(Elapsed.between(creationTimestamp, now))} ago (limit ${
        Elapsed.text(config.startWithin)
      })`,
      subject: subject(crd)
    })]
    : findings
}

/** One version of a kind, to be read. */
interface Version {
  readonly crd: CustomResourceDefinition
  readonly version: string
  readonly resource: KubeResource<KubeObject>
}

const versionsOf = (crd: CustomResourceDefinition): ReadonlyArray<Version> =>
  crd.spec.versions.filter(({ served }) => served).map(({ name: version }) => ({
    crd,
    version,
    resource: make({
      group: crd.spec.group,
      version,
      kind: crd.spec.names.kind,
      plural: crd.spec.names.plural,
      scope: crd.spec.scope === "Cluster" ? "Cluster" : "Namespaced",
      // Objects are converted whole before the rest is left out, and may hold what is none of our business.
      metadataOnly: true,
      fields: {}
    })
  }))

const need = (verb: "get" | "list", { spec }: CustomResourceDefinition) =>
  new Needs.ResourceNeed({ verb, group: spec.group, resource: spec.names.plural, optional: true })

/** What a failed read says of the kind, or of us. */
export const judgeFailure = (crd: CustomResourceDefinition, version: string, error: KubeError): Finding => {
  const { reason } = error
  const title = `${nameOf(crd)} cannot be read in version ${version}`
  const about = { subject: subject(crd), evidence: { version } }
  if (reason._tag === "ServerFault") {
    return reason.detail.includes("conversion webhook for")
      ? codes.CONVERSION_FAILED({ ...about, message: `${title}: ${reason.detail}` })
      : codes.RESOURCE_UNREADABLE({ ...about, message: `${title}: ${reason.status} ${reason.detail}` })
  }
  if (reason instanceof Unreachable && reason.kind === "timeout") {
    return (isConverted(crd) ? codes.CONVERSION_FAILED : codes.RESOURCE_UNREADABLE)({
      ...about,
      message: `${title}: ${reason.detail}`
    })
  }
  return findingOfKubeError(error)
}

/** A list of one object; and that object itself, where it is converted and may be read. None when it is gone meanwhile. */
const read = Effect.fnUntraced(function*({ crd, resource }: Version, mayGet: boolean) {
  const kube = yield* Kube
  const { items: [first] } = yield* kube.list(resource, { maximum: 1 })
  const name = first?.metadata.name
  if (name === undefined || !mayGet || !isConverted(crd)) return
  yield* kube.get(resource, { name, namespace: first?.metadata.namespace }).pipe(
    Effect.catchIf((error) => error.reason._tag === "NotFound" && error.reason.what === "object", () => Effect.void)
  )
})

const tryOut = Effect.fnUntraced(function*(each: Version, mayGet: boolean, config: CrdConversionConfig) {
  const { crd, version } = each
  const once = Stopwatch.timed(Effect.result(Stopwatch.within(READ_TIMEOUT)(read(each, mayGet))))
  const silent = (took: Duration.Duration) =>
    (isConverted(crd) ? codes.CONVERSION_FAILED : codes.RESOURCE_UNREADABLE)({
      message: `${nameOf(crd)} cannot be read in version ${version}: no answer within ${Elapsed.text(took)}`,
      subject: subject(crd),
      evidence: { version }
    })
  const [took, result] = yield* once
  if (Result.isFailure(result)) {
    // The definition was deleted, or not every API server knows of it yet: there is nothing to read.
    return result.failure.reason._tag === "NotFound" ? [] : [judgeFailure(crd, version, result.failure)]
  }
  if (Option.isNone(result.success)) return [silent(took)]
  if (Duration.isLessThanOrEqualTo(took, config.slow)) return []
  const again = yield* Effect.forEach(Array.from({ length: CONFIRMATIONS }), () => once, { concurrency: CONFIRMATIONS })
  const millis = again.map(([each]) => Math.round(Duration.toMillis(each))).sort((a, b) => a - b)
  const median = millis[Math.floor(millis.length / 2)] ?? 0
  return median <= Duration.toMillis(config.slow) ? [] : [codes.RESOURCE_SLOW({
    message: `reading one object of ${nameOf(crd)} in version ${version} takes ${median} ms (median of ` +
      `${millis.length}, limit ${Duration.format(config.slow)})${
        isConverted(crd) ? "; a webhook converts it between versions" : ""
      }`,
    subject: subject(crd),
    evidence: { version, medianMillis: median, limitMillis: Duration.toMillis(config.slow) }
  })]
})

/**
 * Which kinds the prober may list, and get. One answer of the API server lists what RBAC grants; other authorizers cannot
 * list theirs, so kinds that a webhook converts are asked about one by one.
 */
const rightsTo = Effect.fnUntraced(function*(crds: ReadonlyArray<CustomResourceDefinition>) {
  const kube = yield* Kube
  const { probeNamespace } = yield* RunContext
  const { status: rules } = yield* kube.create(SelfSubjectRulesReview, {
    metadata: {},
    spec: { namespace: Preflight.EVERYWHERE }
  })
  const granted = Effect.fnUntraced(function*(verb: "get" | "list", among: ReadonlyArray<CustomResourceDefinition>) {
    const unsure = among.filter((crd) => isConverted(crd) && !Preflight.shows(rules, need(verb, crd)))
      .slice(0, MAXIMUM_READ)
    const lacking = new Set(
      (yield* Preflight.missing(unsure.map((crd) => need(verb, crd)), probeNamespace)).map((each) =>
        Needs.describe(each)
      )
    )
    return new Set(among.filter((crd) =>
      Preflight.shows(rules, need(verb, crd)) ||
      (unsure.includes(crd) && !lacking.has(Needs.describe(need(verb, crd))))
    ))
  })
  const list = yield* granted("list", crds)
  return { list, get: yield* granted("get", [...list]) }
})

const shortList = (names: ReadonlyArray<string>): string =>
  `${names.slice(0, 5).join(", ")}${names.length > 5 ? ` and ${names.length - 5} more` : ""}`

export const crdConversion = Probe.make("k8s.crd.conversion", {
  layer: "kubernetes",
  proves:
    "Custom resources can be read in every version: webhooks that convert them have backends and certificates, and kinds " +
    "the prober may read are read.",
  writes: "nothing",
  costs:
    "One list of definitions, two lists in each namespace that serves conversion webhooks, and one or two reads of one " +
    "object for each version of the kinds the prober may read (at most 64); it asks which those are, for each kind that a " +
    "webhook converts by itself.",
  needs: [
    Needs.list("customresourcedefinitions", { group: "apiextensions.k8s.io" }),
    Needs.list("services"),
    Needs.list("endpointslices", { group: "discovery.k8s.io" }),
    // Which kinds may be read; every authenticated user may ask (ClusterRole system:basic-user).
    Needs.create("selfsubjectrulesreviews", { group: "authorization.k8s.io" }),
    Needs.create("selfsubjectaccessreviews", { group: "authorization.k8s.io" }),
    Needs.customResources("list", "get"),
    ServerTime.needs
  ],
  codes,
  config: CrdConversionConfig,
  interval: "5 minutes",
  timeout: "90 seconds",
  timed: [],
  onChange: [Watch.of(CustomResourceDefinition)],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: CrdConversionConfig) {
    const kube = yield* Kube
    const { items: crds } = yield* kube.list(CustomResourceDefinition)
    const unknown = config.kinds.filter((kind) => !crds.some((crd) => nameOf(crd) === kind)).map((kind) =>
      codes.KIND_UNKNOWN({ message: `${kind} is to be read, but no definition defines it` })
    )
    if (crds.length === 0) {
      return Outcome.make("", [
        ...unknown,
        checkerCodes.NOT_APPLICABLE({ message: "the cluster has no custom resource definition" })
      ])
    }
    const backends = yield* backendsOf(crds.filter(isConverted).map((crd) => clientConfigOf(crd)?.service))
    const findings = crds.flatMap(judge(config, backends, yield* ServerTime.nowOrOurs))

    // What was found broken already is not asked again, only slower.
    const broken = new Set(
      findings.filter(({ code, status }) => status === "ERROR" || code === codes.CONVERSION_STARTING.code)
        .map(({ subject }) => subject?.name)
    )
    const served = crds.filter((crd) =>
      crd.metadata.deletionTimestamp === undefined && isEstablished(crd) && !broken.has(nameOf(crd))
    )
    const rights = yield* rightsTo(served)
    const readable = served.filter((crd) => config.kinds.includes(nameOf(crd)) || rights.list.has(crd))
    const versions = readable.sort((a, b) => Number(isConverted(b)) - Number(isConverted(a))).flatMap(versionsOf)
    const asked = versions.slice(0, MAXIMUM_READ)
    const tried = yield* Effect.forEach(
      asked,
      (each) => tryOut(each, rights.get.has(each.crd), config),
      { concurrency: CONCURRENCY }
    )
    const unread = served.filter((crd) => isConverted(crd) && !readable.includes(crd)).map(nameOf)
    return Outcome.make(
      `${crds.length} definitions are served, ${
        crds.filter(isConverted).length
      } converted by webhooks; ${asked.length}${
        versions.length > asked.length ? ` of ${versions.length}` : ""
      } versions of ${readable.length} kinds were read`,
      [
        ...unknown,
        ...findings,
        ...tried.flat(),
        ...unread.length === 0 ? [] : [codes.RESOURCES_NOT_READ({
          message: `${unread.length} kinds that webhooks convert were not read, for want of the right to list them: ${
            shortList(unread)
          }`,
          evidence: { kinds: unread.length }
        })]
      ]
    )
  })
})
