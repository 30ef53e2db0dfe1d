import { assert, describe, it, layer } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, Result } from "effect"
import { TestClock } from "effect/testing"
import type { Kube } from "../../src/infra/kube/Kube.ts"
import { Service } from "../../src/infra/kube/resources/core.ts"
import { EndpointSlice } from "../../src/infra/kube/resources/discovery.ts"
import type { IngressClass } from "../../src/infra/kube/resources/networking.ts"
import type { NetErrorKind } from "../../src/infra/net/NetError.ts"
import { type Asked, classOf, codeOf, ingressHttp, settle } from "../../src/probes/kubernetes/ingressHttp.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { atEach, atFirst } from "../clusters/AtRequest.ts"
import * as Kills from "../clusters/Kills.ts"
import * as NginxIngress from "../clusters/NginxIngress.ts"
import { PROBE_NAMESPACE, TestCluster, eventually } from "../clusters/TestCluster.ts"
import { type WebhookServer, webhookServer } from "../clusters/WebhookServer.ts"
import * as WorkerCluster from "../clusters/WorkerCluster.ts"
import { WORKER_IMAGE } from "../clusters/workerImage.ts"
import { blindToAll } from "../proofs/blindness.ts"
import { blind, fault, healthy, killed } from "../proofs/proof.ts"

describe("choosing a class", () => {
  const of = (name: string, controller = "c", isDefault = false): IngressClass => ({
    metadata: {
      name,
      ...(isDefault ? { annotations: { "ingressclass.kubernetes.io/is-default-class": "true" } } : {})
    },
    spec: { controller }
  })
  const says = (config: string, ...classes: ReadonlyArray<IngressClass>) =>
    Result.match(classOf({ class: config }, classes), {
      onSuccess: ({ metadata }) => metadata.name,
      onFailure: ({ code }) => code
    })

  it("takes the one named, the default, or the only one", () => {
    assert.strictEqual(says("a", of("a"), of("b", "c", true)), "a")
    assert.strictEqual(says("x", of("a")), "CLASS_MISSING")
    assert.strictEqual(says("", of("a"), of("b", "c", true)), "b")
    assert.strictEqual(says("", of("a")), "a")
    assert.strictEqual(says("", of("a"), of("b")), "CLASS_UNDECIDED")
    assert.strictEqual(says(""), "NOT_APPLICABLE")
  })

  it("makes no load balancer that costs money unless it is told to", () => {
    const alb = of("alb", "ingress.k8s.aws/alb", true)
    assert.strictEqual(says("", alb), "CLASS_UNDECIDED")
    assert.strictEqual(says("alb", alb), "alb")
  })
})

it("does not blame the controller for answers that are meant for others, nor for what was not asked", () => {
  const answer = (status: number): Asked => Result.succeed({ status, body: "", headers: {} })
  const failure = (kind: NetErrorKind): Asked => Result.fail({ kind, message: "" })
  const says = (asked: Asked) => codeOf(asked).code
  assert.deepStrictEqual([308, 401].map((status) => says(answer(status))), ["ANSWER_GUARDED", "ANSWER_GUARDED"])
  assert.deepStrictEqual([200, 404, 500, 503].map((status) => says(answer(status))), [
    "WRONG_ANSWER",
    "ROUTE_MISSING",
    "WRONG_STATUS",
    "BACKEND_UNREACHED"
  ])
  assert.deepStrictEqual(
    (["unknown", "dns", "refused", "timeout", "tls"] as const).map((kind) => says(failure(kind))),
    [
      "CHECKER_FAILED",
      "ADDRESS_REFUSED",
      "CONTROLLER_UNREACHABLE",
      "CONTROLLER_UNREACHABLE",
      "CERTIFICATE_INVALID"
    ]
  )
})

