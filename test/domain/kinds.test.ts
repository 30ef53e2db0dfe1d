import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Equal, Inspectable, Redacted, Result, Schema } from "effect"
import { ClusterSelector } from "../../src/domain/ClusterSelector.ts"
import * as CustomResourceDefinition from "../../src/domain/crd/CustomResourceDefinition.ts"
import { objectViolations, unbounded, undocumented } from "../../src/domain/crd/StructuralRules.ts"
import { Alert, AlertSpec, AlertState, Route } from "../../src/domain/kinds/Alert.ts"
import {
  Cluster,
  ClusterSpec,
  ClusterState,
  carriesCredentials,
  withoutCredentials
} from "../../src/domain/kinds/Cluster.ts"
import { kinds } from "../../src/domain/kinds/Kinds.ts"
import { Checks, PodTemplate, Probe, ProbeSpec, ProbeState } from "../../src/domain/kinds/Probe.ts"
import { ProbeRun, ProbeRunSpec, ProbeRunState } from "../../src/domain/kinds/ProbeRun.ts"
import { ProbeStatus, ProbeStatusSpec, ProbeStatusState } from "../../src/domain/kinds/ProbeStatus.ts"
import { manifests } from "./fixtures/Manifests.ts"

const specs = new Map<string, Schema.Codec<unknown, unknown>>([
  ["Cluster", ClusterSpec],
  ["Probe", ProbeSpec],
  ["ProbeStatus", ProbeStatusSpec],
  ["ProbeRun", ProbeRunSpec],
  ["Alert", AlertSpec]
])

const specOf = (kind: string) => specs.get(kind) ?? assert.fail(`no kind ${kind}`)

/**
 * What remains of a value after JSON has carried it. V8 reads a key of one escaped character as a backslash once it has
 * seen a backslash in the same place (https://github.com/nodejs/node/issues/63785), which no codec can mend.
 */
const throughJson = (value: unknown): unknown => {
  const text = JSON.stringify(value)
  const read: unknown = JSON.parse(text)
  return JSON.stringify(read) === text ? read : structuredClone(value)
}

/** Writing and reading again gives the same. */
const assertSurvives = Effect.fnUntraced(function*<A, I>(schema: Schema.Codec<A, I>, value: A) {
  const written = throughJson(yield* Schema.encodeEffect(schema)(value))
  assert.isTrue(Equal.equals(yield* Schema.decodeUnknownEffect(schema)(written), value))
})

const survives = <A, I>(name: string, schema: Schema.Codec<A, I>) =>
  it.effect.prop(
    `${name} survives being written and read`,
    { value: schema },
    ({ value }) => assertSurvives(schema, value)
  )

const refusal = (schema: Schema.Codec<unknown, unknown>, value: unknown) =>
  Effect.map(Effect.flip(Schema.decodeUnknownEffect(schema)(value)), ({ message }) => message)

describe("manifests", () => {
  for (const set of ["original", "current"] as const) {
    it.effect(`of the ${set} format are read without loss`, () =>
      Effect.gen(function*() {
        const found = yield* manifests(set)
        assert.isAtLeast(found.length, 5)
        for (const { kind, metadata, spec } of found) {
          const schema = specOf(kind)
          const decoded = yield* Schema.decodeEffect(schema, { onExcessProperty: "error" })(spec)
          const written = yield* Schema.encodeEffect(schema)(decoded)
          assert.isTrue(
            Equal.equals(yield* Schema.decodeUnknownEffect(schema)(throughJson(written)), decoded),
            metadata.name
          )
          // Text forms may become canonical (1m30s for 90s, .000 in times); everything else stays as it was written.
          const same = (a: unknown, b: unknown): boolean =>
            typeof a === "object" && a !== null && typeof b === "object" && b !== null
              ? Object.keys(a).length === Object.keys(b).length &&
                Object.entries(a).every(([key, value]) => same(value, Reflect.get(b, key)))
              : a === b || (typeof a === "string" && /^\d+s$|^\d{4}-/.test(a) && typeof b === "string")
          assert.isTrue(same(spec, throughJson(written)), `${metadata.name}: ${JSON.stringify(written)}`)
        }
      }))
  }

  it.effect("are read into what the program works with", () =>
    Effect.gen(function*() {
      const [kubernetes] = (yield* manifests("current")).filter(({ metadata }) => metadata.name === "kubernetes")
      const { checks = [], policy } = yield* Schema.decodeUnknownEffect(ProbeSpec)(kubernetes?.spec)
      assert.deepStrictEqual(checks.map(({ use }) => use), ["k8s.node.readiness", "k8s.api.health"])
      assert.isTrue(Equal.equals(policy?.interval, Duration.seconds(90)))
      const [dns] = (yield* manifests("original")).filter(({ kind, metadata }) =>
        kind === "Probe" && metadata.name === "dns"
      )
      const { template } = yield* Schema.decodeUnknownEffect(ProbeSpec)(dns?.spec)
      assert.deepStrictEqual(template?.["nodeSelector"], { disk: "ssd" })
      assert.deepStrictEqual(template?.containers[0]["resources"], { requests: { cpu: "10m", memory: "50Mi" } })
    }))
})

