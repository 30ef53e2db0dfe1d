import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Duration, Effect, Schema } from "effect"
import { Service } from "../../src/infra/kube/resources/core.ts"
import { EndpointSlice } from "../../src/infra/kube/resources/discovery.ts"
import { Ingress, IngressClass } from "../../src/infra/kube/resources/networking.ts"
import { BUSYBOX_IMAGE } from "../../src/local/image/Images.ts"
import { RoutesStaticConfig, type Workload, judge, routesStatic } from "../../src/probes/kubernetes/routesStatic.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blind, fault, healthy } from "../proofs/proof.ts"

const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
const ago = (duration: Duration.Input) =>
  DateTime.formatIso(DateTime.subtractDuration(NOW, Duration.fromInputUnsafe(duration)))

const metadata = (created: Duration.Input = "1 day") => ({
  name: "web",
  namespace: "shop",
  creationTimestamp: ago(created)
})

const service = (spec: object = {}, more: object = {}) =>
  Schema.decodeSync(Service.object)({
    metadata: { ...metadata(), ...more },
    spec: { clusterIP: "10.96.1.1", selector: { app: "web" }, ports: [{ port: 80 }], ...spec }
  })

const slice = (ready: ReadonlyArray<boolean>, options: {
  readonly changed?: Duration.Input
  readonly ports?: ReadonlyArray<string>
} = {}) =>
  Schema.decodeSync(EndpointSlice.object)({
    metadata: {
      name: "web-1",
      namespace: "shop",
      labels: { "kubernetes.io/service-name": "web" },
      creationTimestamp: ago("1 day"),
      managedFields: [{ time: ago(options.changed ?? "1 hour") }]
    },
    addressType: "IPv4",
    endpoints: ready.map((ready, index) => ({ addresses: [`10.1.0.${index}`], conditions: { ready } })),
    ports: (options.ports ?? [""]).map((name) => ({ name, port: 8080 }))
  })

const workload = (wants: number, labels: Readonly<Record<string, string>> = { app: "web" }): Workload => ({
  kind: "Deployment",
  namespace: "shop",
  name: "web",
  labels,
  wants
})

const ingress = (
  spec: object,
  options: { readonly created?: Duration.Input; readonly annotations?: Readonly<Record<string, string>> } = {}
) =>
  Schema.decodeSync(Ingress.object)({
    metadata: { ...metadata(options.created), annotations: options.annotations ?? {} },
    spec
  })

const says = (seen: Partial<Parameters<typeof judge>[1]>, config: typeof RoutesStaticConfig.Encoded = {}) =>
  judge(Schema.decodeSync(RoutesStaticConfig)(config), {
    services: [],
    slices: [],
    workloads: [],
    ingresses: [],
    classes: [],
    now: NOW,
    ...seen
  }).findings.map(({ code, status }) => `${status} ${code}`)

describe("judging Services", () => {
  it("leaves alone what has a ready pod, or had one a moment ago", () => {
    assert.deepStrictEqual(says({ services: [service()], slices: [slice([false, true])] }), [])
    assert.deepStrictEqual(says({ services: [service()], slices: [slice([false])] }), ["WARN SERVICE_NOT_READY"])
    assert.deepStrictEqual(says({ services: [service()], slices: [slice([false], { changed: "5 minutes" })] }), [])
    assert.deepStrictEqual(says({ services: [service({}, { creationTimestamp: ago("1 minute") })] }), [])
  })

  it("leaves alone what does not select pods, is deleted, belongs to a Job or is to be ignored", () => {
    assert.deepStrictEqual(says({ services: [service({ selector: {} })] }), [])
    assert.deepStrictEqual(says({ services: [service({ type: "ExternalName", externalName: "example.com" })] }), [])
    assert.deepStrictEqual(says({ services: [service({}, { deletionTimestamp: ago("1 hour") })] }), [])
    const ownerReferences = [{ apiVersion: "v1", kind: "Pod", name: "driver", uid: "1" }]
    assert.deepStrictEqual(says({ services: [service({}, { ownerReferences })] }), [])
    assert.deepStrictEqual(says({ services: [service()] }, { ignore: ["shop/*"] }), [])
    assert.deepStrictEqual(says({ services: [service({}, { labels: { "kubeprober.io/run": "r" } })] }), [])
  })

  it("knows what is scaled to zero, what wants pods and has none, and what matches nothing", () => {
    const of = (workloads: ReadonlyArray<Workload>, spec: object = {}) =>
      says({ services: [service(spec)], slices: [slice([])], workloads })
    assert.deepStrictEqual(of([workload(0)]), [])
    assert.deepStrictEqual(of([workload(0), workload(2)]), ["WARN SERVICE_WITHOUT_PODS"])
    assert.deepStrictEqual(of([]), ["WARN SERVICE_SELECTS_NOTHING"])
    assert.deepStrictEqual(of([workload(2, { app: "wbe" })]), ["WARN SERVICE_SELECTS_NOTHING"])
    assert.deepStrictEqual(of([], { clusterIP: "None" }), ["INFO SERVICE_VACANT"])
    const replica = { selector: { app: "web", role: "replica" } }
    assert.deepStrictEqual(of([workload(1)], replica), ["INFO SERVICE_VACANT"])
    assert.deepStrictEqual(of([workload(0)], replica), [])
  })

  it("asks for the names of ports among ready pods alone, and not of headless Services", () => {
    const ports = [{ name: "http", port: 80, targetPort: "web" }, { name: "metrics", port: 90, targetPort: "metrics" }]
    const of = (names: ReadonlyArray<string>, spec: object = {}) =>
      says({ services: [service({ ports, ...spec })], slices: [slice([true], { ports: names })] })
    assert.deepStrictEqual(of(["http", "metrics"]), [])
    assert.deepStrictEqual(of(["http"]), ["WARN SERVICE_PORT_UNRESOLVED"])
    assert.deepStrictEqual(of([]), ["ERROR SERVICE_UNREACHABLE"])
    assert.deepStrictEqual(of([], { clusterIP: "None" }), [])
    assert.deepStrictEqual(of([], { ports: [{ port: 80, targetPort: 8080 }] }), [])
  })
})