describe("waiting for all replicas of a controller", () => {
  /** Two replicas in turn, of which one knows the Ingress from so many milliseconds on. */
  const replicas = (knowsAfter: number) => {
    let asked = 0
    return Effect.map(Clock.currentTimeMillis, (now) => asked++ % 2 === 0 || now >= knowsAfter)
  }
  const settled = Effect.fnUntraced(function*(knowsAfter: number) {
    const ask = replicas(knowsAfter)
    const fiber = yield* Effect.forkChild(
      Effect.timed(settle(ask, (good) => good, Duration.seconds(30))).pipe(
        Effect.flatMap(([took]) =>
          Effect.map(
            Effect.forEach(Array.from({ length: 10 }), () => ask),
            (good) => ({ seconds: Duration.toSeconds(took), all: good.every((each) => each) })
          )
        )
      )
    )
    yield* TestClock.adjust("1 minute")
    return yield* Fiber.join(fiber)
  })

  it.effect("asks on after the first good answer, until none that is worse comes between", () =>
    Effect.gen(function*() {
      const { all, seconds } = yield* settled(3_000)
      assert.isTrue(all)
      assert.isAtLeast(seconds, 3)
      assert.isBelow(seconds, 6)
    }))

  it.effect("gives up when time is over", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* settled(Infinity), { all: false, seconds: 30 })
    }))
})

/** Nobody listens where it should be. */
const webhook = ({ caBundle, url }: WebhookServer) => ({
  apiVersion: "admissionregistration.k8s.io/v1",
  kind: "ValidatingWebhookConfiguration",
  metadata: { name: "ingress-test" },
  webhooks: [{
    name: "ingress.test.example",
    admissionReviewVersions: ["v1"],
    sideEffects: "None",
    timeoutSeconds: 5,
    failurePolicy: "Fail",
    namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": PROBE_NAMESPACE } },
    rules: [{
      apiGroups: ["networking.k8s.io"],
      apiVersions: ["v1"],
      operations: ["CREATE"],
      resources: ["ingresses"]
    }],
    clientConfig: { url, caBundle }
  }]
})