describe("a Probe nested without end", () => {
  const nested = (depth: number): unknown => JSON.parse(`${"{\"a\":".repeat(depth)}1${"}".repeat(depth)}`)

  it.effect("is refused, and what of it is said", () =>
    Effect.gen(function*() {
      const containers = [{ name: "c", image: "i" }]
      for (const depth of [65, 2_000, 100_000]) {
        for (
          const [what, spec] of [
            ["with of check \"deep\"", {
              checks: [{ name: "flat", use: "a", with: { a: 1 } }, { name: "deep", use: "a", with: nested(depth) }]
            }],
            ["template", { template: { containers, other: nested(depth) } }],
            ["template", { template: { containers: [{ ...containers[0], other: nested(depth) }] } }],
            ["configs", { template: { containers }, configs: [{ env: [{ name: "e", valueFrom: nested(depth) }] }] }]
          ] as const
        ) {
          assert.include(yield* refusal(ProbeSpec, spec), `${what} is nested more than 64 deep`)
        }
      }
      yield* Schema.decodeUnknownEffect(ProbeSpec)({ checks: [{ name: "a", use: "a", with: nested(64) }] })
      const run = { checks: [{ name: "deep", use: "a", with: nested(2_000) }] }
      assert.include(yield* refusal(ProbeRunSpec, run), "with of check \"deep\" is nested more than 64 deep")
    }))
})