describe("judging Ingresses", () => {
  const backend = (name: string, port: object) => ({ defaultBackend: { service: { name, port } } })
  const nginx = Schema.decodeSync(IngressClass.object)({ metadata: { name: "nginx" } })
  const ready = {
    services: [service({ ports: [{ name: "http", port: 80 }] })],
    slices: [slice([true])],
    classes: [nginx]
  }
  const of = (spec: object, options: Parameters<typeof ingress>[1] = {}) =>
    says({ ...ready, ingresses: [ingress({ ingressClassName: "nginx", ...spec }, options)] })

  it("follows names and numbers of ports, and says each fault once", () => {
    assert.deepStrictEqual(of(backend("web", { number: 80 })), [])
    assert.deepStrictEqual(of(backend("web", { name: "http" })), [])
    assert.deepStrictEqual(of(backend("web", { number: 81 })), ["ERROR INGRESS_PORT_MISSING"])
    assert.deepStrictEqual(of(backend("web", { name: "https" })), ["ERROR INGRESS_PORT_MISSING"])
    const path = { backend: { service: { name: "gone", port: { number: 80 } } } }
    assert.deepStrictEqual(of({ rules: [{ http: { paths: [path, path] } }] }), ["ERROR INGRESS_BACKEND_MISSING"])
  })

  it("leaves alone what is new, actions of the AWS controller and backends that are no Services", () => {
    assert.deepStrictEqual(of(backend("gone", { number: 80 }), { created: "1 minute" }), [])
    assert.deepStrictEqual(of(backend("redirect", { name: "use-annotation" })), [])
    assert.deepStrictEqual(of({ defaultBackend: { resource: { kind: "Bucket", name: "static" } } }), [])
  })

  it("asks for the class that is named, and mentions that none is", () => {
    assert.deepStrictEqual(of({ ingressClassName: "traefik" }), ["ERROR INGRESS_CLASS_MISSING"])
    assert.deepStrictEqual(of({ ingressClassName: null }), ["INFO INGRESS_WITHOUT_CLASS"])
    const annotations = { "kubernetes.io/ingress.class": "gce" }
    assert.deepStrictEqual(of({ ingressClassName: null }, { annotations }), [])
  })
})

const namespaced = (apiVersion: string, kind: string, name: string, spec: object) => ({
  apiVersion,
  kind,
  metadata: { name, namespace: "default" },
  spec
})

const deployment = (name: string, options: {
  readonly replicas?: number
  readonly ready?: boolean
  readonly nodeSelector?: object
} = {}) =>
  namespaced("apps/v1", "Deployment", name, {
    replicas: options.replicas ?? 1,
    selector: { matchLabels: { app: name } },
    template: {
      metadata: { labels: { app: name } },
      spec: {
        terminationGracePeriodSeconds: 0,
        nodeSelector: options.nodeSelector ?? {},
        containers: [{
          name: "main",
          image: BUSYBOX_IMAGE,
          imagePullPolicy: "Never",
          command: ["sleep", "3600"],
          ports: [{ name: "web", containerPort: 8080 }],
          readinessProbe: {
            periodSeconds: 1,
            timeoutSeconds: 10,
            exec: { command: [options.ready === false ? "false" : "true"] }
          }
        }]
      }
    }
  })

