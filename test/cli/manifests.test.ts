import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Duration, Effect, FileSystem, Option, Path } from "effect"
import * as Manifests from "../../src/cli/Manifests.ts"
import * as Plan from "../../src/cli/Plan.ts"
import { catalogue } from "../../src/probes/Catalogue.ts"

const options = { only: [], except: [], modules: [], manifests: [], namespaces: Option.none() }

const withFile = Effect.fnUntraced(function*(name: string, text: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(yield* fs.makeTempDirectoryScoped(), name)
  yield* fs.writeFileString(file, text)
  return file
})

const reasonOf = (options: Plan.PlanOptions) =>
  Effect.map(Effect.flip(Plan.make(options)), (failure) => failure.message)

describe("a plan", () => {
  layer(NodeServices.layer)((it) => {
    it.effect("is the whole catalogue unless something says otherwise", () =>
      Effect.gen(function*() {
        const { checks } = yield* Plan.make(options)
        assert.include(checks.map((check) => check.name), "k8s.api.health")
      }))

    it.effect("keeps what --probe names, by id or prefix, without what --skip names", () =>
      Effect.gen(function*() {
        const { checks } = yield* Plan.make({ ...options, only: ["k8s.api.*"], except: ["k8s.api.crud"] })
        const names = checks.map((check) => check.name)
        assert.isTrue(names.every((name) => name.startsWith("k8s.api.")), names.join())
        assert.include(names, "k8s.api.health")
        assert.notInclude(names, "k8s.api.crud")
      }))

    it.effect("takes deadlines from the policy where a check has none of its own", () =>
      Effect.gen(function*() {
        const file = yield* withFile(
          "probe.yaml",
          `
apiVersion: kubeprober.erda.cloud/v1
kind: Probe
metadata: { name: api }
spec:
  policy: { timeout: 7s }
  checks:
    - { name: a, use: k8s.api.health }
    - { name: b, use: k8s.api.health, timeout: 3s }
`
        )
        const { checks } = yield* Plan.make({ ...options, manifests: [file] })
        assert.deepStrictEqual(checks.map(({ probe }) => Duration.toSeconds(probe.timeout)), [7, 3])
      }))

    it.effect("is refused when the profile permits none of it", () =>
      Effect.gen(function*() {
        const plan = yield* Plan.make({ ...options, only: ["k8s.api.c*"] })
        const failure = yield* Effect.flip(
          Plan.ensureRunnable(plan, { profile: "observe", workerImage: Option.none() })
        )
        assert.include(failure.message, "k8s.api.crud (it writes (namespace)")
        yield* Plan.ensureRunnable(plan, { profile: "standard", workerImage: Option.none() })
        yield* Plan.ensureRunnable(yield* Plan.make({ ...options, only: ["k8s.api.crud"] }), {
          profile: "observe",
          workerImage: Option.none()
        })
      }))

    it.effect("is limited to namespaces where a probe looks at any", () =>
      Effect.gen(function*() {
        const { checks } = yield* Plan.make({ ...options, namespaces: Option.some(["team-a"]) })
        const limited = checks.filter((check) => JSON.stringify(check.with).includes("team-a"))
        assert.deepStrictEqual(limited.map((check) => [check.name, check.with]), [
          ["k8s.workloads.health", { include: ["team-a"] }]
        ])
      }))

    it.effect("refuses a name that matches nothing, and offers what is near", () =>
      Effect.gen(function*() {
        assert.include(yield* reasonOf({ ...options, only: ["k8s.api.heatlh"] }), "did you mean k8s.api.health")
        assert.include(yield* reasonOf({ ...options, only: ["k8s.api.health"], except: ["k8s.*"] }), "leaves no probe")
      }))

    it.effect("takes checks, names, thresholds and deadlines from Probe manifests", () =>
      Effect.gen(function*() {
        const file = yield* withFile(
          "probe.yaml",
          `
apiVersion: kubeprober.erda.cloud/v1
kind: Probe
metadata: { name: nodes }
spec:
  checks:
    - { name: workers, use: k8s.node.readiness, with: { minNodes: 3 }, timeout: 5s }
---
apiVersion: kubeprober.erda.cloud/v1
kind: Probe
metadata: { name: api }
spec: { checks: [{ name: api, use: k8s.api.health }] }
`
        )
        const { checks } = yield* Plan.make({ ...options, manifests: [file] })
        assert.deepStrictEqual(checks.map((check) => [check.name, check.probe.id]), [
          ["workers", "k8s.node.readiness"],
          ["api", "k8s.api.health"]
        ])
        assert.deepStrictEqual(checks[0]?.with, { minNodes: 3 })
      }))

    it.effect.each<readonly [string, string, string]>([
      ["not yaml", "a: [", "Flow sequence"],
      ["another kind", "{apiVersion: v1, kind: Pod, metadata: {name: x}}", "Pod x is not a Probe"],
      ["nothing", "", "there is no Probe"],
      [
        "no checks and no template",
        "{apiVersion: kubeprober.erda.cloud/v1, kind: Probe, metadata: {name: x}, spec: {}}",
        "exactly one of the two"
      ],
      [
        "a template",
        "{apiVersion: kubeprober.erda.cloud/v1, kind: Probe, metadata: {name: x}, spec: {template: {containers: [{name: c, image: i}]}}}",
        "takes an agent"
      ],
      [
        "a field that nobody reads",
        "{apiVersion: kubeprober.erda.cloud/v1, kind: Probe, metadata: {name: x}, spec: {polcy: {}, checks: [{name: a, use: k8s.api.health}]}}",
        "polcy"
      ],
      [
        "an unknown probe",
        "{apiVersion: kubeprober.erda.cloud/v1, kind: Probe, metadata: {name: x}, spec: {checks: [{name: a, use: k8s.nope}]}}",
        "there is no probe k8s.nope"
      ]
    ])("says what is wrong with a file that holds %s", ([, text, expected]) =>
      Effect.gen(function*() {
        const file = yield* withFile("probe.yaml", text)
        assert.include(yield* reasonOf({ ...options, manifests: [file] }), expected)
      }))

    it.effect("says what is wrong with a module of the user's", () =>
      Effect.gen(function*() {
        assert.include(yield* reasonOf({ ...options, modules: ["./nowhere.ts"] }), "there is no such file")
        const wrong = yield* withFile("wrong.mjs", "export default 42")
        assert.include(yield* reasonOf({ ...options, modules: [wrong] }), "default export must be")
        const broken = yield* withFile("broken.mjs", "throw new Error('it broke')")
        assert.include(yield* reasonOf({ ...options, modules: [broken] }), "it broke")
      }))
  })
})

