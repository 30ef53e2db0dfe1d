/** The manifests on a real API server, and the operators' rights by doing with them what the operators do. */
import { assert, layer } from "@effect/vitest"
import { DateTime, Duration, Effect, Layer, Option, Schema, Stream } from "effect"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"
import { parseAllDocuments, stringify } from "yaml"
import { root } from "../../scripts/bundle.ts"
import { roleFiles } from "../../scripts/deployRoles.ts"
import { jobManifest, namePrefix } from "../../src/agent/jobs/manifest.ts"
import { WrittenSecret } from "../../src/agent/runToken.ts"
import { sweep } from "../../src/agent/Sweeper.ts"
import { workerPod } from "../../src/agent/workers/manifest.ts"
import { permits } from "../../src/domain/Profile.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import type { KubeError } from "../../src/infra/kube/KubeError.ts"
import { whileLeading } from "../../src/infra/kube/LeaderElection.ts"
import { Deployment } from "../../src/infra/kube/resources/apps.ts"
import { SelfSubjectAccessReview } from "../../src/infra/kube/resources/authorization.ts"
import { Job } from "../../src/infra/kube/resources/batch.ts"
import { ConfigMap, Namespace, Pod } from "../../src/infra/kube/resources/core.ts"
import { Cluster, Probe, ProbeStatus } from "../../src/infra/kube/resources/kubeprober.ts"
import { CertificateAuthority } from "../../src/infra/pki/CertificateAuthority.ts"
import { CREDENTIAL as AGENT } from "../../src/infra/pki/ClusterIdentity.ts"
import { CredentialStore } from "../../src/infra/pki/CredentialStore.ts"
import { JoinTokenStore } from "../../src/infra/pki/JoinTokens.ts"
import * as JoinTokensSecrets from "../../src/master/membership/JoinTokensSecrets.ts"
import { MemberStore } from "../../src/master/membership/MemberStore.ts"
import { catalogue } from "../../src/probes/Catalogue.ts"
import { apiCrud } from "../../src/probes/kubernetes/apiCrud.ts"
import { namespaceLifecycle } from "../../src/probes/kubernetes/namespaceLifecycle.ts"
import { selfAccess } from "../../src/probes/kubernetes/selfAccess.ts"
import { configure } from "../../src/probes/Probe.ts"
import { freshName } from "../clusters/freshName.ts"
import { TestCluster, eventually, reasonOf } from "../clusters/TestCluster.ts"

const deploy = (base: string): string => join(root, "deploy", base)

const temporaryFolder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "kubeprober-deploy-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
)

const Deployments = Schema.fromJsonString(Schema.Struct({
  items: Schema.Array(Schema.Struct({
    metadata: Schema.Struct({ name: Schema.String }),
    spec: Schema.Struct({ template: Schema.Struct({ spec: Schema.Record(Schema.String, Schema.Unknown) }) })
  }))
}))

const RenderedRoles = Schema.Array(Schema.Struct({
  kind: Schema.String,
  metadata: Schema.Struct({ name: Schema.String, namespace: Schema.optionalKey(Schema.String) }),
  rules: Schema.optionalKey(Schema.Array(Schema.Json))
}))

