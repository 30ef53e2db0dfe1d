/**
 * The committed definitions on a real API server: accepted, structural, and as strict and as readable as we say.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer, Result, Schema } from "effect"
import { ClusterSelector } from "../../src/domain/ClusterSelector.ts"
import { AlertSpec } from "../../src/domain/kinds/Alert.ts"
import { ClusterSpec } from "../../src/domain/kinds/Cluster.ts"
import { kinds } from "../../src/domain/kinds/Kinds.ts"
import { Checks, PodTemplate, Probe, ProbeSpec } from "../../src/domain/kinds/Probe.ts"
import { ProbeRunSpec } from "../../src/domain/kinds/ProbeRun.ts"
import { ProbeStatus, ProbeStatusSpec } from "../../src/domain/kinds/ProbeStatus.ts"
import { ProbePolicy } from "../../src/domain/Policy.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import type { KubeError } from "../../src/infra/kube/KubeError.ts"
import * as KubeResource from "../../src/infra/kube/KubeResource.ts"
import { CustomResourceDefinition } from "../../src/infra/kube/resources/extensions.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { manifests } from "./fixtures/Manifests.ts"

/** A kind whose spec is read as it is stored. */
const resourceOf = (kind: string) => {
  const found = kinds.find((candidate) => candidate.kind === kind) ?? assert.fail(`no kind ${kind}`)
  return KubeResource.make({ ...found, fields: { spec: KubeResource.maybe(Schema.JsonObject) } })
}

const specs: Readonly<Record<string, Schema.Codec<unknown, unknown>>> = {
  Probe: ProbeSpec,
  ProbeStatus: ProbeStatusSpec,
  ProbeRun: ProbeRunSpec,
  Cluster: ClusterSpec,
  Alert: AlertSpec
}

/** How many of our definitions are served. */
const served = Effect.map(
  Effect.flatMap(TestCluster, ({ kube }) => kube.list(CustomResourceDefinition)),
  ({ items }) =>
    items.filter(({ status }) =>
      status.conditions.some(({ status, type }) => type === "Established" && status === "True")
    ).length
)

/** A definition of Probe from before ours, which took anything. */
const formerDefinition = {
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: "probes.kubeprober.erda.cloud" },
  spec: {
    group: "kubeprober.erda.cloud",
    names: { kind: "Probe", listKind: "ProbeList", plural: "probes", singular: "probe" },
    scope: "Namespaced",
    versions: [{
      name: "v1",
      served: true,
      storage: true,
      subresources: { status: {} },
      schema: { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } }
    }]
  }
}

/** Stored under the former definition; ours would not take it. */
const formerProbe = {
  metadata: { name: "former", namespace: "default" },
  spec: { policy: { runInterval: 2 }, probeList: [{ name: "item" }] }
}

/** The definitions, installed as a user would who had another before. */
const installed = Layer.effectDiscard(Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const { apply, kube } = yield* TestCluster
  yield* apply(formerDefinition)
  yield* eventually(served, (count) => count === 1)
  yield* kube.create(resourceOf("Probe"), formerProbe)
  const folder = `${import.meta.dirname}/../../crds`
  const files = yield* fs.readDirectory(folder)
  yield* apply(...(yield* Effect.forEach(files, (file) => fs.readFileString(`${folder}/${file}`))))
  yield* eventually(served, (count) => count === kinds.length)
})).pipe(Layer.provide(NodeServices.layer), Layer.orDie)

/** What the server says to an object it is not to store: nothing, or its reasons. */
const verdict = Effect.fnUntraced(function*(kind: string, spec: Schema.JsonObject) {
  const kube = yield* Kube
  return yield* kube.create(
    resourceOf(kind),
    { metadata: { name: "candidate", namespace: "default" }, spec },
    { dryRun: true }
  ).pipe(
    Effect.as<ReadonlyArray<string>>([]),
    Effect.catch(({ reason }: KubeError) =>
      reason._tag === "Invalid"
        ? Effect.succeed(reason.causes.length > 0 ? reason.causes : [reason.detail])
        : Effect.die(reason)
    )
  )
})

