/** What can be said of `deploy` without a cluster: it is what is generated, grants nothing by wildcard, and is hardened. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Duration, Effect, FileSystem, Path, Schema } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { parseAllDocuments } from "yaml"
import manifest from "../../package.json" with { type: "json" }
import { root } from "../../scripts/bundle.ts"
import { roleFiles } from "../../scripts/deployRoles.ts"
import { load as loadChecks, loadProbes } from "../../src/cli/Manifests.ts"
import { permits } from "../../src/domain/Profile.ts"
import { catalogue } from "../../src/probes/Catalogue.ts"

const Rule = Schema.Struct({
  apiGroups: Schema.optionalKey(Schema.Array(Schema.String)),
  resources: Schema.optionalKey(Schema.Array(Schema.String)),
  resourceNames: Schema.optionalKey(Schema.Array(Schema.String)),
  nonResourceURLs: Schema.optionalKey(Schema.Array(Schema.String)),
  verbs: Schema.Array(Schema.String)
})
type Rule = typeof Rule.Type

const Document = Schema.Struct({
  kind: Schema.String,
  metadata: Schema.optionalKey(Schema.Struct({
    name: Schema.String,
    namespace: Schema.optionalKey(Schema.String)
  })),
  rules: Schema.optionalKey(Schema.Array(Rule)),
  images: Schema.optionalKey(Schema.Array(Schema.Struct({ name: Schema.String, newTag: Schema.String })))
})
type Document = typeof Document.Type

/** Every document below `deploy`, by its file; the definitions of our kinds have tests of their own. */
const documents = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = path.join(root, "deploy")
  const files = (yield* fs.readDirectory(folder, { recursive: true })).filter((name) =>
    name.endsWith(".yaml") && !name.startsWith("crds/kubeprober.")
  )
  const all = yield* Effect.forEach(files, (file) =>
    Effect.gen(function*() {
      const parsed = parseAllDocuments(yield* fs.readFileString(path.join(folder, file)))
      return yield* Effect.forEach([...parsed], (document) => {
        assert.deepStrictEqual(document.errors, [], file)
        return Effect.map(
          Schema.decodeUnknownEffect(Document)(document.toJS()),
          (content) => ({ file, content })
        )
      })
    }))
  return all.flat()
})

const isRole = ({ kind }: Document): boolean => kind === "Role" || kind === "ClusterRole"

const everything = (rule: Rule): ReadonlyArray<string> => [
  ...rule.verbs,
  ...rule.apiGroups ?? [],
  ...rule.resources ?? [],
  ...rule.resourceNames ?? [],
  ...rule.nonResourceURLs ?? []
]

const grants = (rule: Rule, verb: string, resource: string): boolean =>
  rule.verbs.includes(verb) && (rule.resources ?? []).includes(resource)

layer(NodeServices.layer)("manifests of deploy", (it) => {
  it.effect("are what is generated", () =>
    Effect.gen(function*() {
      const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
      const code = yield* spawner.exitCode(ChildProcess.make(process.execPath, ["scripts/deploy.ts", "--check"], {
        cwd: root,
        stdin: "ignore",
        stderr: "inherit"
      }))
      assert.strictEqual(code, 0)
    }))

  it.effect("grant nothing by wildcard", () =>
    Effect.gen(function*() {
      const rules = (yield* documents).flatMap(({ content }) => isRole(content) ? content.rules ?? [] : [])
      assert.isAbove(rules.length, 10)
      assert.deepStrictEqual(rules.filter((rule) => everything(rule).some((part) => part.includes("*"))), [])
    }))

  it.effect("read Secrets by name only, but for the master in its own namespace, and run commands nowhere", () =>
    Effect.gen(function*() {
      const readers = (yield* documents).flatMap(({ content, file }) =>
        (content.rules ?? []).filter((rule) =>
          rule.resourceNames === undefined && ["get", "list", "watch"].some((verb) => grants(rule, verb, "secrets"))
        ).map(() => `${file} ${content.kind} ${content.metadata?.namespace}`)
      )
      assert.deepStrictEqual(readers, ["master/roles.yaml Role kubeprober"])
      const resources = (yield* documents).flatMap(({ content }) => (content.rules ?? []).flatMap(everything))
      for (
        const dangerous of ["pods/exec", "pods/attach", "nodes/proxy", "escalate", "bind", "serviceaccounts/token"]
      ) {
        assert.notInclude(resources, dangerous)
      }
    }))

  it.effect("impersonate in an optional component only", () =>
    Effect.gen(function*() {
      const files = (yield* documents).filter(({ content }) =>
        (content.rules ?? []).some((rule) => rule.verbs.includes("impersonate"))
      ).map(({ file }) => file)
      assert.deepStrictEqual(files, ["agent/components/kube-access/roles.yaml"])
    }))

  it.effect("name the image of this version", () =>
    Effect.gen(function*() {
      const images = (yield* documents).flatMap(({ content }) => content.images ?? [])
      assert.deepStrictEqual(
        images,
        Array.from({ length: 4 }, () => ({ name: "kubeprober", newTag: manifest.version }))
      )
    }))
})

layer(NodeServices.layer)("Probes to begin with", (it) => {
  const fileOf = (name: string) => `${root}/deploy/probes/${name}.yaml`

  it.effect("are those that ask the cluster and that an installed agent may run, each once and at its own interval", () =>
    Effect.gen(function*() {
      const probes = (yield* Effect.forEach(["observe", "standard", "nodes"], (name) => loadProbes(fileOf(name))))
        .flat()
      const planned = probes.flatMap(({ spec }) =>
        (spec.checks ?? []).map(({ use }) => `${use} ${Duration.format(spec.policy?.interval ?? Duration.zero)}`)
      )
      const wanted = catalogue.filter(({ asks, writes }) => asks === "cluster" && permits("standard", writes))
      assert.isAbove(wanted.length, 20)
      assert.deepStrictEqual(
        planned.toSorted(),
        wanted.map(({ id, interval }) => `${id} ${Duration.format(interval)}`).sort()
      )
      assert.strictEqual(new Set(probes.map(({ name }) => name)).size, probes.length)
      assert.deepStrictEqual(probes.map(({ spec }) => spec.clusterSelector), probes.map(() => ({})))
    }))

  it.effect("store nothing and need no node agents where only those of observe are applied", () =>
    Effect.gen(function*() {
      const uses = new Set((yield* loadChecks(fileOf("observe"))).map(({ use }) => use))
      const others = catalogue.filter(({ id, placement, writes }) =>
        uses.has(id) && (placement !== "agent" || !permits("observe", writes))
      )
      assert.deepStrictEqual(others, [])
    }))
})

describe("roles of the operators", () => {
  it("give cluster-wide no more than reading and questions", () => {
    const wide = Object.entries(roleFiles).flatMap(([file, manifests]) =>
      file.includes("components/") || file === "crds/people.yaml" ?
        [] :
        manifests.flatMap((one) =>
          one.kind === "ClusterRole"
            ? one.rules.flatMap((rule) =>
              rule.verbs.flatMap((verb) => "resources" in rule ? rule.resources.map((name) => `${verb} ${name}`) : [])
            )
            : []
        )
    )
    assert.deepStrictEqual(wide.filter((right) => !/^(get|list|watch) /.test(right)).sort(), [
      "create selfsubjectaccessreviews",
      "create selfsubjectrulesreviews",
      "create subjectaccessreviews",
      "create tokenreviews"
    ])
  })
})
