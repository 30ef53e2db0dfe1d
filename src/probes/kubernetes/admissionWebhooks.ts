/** k8s.admission.webhooks: no webhook stands between users and their objects. */
import { DateTime, Duration, Effect, Option, Result, Schema } from "effect"
import { counted } from "../../domain/counted.ts"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube, type Manifest } from "../../infra/kube/Kube.ts"
import type { KubeError } from "../../infra/kube/KubeError.ts"
import type { KubeObject, KubeResource } from "../../infra/kube/KubeResource.ts"
import {
  MutatingWebhookConfiguration,
  type ServiceReference,
  ValidatingWebhookConfiguration,
  type Webhook
} from "../../infra/kube/resources/admission.ts"
import { ConfigMap, Namespace, Pod, Service } from "../../infra/kube/resources/core.ts"
import { EndpointSlice } from "../../infra/kube/resources/discovery.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { RunContext } from "../RunContext.ts"
import * as ServerTime from "../ServerTime.ts"
import { setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"
import * as Watch from "../Watch.ts"
import { ofBundle, standing } from "./certExpiry.ts"

const GROUP = "admissionregistration.k8s.io"
const SERVICE_NAME = "kubernetes.io/service-name"
const NAMESPACE_NAME = "kubernetes.io/metadata.name"

export const AdmissionWebhooksConfig = Schema.Struct({
  maxTimeout: setting(DurationString, {
    default: "10s",
    description: "A webhook may hold up a request this long (`timeoutSeconds`); the default is Kubernetes' own."
  }),
  startWithin: setting(DurationString, {
    default: "2m",
    description: "A configuration made less than this ago may still be waiting for its backend and its caBundle."
  }),
  caWarnBefore: setting(DurationString, {
    default: "720h",
    description:
      "Warn this long before the last certificate of a caBundle expires, or when a fifth of its life is left, " +
      "whichever is later: short-lived ones are rotated by a controller."
  }),
  slowAfter: setting(DurationString, {
    default: "2s",
    description: "A create with all its webhooks may take this long."
  })
})
export type AdmissionWebhooksConfig = typeof AdmissionWebhooksConfig.Type

export const codes = Codes.make({
  WEBHOOK_CALL_FAILED: Codes.error(
    "The API server could not call a webhook that must answer, so it refused to create an object.",
    "Restore the backend of the webhook named, or delete its configuration when its operator is gone."
  ),
  WEBHOOK_BACKEND_DOWN: Codes.error(
    "A webhook with failurePolicy Fail has no backend: requests that match its rules and selectors are refused.",
    "Restore the Service and its pods, or delete the webhook configuration when its operator is gone."
  ),
  WEBHOOK_CA_INVALID: Codes.error(
    "A webhook with failurePolicy Fail has a caBundle in which no certificate is valid now, so calls to it fail.",
    "Renew the certificate and the caBundle; look at the controller that injects it."
  ),
  WEBHOOK_INEFFECTIVE: Codes.warn(
    "A webhook with failurePolicy Ignore cannot be called: objects pass without what it should check or change.",
    "Restore its backend or certificate, or delete the webhook configuration."
  ),
  WEBHOOK_CA_MISSING: Codes.warn(
    "A webhook served by a Service has no caBundle, and no public authority certifies names in `.svc`.",
    "Look at the controller that should inject the caBundle."
  ),
  WEBHOOK_CA_EXPIRING: Codes.warn(
    "The caBundle of a webhook expires soon.",
    "Renew the certificate and the caBundle; look at the controller that injects it."
  ),
  WEBHOOK_STARTING: Codes.info(
    "A webhook configured a moment ago cannot be called yet.",
    "Nothing to do, unless it stays so."
  ),
  WEBHOOK_UNSAFE_SCOPE: Codes.warn(
    "A webhook that must answer intercepts what the cluster needs to repair itself: pods or leases in kube-system, nodes, or " +
      "authentication, authorization and certificate requests. Object selectors that opt in, and matchConditions, are taken " +
      "to exclude these.",
    "Exclude kube-system by namespaceSelector, narrow the rules, or set failurePolicy Ignore."
  ),
  WEBHOOK_TIMEOUT_LONG: Codes.warn(
    "A webhook may hold up each request for long when its backend hangs.",
    "Set timeoutSeconds to 10 or less."
  ),
  ADMISSION_SLOW: Codes.warn(
    "Creating an object takes long, because admission does.",
    "Look for webhooks whose backends answer slowly or not at all."
  ),
  DRY_RUN_REFUSED: Codes.info(
    "A policy or quota refused the object this probe tries to create, so webhooks that come after it were not called.",
    "Nothing to do; to try them all, let the prober create pods and ConfigMaps in its namespace."
  ),
  DRY_RUN_IMPOSSIBLE: Codes.unknown(
    "The dry run could not be made, so webhooks were judged by their configuration alone.",
    "Read the message; the probe namespace must exist and the API server must answer."
  )
})

/** A webhook and the configuration it is part of. */
export interface Hook {
  readonly kind: "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration"
  readonly configuration: string
  readonly createdAt?: DateTime.Utc | undefined
  readonly webhook: Webhook
}

const subject = (hook: Hook) => ({ kind: hook.kind, name: hook.configuration })
const isFail = ({ webhook }: Hook): boolean => webhook.failurePolicy !== "Ignore"
/** With the object that would have to be changed or deleted. */
const title = ({ configuration, kind, webhook }: Hook): string => `webhook ${webhook.name} of ${kind} ${configuration}`

/** A webhook that cannot be called is an outage or a hole, as its failurePolicy says. */
const uncallable = (hook: Hook, code: Codes.Code, why: string): Finding =>
  isFail(hook)
    ? code({
      message: `${title(hook)} must answer (failurePolicy Fail), but ${why}: requests that match it are refused`,
      subject: subject(hook),
      evidence: { webhook: hook.webhook.name }
    })
    : codes.WEBHOOK_INEFFECTIVE({
      message: `${title(hook)} is skipped (failurePolicy Ignore), because ${why}`,
      subject: subject(hook),
      evidence: { webhook: hook.webhook.name }
    })

/** What is known of the Services that webhooks are served by, in the namespaces they name. */
export interface Backends {
  readonly services: ReadonlyArray<Service>
  readonly slices: ReadonlyArray<EndpointSlice>
}

const isNamed = (reference: ServiceReference) => ({ metadata }: KubeObject): boolean =>
  metadata.namespace === reference.namespace && metadata.name === reference.name

/** Why a Service cannot serve a webhook; none when it can, as far as the API tells. */
export const backendFault = (reference: ServiceReference, { services, slices }: Backends): string | undefined => {
  const { name, namespace, port = 443 } = reference
  const service = services.find(isNamed(reference))
  if (service === undefined) return `its Service ${namespace}/${name} does not exist`
  if (service.spec.type === "ExternalName") return undefined
  if (!service.spec.ports.some((each) => each.port === port)) {
    return `its Service ${namespace}/${name} has no port ${port}`
  }
  const endpoints = slices.filter(({ metadata }) =>
    metadata.namespace === namespace && metadata.labels?.[SERVICE_NAME] === name
  ).flatMap((slice) => slice.endpoints)
  // While no endpoint is ready, kube-proxy sends connections to those that end and still serve (KEP-1669).
  return endpoints.some(({ conditions: { ready, serving, terminating } }) =>
      ready !== false || terminating === true && serving === true
    )
    ? undefined
    : `its Service ${namespace}/${name} has no ready endpoint (${endpoints.length} not ready)`
}

export const judgeBackend = (hook: Hook, backends: Backends): ReadonlyArray<Finding> => {
  const { service } = hook.webhook.clientConfig
  const fault = service === undefined ? undefined : backendFault(service, backends)
  return fault === undefined ? [] : [uncallable(hook, codes.WEBHOOK_BACKEND_DOWN, fault)]
}

const decodeBase64 = Schema.decodeUnknownOption(Schema.StringFromBase64)

/** A bundle is as good as the certificate in it that lives longest: rotation keeps the old one beside the new. */
export const judgeCaBundle = (
  hook: Hook,
  config: AdmissionWebhooksConfig,
  now: DateTime.Utc
): ReadonlyArray<Finding> => {
  const { caBundle, service } = hook.webhook.clientConfig
  if (caBundle === undefined || caBundle === "") {
    return service === undefined ? [] : [codes.WEBHOOK_CA_MISSING({
      message: `${
        title(hook)
      } has no caBundle, so the API server cannot trust Service ${service.namespace}/${service.name}`,
      subject: subject(hook)
    })]
  }
  const validity = Option.getOrUndefined(Option.flatMap(decodeBase64(caBundle), ofBundle))
  if (validity === undefined) {
    return [uncallable(hook, codes.WEBHOOK_CA_INVALID, "its caBundle holds no readable certificate")]
  }
  const { notAfter } = validity
  const until = DateTime.formatIso(notAfter)
  const stands = standing(validity, { warn: config.caWarnBefore, error: Duration.zero }, now)
  if (stands._tag === "Expired") {
    const age = Elapsed.text(Elapsed.between(notAfter, now))
    return [uncallable(hook, codes.WEBHOOK_CA_INVALID, `its caBundle expired ${age} ago (${until})`)]
  }
  return stands._tag !== "ExpiringSoon" ? [] : [codes.WEBHOOK_CA_EXPIRING({
    message: `the caBundle of ${title(hook)} expires in ${Elapsed.text(Elapsed.between(now, notAfter))} (${until})`,
    subject: subject(hook),
    evidence: { notAfter: until }
  })]
}

type Selector = NonNullable<Webhook["namespaceSelector"]>

/** Label selection as the API server does it; an empty selector matches everything. */
export const selects = (selector: Selector | undefined, labels: Readonly<Record<string, string>>): boolean =>
  selector === undefined || (
    Object.entries(selector.matchLabels).every(([key, value]) => labels[key] === value) &&
    selector.matchExpressions.every(({ key, operator, values }) => {
      const value = labels[key]
      switch (operator) {
        case "In":
          return value !== undefined && values.includes(value)
        case "NotIn":
          return value === undefined || !values.includes(value)
        case "Exists":
          return value !== undefined
        case "DoesNotExist":
          return value === undefined
        default:
          return true
      }
    })
  )

const isOptIn = (selector: Selector | undefined): boolean =>
  selector !== undefined && (Object.keys(selector.matchLabels).length > 0 ||
    selector.matchExpressions.some(({ operator }) => operator === "In" || operator === "Exists"))

/** What the control plane, kubelets and their leaders write to stay alive (as GKE's insight on unsafe webhooks has it). */
const VITAL = [
  { group: "", resource: "pods", scope: "Namespaced" },
  { group: "coordination.k8s.io", resource: "leases", scope: "Namespaced" },
  { group: "", resource: "nodes", scope: "Cluster" },
  { group: "authentication.k8s.io", resource: "tokenreviews", scope: "Cluster" },
  { group: "authorization.k8s.io", resource: "subjectaccessreviews", scope: "Cluster" },
  { group: "certificates.k8s.io", resource: "certificatesigningrequests", scope: "Cluster" }
] as const

/** Which vital resources a webhook intercepts, given the labels of kube-system. */
export const vitalOf = (
  webhook: Webhook,
  kubeSystem: Readonly<Record<string, string>>
): ReadonlyArray<string> => {
  if (webhook.matchConditions.length > 0 || isOptIn(webhook.objectSelector)) return []
  const has = (values: ReadonlyArray<string>, ...wanted: ReadonlyArray<string>) =>
    values.some((value) => wanted.includes(value))
  return VITAL.filter(({ group, resource, scope }) =>
    webhook.rules.some((rule) =>
      has(rule.apiGroups, group, "*") && has(rule.resources, resource, "*", "*/*") &&
      has(rule.operations, "CREATE", "UPDATE", "*") && has([rule.scope ?? "*"], scope, "*")
    ) && (scope === "Cluster" || selects(webhook.namespaceSelector, kubeSystem))
  ).map(({ resource, scope }) => scope === "Cluster" ? resource : `${resource} in kube-system`)
}

const judgeScope = (hook: Hook, kubeSystem: Readonly<Record<string, string>>): ReadonlyArray<Finding> => {
  const vital = isFail(hook) ? vitalOf(hook.webhook, kubeSystem) : []
  return vital.length === 0 ? [] : [codes.WEBHOOK_UNSAFE_SCOPE({
    message:
      `${title(hook)} must answer (failurePolicy Fail) for ${vital.join(", ")}: while its backend is down, the ` +
      "cluster cannot repair itself",
    subject: subject(hook),
    evidence: { intercepts: vital.join(", ") }
  })]
}

const judgeTimeout = (hook: Hook, config: AdmissionWebhooksConfig): ReadonlyArray<Finding> => {
  const timeout = Duration.seconds(hook.webhook.timeoutSeconds ?? 10)
  return Duration.isGreaterThan(timeout, config.maxTimeout)
    ? [codes.WEBHOOK_TIMEOUT_LONG({
      message: `${title(hook)} may hold up each request for ${Elapsed.text(timeout)} (limit ${
        Elapsed.text(config.maxTimeout)
      })`,
      subject: subject(hook),
      evidence: { timeoutSeconds: Duration.toSeconds(timeout) }
    })]
    : []
}

const judgeCallable = (
  hook: Hook,
  config: AdmissionWebhooksConfig,
  seen: { readonly backends: Backends; readonly now: DateTime.Utc }
): ReadonlyArray<Finding> => {
  const findings = [...judgeBackend(hook, seen.backends), ...judgeCaBundle(hook, config, seen.now)]
  const age = hook.createdAt === undefined ? Duration.infinity : Elapsed.between(hook.createdAt, seen.now)
  const [first] = findings
  return first === undefined || first.code === codes.WEBHOOK_CA_EXPIRING.code ||
      !Duration.isLessThan(age, config.startWithin)
    ? findings
    : [codes.WEBHOOK_STARTING({
      message: `${first.message}; it was configured ${Elapsed.text(age)} ago (limit ${
        Elapsed.text(config.startWithin)
      })`,
      subject: subject(hook),
      evidence: { webhook: hook.webhook.name }
    })]
}

/** What the API says about one webhook. Without rules it is never called. */
export const judge = (config: AdmissionWebhooksConfig, seen: {
  readonly backends: Backends
  readonly kubeSystem: Readonly<Record<string, string>>
  readonly now: DateTime.Utc
}) =>
(hook: Hook): ReadonlyArray<Finding> =>
  hook.webhook.rules.length === 0 ? [] : [
    ...judgeCallable(hook, config, seen),
    ...judgeScope(hook, seen.kubeSystem),
    ...judgeTimeout(hook, config)
  ]

/** What a refused dry run says. */
export const judgeRefusal = (what: string, error: KubeError, hooks: ReadonlyArray<Hook>): Finding => {
  const { reason } = error
  if (reason._tag !== "AdmissionDenied" || reason.kind === "namespace-terminating") {
    return codes.DRY_RUN_IMPOSSIBLE({ message: `dry run of ${what}: ${error.message}` })
  }
  const hook = hooks.find(({ webhook }) => webhook.name === reason.by)
  const about = {
    ...(hook === undefined ? {} : { subject: subject(hook) }),
    evidence: { object: what, ...(reason.by === undefined ? {} : { by: reason.by }) }
  }
  return reason.kind === "webhook-failed"
    ? codes.WEBHOOK_CALL_FAILED({
      ...about,
      message: `a ${what} cannot be created, because ${
        hook === undefined ? `webhook ${reason.by ?? ""}` : title(hook)
      } does not answer: ${reason.detail}`
    })
    : codes.DRY_RUN_REFUSED({ ...about, message: `dry run of ${what}: ${error.message}` })
}

const dryRunPod = (namespace: string): Manifest => ({
  metadata: { generateName: "kubeprober-webhooks-", namespace },
  spec: {
    automountServiceAccountToken: false,
    restartPolicy: "Never",
    securityContext: { runAsNonRoot: true, runAsUser: 65534, seccompProfile: { type: "RuntimeDefault" } },
    containers: [{
      name: "main",
      image: "registry.k8s.io/pause:3.10",
      resources: { requests: { cpu: "1m", memory: "1Mi" }, limits: { cpu: "1m", memory: "1Mi" } },
      securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } }
    }]
  }
})

