import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as Runner from "../../src/agent/Runner.ts"
import { DurationString } from "../../src/domain/Duration.ts"
import { KubeError, ServerFault } from "../../src/infra/kube/KubeError.ts"
import { catalogue } from "../../src/probes/Catalogue.ts"
import { checkerCodes } from "../../src/probes/CheckerCodes.ts"
import * as Codes from "../../src/probes/Codes.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import * as Preflight from "../../src/probes/Preflight.ts"
import * as Probe from "../../src/probes/Probe.ts"
import * as Roles from "../../src/probes/Roles.ts"
import { setting } from "../../src/probes/Setting.ts"
import { check, codes, withoutServer } from "../agent/Checks.ts"

describe("needs", () => {
  const call = (
    verb: string,
    resource: string,
    where: { readonly namespace?: string; readonly name?: string } = {}
  ) => ({
    verb,
    group: "",
    resource,
    ...where
  })
  const covered = (needs: ReadonlyArray<Needs.Need>, made: Needs.Call) =>
    needs.some((need) => Needs.covers(need, made, "probes"))

  it("cover calls of the same verb and resource, within their namespace and names", () => {
    assert.isTrue(covered(Needs.list("pods"), call("list", "pods", { namespace: "shop" })))
    assert.isFalse(covered(Needs.list("pods"), call("get", "pods")))
    assert.isFalse(covered(Needs.list("pods"), call("list", "pods/log")))
    assert.isFalse(covered(Needs.list("pods", { group: "apps" }), call("list", "pods")))
    const local = Needs.list("pods", { namespace: Needs.probeNamespace })
    assert.isTrue(covered(local, call("list", "pods", { namespace: "probes" })))
    assert.isFalse(covered(local, call("list", "pods", { namespace: "shop" })))
    assert.isFalse(covered(local, call("list", "pods")), "a namespace's right is not one for all")
    const named = Needs.get("pods", { names: ["a"] })
    assert.isTrue(covered(named, call("get", "pods", { name: "a" })))
    assert.isFalse(covered(named, call("get", "pods", { name: "b" })))
  })

  it("cover paths as they are, or all that begin with what stands before a star", () => {
    const [exact] = Needs.path("/readyz")
    const [any] = Needs.path("/apis/*")
    assert.isTrue(exact !== undefined && Needs.coversPath(exact, "/readyz") && !Needs.coversPath(exact, "/readyz/etcd"))
    assert.isTrue(any !== undefined && Needs.coversPath(any, "/apis/apps/v1") && !Needs.coversPath(any, "/api"))
  })

  it("cover reads of custom resources of any kind, and nothing of Kubernetes' own groups without a dot", () => {
    const needs = Needs.customResources("list")
    const widgets = { group: "shop.example.com", resource: "widgets" }
    assert.isTrue(covered(needs, { verb: "list", ...widgets }))
    assert.isFalse(covered(needs, { verb: "get", ...widgets }))
    assert.isFalse(covered(needs, call("list", "secrets")))
    assert.isFalse(covered(needs, { verb: "list", group: "apps", resource: "deployments" }))
    assert.deepStrictEqual(Roles.forNeeds(needs, { name: "a", probeNamespace: "probes" }), [], "no role grants it")
  })

  it("read as the rules they are", () => {
    const texts = [
      ...Needs.list("leases", { group: "coordination.k8s.io", namespace: "kube-node-lease" }),
      ...Needs.get("pods", { namespace: Needs.probeNamespace, names: ["a", "b"] }),
      ...Needs.path("/readyz")
    ].map((need) => Needs.describe(need, "probes"))
    assert.deepStrictEqual(texts, [
      "list leases.coordination.k8s.io in kube-node-lease",
      "get pods named a, b in probes",
      "get /readyz"
    ])
  })
})

describe("Preflight.shows", () => {
  const shown = (
    rule: {
      verbs?: Array<string>
      apiGroups?: Array<string>
      resources?: Array<string>
      resourceNames?: Array<string>
    },
    needs: ReadonlyArray<Needs.Need>
  ) => {
    const rules: Preflight.Rules = {
      resourceRules: [{ verbs: ["get"], apiGroups: [""], resources: ["pods"], resourceNames: [], ...rule }],
      nonResourceRules: [{ verbs: ["get"], nonResourceURLs: ["/livez", "/apis/*"] }],
      incomplete: false
    }
    return needs.every((need) => Preflight.shows(rules, need))
  }

  it("knows wildcards, subresources and names as RBAC does", () => {
    assert.isTrue(shown({}, Needs.get("pods")))
    assert.isTrue(
      shown({ verbs: ["*"], apiGroups: ["*"], resources: ["*"] }, Needs.del("deployments", { group: "apps" }))
    )
    assert.isTrue(shown({ resources: ["*/log"] }, Needs.get("pods/log")))
    assert.isFalse(shown({}, Needs.get("pods/log")), "a resource does not grant its subresources")
    assert.isFalse(shown({}, Needs.list("pods")))
    assert.isFalse(shown({ apiGroups: ["apps"] }, Needs.get("pods")))
    assert.isFalse(shown({ resourceNames: ["a"] }, Needs.get("pods")), "one object is not all")
    assert.isTrue(shown({ resourceNames: ["a", "b"] }, Needs.get("pods", { names: ["a"] })))
    assert.isFalse(shown({ resourceNames: ["a"] }, Needs.get("pods", { names: ["a", "b"] })))
    assert.isTrue(shown({}, [...Needs.path("/livez"), ...Needs.path("/apis/apps/v1")]))
    assert.isFalse(shown({}, Needs.path("/readyz")))
  })
})