const container = { name: "c", image: "i" }
const check = { name: "a", use: "k8s.api.health" }
const secret = { name: "s", key: "k" }
const dingtalk = { dingtalk: { tokenFrom: secret } }
const probe = (more: Schema.JsonObject) => ({ checks: [check], ...more })
const policy = (policy: Schema.JsonObject) => probe({ policy })
const route = (more: Schema.JsonObject) => ({ routes: [{ name: "r", ...more }] })
const silence = { from: "2026-01-02T00:00:00Z", until: "2026-01-01T00:00:00Z", comment: "c" }

/** Objects that must be refused, and a part of what people then read. */
const bad: ReadonlyArray<readonly [kind: string, spec: Schema.JsonObject, field: string, message: string]> = [
  ["Probe", {}, "spec", "a Probe has checks (probes of the catalogue) or a template (a pod of your own), exactly one"],
  ["Probe", probe({ template: { containers: [container] } }), "spec", "exactly one of the two"],
  ["Probe", { checks: [] }, "spec.checks", "should have at least 1 items"],
  ["Probe", { checks: [check, check] }, "spec.checks", "two checks have one name; name each differently"],
  ["Probe", { checks: [{ name: "Nodes!", use: "x" }] }, "spec.checks[0].name", "lower-case letters, digits, dots"],
  ["Probe", { checks: [{ name: "a" }] }, "spec.checks[0].use", "Required value"],
  ["Probe", { checks: [{ ...check, timeout: "soon" }] }, "spec.checks[0].timeout", "like 90s, 1h30m or 250ms"],
  ["Probe", { checks: [{ ...check, timeout: "0s" }] }, "spec.checks[0].timeout", "at least 1ms"],
  ["Probe", { template: {} }, "spec.template.containers", "Required value"],
  ["Probe", { template: { containers: [{ image: "i" }] } }, "spec.template.containers[0].name", "Required value"],
  ["Probe", probe({ configs: [] }), "spec", "give a check its configuration under with"],
  ["Probe", probe({ layer: "network" }), "spec.layer", "supported values: \"application\", \"middleware\""],
  ["Probe", policy({ interval: "5 minutes" }), "spec.policy.interval", "like 90s, 1h30m or 250ms"],
  ["Probe", policy({ interval: "999ms" }), "spec.policy.interval", "at least 1s: watch with onChange"],
  [
    "Probe",
    policy({ interval: "1m", cron: "* * * * *" }),
    "spec.policy",
    "choose one of interval, cron and runInterval"
  ],
  ["Probe", policy({ interval: "1m", runInterval: 1 }), "spec.policy", "choose one of interval, cron and runInterval"],
  ["Probe", policy({ timeZone: "UTC" }), "spec.policy", "timeZone is the zone of cron and has no meaning without it"],
  ["Probe", policy({ cron: "@daily" }), "spec.policy.cron", "five fields: minute, hour, day of month"],
  [
    "Probe",
    policy({ cron: "0 0 * * *", timeZone: "Europe Berlin" }),
    "spec.policy.timeZone",
    "for example Europe/Berlin"
  ],
  ["Probe", policy({ retries: 11 }), "spec.policy.retries", "less than or equal to 10"],
  ["Probe", policy({ failureThreshold: 0 }), "spec.policy.failureThreshold", "greater than or equal to 1"],
  [
    "Probe",
    { template: { containers: [container] }, policy: { onChange: true } },
    "spec",
    "does not say what it watches"
  ],
  ["Probe", probe({ rollout: { percent: 101 } }), "spec.rollout.percent", "less than or equal to 100"],
  [
    "Probe",
    probe({ clusterSelector: { matchExpressions: [{ key: "a", operator: "Exists", values: ["x"] }] } }),
    "spec.clusterSelector.matchExpressions[0]",
    "In and NotIn need values, Exists and DoesNotExist take none"
  ],
  [
    "ProbeStatus",
    { checkers: [{ name: "a", status: "BANANA" }] },
    "spec.checkers[0].status",
    "supported values: \"PASS\""
  ],
  ["ProbeStatus", { checkers: [{ name: "a" }, { name: "a" }] }, "spec.checkers[1]", "Duplicate value"],
  ["ProbeStatus", { checkers: [{ name: "a", lastRun: "today" }] }, "spec.checkers[0].lastRun", "date-time"],
  ["ProbeRun", {}, "spec", "a ProbeRun names a probe or lists checks, exactly one of the two"],
  [
    "ProbeRun",
    { probe: "p", clusters: ["x"], clusterSelector: {} },
    "spec",
    "choose one of clusters and clusterSelector"
  ],
  ["ProbeRun", { probe: "p", timeout: "1ms" }, "spec.timeout", "at least 1s: a run needs time"],
  ["Cluster", { extraInfo: [{ value: "x" }] }, "spec.extraInfo[0].name", "Required value"],
  ["Alert", {}, "spec", "an Alert tells someone: give it routes"],
  ["Alert", route({}), "spec.routes[0]", "a route has exactly one target: webhook, alertmanager, dingtalk or slack"],
  ["Alert", route({ ...dingtalk, slack: { urlFrom: secret } }), "spec.routes[0]", "a route has exactly one target"],
  [
    "Alert",
    { routes: [{ name: "r", ...dingtalk }, { name: "r", ...dingtalk }] },
    "spec.routes",
    "two routes have one name"
  ],
  [
    "Alert",
    route({ webhook: {} }),
    "spec.routes[0].webhook",
    "a webhook has a url or a urlFrom, exactly one of the two"
  ],
  [
    "Alert",
    route({ webhook: { url: "https://me:secret@x.example/" } }),
    "spec.routes[0].webhook.url",
    "without user and password; secrets belong into a Secret"
  ],
  ["Alert", { address: "a", silences: [silence] }, "spec.silences[0]", "a silence ends after it begins"],
  ["Alert", { address: "a", thresholds: [{ status: "PASS" }] }, "spec.thresholds[0].status", "supported values"]
]