const dryRunConfigMap = (namespace: string): Manifest => ({
  metadata: { generateName: "kubeprober-webhooks-", namespace },
  data: { purpose: "dry run" }
})

/** One create that stores nothing, through all admission. */
const dryRun = Effect.fnUntraced(
  function*<A extends KubeObject>(
    resource: KubeResource<A>,
    manifest: Manifest,
    config: AdmissionWebhooksConfig,
    hooks: ReadonlyArray<Hook>
  ) {
    const kube = yield* Kube
    const [took, result] = yield* Stopwatch.timed(Effect.result(kube.create(resource, manifest, { dryRun: true })))
    const limits = yield* Hysteresis.limits
    const slow = limits.takesLonger(took, config.slowAfter, { code: codes.ADMISSION_SLOW })
      ? [codes.ADMISSION_SLOW({
        message: `the dry run of a ${resource.kind} took ${Elapsed.text(took)} (${
          Hysteresis.text(Elapsed.text(config.slowAfter), Duration.isGreaterThan(took, config.slowAfter))
        })`,
        evidence: { object: resource.kind, millis: Math.round(Duration.toMillis(took)) }
      })]
      : []
    return Result.match(result, {
      onSuccess: () => slow,
      onFailure: (error) => [judgeRefusal(resource.kind, error, hooks), ...slow]
    })
  }
)

