/**
 * k8s.routes.static: Services and Ingresses lead somewhere.
 *
 * Nothing is sent: references are followed from object to object. Which pods are behind a Service and whether their ports
 * have the names it asks for, its EndpointSlices tell; since when, the time these were last written.
 */
import { DateTime, Duration, Effect, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import { matches } from "../../domain/NamePattern.ts"
import type { Finding } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import type { KubeObject } from "../../infra/kube/KubeResource.ts"
import { DaemonSet, Deployment, StatefulSet } from "../../infra/kube/resources/apps.ts"
import { Service } from "../../infra/kube/resources/core.ts"
import { EndpointSlice } from "../../infra/kube/resources/discovery.ts"
import { Ingress, type IngressBackend, IngressClass } from "../../infra/kube/resources/networking.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { Names, setting } from "../Setting.ts"
import * as Watch from "../Watch.ts"

export const RoutesStaticConfig = Schema.Struct({
  unreadyAfter: setting(DurationString, {
    default: "15m",
    description: "A Service may be without a ready pod this long: deployments, moves and restarts take time."
  }),
  settle: setting(DurationString, {
    default: "2m",
    description: "An Ingress made, or a Service's pods changed, less than this ago is not judged yet."
  }),
  ignore: setting(Names, {
    default: [],
    description: "Services and Ingresses that are left alone, as `namespace/name`; `*` at the end matches any rest."
  })
})
export type RoutesStaticConfig = typeof RoutesStaticConfig.Type

export const codes = Codes.make({
  SERVICE_NOT_READY: Codes.warn(
    "A Service has pods, and none of them has been ready for long: connections to it fail.",
    "Look at the pods' readiness probes and logs."
  ),
  SERVICE_WITHOUT_PODS: Codes.warn(
    "A workload behind a Service wants pods, and none has had an address for long: connections to the Service fail.",
    "Look at the pods and events of the workload named; k8s.workloads.health tells why they do not start."
  ),
  SERVICE_SELECTS_NOTHING: Codes.warn(
    "The selector of a Service matches no pod and no workload: connections to it fail.",
    "Correct the selector, or delete the Service when what was behind it is gone; add it to `ignore` when an operator makes " +
      "its pods at times."
  ),
  SERVICE_VACANT: Codes.info(
    "A Service has no pod now, which is often meant: it is headless, or asks for a label that pods get as a role.",
    "Nothing to do, unless somebody should have the role."
  ),
  SERVICE_PORT_UNRESOLVED: Codes.warn(
    "A port of a Service leads to a port name that none of its ready pods has, so connections to that port fail.",
    "Name the container's port as the Service's targetPort says, or correct targetPort."
  ),
  SERVICE_UNREACHABLE: Codes.error(
    "A Service has ready pods, and none of its ports leads to them, because they have no port of the names it asks for.",
    "Name the container's port as the Service's targetPort says, or correct targetPort."
  ),
  INGRESS_BACKEND_MISSING: Codes.error(
    "An Ingress sends requests to a Service that does not exist: they are answered 404 or 503.",
    "Create the Service or correct the Ingress."
  ),
  INGRESS_PORT_MISSING: Codes.error(
    "An Ingress sends requests to a port that its Service does not have: they are answered 503.",
    "Correct the port of the Ingress or of the Service."
  ),
  INGRESS_CLASS_MISSING: Codes.error(
    "An Ingress names a class that does not exist, so no controller serves it.",
    "Install the controller, or correct ingressClassName."
  ),
  INGRESS_WITHOUT_CLASS: Codes.info(
    "An Ingress names no class, there is no default class, and no controller has given it an address.",
    "Name a class, unless a controller is meant to serve Ingresses without one."
  )
})

const SERVICE_NAME = "kubernetes.io/service-name"
const LEGACY_CLASS = "kubernetes.io/ingress.class"
const DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
/** AWS Load Balancer Controller: the backend is an action in an annotation, and no Service. */
const USE_ANNOTATION = "use-annotation"
/** A reference that is missing must be so twice: an uninstall deletes one object after the other. */
const LOOK_AGAIN_AFTER = "2 seconds"

/** Something that makes pods, and how many it wants. */
export interface Workload {
  readonly kind: "Deployment" | "StatefulSet" | "DaemonSet"
  readonly namespace: string
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly wants: number
}

/** What one look sees. */
export interface Seen {
  readonly services: ReadonlyArray<Service>
  readonly slices: ReadonlyArray<EndpointSlice>
  readonly workloads: ReadonlyArray<Workload>
  readonly ingresses: ReadonlyArray<Ingress>
  readonly classes: ReadonlyArray<IngressClass>
  readonly now: DateTime.Utc
}

const key = ({ metadata }: KubeObject): string => `${metadata.namespace ?? ""}/${metadata.name ?? ""}`

const subject = (kind: string, { metadata }: KubeObject) => ({
  kind,
  name: metadata.name ?? "",
  namespace: metadata.namespace ?? ""
})

/** What runs of ours make leads where they want it to. */
const isIgnored = (config: RoutesStaticConfig, object: KubeObject): boolean =>
  Watch.isOfRun(object) || config.ignore.some((pattern) => matches(pattern, key(object)))

const latest = (times: ReadonlyArray<DateTime.Utc | undefined>): DateTime.Utc | undefined => {
  const known = times.filter((time) => time !== undefined)
  return known.length === 0 ? undefined : known.reduce((a, b) => DateTime.max(a, b))
}

/** Pods of a Job or of a driver pod end, and their Services stay until the owner goes. */
const isTransient = ({ metadata }: Service): boolean =>
  (metadata.ownerReferences ?? []).some(({ kind }) => kind === "Pod" || kind === "Job")

/** Whether a Service is to lead to pods that it selects itself. */
const selectsPods = (service: Service): boolean =>
  service.metadata.deletionTimestamp === undefined && service.spec.type !== "ExternalName" &&
  Object.keys(service.spec.selector).length > 0 && !isTransient(service)

const isHeadless = ({ spec }: Service): boolean => spec.clusterIP === "None"

/** How much of a selector a pod template fulfils. A part of it: the rest is set on pods later, as a role is. */
const fit = (selector: Readonly<Record<string, string>>, labels: Readonly<Record<string, string>>) => {
  const entries = Object.entries(selector)
  const given = entries.filter(([name]) => labels[name] !== undefined)
  if (given.length === 0 || given.some(([name, value]) => labels[name] !== value)) return "none"
  return given.length === entries.length ? "whole" : "part"
}

const selectorText = (selector: Readonly<Record<string, string>>): string =>
  Object.entries(selector).slice(0, 5).map(([name, value]) => `${name}=${value}`).join(",")

/** Why no pod is behind a Service, when that is no matter of course. */
const judgeEmpty = (service: Service, workloads: ReadonlyArray<Workload>, ago: string): ReadonlyArray<Finding> => {
  const { selector } = service.spec
  const near = workloads.filter(({ namespace }) => namespace === service.metadata.namespace)
  const whole = near.filter(({ labels }) => fit(selector, labels) === "whole")
  const about = { subject: subject("Service", service), evidence: { selector: selectorText(selector) } }
  const wanting = whole.find(({ wants }) => wants > 0)
  if (wanting !== undefined) {
    return [codes.SERVICE_WITHOUT_PODS({
      ...about,
      message:
        `Service ${key(service)} has had no pod with an address for ${ago}: ${wanting.kind} ${wanting.name} wants ` +
        `${wanting.wants} and has none`
    })]
  }
  // Scaled to zero, by people or an autoscaler.
  if (whole.length > 0) return []
  const part = near.filter(({ labels }) => fit(selector, labels) === "part")
  if (part.length > 0 && part.every(({ wants }) => wants === 0)) return []
  return [(part.length > 0 || isHeadless(service) ? codes.SERVICE_VACANT : codes.SERVICE_SELECTS_NOTHING)({
    ...about,
    message: `Service ${key(service)} has had no pod for ${ago}: no pod${
      part.length > 0 ? "" : " and no workload"
    } matches ${selectorText(selector)}`
  })]
}

/** Ports by name that no ready pod has. Numbers need nobody's consent. */
const judgePorts = (service: Service, ready: ReadonlyArray<EndpointSlice>): ReadonlyArray<Finding> => {
  const { ports } = service.spec
  const unresolved = ports.filter(({ name = "", targetPort }) =>
    typeof targetPort === "string" &&
    !ready.some((slice) => slice.ports.some((port) => (port.name ?? "") === name))
  )
  // Of a headless one the addresses are what counts: clients know the port.
  if (unresolved.length === 0 || isHeadless(service)) return []
  const names = unresolved.map(({ port, targetPort }) => `port ${port} (${targetPort})`).join(", ")
  return [(unresolved.length === ports.length ? codes.SERVICE_UNREACHABLE : codes.SERVICE_PORT_UNRESOLVED)({
    message: `${names} of Service ${key(service)}: none of its ready pods has a port of that name`,
    subject: subject("Service", service),
    evidence: { ports: names }
  })]
}

/** What is behind one Service that selects pods. */
export const judgeService = (
  config: RoutesStaticConfig,
  service: Service,
  slices: ReadonlyArray<EndpointSlice>,
  workloads: ReadonlyArray<Workload>,
  now: DateTime.Utc
): ReadonlyArray<Finding> => {
  const since = latest([
    service.metadata.creationTimestamp,
    ...slices.flatMap((
      { metadata }
    ) => [metadata.creationTimestamp, ...(metadata.managedFields ?? []).map(({ time }) => time)])
  ])
  const age = since === undefined ? Duration.infinity : Elapsed.between(since, now)
  const ready = slices.filter(({ endpoints }) => endpoints.some(({ conditions }) => conditions.ready !== false))
  if (ready.length > 0) return Duration.isLessThan(age, config.settle) ? [] : judgePorts(service, ready)
  if (Duration.isLessThan(age, config.unreadyAfter)) return []
  const pods = new Set(
    slices.flatMap(({ endpoints }) => endpoints.map(({ addresses, targetRef }) => targetRef?.name ?? addresses[0]))
  )
  const ago = Elapsed.text(age)
  return pods.size === 0 ? judgeEmpty(service, workloads, ago) : [codes.SERVICE_NOT_READY({
    message: `Service ${key(service)} has had no ready pod for ${ago}: ${pods.size} not ready, such as ${[...pods][0]}`,
    subject: subject("Service", service),
    evidence: { pods: pods.size }
  })]
}

const backendsOf = ({ spec }: Ingress): ReadonlyArray<NonNullable<IngressBackend["service"]>> =>
  [spec.defaultBackend, ...spec.rules.flatMap(({ http }) => http.paths.map(({ backend }) => backend))]
    .flatMap((backend) => backend?.service === undefined ? [] : [backend.service])
    .filter(({ port }) => port.name !== USE_ANNOTATION)

/** What one Ingress refers to. */
export const judgeIngress = (
  config: RoutesStaticConfig,
  ingress: Ingress,
  { classes, now, services }: Pick<Seen, "classes" | "now" | "services">
): ReadonlyArray<Finding> => {
  const { annotations, creationTimestamp, deletionTimestamp, namespace } = ingress.metadata
  const age = creationTimestamp === undefined ? Duration.infinity : Elapsed.between(creationTimestamp, now)
  if (deletionTimestamp !== undefined || Duration.isLessThan(age, config.settle)) return []
  const about = subject("Ingress", ingress)
  const backends = new Map(
    backendsOf(ingress).map(({ name, port }) => [`${name}:${port.name ?? port.number ?? ""}`, { name, port }])
  )
  const missing = [...backends.values()].flatMap(({ name, port }) => {
    const service = services.find(({ metadata }) => metadata.namespace === namespace && metadata.name === name)
    if (service === undefined) {
      return [codes.INGRESS_BACKEND_MISSING({
        message: `Ingress ${key(ingress)} sends requests to Service ${name}, which does not exist`,
        subject: about,
        evidence: { service: name }
      })]
    }
    const wanted = port.name ?? port.number
    // An external name is reached by whatever port is asked for.
    return service.spec.type === "ExternalName" || wanted === undefined ||
        service.spec.ports.some((each) =>
          each.name === port.name && port.name !== undefined || each.port === port.number
        )
      ? []
      : [codes.INGRESS_PORT_MISSING({
        message: `Ingress ${key(ingress)} sends requests to port ${wanted} of Service ${name}, which has ${
          service.spec.ports.slice(0, 5).map((each) => `${each.name === undefined ? "" : `${each.name} `}${each.port}`)
            .join(", ")
        }`,
        subject: about,
        evidence: { service: name, port: wanted }
      })]
  })
  const wanted = ingress.spec.ingressClassName
  if (wanted !== undefined && !classes.some(({ metadata }) => metadata.name === wanted)) {
    return [
      ...missing,
      codes.INGRESS_CLASS_MISSING({
        message: `Ingress ${key(ingress)} is of class ${wanted}, which does not exist${
          classes.length === 0
            ? ""
            : ` (there is ${classes.slice(0, 5).map(({ metadata }) => metadata.name).join(", ")})`
        }`,
        subject: about,
        evidence: { class: wanted }
      })
    ]
  }
  const isServed = wanted !== undefined || annotations?.[LEGACY_CLASS] !== undefined ||
    ingress.status.loadBalancer.ingress.length > 0 ||
    classes.some(({ metadata }) => metadata.annotations?.[DEFAULT_CLASS] === "true")
  return isServed || Duration.isLessThan(age, config.unreadyAfter) ? missing : [
    ...missing,
    codes.INGRESS_WITHOUT_CLASS({
      message: `Ingress ${key(ingress)} names no class, and there is no default class`,
      subject: about
    })
  ]
}

/** The verdict on one look, and how much it judged. */
export const judge = (config: RoutesStaticConfig, seen: Seen) => {
  const slicesOf = new Map<string, Array<EndpointSlice>>()
  for (const slice of seen.slices) {
    const service = `${slice.metadata.namespace ?? ""}/${slice.metadata.labels?.[SERVICE_NAME] ?? ""}`
    slicesOf.set(service, [...slicesOf.get(service) ?? [], slice])
  }
  const services = seen.services.filter((service) => selectsPods(service) && !isIgnored(config, service))
  const ingresses = seen.ingresses.filter((ingress) => !isIgnored(config, ingress))
  return {
    services: services.length,
    ingresses: ingresses.length,
    findings: [
      ...services.flatMap((service) =>
        judgeService(config, service, slicesOf.get(key(service)) ?? [], seen.workloads, seen.now)
      ),
      ...ingresses.flatMap((ingress) => judgeIngress(config, ingress, seen))
    ]
  }
}

const workload = (kind: Workload["kind"], { metadata, spec }: Deployment | StatefulSet | DaemonSet, wants: number) => ({
  kind,
  namespace: metadata.namespace ?? "",
  name: metadata.name ?? "",
  labels: spec.template.metadata.labels,
  wants
})

const isKept = ({ metadata }: KubeObject): boolean => metadata.deletionTimestamp === undefined

const look = Effect.fnUntraced(function*() {
  const kube = yield* Kube
  const [ingresses, classes, services, slices, deployments, statefulSets, daemonSets] = yield* Effect.all([
    kube.list(Ingress),
    kube.list(IngressClass),
    kube.list(Service),
    kube.list(EndpointSlice),
    kube.list(Deployment),
    kube.list(StatefulSet),
    kube.list(DaemonSet)
  ], { concurrency: 4 })
  return {
    ingresses: ingresses.items,
    classes: classes.items,
    services: services.items,
    slices: slices.items,
    workloads: [
      ...deployments.items.filter(isKept).map((each) => workload("Deployment", each, each.spec.replicas ?? 1)),
      ...statefulSets.items.filter(isKept).map((each) => workload("StatefulSet", each, each.spec.replicas ?? 1)),
      ...daemonSets.items.filter(isKept).map((each) => workload("DaemonSet", each, each.status.desiredNumberScheduled))
    ],
    now: yield* ServerTime.nowOrOurs
  }
})

export const routesStatic = Probe.make("k8s.routes.static", {
  layer: "kubernetes",
  proves:
    "Services that select pods have ready ones with the ports asked for, and Ingresses name Services, ports and classes " +
    "that are there.",
  writes: "nothing",
  costs: "Seven lists: Ingresses and their classes, Services, EndpointSlices, Deployments, StatefulSets, DaemonSets; " +
    "again when a reference is missing.",
  needs: [
    Needs.list("services"),
    Needs.list("endpointslices", { group: "discovery.k8s.io" }),
    Needs.list("ingresses", { group: "networking.k8s.io" }),
    Needs.list("ingressclasses", { group: "networking.k8s.io" }),
    // What is scaled to zero is no fault.
    Needs.list("deployments", { group: "apps" }),
    Needs.list("statefulsets", { group: "apps" }),
    Needs.list("daemonsets", { group: "apps" }),
    ServerTime.needs
  ],
  codes,
  config: RoutesStaticConfig,
  interval: "5 minutes",
  timeout: "60 seconds",
  timed: [],
  onChange: [Watch.of(Ingress), Watch.of(Service)],
  dependsOn: ["k8s.api.health"],
  run: Effect.fnUntraced(function*(config: RoutesStaticConfig) {
    const first = judge(config, yield* look())
    const isError = ({ status }: Finding) => status === "ERROR"
    const textOf = ({ code, message }: Finding) => `${code} ${message}`
    const before = new Set(first.findings.filter(isError).map(textOf))
    const last = before.size === 0 ? first : judge(config, yield* Effect.delay(look(), LOOK_AGAIN_AFTER))
    return Outcome.make(
      `${last.services} Services that select pods lead to them or are meant to have none, and what ${last.ingresses} ` +
        "Ingresses refer to is there",
      last.findings.filter((finding) => !isError(finding) || before.has(textOf(finding)))
    )
  })
})
