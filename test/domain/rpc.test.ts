import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Equal, Schema, Stream } from "effect"
import { type Rpc, RpcSchema, RpcTest } from "effect/rpc"
import { type DesiredSet, canonical } from "../../src/domain/DesiredSet.ts"
import { ProbeSpec } from "../../src/domain/kinds/Probe.ts"
import { fromFindings } from "../../src/domain/Report.ts"
import { AgentDescription, Control, ProbeNotFound } from "../../src/domain/rpc/Control.ts"
import { Fleet, ProbeView } from "../../src/domain/rpc/Fleet.ts"
import { Heartbeat, Overloaded, Registration, Superseded, Uplink } from "../../src/domain/rpc/Uplink.ts"
import type { RunRecord } from "../../src/domain/Run.ts"

const at = DateTime.makeUnsafe("2026-01-01T00:00:00Z")
const probe = { namespace: "kubeprober", name: "dns" }

const record: RunRecord = {
  run: "run-1",
  probe,
  layer: "kubernetes",
  trigger: "manual",
  report: fromFindings({ checker: "dns", findings: [], summary: "resolved", startedAt: at, duration: 3 }),
  standing: { status: "PASS", since: at, consecutiveFailures: 0 }
}

type Procedure = Pick<Rpc.AnyWithProps, "_tag" | "payloadSchema" | "successSchema" | "errorSchema">

/** Every schema of a group that crosses the wire, as JSON carries it, with its name. */
const wireSchemas = <R extends Procedure>(
  group: { readonly requests: ReadonlyMap<string, R> }
): ReadonlyArray<readonly [name: string, schema: Schema.Codec<unknown>]> =>
  [...group.requests.values()].flatMap(({ _tag, errorSchema, payloadSchema, successSchema }) => {
    const [success, error] = RpcSchema.isStreamSchema(successSchema)
      ? [successSchema.success, successSchema.error]
      : [successSchema, errorSchema]
    return [[`${_tag} payload`, payloadSchema], [`${_tag} success`, success], [`${_tag} error`, error]] as const
  })
    .filter(([, { ast }]) => ast._tag !== "Never" && ast._tag !== "Void")
    .map(([name, { ast }]) => [name, Schema.make<Schema.Codec<unknown>>(ast)])

const survivesTheWire = <R extends Procedure>(
  name: string,
  group: { readonly requests: ReadonlyMap<string, R> }
) =>
  describe(`what ${name} carries`, () => {
    for (const [part, schema] of wireSchemas(group)) {
      // Almost no random value fits the rules of a ProbeSpec; those of examples are below.
      if (part.startsWith("applyProbe")) continue
      const Json = Schema.fromJsonString(Schema.toCodecJson(schema))
      it.effect.prop(
        `survives: ${part}`,
        { value: schema },
        ({ value }) =>
          Effect.gen(function*() {
            const text = yield* Schema.encodeEffect(Json)(value)
            assert.isTrue(Equal.equals(yield* Schema.decodeEffect(Json)(text), value))
          }),
        { arbitrary: { runs: 25, maxDiscards: 10_000 } }
      )
    }
  })

survivesTheWire("control", Control)
survivesTheWire("uplink", Uplink)
survivesTheWire("fleet", Fleet)

it.effect("a Probe survives the wire, whichever form it has", () =>
  Effect.gen(function*() {
    const Json = Schema.fromJsonString(Schema.toCodecJson(ProbeView))
    const specs: ReadonlyArray<unknown> = [
      { checks: [{ name: "nodes", use: "k8s.node.readiness", with: { grace: "40s" } }], policy: { interval: "90s" } },
      { template: { containers: [{ name: "c", image: "busybox", env: [{ name: "A", value: "b" }] }] } }
    ]
    for (const spec of specs) {
      const view = {
        name: "p",
        labels: { a: "b" },
        generation: 3,
        spec: yield* Schema.decodeUnknownEffect(ProbeSpec)(spec)
      }
      const text = yield* Schema.encodeEffect(Json)(view)
      assert.isTrue(Equal.equals(yield* Schema.decodeEffect(Json)(text), view))
    }
  }))