layer(WorkerCluster.layer({ name: "ingress", nodes: 1 }), { excludeTestServices: true, timeout: "180 seconds" })(
  "k8s.ingress.http",
  (it) => {
    const { world } = WorkerCluster
    type Config = Partial<typeof ingressHttp.config.Encoded>

    const check = (config: Config = {}) =>
      Effect.flatMap(TestCluster, ({ run }) => run(Probe.configure(ingressHttp, { slow: "20s", ...config }), { world }))
    /** How many pods are ready behind a Service of the probe. */
    const ready = (kube: Kube["Service"], service: string) =>
      Effect.map(
        kube.list(EndpointSlice, {
          namespace: PROBE_NAMESPACE,
          labelSelector: `kubernetes.io/service-name=${service}`
        }),
        ({ items }) =>
          items.flatMap(({ endpoints }) => endpoints.filter(({ conditions }) => conditions.ready !== false)).length
      )
    /** Where the controller serves the Ingress with its pods before the time of the probe begins. */
    const checkServed = Effect.fnUntraced(
      function*({ address, caughtUp }: Effect.Success<typeof NginxIngress.start>, config: Config) {
        const { kube, run } = yield* TestCluster
        // The Service has the name of the Ingress.
        const as = atEach(kube, "create Ingress", (send, { name }) =>
          send.pipe(
            Effect.tap(() => eventually(ready(kube, name), (pods) => pods === 2)),
            Effect.tap(() => caughtUp)
          ))
        return yield* run(Probe.configure(ingressHttp, { slow: "20s", address, ...config }), { world, as })
      }
    )
    const passes = (config: Config = {}) => eventually(check(config), ({ status }) => status === "PASS")
    const found = (report: Effect.Success<ReturnType<typeof check>>) =>
      report.findings.map(({ code, subject }) => `${code} ${subject?.kind} ${subject?.name}`)
    const byClass = (code: string) => [`${code} IngressClass ${NginxIngress.CLASS}`]

    it.effect("is not applicable without an IngressClass", () =>
      Effect.gen(function*() {
        assert.strictEqual((yield* check()).code, "NOT_APPLICABLE")
      }))

    it.effect(
      healthy(ingressHttp, "passes with its declared needs alone, and so does a URL that answers"),
      () =>
        Effect.gen(function*() {
          const { run, userWith } = yield* TestCluster
          yield* NginxIngress.ingressClass
          const { address } = yield* NginxIngress.start
          const as = yield* userWith(ingressHttp.needs)
          const report = yield* run(Probe.configure(ingressHttp, { slow: "20s" }), { world, as })
          assert.strictEqual(report.status, "PASS", JSON.stringify(report))
          assert.include(report.message, "leads to its pods")

          const url = yield* check({ url: `http://${address}/known` })
          assert.strictEqual(url.status, "PASS", JSON.stringify(url))
        })
    )

    it.effect(blind(ingressHttp, "ACCESS_MISSING", "without each of its rights"), () =>
      Effect.gen(function*() {
        const { run, userWith } = yield* TestCluster
        for (const lacking of ingressHttp.needs.filter(({ optional }) => !optional)) {
          const as = yield* userWith(ingressHttp.needs.filter((need) => need !== lacking))
          const report = yield* run(ingressHttp, { world, as })
          assert.strictEqual(report.code, "ACCESS_MISSING")
          assert.include(report.message, Needs.describe(lacking, PROBE_NAMESPACE))
        }
      }))

    it.effect(
      blind(ingressHttp, "WORKER_UNAVAILABLE", "where no image is known for worker pods"),
      () =>
        Effect.gen(function*() {
          const { run } = yield* TestCluster
          yield* NginxIngress.ingressClass
          assert.strictEqual((yield* run(ingressHttp)).code, "WORKER_UNAVAILABLE")
        })
    )

    blindToAll(it, ingressHttp)

    it.effect(
      blind(ingressHttp, "ADDRESS_UNKNOWN", "no Ingress of the class has an address"),
      () =>
        Effect.gen(function*() {
          yield* NginxIngress.ingressClass
          assert.strictEqual((yield* check({ within: "2s" })).code, "ADDRESS_UNKNOWN")
        })
    )

    it.effect(
      fault(ingressHttp, "CLASS_MISSING", "a class is named that does not exist"),
      () =>
        Effect.gen(function*() {
          yield* NginxIngress.ingressClass
          assert.deepStrictEqual(found(yield* check({ class: "gone" })), ["CLASS_MISSING IngressClass gone"])
        })
    )

    it.effect(fault(ingressHttp, "CONTROLLER_UNREACHABLE", "nginx is stopped"), () =>
      Effect.gen(function*() {
        yield* NginxIngress.ingressClass
        const { address } = yield* Effect.scoped(NginxIngress.start)
        const report = yield* check({ address, within: "2s" })
        assert.deepStrictEqual(found(report), byClass("CONTROLLER_UNREACHABLE"))
        assert.include(report.message, "refused")
        yield* NginxIngress.start
        yield* passes()
      }))

    it.effect(
      fault(ingressHttp, "ROUTE_MISSING", "nginx is not reloaded when an Ingress is made"),
      () =>
        Effect.gen(function*() {
          yield* NginxIngress.ingressClass
          const { address, follow } = yield* NginxIngress.start
          yield* follow(false)
          const report = yield* check({ address, within: "2s" })
          assert.deepStrictEqual(found(report), byClass("ROUTE_MISSING"))
          assert.include(report.message, "status 404 by nginx")
          yield* follow(true)
          yield* passes()
        })
    )

    it.effect(
      fault(ingressHttp, "ADDRESS_MISSING", "the controller sleeps and another Ingress has its address"),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          yield* NginxIngress.ingressClass
          const { follow } = yield* NginxIngress.start
          yield* Effect.acquireRelease(
            apply({
              apiVersion: "networking.k8s.io/v1",
              kind: "Ingress",
              metadata: { name: "other", namespace: "default" },
              spec: {
                ingressClassName: NginxIngress.CLASS,
                rules: [{
                  host: "other.invalid",
                  http: {
                    paths: [{
                      path: "/",
                      pathType: "Prefix",
                      backend: { service: { name: "none", port: { number: 1 } } }
                    }]
                  }
                }]
              }
            }),
            () => kubectl("delete", "ingress", "other", "-n", "default")
          )
          yield* eventually(
            kubectl("get", "ingress", "other", "-n", "default", "-o", "jsonpath={.status.loadBalancer}"),
            (text) => text.includes("127.")
          )
          yield* follow(false)
          assert.deepStrictEqual(found(yield* check({ within: "2s" })), byClass("ADDRESS_MISSING"))
          yield* follow(true)
          yield* passes()
        })
    )

    it.effect(
      fault(ingressHttp, "BACKEND_UNREACHED", "nginx's packets to pods are dropped on their node"),
      () =>
        Effect.gen(function*() {
          const { cluster } = yield* TestCluster
          yield* NginxIngress.ingressClass
          const controller = yield* NginxIngress.start
          // The kubelet's own readiness probes do not take this way.
          const rule = ["FORWARD", "-p", "tcp", "--dport", "8080", "-j", "DROP"]
          const everywhere = (flag: string) =>
            Effect.orDie(
              Effect.forEach(cluster.nodes, ({ exec }) => exec(["iptables", flag, ...rule]), { discard: true })
            )
          yield* Effect.acquireUseRelease(
            everywhere("-I"),
            () =>
              Effect.gen(function*() {
                const report = yield* checkServed(controller, { within: "2s" })
                assert.deepStrictEqual(found(report), byClass("BACKEND_UNREACHED"))
                assert.include(report.message, "status 504")
              }),
            () => everywhere("-D")
          )
          yield* passes()
        })
    )

    it.effect(
      fault(ingressHttp, "ENDPOINTS_MISSING", "the Service's selector is broken while it is asked"),
      () =>
        Effect.gen(function*() {
          yield* NginxIngress.ingressClass
          const { kube, run } = yield* TestCluster
          const { address, follow } = yield* NginxIngress.start
          yield* follow(false)
          let service = ""
          const making = atFirst(kube, "create Service", (send, { name }) => {
            service = name
            return send
          })
          // The probe is told once of endpoints that are gone by then.
          const as = atFirst(making, "list EndpointSlice", (send) =>
            Effect.gen(function*() {
              yield* eventually(ready(kube, service), (pods) => pods > 0)
              const answer = yield* send
              const selector = { nobody: "this" }
              yield* kube.patch(Service, { name: service, namespace: PROBE_NAMESPACE }, { spec: { selector } })
              yield* eventually(ready(kube, service), (pods) => pods === 0)
              yield* follow(true)
              return answer
            }))
          const report = yield* run(
            Probe.configure(ingressHttp, { slow: "20s", address, within: "2s" }),
            { world, as }
          )
          assert.deepStrictEqual(found(report), [`ENDPOINTS_MISSING Service ${service}`], JSON.stringify(report))
          yield* passes()
        })
    )

    it.effect(
      fault(ingressHttp, "WEBHOOK_FAILED", "the webhook that admits Ingresses is down"),
      () =>
        Effect.gen(function*() {
          yield* NginxIngress.ingressClass
          yield* NginxIngress.start
          const { apply, kubectl } = yield* TestCluster
          const gone = yield* Effect.scoped(webhookServer)
          yield* Effect.acquireUseRelease(
            apply(webhook(gone)),
            () =>
              Effect.gen(function*() {
                const report = yield* eventually(check(), ({ status }) => status !== "PASS")
                assert.deepStrictEqual(found(report), byClass("WEBHOOK_FAILED"))
                assert.include(report.message, "ingress.test.example")
              }),
            () => kubectl("delete", "validatingwebhookconfiguration", "ingress-test")
          )
          yield* passes()
        })
    )

    const directives = {
      WRONG_STATUS: ["return 500;", "nginx answers 500 by itself"],
      WRONG_ANSWER: ["return 200 hello;", "nginx answers 200 by itself"],
      UNRELIABLE: ["if ($request_id ~ \"^[0-7]\") { return 503; }", "nginx refuses every other request"],
      SLOW: ["limit_req zone=slow burst=50;", "nginx delays requests to two a second"]
    } as const
    for (const [code, [text, what]] of Object.entries(directives)) {
      it.effect(fault(ingressHttp, code, what), () =>
        Effect.gen(function*() {
          yield* NginxIngress.ingressClass
          const controller = yield* NginxIngress.start
          yield* controller.directives(text)
          const wrong = code.startsWith("WRONG")
          const within = wrong ? "2s" : code === "UNRELIABLE" ? "10s" : "30s"
          const look = checkServed(controller, { slow: code === "SLOW" ? "300ms" : "20s", within })
          // That none of ten requests is refused, of which every other is by chance, happens once in a thousand looks.
          const report = yield* (code === "UNRELIABLE"
            ? eventually(look, ({ status }) => status === "WARN", { within: "150 seconds" })
            : look)
          assert.deepStrictEqual(found(report), byClass(code), JSON.stringify(report))
          yield* controller.directives("")
          if (!wrong) yield* passes()
        }), 240_000)
    }

    it.effect(fault(ingressHttp, "URL_FAILED", "nginx does not know the URL's path"), () =>
      Effect.gen(function*() {
        const { address } = yield* NginxIngress.start
        const report = yield* check({ url: `http://${address}/unknown`, within: "1s" })
        assert.deepStrictEqual(found(report), [`URL_FAILED URL http://${address}/unknown`])
        assert.include(report.message, "status 404 by nginx")
      }))

    it.effect(
      blind(ingressHttp, "CLASS_UNDECIDED", "there are two classes, and none is the default"),
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          const named = (name: string) => ({
            apiVersion: "networking.k8s.io/v1",
            kind: "IngressClass",
            metadata: { name },
            spec: { controller: "example.com/none" }
          })
          yield* Effect.acquireRelease(
            apply(named("one"), named("two")),
            () => kubectl("delete", "ingressclass", "one", "two")
          )
          assert.strictEqual((yield* check()).code, "CLASS_UNDECIDED")
        })
    )

    it.effect(
      blind(ingressHttp, "ANSWER_GUARDED", "nginx redirects every request to HTTPS"),
      () =>
        Effect.gen(function*() {
          yield* NginxIngress.ingressClass
          const controller = yield* NginxIngress.start
          yield* controller.directives("return 308 https://$host/;")
          assert.deepStrictEqual(found(yield* checkServed(controller, { within: "2s" })), byClass("ANSWER_GUARDED"))
        })
    )

    it.effect(
      blind(ingressHttp, "ADDRESS_REFUSED", "the address given is that of a cloud's metadata"),
      () =>
        Effect.gen(function*() {
          yield* NginxIngress.ingressClass
          assert.deepStrictEqual(
            found(yield* check({ address: "169.254.169.254", within: "1s" })),
            byClass("ADDRESS_REFUSED")
          )
        })
    )

    it.effect(
      fault(ingressHttp, "CERTIFICATE_INVALID", "nginx shows a certificate that nobody trusts"),
      () =>
        Effect.gen(function*() {
          yield* NginxIngress.ingressClass
          const { address } = yield* NginxIngress.start
          const report = yield* check({ address, tls: true, within: "2s" })
          assert.deepStrictEqual(found(report), byClass("CERTIFICATE_INVALID"), JSON.stringify(report))
        })
    )

    it.effect(killed(ingressHttp, "at each object it makes or deletes"), () =>
      Effect.gen(function*() {
        yield* NginxIngress.ingressClass
        yield* NginxIngress.start
        const boundaries = yield* Kills.atEachBoundary(ingressHttp, { workerImage: WORKER_IMAGE })
        // What owns the pods, two of them, a Service and an Ingress.
        assert.deepStrictEqual(boundaries, { creates: 5, deletes: 5 })
      }), 240_000)
  }
)