describe("codes", () => {
  it("make findings with their status and blame", () => {
    assert.deepStrictEqual(codes.BROKEN({ message: "m" }), {
      status: "ERROR",
      code: "BROKEN",
      blame: "target",
      message: "m"
    })
    assert.strictEqual(checkerCodes.TIMED_OUT({ message: "m" }).blame, "checker")
  })

  it("are refused when they do not read as codes, at definition", () => {
    const spec = Codes.error("It is.", "Mend it.")
    for (const name of ["NOT-READY", "3_NODES", "NOT READY", "_X", ""] as const) {
      assert.throws(() => Codes.make({ [name]: spec }), /is no code/, name)
    }
    assert.hasAllKeys(Codes.make({ NODE_3_GONE: spec }), ["NODE_3_GONE"])
  })
})

const run = (probe: Probe.AnyProbe | Probe.Check) =>
  Runner.run(Probe.toCheck(probe), {
    context: { runId: "test", probeNamespace: "probes", expiresAt: DateTime.makeUnsafe("2026-01-01T00:15:00Z") },
    missing: []
  }).pipe(withoutServer, Effect.scoped, Effect.map(({ report }) => report))

const fine = check("test.fine", () => Effect.succeed(Outcome.make("fine")), {
  needs: [Needs.list("nodes")],
  timeout: "3 seconds",
  dependsOn: ["k8s.api.health"]
})
const broken = check("test.broken", () => codes.BROKEN.fail({ message: "it broke" }), {
  needs: [Needs.list("pods")],
  writes: "namespace",
  timeout: "5 seconds"
})

const Limit = Schema.Struct({
  limit: setting(DurationString, { default: "2m", description: "How long." }),
  times: setting(Schema.Int, { default: 3, description: "How often." })
})
const limited = Probe.make("test.limited", {
  layer: "kubernetes",
  proves: "a test",
  writes: "nothing",
  needs: [],
  codes,
  config: Limit,
  timeout: "1 seconds",
  run: ({ limit, times }) => Effect.succeed(Outcome.make(`${Duration.toSeconds(limit)} s, ${times} times`))
})

describe("configuration", () => {
  it.effect("has a default for every setting, and units in words", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* run(limited)).message, "120 s, 3 times")
      assert.strictEqual((yield* run(Probe.configure(limited, { limit: "90s" }))).message, "90 s, 3 times")
      const wrong = yield* run({ ...Probe.toCheck(limited), with: { limit: "soon" } })
      assert.strictEqual(wrong.code, "INVALID_CONFIG")
      assert.include(wrong.message, "limit")
    }))

  it.effect("maps to another one", () =>
    Effect.gen(function*() {
      const minutes = Probe.mapConfig(limited, {
        id: "test.minutes",
        config: Schema.Struct({ minutes: Schema.Int }),
        from: (config) => ({ limit: Duration.minutes(config.minutes), times: 1 })
      })
      const report = yield* run(Probe.configure(minutes, { minutes: 2 }))
      assert.strictEqual(report.checker, "test.minutes")
      assert.strictEqual(report.message, "120 s, 1 times")
    }))
})