describe("specs and statuses", () => {
  // Generators begin with all that is optional left out, which is no Probe, ProbeRun or Route: so these are assembled.
  const { checks: _checks, configs, policy, template: _template, ...ofAnyProbe } = ProbeSpec.fields

  it.effect.prop(
    "ProbeSpec survives being written and read",
    {
      body: Schema.Union([
        Schema.Struct({ checks: Checks, policy }),
        Schema.Struct({ template: PodTemplate, configs })
      ]),
      rest: Schema.Struct(ofAnyProbe)
    },
    ({ body, rest }) => assertSurvives(ProbeSpec, { ...rest, ...body })
  )

  it.effect.prop(
    "ProbeRunSpec survives being written and read",
    {
      body: Schema.Union([Schema.Struct({ checks: Checks }), Schema.Struct({ probe: Schema.Literal("dns") })]),
      place: Schema.Union([
        Schema.Struct({}),
        Schema.Struct({ clusterSelector: ClusterSelector }),
        Schema.Struct({ clusters: Schema.Tuple([Schema.Literal("eu-1")]) })
      ]),
      rest: Schema.Struct({ timeout: ProbeRunSpec.fields.timeout })
    },
    ({ body, place, rest }) => assertSurvives(ProbeRunSpec, { ...rest, ...body, ...place })
  )

  const { alertmanager, dingtalk, slack, webhook: _webhook, ...ofAnyRoute } = Route.fields

  it.effect.prop(
    "AlertSpec survives being written and read",
    {
      target: Schema.Union([
        Schema.Struct({ alertmanager: Schema.requiredKey(alertmanager) }),
        Schema.Struct({ dingtalk: Schema.requiredKey(dingtalk) }),
        Schema.Struct({ slack: Schema.requiredKey(slack) }),
        Schema.Struct({ webhook: Schema.Struct({ url: Schema.Literal("https://x.example/?a=b") }) })
      ]),
      route: Schema.Struct(ofAnyRoute),
      rest: Schema.Struct({
        token: AlertSpec.fields.token,
        sign: AlertSpec.fields.sign,
        blackList: AlertSpec.fields.blackList,
        thresholds: AlertSpec.fields.thresholds
      })
    },
    ({ rest, route, target }) => assertSurvives(AlertSpec, { ...rest, routes: [{ ...route, ...target }] })
  )

  survives("ProbeState", ProbeState)
  survives("ProbeStatusSpec", ProbeStatusSpec)
  survives("ProbeStatusState", ProbeStatusState)
  survives("ClusterSpec", ClusterSpec)
  survives("ProbeRunState", ProbeRunState)
  survives("ClusterState", ClusterState)
  survives("AlertState", AlertState)

  it.effect("of a bad object are refused with the reason", () =>
    Effect.gen(function*() {
      const container = { name: "c", image: "i" }
      const check = { name: "a", use: "k8s.api.health" }
      const route = (target: object) => ({ routes: [{ name: "r", ...target }] })
      for (
        const [schema, value, message] of [
          [ProbeSpec, {}, "a Probe has checks (probes of the catalogue) or a template"],
          [ProbeSpec, { checks: [check], template: { containers: [container] } }, "exactly one of the two"],
          [ProbeSpec, { checks: [check, check] }, "two checks have one name"],
          [ProbeSpec, { checks: [check], configs: [] }, "configs are the environment of a template's containers"],
          [ProbeSpec, { template: { containers: [container] }, policy: { onChange: true } }, "onChange needs checks"],
          [ProbeSpec, { checks: [{ name: "A", use: "x" }] }, "a check's name is lower-case letters"],
          [ProbeSpec, { checks: [check], rollout: { percent: 101 } }, "percent"],
          [ProbeSpec, { template: { containers: [] } }, "containers"],
          [ProbeRunSpec, {}, "a ProbeRun names a probe or lists checks"],
          [ProbeRunSpec, { probe: "a", clusters: ["x"], clusterSelector: {} }, "choose one of clusters"],
          [AlertSpec, {}, "an Alert tells someone"],
          [AlertSpec, route({}), "a route has exactly one target"],
          [
            AlertSpec,
            route({ slack: { urlFrom: { name: "s", key: "k" } }, webhook: { url: "https://x.example" } }),
            "a route has exactly one target"
          ],
          [AlertSpec, route({ webhook: {} }), "a webhook has a url or a urlFrom"],
          [AlertSpec, route({ webhook: { url: "https://me:secret@x.example" } }), "without user and password"],
          [AlertSpec, route({ webhook: { url: "ftp://x.example" } }), "an http or https URL"]
        ] as const
      ) {
        assert.include(yield* refusal(schema, value), message, JSON.stringify(value))
      }
    }))

  it.effect("keep the original's plain secrets out of whatever is printed", () =>
    Effect.gen(function*() {
      const alert = yield* Schema.decodeEffect(AlertSpec)({ address: "a", token: "s3cret", sign: "s3cret" })
      assert.notInclude(Inspectable.toStringUnknown(alert), "s3cret")
      assert.strictEqual(alert.token && Redacted.value(alert.token), "s3cret")
      const cluster = yield* Schema.decodeEffect(ClusterSpec)({
        clusterConfig: { token: "s3cret", keyData: "s3cret", certData: "s3cret", probeNamespaces: "kubeprober" }
      })
      assert.notInclude(Inspectable.toStringUnknown(cluster), "s3cret")
      assert.isTrue(carriesCredentials(cluster))
      const stored = withoutCredentials(cluster)
      assert.isFalse(carriesCredentials(stored))
      assert.deepStrictEqual(stored.clusterConfig, { probeNamespaces: "kubeprober" })
    }))

  it.effect("of a silence that never begins are refused", () =>
    Effect.gen(function*() {
      const at = DateTime.makeUnsafe("2026-01-01T00:00:00Z")
      const silence = { from: DateTime.formatIso(at), until: DateTime.formatIso(at), comment: "c" }
      assert.include(yield* refusal(AlertSpec, { address: "a", silences: [silence] }), "a silence ends after it begins")
    }))
})

describe("custom resource definitions", () => {
  for (const kind of kinds) {
    it(`of ${kind.kind} is structural, bounded and documented`, () => {
      const made = CustomResourceDefinition.make(kind)
      if (Result.isFailure(made)) return assert.fail(made.failure.message)
      const schema = made.success.spec.versions[0].schema.openAPIV3Schema
      assert.deepStrictEqual(objectViolations(schema, kind.kind), [])
      assert.deepStrictEqual(unbounded(schema, kind.kind), [])
      assert.deepStrictEqual(undocumented(schema, kind.kind), [])
    })
  }

  it("have every name once", () => {
    const names = kinds.flatMap(({ plural, shortNames, singular }) => [plural, singular, ...shortNames])
    assert.strictEqual(new Set(names).size, names.length)
    assert.deepStrictEqual(
      [Cluster, Probe, ProbeStatus, ProbeRun, Alert].map(({ plural, shortNames }) => [plural, ...shortNames]),
      [["clusters", "kpcl"], ["probes", "kp"], ["probestatuses", "kps"], ["proberuns", "kpr"], ["alerts", "kpa"]]
    )
  })
})