describe("skew", () => {
  it.effect("of an older agent, which leaves out what is new, is borne", () =>
    Effect.gen(function*() {
      const registered = yield* Schema.decodeEffect(Schema.toCodecJson(Registration))({
        clusterUid: "5f0c",
        boot: "b1",
        versions: {},
        capabilities: []
      })
      assert.isUndefined(registered.applied)
      const beat = yield* Schema.decodeEffect(Schema.toCodecJson(Heartbeat))({
        epoch: 3,
        versions: { agent: "0.1.0" },
        undelivered: { count: 0 }
      })
      assert.strictEqual(beat.versions.agent, "0.1.0")
    }))

  it.effect("of a newer peer, which says more than is known, is borne", () =>
    Effect.gen(function*() {
      const described = yield* Schema.decodeEffect(Schema.toCodecJson(AgentDescription))({
        versions: { kubernetes: "v1.35.4", agent: "9.0.0", kernel: "6.12" },
        capabilities: ["describe", "teleport"],
        catalogue: ["k8s.api.health"],
        mood: "good"
      })
      assert.deepStrictEqual(described.capabilities, ["describe", "teleport"])
    }))
})

describe("calls", () => {
  const handlers = Control.toLayer({
    describe: () => Effect.succeed({ versions: {}, capabilities: ["describe"], catalogue: [] }),
    applyProbes: ({ hash }) => Effect.succeed({ applied: hash, refused: [] }),
    runNow: ({ target }) =>
      target._tag === "Probe" && target.probe.name === "dns"
        ? Stream.make(record)
        : Stream.concat(Stream.make(record), Stream.fail(new ProbeNotFound({ probe }))),
    cancel: () => Effect.succeed({ cancelled: false })
  })

  it.effect("stream records and fail with the error's own type", () =>
    Effect.gen(function*() {
      const client = yield* RpcTest.makeClient(Control)
      const run = (name: string) =>
        client.runNow({
          run: "run-1",
          target: { _tag: "Probe", probe: { ...probe, name } },
          timeout: Duration.seconds(5)
        })
      assert.isTrue(Equal.equals(yield* Stream.runCollect(run("dns")), [record]))
      const error = yield* Effect.flip(Stream.runDrain(run("gone")))
      assert.strictEqual(error._tag, "ProbeNotFound")
    }).pipe(Effect.provide(handlers)))
})

describe("errors", () => {
  it("name the thing, the cause and the next step", () => {
    assert.strictEqual(
      new ProbeNotFound({ probe }).message,
      "there is no Probe kubeprober/dns here; see which Probes the cluster is given"
    )
    assert.strictEqual(
      new Superseded({ epoch: 3, current: 4 }).message,
      "link 3 was superseded by link 4; close it"
    )
    assert.strictEqual(
      new Overloaded({ retryAfter: Duration.seconds(90) }).message,
      "the master sheds load; deliver again in 1m30s"
    )
  })
})

describe("the text of a desired set", () => {
  const set = (...names: ReadonlyArray<string>): DesiredSet => ({
    probes: names.map((name) => ({
      namespace: "kubeprober",
      name,
      spec: { checks: [{ name: "a", use: "app.http", with: { url: "https://x.example", deep: { b: 1, a: [2, 1] } } }] }
    })),
    extraInfo: { B: "2", A: "1" }
  })

  it("is the same whatever order its parts came in", () => {
    const { extraInfo: { A = "", B = "" } } = set()
    const other: DesiredSet = {
      extraInfo: { A, B },
      probes: set("y", "x").probes.map(({ name, namespace, spec }) => ({
        spec: {
          checks: [{
            with: { deep: { a: [2, 1], b: 1 }, url: "https://x.example" },
            use: "app.http",
            name: spec.checks?.[0].name ?? ""
          }]
        },
        name,
        namespace
      }))
    }
    assert.strictEqual(canonical(other), canonical(set("x", "y")))
  })

  it("is of RFC 8785", () => {
    assert.strictEqual(
      canonical(set("x")),
      "{\"extraInfo\":{\"A\":\"1\",\"B\":\"2\"},\"probes\":[{\"name\":\"x\",\"namespace\":\"kubeprober\",\"spec\":{\"checks\":[{" +
        "\"name\":\"a\",\"use\":\"app.http\",\"with\":{\"deep\":{\"a\":[2,1],\"b\":1},\"url\":\"https://x.example\"}}]}}]}"
    )
  })

  it("changes with its content", () => {
    assert.notStrictEqual(canonical(set("x")), canonical(set("y")))
    assert.notStrictEqual(canonical(set("x")), canonical({ ...set("x"), extraInfo: {} }))
  })
})