describe("a Probe for a fleet", () => {
  layer(NodeServices.layer)((it) => {
    const examined = Effect.fnUntraced(function*(checks: string) {
      const file = yield* withFile(
        "probe.yaml",
        `{apiVersion: kubeprober.erda.cloud/v1, kind: Probe, metadata: {name: team}, spec: {checks: [${checks}]}}`
      )
      return (yield* Effect.forEach(yield* Manifests.loadProbes(file), (probe) => Manifests.examine(probe, catalogue)))
        .flat()
    })

    it.effect("is taken when its checks are the catalogue's, configured or not", () =>
      Effect.gen(function*() {
        const said = yield* examined(
          "{ name: a, use: k8s.node.readiness, with: { minNodes: 3 } }, { name: b, use: k8s.api.health }"
        )
        assert.deepStrictEqual(said, [])
      }))

    it.effect.each<readonly [string, string]>([
      [
        "{ name: a, use: k8s.node.readiness, with: { minNode: 3 } }",
        "unknown field `minNode`; did you mean `minNodes`?"
      ],
      ["{ name: a, use: k8s.node.readiness, with: { zzzzzz: 3 } }", "unknown field `zzzzzz` ("],
      [
        "{ name: a, use: k8s.cert.expiry, with: { hosts: [{ hots: x }] } }",
        "unknown field `hosts[0].hots`; did you mean `host`?"
      ],
      ["{ name: a, use: k8s.node.readiness, with: { minNodes: three } }", "minNodes"]
    ])("is refused with %s", ([checks, expected]) =>
      Effect.gen(function*() {
        const { message } = yield* Effect.flip(examined(checks))
        assert.include(message, expected)
        assert.include(message, "Probe team: check a cannot work: ")
        assert.notInclude(message, "\n")
      }))

    it.effect("may have checks that only some agents know, which is said with what is near", () =>
      Effect.gen(function*() {
        const [mine, typo] = yield* examined("{ name: a, use: example.mine }, { name: b, use: k8s.node.readines }")
        assert.include(mine, "Probe team: example.mine is not in the catalogue. It runs")
        assert.include(typo, "did you mean k8s.node.readiness?")
      }))
  })
})