layer(TestCluster.layer({ name: "deploy" }), { excludeTestServices: true, timeout: "120 seconds" })(
  "the manifests on an API server",
  (it) => {
    const apply = (base: string) =>
      TestCluster.use(({ kubectl }) =>
        kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "-k", deploy(base))
      )

    /** As a ServiceAccount of ours, by a certificate that says so. */
    const as = Effect.fnUntraced(function*(account: string) {
      const { cluster, kubeAs } = yield* TestCluster
      return yield* kubeAs(
        yield* cluster.issueClientCertificate({
          user: `system:serviceaccount:kubeprober:${account}`,
          groups: ["system:serviceaccounts", "system:serviceaccounts:kubeprober", "system:authenticated"]
        })
      )
    })

    it.effect(
      "are accepted, strictly validated: definitions, master, both forms of the agent",
      () =>
        Effect.gen(function*() {
          const { kubectl } = yield* TestCluster
          yield* apply("crds")
          yield* kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
          yield* apply("standalone")
          yield* apply("master")
          const applied = yield* apply("agent")
          assert.include(applied, "deployment.apps/kubeprober-agent serverside-applied")
          const names = yield* kubectl(
            "get",
            "deployments,services,persistentvolumeclaims",
            "-n",
            "kubeprober",
            "-o",
            "name"
          )
          assert.deepStrictEqual(names.trim().split("\n").sort(), [
            "deployment.apps/kubeprober-agent",
            "deployment.apps/kubeprober-master",
            "persistentvolumeclaim/kubeprober-master",
            "service/kubeprober-master",
            "service/probeagent"
          ])
        }),
      120_000
    )

    it.effect("grant what is generated: no transformer of kustomize has changed a rule", () =>
      Effect.gen(function*() {
        const { kubectl } = yield* TestCluster
        const keyOf = (kind: string, name: string, namespace = "") => `${kind} ${namespace}/${name}`
        const rendered = yield* Effect.forEach(["crds", "standalone", "agent", "nodes", "master"], (base) =>
          Effect.map(kubectl("kustomize", deploy(base)), (text) =>
            parseAllDocuments(text).map((document) =>
              document.toJS()
            )))
        const roles = yield* Schema.decodeUnknownEffect(RenderedRoles)(rendered.flat())
        const rulesOf = new Map(roles.map(({ kind, metadata, rules }) => [
          keyOf(kind, metadata.name, metadata.namespace),
          rules
        ]))
        const generated = Object.entries(roleFiles).flatMap(([file, manifests]) =>
          file.includes("components/") ? [] : manifests.filter((one) => "rules" in one)
        )
        assert.isAbove(generated.length, 5)
        for (const { kind, metadata, rules } of generated) {
          assert.deepStrictEqual(rulesOf.get(keyOf(kind, metadata.name, metadata.namespace)), rules)
        }
      }), 60_000)

    it.effect("render with every component", () =>
      Effect.gen(function*() {
        const { kubectl } = yield* TestCluster
        const folder = yield* temporaryFolder
        // As a user would write it: kustomize takes bases by relative paths alone.
        const overlay = (base: string, components: ReadonlyArray<string>, settings: object) => {
          const own = join(folder, base)
          mkdirSync(own)
          const from = (path: string) => relative(own, deploy(path))
          const content = {
            apiVersion: "kustomize.config.k8s.io/v1beta1",
            kind: "Kustomization",
            resources: [from(base)],
            components: components.map((name) => from(join(base, "components", name))),
            configMapGenerator: [settings]
          }
          writeFileSync(join(own, "kustomization.yaml"), stringify(content))
          return own
        }
        const agent = overlay("agent", ["kube-access", "worker-view", "network-policy"], {
          name: "kubeprober-agent-settings",
          namespace: "kubeprober",
          literals: ["master=https://kubeprober.example.com:8443"]
        })
        const master = overlay("master", ["ephemeral", "network-policy"], {
          name: "kubeprober-master-settings",
          namespace: "kubeprober",
          behavior: "merge",
          literals: ["link-name=kubeprober.example.com"]
        })
        for (const own of [agent, master]) {
          yield* kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-k", own)
        }
        const rendered = yield* kubectl("kustomize", master)
        assert.notInclude(rendered, "PersistentVolumeClaim")
        assert.include(rendered, "link-name: kubeprober.example.com")
        assert.include(rendered, "api-name: kubeprober-master.kubeprober.svc.cluster.local")
        // The Deployment reads the settings under the name that kustomize gave them.
        assert.match(yield* kubectl("kustomize", agent), /key: master\n\s+name: kubeprober-agent-settings-\w+/)
      }), 120_000)

    it.effect("make pods that the restricted Pod Security Standard admits", () =>
      Effect.gen(function*() {
        const { apply, kubectl } = yield* TestCluster
        yield* apply({
          apiVersion: "v1",
          kind: "Namespace",
          metadata: {
            name: "strict",
            labels: {
              "pod-security.kubernetes.io/enforce": "restricted",
              "pod-security.kubernetes.io/enforce-version": "latest"
            }
          }
        })
        yield* eventually(
          kubectl("get", "serviceaccounts", "-n", "strict", "-o", "name"),
          (names) => names.includes("serviceaccount/default")
        )
        const { cluster } = yield* TestCluster
        const { items } = yield* Schema.decodeEffect(Deployments)(
          yield* kubectl("get", "deployments", "-n", "kubeprober", "-o", "json")
        )
        assert.strictEqual(items.length, 2)
        const create = (name: string, spec: object) =>
          cluster.kubectl(["create", "--dry-run=server", "-f", "-"], {
            stdin: JSON.stringify({ apiVersion: "v1", kind: "Pod", metadata: { name, namespace: "strict" }, spec })
          })
        for (const { metadata, spec } of items) {
          const { serviceAccount: _, serviceAccountName: __, ...pod } = spec.template.spec
          assert.include(yield* create(metadata.name, pod), "created (server dry run)")
          // The namespace does refuse what is not hardened.
          const refused = yield* Effect.flip(create(metadata.name, { ...pod, securityContext: {} }))
          assert.include(refused.message, "violates PodSecurity")
        }
      }), 120_000)

    it.effect(
      "let an agent run every probe of the standard profile, and find nothing missing nor too much",
      () =>
        Effect.gen(function*() {
          const { round } = yield* TestCluster
          const checks = catalogue.filter(({ id, writes }) => permits("standard", writes) && id !== selfAccess.id)
          // All of them at once are more than a busy machine answers within the usual limits.
          const patient = configure(apiCrud, { slow: "20s", watchLag: "20s", stepTimeout: "20s" })
          const others = checks.filter(({ id }) => id !== apiCrud.id)
          const results = yield* round([configure(selfAccess, { strict: true }), patient, ...others], {
            as: yield* as("kubeprober-agent"),
            namespace: "kubeprober"
          })
          assert.strictEqual(results.length, checks.length + 1)
          const [access] = results
          assert.strictEqual(access?.report.status, "PASS", access?.report.message)
          const denied = results.flatMap(({ report }) =>
            report.findings.filter(({ code }) => /ACCESS|UNDECLARED|FORBIDDEN/.test(code))
          )
          assert.deepStrictEqual(denied, [])
          const crud = results.find(({ report }) => report.checker === "k8s.api.crud")
          assert.isDefined(crud)
          assert.strictEqual(crud.report.blame, undefined, crud.report.message)
        }),
      300_000
    )

    it.effect("let an agent keep its Probes, results, lease and identity, and sweep", () =>
      Effect.gen(function*() {
        const kube = yield* as("kubeprober-agent")
        const namespace = "kubeprober"
        const ref = { name: "p", namespace }
        yield* kube.apply(Probe, {
          metadata: ref,
          spec: { policy: { runInterval: 1 }, checks: [{ name: "api", use: "k8s.api.health" }] }
        })
        yield* kube.apply(ProbeStatus, { metadata: ref, spec: { checkers: [] } })
        yield* kube.applyStatus(ProbeStatus, { metadata: ref, status: { status: "UNKNOWN" } })
        assert.deepStrictEqual(
          (yield* kube.list(ProbeStatus, { namespace })).items.map(({ metadata }) => metadata.name),
          ["p"]
        )
        yield* kube.delete(ProbeStatus, ref)
        yield* kube.delete(Probe, ref)
        yield* kube.apply(ConfigMap, { metadata: { name: "extra-config", namespace }, data: { A: "b" } })
        assert.deepStrictEqual(yield* sweep({ namespace }).pipe(Effect.provideService(Kube, kube)), [])
        const led = yield* whileLeading(
          { lease: { name: "kubeprober-agent", namespace }, identity: "test" },
          Effect.succeed("led")
        ).pipe(Effect.provideService(Kube, kube), Effect.timeout("20 seconds"))
        assert.strictEqual(led, "led")
      }), 120_000)

    it.effect("let an agent keep its own Secret, and see no other", () =>
      Effect.gen(function*() {
        const agent = yield* as("kubeprober-agent")
        const master = yield* as("kubeprober-master")
        const { kubectl } = yield* TestCluster
        yield* kubectl("delete", "secret", AGENT, "-n", "kubeprober", "--ignore-not-found")
        const storeOf = (kube: Kube["Service"]) =>
          CredentialStore.layerSecrets("kubeprober").pipe(Layer.provide(Layer.succeed(Kube, kube)))
        const credential = yield* CertificateAuthority.use(({ issueServer }) => issueServer(["agent"])).pipe(
          Effect.provide(CertificateAuthority.layer.pipe(Layer.provide(storeOf(master))))
        )
        yield* Effect.gen(function*() {
          const store = yield* CredentialStore
          assert.isTrue(Option.isNone(yield* store.read(AGENT)))
          yield* store.create(AGENT, credential)
          yield* store.replace(AGENT, credential)
          assert.isTrue(Option.isSome(yield* store.read(AGENT)))
          const refused = yield* Effect.flip(store.read("kubeprober-authority"))
          assert.match(refused.message, /not allowed for system:serviceaccount:kubeprober:kubeprober-agent/)
        }).pipe(Effect.provide(storeOf(agent)))
      }), 120_000)

    it.effect(
      "let no pod that an agent makes have a Secret or ServiceAccount of the operators, and others as ever",
      () =>
        Effect.gen(function*() {
          const kube = yield* as("kubeprober-agent")
          const namespace = "kubeprober"
          const deniedBy = (effect: Effect.Effect<unknown, KubeError>) =>
            Effect.map(reasonOf(effect), (reason) => reason?._tag === "AdmissionDenied" ? reason.detail : reason?._tag)
          const dryRun = { dryRun: true }
          const { metadata, spec: workerSpec } = workerPod(
            {
              name: "w",
              namespace,
              place: {},
              owner: { name: "run", uid: "1" },
              task: "{}",
              secret: "worker-1",
              deadlineSeconds: 60
            },
            { image: "example.com/kubeprober:test" }
          )
          assert.isUndefined(yield* deniedBy(kube.create(Pod, { metadata, spec: workerSpec }, dryRun)))
          const create = (spec: object) =>
            deniedBy(kube.create(Pod, { metadata, spec: { containers: [container({})], ...spec } }, dryRun))
          const container = (spec: object) => ({ name: "c", image: "example.com/c:1", ...spec })
          const volume = (source: object) => ({ volumes: [{ name: "v", ...source }] })
          const env = (name: string, key = "tls.key") => ({
            env: [{ name: "A", valueFrom: { secretKeyRef: { name, key } } }]
          })
          const secret = (name: string) => volume({ secret: { secretName: name } })
          const NO_SECRET = "gives pods no Secret whose name begins with kubeprober-"
          const NO_ACCOUNT = "gives pods no ServiceAccount of an operator"
          // The policy and the binding take effect within seconds of being stored.
          yield* eventually(create(secret("kubeprober-authority")), (detail) => detail?.includes(NO_SECRET) === true)
          for (
            const spec of [
              secret("kubeprober-agent"),
              secret("kubeprober-join"),
              volume({ projected: { sources: [{ secret: { name: "kubeprober-authority" } }] } }),
              { containers: [container({ envFrom: [{ secretRef: { name: "kubeprober-authority" } }] })] },
              { containers: [container(env("kubeprober-authority"))] },
              { initContainers: [{ ...container(env("kubeprober-node-key")), name: "i" }] }
            ]
          ) assert.include(yield* create(spec), NO_SECRET, JSON.stringify(spec))
          assert.include(yield* create({ serviceAccountName: "kubeprober-master" }), NO_ACCOUNT)
          assert.include(yield* create({ serviceAccountName: "kubeprober-agent" }), NO_ACCOUNT)
          assert.isUndefined(yield* create({}))
          assert.isUndefined(yield* create(secret("shop-db")))

          // A template of people's runs as whom and with what of theirs it says.
          const job = (probe: string, template: object) =>
            jobManifest({
              name: `${namePrefix(probe)}-a1b2c3d4e5`,
              probe: { namespace, name: probe },
              template: { containers: [container({})], ...template },
              configs: [],
              runId: "r",
              timeout: Duration.minutes(1),
              reportUrl: "http://probeagent.kubeprober.svc.cluster.local:8082/probe-status"
            })
          const createJob = (probe: string, template: object) =>
            deniedBy(kube.create(Job, job(probe, template), dryRun))
          for (const probe of ["cron", "kubeprober-cron"]) {
            assert.isUndefined(yield* createJob(probe, { serviceAccountName: "theirs", ...secret("shop-db") }))
            assert.include(yield* createJob(probe, secret("kubeprober-authority")), NO_SECRET)
            assert.include(yield* createJob(probe, { serviceAccountName: "kubeprober-master" }), NO_ACCOUNT)
          }

          // Nor does it get there by a Deployment, its own or the master's, or by a token that the cluster would write.
          const own = { containers: [container({ image: "example.com/other:1" })] }
          const patch = { spec: { template: { spec: own } } }
          assert.include(
            yield* deniedBy(kube.patch(Deployment, { name: "kubeprober-master", namespace }, patch, dryRun)),
            NO_ACCOUNT
          )
          assert.include(
            yield* deniedBy(kube.create(
              WrittenSecret,
              {
                metadata: {
                  name: "t",
                  namespace,
                  annotations: { "kubernetes.io/service-account.name": "kubeprober-master" }
                },
                type: "kubernetes.io/service-account-token"
              },
              dryRun
            )),
            "makes no token of a ServiceAccount"
          )
          assert.isUndefined(
            yield* deniedBy(
              kube.create(WrittenSecret, { metadata: { name: "t", namespace }, stringData: { a: "b" } }, dryRun)
            )
          )
          const master = yield* as("kubeprober-master")
          const precious = { name: yield* freshName("precious"), namespace }
          yield* master.create(WrittenSecret, { metadata: precious, stringData: { a: "b" } })
          assert.strictEqual(yield* deniedBy(kube.delete(WrittenSecret, precious)), "Forbidden")
          yield* master.delete(WrittenSecret, precious)
        }),
      60_000
    )

    it.effect(
      "let the master keep the fleet in namespace default, and nothing of it elsewhere",
      () =>
        Effect.gen(function*() {
          const kube = yield* as("kubeprober-master")
          const ref = { name: "c1", namespace: "default" }
          yield* kube.apply(Cluster, { metadata: ref, spec: {} })
          yield* kube.applyStatus(Cluster, { metadata: ref, status: { nodeCount: 3 } })
          assert.strictEqual((yield* kube.get(Cluster, ref)).metadata.name, "c1")
          yield* kube.delete(Cluster, ref)
          assert.strictEqual((yield* reasonOf(kube.list(Cluster, { namespace: "kubeprober" })))?._tag, "Forbidden")
        }),
      120_000
    )

    it.effect("let the master keep members and join tokens", () =>
      Effect.gen(function*() {
        const kube = Layer.succeed(Kube, yield* as("kubeprober-master"))
        const stores = Layer.merge(
          MemberStore.layerLeases({ namespace: "default" }),
          JoinTokensSecrets.layer({ namespace: "kubeprober" })
        ).pipe(Layer.provide(kube))
        yield* Effect.gen(function*() {
          const members = yield* MemberStore
          const member = { cluster: "c1", uid: "u", revoked: false, epoch: 1, resource: undefined }
          yield* members.modify("c1", () => member)
          yield* members.modify("c1", () => ({ ...member, epoch: 2 }))
          assert.strictEqual(Option.getOrThrow(yield* members.find("c1")).member.epoch, 2)
          const known = Option.getOrThrow(yield* Stream.runHead(members.follow))
          assert.strictEqual(known._tag, "Synced")
          yield* members.modify("c1", () => undefined)
          const tokens = yield* JoinTokenStore
          const expiresAt = DateTime.addDuration(yield* DateTime.now, "10 minutes")
          const id = yield* freshName("t")
          yield* tokens.insert({ id, cluster: "c1", hash: "h", expiresAt })
          assert.deepStrictEqual(yield* tokens.spend(id, "key"), Option.some("key"))
        }).pipe(Effect.provide(stores))
      }), 60_000)

    it.effect(
      "show people who may see workloads Probes and results, and let nobody write them who was not chosen",
      () =>
        Effect.gen(function*() {
          const { apply, cluster, kubeAs } = yield* TestCluster
          const bind = (user: string, role: string) =>
            apply({
              apiVersion: "rbac.authorization.k8s.io/v1",
              kind: "RoleBinding",
              metadata: { name: user, namespace: "default" },
              roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: role },
              subjects: [{ kind: "User", name: user, apiGroup: "rbac.authorization.k8s.io" }]
            })
          const personWith = Effect.fnUntraced(function*(user: string, role: string) {
            yield* bind(user, role)
            return yield* kubeAs(yield* cluster.issueClientCertificate({ user }))
          })
          const viewer = yield* personWith("viewer", "view")
          // The controller that adds our rules to `view` takes a moment.
          yield* eventually(
            Effect.orElseSucceed(Effect.as(viewer.list(Probe, { namespace: "default" }), true), () => false),
            (listed) => listed
          )
          const probe = {
            metadata: { name: "mine", namespace: "default" },
            spec: { checks: [{ name: "api", use: "k8s.api.health" }] }
          }
          const admin = yield* personWith("admin", "admin")
          assert.strictEqual((yield* reasonOf(admin.apply(Probe, probe)))?._tag, "Forbidden")
          const editor = yield* personWith("editor", "kubeprober-edit")
          // The API server learns of the binding by a watch.
          yield* eventually(reasonOf(editor.apply(Probe, probe)), (reason) => reason === undefined)
          yield* editor.delete(Probe, probe.metadata)
        }),
      60_000
    )

    it.effect(
      "let an agent store nothing outside of its namespace, whatever is bound to it, and dry runs pass",
      () =>
        Effect.gen(function*() {
          const { apply: applyManifest, kubectl } = yield* TestCluster
          const folder = yield* temporaryFolder
          const ephemeral = yield* freshName("kubeprober-namespace")
          const binding = {
            apiVersion: "rbac.authorization.k8s.io/v1",
            kind: "ClusterRoleBinding",
            metadata: { name: "too-much" },
            roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "cluster-admin" },
            subjects: [{ kind: "ServiceAccount", name: "kubeprober-agent", namespace: "kubeprober" }]
          }
          const restore = Effect.andThen(
            kubectl("delete", "clusterrolebinding,clusterrole", "kubeprober-prober-full", "--ignore-not-found"),
            apply("standalone")
          )
          yield* Effect.addFinalizer(() => restore)
          yield* applyManifest(binding)
          yield* Effect.addFinalizer(() => kubectl("delete", "clusterrolebinding", "too-much", "--ignore-not-found"))
          const kube = yield* as("kubeprober-agent")
          const metadata = { name: "mine", namespace: "default" }
          const elsewhere = kube.create(ConfigMap, { metadata, data: {} })
          const deniedBy = (effect: Effect.Effect<unknown, KubeError>) =>
            Effect.map(reasonOf(effect), (reason) => reason?._tag === "AdmissionDenied" ? reason.detail : reason?._tag)
          // The policy and the binding take effect within seconds of being stored.
          const refused = yield* eventually(
            Effect.ensuring(
              deniedBy(elsewhere),
              Effect.ignore(kubectl("delete", "configmap", "mine", "--ignore-not-found"))
            ),
            (detail) => detail !== undefined && detail.includes("stores nothing outside")
          )
          assert.include(refused, "CREATE configmaps default/mine")
          assert.isUndefined(yield* deniedBy(kube.create(ConfigMap, { metadata, data: {} }, { dryRun: true })))

          // A try that has failed has let it make such namespaces a moment ago.
          const another = Effect.flatMap(
            freshName("kubeprober-namespace"),
            (name) => kube.create(Namespace, { metadata: { name } })
          )
          yield* eventually(deniedBy(another), (detail) => detail?.includes("stores nothing outside") === true)
          const ca = { name: "kube-root-ca.crt", namespace: "default" }
          for (
            const write of [
              kube.patch(ConfigMap, ca, { data: { extra: "x" } }),
              kube.delete(ConfigMap, ca),
              kube.apply(ConfigMap, { metadata: ca, data: { extra: "x" } }, { force: true }),
              kube.delete(Namespace, { name: "kubeprober" })
            ]
          ) assert.include(yield* deniedBy(write), "stores nothing outside")
          assert.isUndefined(yield* deniedBy(kube.patch(ConfigMap, ca, { data: { extra: "x" } }, { dryRun: true })))

          // At home it writes as ever, and others are not concerned.
          const home = { name: yield* freshName("mine"), namespace: "kubeprober" }
          assert.isUndefined(yield* deniedBy(kube.create(ConfigMap, { metadata: home, data: {} })))
          assert.isUndefined(yield* deniedBy(kube.delete(ConfigMap, home)))
          yield* applyManifest({
            apiVersion: "v1",
            kind: "ConfigMap",
            metadata: { name: "others", namespace: "default" }
          })

          const own = join(folder, "full")
          mkdirSync(own)
          const from = (path: string) => relative(own, deploy(path))
          writeFileSync(
            join(own, "kustomization.yaml"),
            stringify({
              apiVersion: "kustomize.config.k8s.io/v1beta1",
              kind: "Kustomization",
              resources: [from("standalone")],
              components: [from("agent/components/profile-full")]
            })
          )
          const rendered = yield* kubectl("kustomize", own)
          assert.include(rendered, "--profile=full")
          yield* kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "-k", own)
          yield* eventually(
            deniedBy(kube.create(Namespace, { metadata: { name: ephemeral } })),
            (detail) => detail === undefined
          )
          assert.isUndefined(yield* deniedBy(kube.delete(Namespace, { name: ephemeral })))
          assert.include(
            yield* deniedBy(kube.create(Namespace, { metadata: { name: "other" } })),
            "stores nothing outside"
          )
          assert.include(yield* deniedBy(elsewhere), "stores nothing outside")
          yield* kubectl("delete", "clusterrolebinding", "too-much")

          // With exactly its own rights the agent runs the probe that needs them.
          const { round } = yield* TestCluster
          const patient = configure(namespaceLifecycle, { defaultsWarnAfter: "20s", deleteWarnAfter: "90s" })
          yield* eventually(
            round([patient], { as: kube, namespace: "kubeprober" }),
            ([lifecycle]) => lifecycle?.report.status === "PASS",
            { within: "150 seconds" }
          )
        }),
      300_000
    )

    it.effect(
      "bound what probes hold, and admit the worker pods whatever a LimitRange demands",
      () =>
        Effect.gen(function*() {
          const { apply: applyManifest, cluster, kubectl } = yield* TestCluster
          const quotas = yield* kubectl("get", "resourcequotas", "-n", "kubeprober", "-o", "name")
          assert.deepStrictEqual(quotas.trim().split("\n").sort(), [
            "resourcequota/kubeprober-probes",
            "resourcequota/kubeprober-workers"
          ])
          yield* applyManifest({
            apiVersion: "v1",
            kind: "LimitRange",
            metadata: { name: "strict", namespace: "kubeprober" },
            spec: {
              limits: [{
                type: "Container",
                default: { cpu: "500m", memory: "256Mi" },
                defaultRequest: { cpu: "50m", memory: "64Mi" },
                max: { cpu: "1", memory: "512Mi" },
                min: { cpu: "5m", memory: "16Mi" }
              }]
            }
          })
          yield* Effect.addFinalizer(() => kubectl("delete", "limitrange", "strict", "-n", "kubeprober"))
          const pod = (name: string) => ({
            apiVersion: "v1",
            kind: "Pod",
            ...workerPod({
              name,
              namespace: "kubeprober",
              place: {},
              owner: { name: "run", uid: "1" },
              task: "{}",
              deadlineSeconds: 60
            }, { image: "example.com/kubeprober:test" })
          })
          const created = cluster.kubectl(["create", "--dry-run=server", "-f", "-"], {
            stdin: JSON.stringify(pod("w"))
          })
          assert.include(yield* Effect.orDie(created), "created (server dry run)")
          // The quota counts worker pods, and only those.
          yield* kubectl(
            "patch",
            "resourcequota",
            "kubeprober-workers",
            "-n",
            "kubeprober",
            "-p",
            "{\"spec\":{\"hard\":{\"pods\":\"0\"}}}"
          )
          const refused = yield* eventually(Effect.flip(created), ({ message }) => message.includes("exceeded quota"))
          assert.include(refused.message, "kubeprober-workers")
          const endless = cluster.kubectl(["create", "--dry-run=server", "-f", "-"], {
            stdin: JSON.stringify(pod("endless"), (key, value) => key === "activeDeadlineSeconds" ? undefined : value)
          })
          assert.include(yield* Effect.orDie(endless), "created (server dry run)")
          yield* apply("standalone")
        }),
      120_000
    )

    it.effect("deny what nobody needs", () =>
      Effect.gen(function*() {
        const may = Effect.fnUntraced(function*(account: string, verb: string, resource: string, namespace?: string) {
          const kube = yield* as(account)
          const [plural, group = ""] = resource.split(/\.(.*)/s)
          const { status } = yield* kube.create(SelfSubjectAccessReview, {
            metadata: {},
            spec: {
              resourceAttributes: { verb, resource: plural, group, ...(namespace === undefined ? {} : { namespace }) }
            }
          })
          return status.allowed
        })
        assert.isTrue(yield* may("kubeprober-agent", "list", "pods"))
        assert.isTrue(yield* may("kubeprober-agent", "create", "probestatuses.kubeprober.erda.cloud", "kubeprober"))
        for (
          const [account, verb, resource, namespace] of [
            ["kubeprober-agent", "list", "secrets", "kubeprober"],
            ["kubeprober-agent", "get", "secrets", "default"],
            ["kubeprober-agent", "delete", "secrets", "kubeprober"],
            ["kubeprober-agent", "impersonate", "users"],
            ["kubeprober-agent", "create", "pods", "default"],
            ["kubeprober-agent", "list", "clusters.kubeprober.erda.cloud", "default"],
            ["kubeprober-master", "list", "pods", "default"],
            ["kubeprober-master", "get", "secrets", "default"],
            ["kubeprober-worker", "list", "pods", "kubeprober"],
            ["kubeprober-worker", "get", "secrets", "kubeprober"]
          ] as const
        ) {
          assert.isFalse(yield* may(account, verb, resource, namespace), `${account} ${verb} ${resource}`)
        }
      }), 120_000)
  }
)