const configurations = Effect.fnUntraced(function*() {
  const kube = yield* Kube
  const [validating, mutating] = yield* Effect.all([
    kube.list(ValidatingWebhookConfiguration),
    kube.list(MutatingWebhookConfiguration)
  ], { concurrency: 2 })
  const hooksOf = (kind: Hook["kind"], items: ReadonlyArray<ValidatingWebhookConfiguration>) =>
    items.flatMap(({ metadata, webhooks }) =>
      webhooks.map((webhook): Hook => ({
        kind,
        configuration: metadata.name ?? "",
        createdAt: metadata.creationTimestamp,
        webhook
      }))
    )
  return [
    ...hooksOf("ValidatingWebhookConfiguration", validating.items),
    ...hooksOf("MutatingWebhookConfiguration", mutating.items)
  ]
})

/** What serves these references: two lists in each namespace they name, whatever their number. */
export const backendsOf = Effect.fnUntraced(function*(references: ReadonlyArray<ServiceReference | undefined>) {
  const kube = yield* Kube
  const names = new Map<string, Set<string>>()
  for (const service of references) {
    if (service === undefined) continue
    names.set(service.namespace, (names.get(service.namespace) ?? new Set()).add(service.name))
  }
  const found = yield* Effect.forEach(names, ([namespace, services]) =>
    Effect.all({
      services: kube.list(Service, { namespace }),
      slices: kube.list(EndpointSlice, { namespace, labelSelector: `${SERVICE_NAME} in (${[...services].join(",")})` })
    }, { concurrency: 2 }), { concurrency: 4 })
  return {
    services: found.flatMap(({ services }) => services.items),
    slices: found.flatMap(({ slices }) => slices.items)
  }
})