layer(Layer.provideMerge(installed, TestCluster.layer({ name: "crds" })), {
  excludeTestServices: true,
  timeout: "2 minutes"
})("custom resource definitions on an API server", (it) => {
  describe("definitions", () => {
    it.effect("are structural", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const { items } = yield* kube.list(CustomResourceDefinition)
        for (const { metadata, status } of items) {
          const conditions = new Map(status.conditions.map(({ status, type }) => [type, status]))
          assert.strictEqual(conditions.get("Established"), "True", metadata.name ?? "")
          assert.strictEqual(conditions.get("NamesAccepted"), "True", metadata.name ?? "")
          assert.isFalse(conditions.has("NonStructuralSchema"), metadata.name ?? "")
        }
      }))

    it.effect("are found under short names and the category, and explain themselves", () =>
      Effect.gen(function*() {
        const { kubectl } = yield* TestCluster
        const resources = yield* kubectl(
          "api-resources",
          "--api-group=kubeprober.erda.cloud",
          "--categories=kubeprober"
        )
        for (const { kind, plural, shortNames } of kinds) {
          assert.match(resources, new RegExp(`^${plural} +${shortNames.join(",")} +.*true +${kind}$`, "m"))
        }
        assert.include(
          yield* kubectl("explain", "probes.spec.policy.interval"),
          "Time between the starts of two runs, for example 90s or 5m."
        )
      }))
  })

  describe("good objects", () => {
    for (const set of ["original", "current"] as const) {
      it.effect(`of the ${set} format are accepted and nothing of them is dropped`, () =>
        Effect.gen(function*() {
          const kube = yield* Kube
          for (const { kind, metadata, spec } of yield* manifests(set)) {
            const resource = resourceOf(kind)
            const ref = { name: metadata.name, namespace: metadata.namespace }
            yield* kube.create(resource, { metadata, spec })
            const stored = yield* kube.get(resource, ref)
            assert.deepStrictEqual(stored.spec, spec, `${kind} ${metadata.name}`)
            yield* kube.delete(resource, ref)
          }
        }))
    }

    it.effect("of before stay, and their status can be told, though they would not be taken now", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const resource = KubeResource.make({ ...Probe, fields: { status: Probe.fields.status } })
        const { metadata, spec } = formerProbe
        assert.notDeepEqual(yield* verdict("Probe", spec), [])
        yield* kube.applyStatus(resource, {
          metadata,
          status: {
            conditions: [{
              type: "Accepted",
              status: "False",
              reason: "Invalid",
              message: "probeList is not a field of a Probe",
              lastTransitionTime: "2026-01-01T00:00:00Z"
            }]
          }
        })
        const { status } = yield* kube.get(resource, metadata)
        assert.deepStrictEqual(status?.conditions?.map(({ reason }) => reason), ["Invalid"])
        yield* kube.delete(resource, metadata)
      }))

    it.effect("keep status apart from spec", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const resource = KubeResource.make({ ...ProbeStatus, fields: ProbeStatus.fields })
        const metadata = { name: "apart", namespace: "default" }
        const created = yield* kube.create(resource, { metadata, spec: {}, status: { status: "PASS" } })
        assert.isUndefined(created.status)
        yield* kube.applyStatus(resource, { metadata, status: { status: "WARN", failing: "1/3" } })
        assert.deepStrictEqual((yield* kube.get(resource, metadata)).status, { status: "WARN", failing: "1/3" })
        yield* kube.delete(resource, metadata)
      }))

    it.effect("of a run cannot be changed", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const resource = resourceOf("ProbeRun")
        const metadata = { name: "fixed", namespace: "default" }
        yield* kube.create(resource, { metadata, spec: { probe: "dns" } })
        const error = yield* Effect.flip(kube.patch(resource, metadata, { spec: { probe: "other" } }))
        assert.include(error.message, "a ProbeRun cannot be changed; create another one")
        yield* kube.delete(resource, metadata)
      }))
  })

  describe("bad objects", () => {
    it.effect("are refused, naming the field and the reason in words", () =>
      Effect.gen(function*() {
        for (const [kind, spec, field, message] of bad) {
          const causes = yield* verdict(kind, spec)
          const text = `${kind} ${JSON.stringify(spec)}: ${causes.join("; ")}`
          assert.isTrue(causes.some((cause) => cause.startsWith(`${field}: `) && cause.includes(message)), text)
        }
      }))

    it.effect("are refused by our decoders just the same", () =>
      Effect.gen(function*() {
        for (const [kind, spec] of bad) {
          // That keys of a list are unique is for server-side apply; the states' merge joins duplicates anyway.
          if (kind === "ProbeStatus" && JSON.stringify(spec).includes("},{")) continue
          const decoded = Schema.decodeResult(specs[kind] ?? assert.fail(kind))(spec)
          assert.isTrue(Result.isFailure(decoded), `${kind} ${JSON.stringify(spec)}`)
        }
      }))

    it.effect("with a name too long for a label are refused", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const error = yield* Effect.flip(kube.create(resourceOf("Probe"), {
          metadata: { name: "n".repeat(64), namespace: "default" },
          spec: { checks: [check] }
        }, { dryRun: true }))
        assert.include(error.message, "a Probe's name becomes a label and has at most 63 characters")
      }))
  })

  describe("rules and decoders", () => {
    /** Any combination of parts that are well formed each, so that what decides is how they go together. */
    const Candidate = Schema.Struct({
      checks: Schema.optionalKey(Checks),
      template: Schema.optionalKey(PodTemplate),
      configs: Schema.optionalKey(Schema.Tuple([])),
      clusterSelector: Schema.optionalKey(ClusterSelector),
      policy: Schema.optionalKey(Schema.Struct({
        interval: Schema.optionalKey(Schema.Literals(["1s", "0.5s", "1m30s", "5x", ""])),
        cron: Schema.optionalKey(Schema.Literals(["* * * * *", "0 0 1 1 MON", "* * * *", "a  b c d e"])),
        runInterval: Schema.optionalKey(Schema.Literals([-1, 0, 30])),
        timeZone: Schema.optionalKey(Schema.Literals(["UTC", "Europe/Berlin", "/"])),
        timeout: Schema.optionalKey(ProbePolicy.fields.timeout),
        onChange: Schema.optionalKey(Schema.Boolean)
      }))
    })

    it.effect.prop(
      "agree on what a Probe is",
      { candidate: Candidate },
      ({ candidate }) =>
        Effect.gen(function*() {
          const spec: unknown = JSON.parse(JSON.stringify(yield* Schema.encodeEffect(Candidate)(candidate)))
          const causes = yield* verdict("Probe", yield* Schema.decodeUnknownEffect(Schema.JsonObject)(spec))
          const decoded = Schema.decodeUnknownResult(ProbeSpec)(spec)
          assert.strictEqual(
            Result.isSuccess(decoded),
            causes.length === 0,
            `${JSON.stringify(spec)}: the server says ${JSON.stringify(causes)}, the decoder ${
              Result.isFailure(decoded) ? decoded.failure.message : "nothing"
            }`
          )
        }),
      { arbitrary: { runs: 200 } }
    )
  })

  describe("printer columns", () => {
    it.effect("show what matters first and all of the original's", () =>
      Effect.gen(function*() {
        const { kubectl } = yield* TestCluster
        const kube = yield* Kube
        const metadata = { name: "dns", namespace: "default" }
        yield* kube.create(resourceOf("ProbeStatus"), { metadata, spec: {} })
        yield* kube.applyStatus(resourceOf("ProbeStatus"), {
          metadata,
          status: { status: "ERROR", failing: "1/2", message: "a: no such host", lastRun: "2026-01-01T00:00:00Z" }
        })
        yield* kube.create(resourceOf("Probe"), {
          metadata,
          spec: { template: { containers: [{ name: "c", image: "example/dns:1" }] }, policy: { runInterval: 30 } }
        })
        const lines = (text: string) => text.trim().split("\n").map((line) => line.split(/ {2,}/))
        const [statusHeader, status] = lines(yield* kubectl("get", "kps", "dns"))
        assert.deepStrictEqual(statusHeader, ["NAME", "STATUS", "FAILING", "MESSAGE", "LASTRUN", "AGE"])
        assert.deepStrictEqual(status?.slice(0, 5), ["dns", "ERROR", "1/2", "a: no such host", "2026-01-01T00:00:00Z"])
        const [probeHeader, row] = lines(yield* kubectl("get", "kp", "dns"))
        assert.deepStrictEqual(probeHeader, ["NAME", "LAYER", "INTERVAL", "RUNINTERVAL", "IMAGE", "AGE"])
        assert.deepStrictEqual(row?.slice(-3, -1), ["30", "example/dns:1"])
        yield* kube.create(resourceOf("Cluster"), { metadata, spec: {} })
        const [clusterHeader] = lines(yield* kubectl("get", "kpcl", "dns"))
        assert.includeMembers([...clusterHeader ?? []].map((name) => name.trim()), [
          "VERSION",
          "NODECOUNT",
          "PROBENAMESPACE",
          "PROBE",
          "TOTAL/ERROR",
          "HEARTBEATTIME",
          "LINK",
          "AGE"
        ])
      }))
  })
})