describe("Probe.all", () => {
  it("needs, writes and may take what its parts do", () => {
    const both = Probe.all("test.all", { layer: "kubernetes", proves: "both" }, [fine, broken])
    assert.deepStrictEqual(both.needs.map((need) => Needs.describe(need)), ["list nodes", "list pods"])
    assert.strictEqual(both.writes, "namespace")
    assert.isAtLeast(Duration.toSeconds(both.timeout), 5)
    assert.deepStrictEqual(both.dependsOn, ["k8s.api.health"])
    assert.hasAllKeys(both.codes, ["BROKEN", "TIRED"])
  })

  it.effect("joins findings, and a fault in one part does not silence the others", () =>
    Effect.gen(function*() {
      const tired = check("test.tired", () => Effect.succeed(Outcome.make("", [codes.TIRED({ message: "slow" })])))
      const report = yield* run(Probe.all("test.all", { layer: "kubernetes", proves: "all" }, [fine, broken, tired]))
      assert.deepStrictEqual(report.findings.map(({ code }) => code), ["BROKEN", "TIRED"])
      const passed = yield* run(Probe.all("test.all", { layer: "kubernetes", proves: "all" }, [fine, limited]))
      assert.strictEqual(passed.message, "fine; 120 s, 3 times")
    }))

  it.effect("is UNKNOWN when one part cannot look", () =>
    Effect.gen(function*() {
      const blind = check("test.blind", () => Effect.fail("no eyes"))
      const report = yield* run(Probe.all("test.all", { layer: "kubernetes", proves: "all" }, [fine, blind]))
      assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN CHECKER_FAILED")
    }))

  it.effect("tells a fault that one part found, however the others end", () =>
    Effect.gen(function*() {
      const blind = [
        check("test.fails", () => Effect.fail("no eyes")),
        check("test.crashes", () => Effect.die("no head")),
        check("test.interrupts", () => Effect.interrupt),
        check("test.waits", () => Effect.never, { timeout: "5 seconds" }),
        { ...Probe.toCheck(limited), with: { limit: "soon" } },
        { ...Probe.toCheck(limited), with: { limmit: "2m" } }
      ]
      const running = yield* Effect.forkChild(
        run(Probe.all("test.all", { layer: "kubernetes", proves: "all" }, [broken, ...blind]))
      )
      yield* TestClock.adjust("5 seconds")
      const report = yield* Fiber.join(running)
      assert.strictEqual(report.code, "BROKEN")
      assert.deepStrictEqual(report.findings.map(({ code }) => code), [
        "BROKEN",
        "CHECKER_FAILED",
        "CHECKER_FAILED",
        "CHECKER_FAILED",
        "INVALID_CONFIG",
        "INVALID_CONFIG",
        "TIMED_OUT"
      ])
    }))

  it.effect("retries each part by itself", () =>
    Effect.gen(function*() {
      const tries = { once: 0, flaky: 0 }
      const once = check("test.once", () =>
        Effect.sync(() => {
          tries.once++
          return Outcome.make("once")
        }))
      const flaky = check("test.flaky", () => {
        tries.flaky++
        return Effect.fail(
          new KubeError({
            cluster: "c",
            call: { verb: "list", resource: "nodes" },
            reason: new ServerFault({ status: 503, detail: "" })
          })
        )
      })
      const running = yield* Effect.forkChild(
        run(Probe.all("test.all", { layer: "kubernetes", proves: "all" }, [once, flaky]))
      )
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(running)).code, "API_FAULT")
      assert.deepStrictEqual(tries, { once: 1, flaky: 3 })
    }))
})

describe("the catalogue", () => {
  const READS = ["get", "list", "watch"]
  /** Reviews are questions, posted but never stored. */
  const stores = (need: Needs.Need) =>
    need._tag === "ResourceNeed" && !READS.includes(need.verb) && need.group !== "authorization.k8s.io"

  it("is sorted, and names each probe once", () => {
    const ids = catalogue.map(({ id }) => id)
    assert.deepStrictEqual(ids, [...new Set(ids)].sort())
  })

  const empty: unknown = {}
  for (const probe of catalogue) {
    it(`${probe.id} is declared as all are`, () => {
      assert.isDefined(Schema.decodeUnknownSync(probe.config)(empty), "works without configuration")
      // Whoever asks the API depends on it; an endpoint of an application serves without.
      const asksApi = probe.needs.length > 0 || probe.placement !== "agent"
      const parents = probe.dependsOn.filter((id) => id !== "k8s.api.health")
      assert.deepStrictEqual(parents, [])
      if (asksApi && probe.id !== "k8s.api.health") assert.deepStrictEqual(probe.dependsOn, ["k8s.api.health"])
      for (const [name, { code, spec }] of Object.entries(probe.codes)) {
        assert.match(name, /^[A-Z][A-Z0-9_]*$/)
        assert.strictEqual(code, name)
        assert.match(spec.means, /[.?]$/, `${name} is explained`)
        assert.match(spec.fix, /[.?]$/, `${name} says what to do`)
      }
      assert.match(probe.proves, /^[A-Z].*\.$/)
      // A typing error would confirm, or disbelieve, nothing.
      const named = [
        ...(typeof probe.confirm === "string" ? [] : probe.confirm.unless),
        ...(probe.timed === "any" ? [] : probe.timed)
      ]
      assert.deepStrictEqual(named.filter((code) => probe.codes[code] === undefined), [])
    })

    it(`${probe.id} needs no more power than its write level says`, () => {
      const writes = probe.needs.filter((need) => need._tag === "ResourceNeed").filter(stores)
      if (probe.writes === "nothing") assert.deepStrictEqual(writes, [])
      if (probe.writes === "namespace" || probe.writes === "dry-run") {
        assert.isTrue(writes.every(({ namespace }) => namespace === Needs.probeNamespace))
      }
      for (const need of probe.needs) {
        if (need._tag !== "ResourceNeed") continue
        assert.notInclude(need.resource, "nodes/proxy", "get of nodes/proxy permits exec")
        assert.notInclude([need.verb, need.group, need.resource], "*")
      }
    })
  }
})