const serviceOf = (name: string, spec: object = {}) =>
  namespaced("v1", "Service", name, {
    selector: { app: name },
    ports: [{ name: "http", port: 80, targetPort: "web" }],
    ...spec
  })

const ingressOf = (name: string, spec: object = {}) =>
  namespaced("networking.k8s.io/v1", "Ingress", name, {
    ingressClassName: "nginx",
    defaultBackend: { service: { name: "web", port: { name: "http" } } },
    ...spec
  })

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

/** Nothing is granted time. */
const strict = Probe.configure(routesStatic, { unreadyAfter: "1ms", settle: "1ms" })

const until = (wanted: string) =>
  TestCluster.use(({ run }) => eventually(run(strict), (report) => verdict(report) === wanted, { every: "300 millis" }))

const remove = (...objects: ReadonlyArray<string>) =>
  TestCluster.use(({ kubectl }) => kubectl("delete", "--namespace=default", ...objects))

describe("k8s.routes.static", () => {
  layer(TestCluster.layer({ name: "routes", nodes: 1 }), { excludeTestServices: true, timeout: "240 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect(
        healthy(routesStatic, "passes with no rights but to list, with every kind of Service that may lead nowhere"),
        () =>
          Effect.gen(function*() {
            const { apply, run, userWith } = yield* TestCluster
            yield* apply(
              {
                apiVersion: "networking.k8s.io/v1",
                kind: "IngressClass",
                metadata: { name: "nginx" },
                spec: { controller: "example.com/nginx" }
              },
              deployment("web"),
              serviceOf("web"),
              ingressOf("web"),
              deployment("idle", { replicas: 0 }),
              serviceOf("idle"),
              namespaced("v1", "Service", "manual", { ports: [{ port: 80 }] }),
              namespaced("v1", "Service", "elsewhere", { type: "ExternalName", externalName: "example.com" })
            )
            yield* until("PASS")
            const as = yield* userWith(routesStatic.needs)
            assert.isTrue(
              routesStatic.needs.every((need) => need._tag === "ResourceNeed" && ["list", "watch"].includes(need.verb))
            )
            const report = yield* run(strict, { as })
            assert.strictEqual(verdict(report), "PASS", report.message)
            assert.include(report.message, "1 Ingresses")
          })
      )

      it.effect(blind(routesStatic, "ACCESS_MISSING", "each required right taken away"), () =>
        Effect.gen(function*() {
          const { run, userWith } = yield* TestCluster
          for (const lacking of routesStatic.needs.filter(({ optional }) => !optional)) {
            const as = yield* userWith(routesStatic.needs.filter((need) => need !== lacking))
            const report = yield* run(routesStatic, { as })
            assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
            assert.include(report.message, Needs.describe(lacking))
          }
        }))

      it.effect(fault(routesStatic, "SERVICE_NOT_READY", "pods whose readiness fails"), () =>
        Effect.gen(function*() {
          const { apply, run } = yield* TestCluster
          yield* apply(deployment("sick", { ready: false }), serviceOf("sick"))
          const sick = yield* until("WARN SERVICE_NOT_READY")
          assert.include(sick.message, "Service default/sick has had no ready pod")
          assert.deepStrictEqual(sick.findings[0]?.subject, { kind: "Service", name: "sick", namespace: "default" })
          assert.strictEqual(verdict(yield* run(routesStatic)), "PASS", "it is granted time")
          yield* apply(deployment("sick"))
          yield* until("PASS")
          yield* remove("deployment/sick", "service/sick")
        }))

      it.effect(
        fault(routesStatic, "SERVICE_WITHOUT_PODS", "a Deployment whose pods fit no node"),
        () =>
          Effect.gen(function*() {
            const { apply } = yield* TestCluster
            yield* apply(
              deployment("homeless", { nodeSelector: { "kubeprober.test/nowhere": "" } }),
              serviceOf("homeless")
            )
            const homeless = yield* until("WARN SERVICE_WITHOUT_PODS")
            assert.include(homeless.message, "Deployment homeless wants 1 and has none")
            assert.strictEqual(homeless.findings[0]?.subject?.name, "homeless")
            yield* apply(deployment("homeless", { replicas: 0, nodeSelector: { "kubeprober.test/nowhere": "" } }))
            yield* until("PASS")
            yield* remove("deployment/homeless", "service/homeless")
          })
      )

      it.effect(
        fault(routesStatic, "SERVICE_SELECTS_NOTHING", "a selector with a slip of the pen"),
        () =>
          Effect.gen(function*() {
            const { apply } = yield* TestCluster
            yield* apply(serviceOf("slip", { selector: { app: "wbe" } }))
            const slip = yield* until("WARN SERVICE_SELECTS_NOTHING")
            assert.include(slip.message, "no pod and no workload matches app=wbe")
            assert.strictEqual(slip.findings[0]?.subject?.name, "slip")
            yield* apply(serviceOf("slip", { selector: { app: "web", role: "primary" } }))
            yield* until("INFO SERVICE_VACANT")
            yield* apply(serviceOf("slip", { selector: { app: "web" } }))
            yield* until("PASS")
            yield* remove("service/slip")
          })
      )

      it.effect(
        fault(routesStatic, "SERVICE_UNREACHABLE", "a targetPort whose name no pod has"),
        () =>
          Effect.gen(function*() {
            const { apply } = yield* TestCluster
            const port = (targetPort: string) =>
              serviceOf("ports", { selector: { app: "web" }, ports: [{ port: 80, targetPort }] })
            yield* apply(port("wbe"))
            const unreachable = yield* until("ERROR SERVICE_UNREACHABLE")
            assert.include(unreachable.message, "port 80 (wbe) of Service default/ports")
            assert.deepStrictEqual(unreachable.findings[0]?.subject, {
              kind: "Service",
              name: "ports",
              namespace: "default"
            })
            yield* apply(port("web"))
            yield* until("PASS")
            yield* remove("service/ports")
          })
      )

      it.effect(
        fault(routesStatic, "SERVICE_PORT_UNRESOLVED", "one of two targetPorts whose name no pod has"),
        () =>
          Effect.gen(function*() {
            const { apply } = yield* TestCluster
            const ports = (metrics: string) =>
              serviceOf("ports", {
                selector: { app: "web" },
                ports: [{ name: "http", port: 80, targetPort: "web" }, {
                  name: "metrics",
                  port: 90,
                  targetPort: metrics
                }]
              })
            yield* apply(ports("metrics"))
            const unresolved = yield* until("WARN SERVICE_PORT_UNRESOLVED")
            assert.include(unresolved.message, "port 90 (metrics) of Service default/ports")
            assert.strictEqual(unresolved.findings[0]?.subject?.name, "ports")
            yield* apply(ports("web"))
            yield* until("PASS")
            yield* remove("service/ports")
          })
      )

      it.effect(
        fault(routesStatic, "INGRESS_BACKEND_MISSING", "an Ingress to a Service that was deleted"),
        () =>
          Effect.gen(function*() {
            const { apply } = yield* TestCluster
            const path = {
              path: "/",
              pathType: "Prefix",
              backend: { service: { name: "front", port: { number: 80 } } }
            }
            yield* apply(
              serviceOf("front", { selector: { app: "web" } }),
              ingressOf("front", { rules: [{ host: "shop.example.com", http: { paths: [path] } }] })
            )
            yield* until("PASS")
            yield* remove("service/front")
            const missing = yield* until("ERROR INGRESS_BACKEND_MISSING")
            assert.include(
              missing.message,
              "Ingress default/front sends requests to Service front, which does not exist"
            )
            assert.deepStrictEqual(missing.findings[0]?.subject, {
              kind: "Ingress",
              name: "front",
              namespace: "default"
            })
            yield* remove("ingress/front")
            yield* until("PASS")
          })
      )

      it.effect(
        fault(routesStatic, "INGRESS_PORT_MISSING", "an Ingress to a port that its Service does not have"),
        () =>
          Effect.gen(function*() {
            const { apply } = yield* TestCluster
            const port = (number: number) =>
              ingressOf("port", { defaultBackend: { service: { name: "web", port: { number, name: null } } } })
            yield* apply(port(8080))
            const missing = yield* until("ERROR INGRESS_PORT_MISSING")
            assert.include(missing.message, "port 8080 of Service web, which has http 80")
            assert.strictEqual(missing.findings[0]?.subject?.name, "port")
            yield* apply(port(80))
            yield* until("PASS")
            yield* remove("ingress/port")
          })
      )

      it.effect(
        fault(routesStatic, "INGRESS_CLASS_MISSING", "an Ingress of a class that is not there, then of none"),
        () =>
          Effect.gen(function*() {
            const { apply } = yield* TestCluster
            yield* apply(ingressOf("class", { ingressClassName: "traefik" }))
            const missing = yield* until("ERROR INGRESS_CLASS_MISSING")
            assert.include(missing.message, "of class traefik, which does not exist (there is nginx)")
            assert.strictEqual(missing.findings[0]?.subject?.name, "class")
            yield* apply(ingressOf("class", { ingressClassName: null }))
            yield* until("INFO INGRESS_WITHOUT_CLASS")
            yield* apply(ingressOf("class"))
            yield* until("PASS")
            yield* remove("ingress/class")
          })
      )
    }
  )
})