/** The labels of kube-system; without permission to read them, the one that every namespace has. */
const labelsOfKubeSystem = Effect.fnUntraced(function*() {
  const kube = yield* Kube
  return yield* kube.get(Namespace, { name: "kube-system" }).pipe(
    Effect.map(({ metadata }) => metadata.labels ?? {}),
    Effect.orElseSucceed((): Readonly<Record<string, string>> => ({ [NAMESPACE_NAME]: "kube-system" }))
  )
})

export const admissionWebhooks = Probe.make("k8s.admission.webhooks", {
  layer: "kubernetes",
  proves: "Every admission webhook can be called, and creating a pod and a ConfigMap passes admission in time.",
  writes: "dry-run",
  costs:
    "6 API requests, two of them creates that are not stored, and 2 for each namespace that serves a webhook; every " +
    "webhook that matches a pod or a ConfigMap is called.",
  needs: [
    Needs.list("validatingwebhookconfigurations", { group: GROUP }),
    Needs.list("mutatingwebhookconfigurations", { group: GROUP }),
    Needs.list("services"),
    Needs.list("endpointslices", { group: "discovery.k8s.io" }),
    Needs.get("namespaces", { names: ["kube-system"], optional: true }),
    Needs.create("pods", { namespace: Needs.probeNamespace }),
    Needs.create("configmaps", { namespace: Needs.probeNamespace }),
    ServerTime.needs
  ],
  codes,
  config: AdmissionWebhooksConfig,
  // A webhook may take 30 s, and the API server waits for several of them.
  timeout: "60 seconds",
  timed: [],
  onChange: [Watch.of(ValidatingWebhookConfiguration), Watch.of(MutatingWebhookConfiguration)],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: AdmissionWebhooksConfig) {
    const { probeNamespace } = yield* RunContext
    const hooks = yield* configurations()
    const backends = yield* backendsOf(hooks.map(({ webhook }) => webhook.clientConfig.service))
    const kubeSystem = yield* labelsOfKubeSystem()
    const findings = hooks.flatMap(judge(config, { backends, kubeSystem, now: yield* ServerTime.nowOrOurs }))
    const tried = yield* Effect.all([
      dryRun(Pod, dryRunPod(probeNamespace), config, hooks),
      dryRun(ConfigMap, dryRunConfigMap(probeNamespace), config, hooks)
    ], { concurrency: 2 })
    return Outcome.make(
      `${counted(hooks.length, "webhook")} can be called; a pod and a ConfigMap pass admission in ${probeNamespace}`,
      [...findings, ...tried.flat()]
    )
  })
})
