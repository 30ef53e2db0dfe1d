import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Option, Queue, Stream } from "effect"
import { Kube } from "../../src/infra/kube/Kube.ts"
import type { KubeObject, KubeResource } from "../../src/infra/kube/KubeResource.ts"
import * as admission from "../../src/infra/kube/resources/admission.ts"
import * as apps from "../../src/infra/kube/resources/apps.ts"
import * as batch from "../../src/infra/kube/resources/batch.ts"
import * as coordination from "../../src/infra/kube/resources/coordination.ts"
import * as core from "../../src/infra/kube/resources/core.ts"
import * as discovery from "../../src/infra/kube/resources/discovery.ts"
import * as events from "../../src/infra/kube/resources/events.ts"
import * as extensions from "../../src/infra/kube/resources/extensions.ts"
import * as rbac from "../../src/infra/kube/resources/rbac.ts"
import { BUSYBOX_IMAGE } from "../../src/local/image/Images.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { freshName } from "../clusters/freshName.ts"
import { eventually } from "./eventually.ts"
import * as TestCluster from "./TestCluster.ts"

/** What a small cluster has some of: their schemas are used on what a real server says. */
const present: ReadonlyArray<KubeResource<KubeObject>> = [
  core.Node,
  core.Pod,
  core.Namespace,
  core.ConfigMap,
  core.Service,
  core.ServiceAccount,
  core.SecretMetadata,
  core.ResourceQuota,
  core.PersistentVolumeClaim,
  core.PersistentVolume,
  apps.Deployment,
  apps.ReplicaSet,
  apps.StatefulSet,
  apps.DaemonSet,
  batch.Job,
  batch.CronJob,
  coordination.Lease,
  discovery.EndpointSlice,
  events.Event,
  extensions.APIService,
  extensions.CustomResourceDefinition,
  admission.ValidatingWebhookConfiguration,
  admission.MutatingWebhookConfiguration,
  rbac.Role,
  rbac.RoleBinding,
  rbac.ClusterRole,
  rbac.ClusterRoleBinding
]

const container = { name: "c", image: BUSYBOX_IMAGE, command: ["sleep", "3600"] }
const template = { metadata: { labels: { app: "x" } }, spec: { containers: [container] } }
const selector = { matchLabels: { app: "x" } }
const jobTemplate = { spec: { template: { spec: { restartPolicy: "Never", containers: [container] } } } }
const claim = { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Mi" } } }
const clientConfig = { url: "https://127.0.0.1:1/" }
const webhook = {
  name: "w.example.org",
  clientConfig,
  sideEffects: "None",
  admissionReviewVersions: ["v1"],
  rules: [{ apiGroups: ["example.org"], apiVersions: ["v1"], operations: ["CREATE"], resources: ["things"] }]
}

const made = [
  { apiVersion: "v1", kind: "Secret", metadata: { name: "x" }, stringData: { a: "b" } },
  { apiVersion: "v1", kind: "ResourceQuota", metadata: { name: "x" }, spec: { hard: { pods: "1000" } } },
  { apiVersion: "v1", kind: "PersistentVolumeClaim", metadata: { name: "x" }, spec: claim },
  {
    apiVersion: "v1",
    kind: "PersistentVolume",
    metadata: { name: "x" },
    spec: { capacity: { storage: "1Mi" }, accessModes: ["ReadWriteOnce"], hostPath: { path: "/nowhere" } }
  },
  { apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "x" }, spec: { selector, template } },
  { apiVersion: "apps/v1", kind: "DaemonSet", metadata: { name: "x" }, spec: { selector, template } },
  {
    apiVersion: "apps/v1",
    kind: "StatefulSet",
    metadata: { name: "x" },
    spec: { serviceName: "x", selector, template }
  },
  { apiVersion: "batch/v1", kind: "Job", metadata: { name: "x" }, ...jobTemplate },
  { apiVersion: "batch/v1", kind: "CronJob", metadata: { name: "x" }, spec: { schedule: "* * * * *", jobTemplate } },
  {
    apiVersion: "admissionregistration.k8s.io/v1",
    kind: "ValidatingWebhookConfiguration",
    metadata: { name: "x" },
    webhooks: [webhook]
  },
  {
    apiVersion: "admissionregistration.k8s.io/v1",
    kind: "MutatingWebhookConfiguration",
    metadata: { name: "x" },
    webhooks: [webhook]
  },
  {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: "things.example.org" },
    spec: {
      group: "example.org",
      names: { kind: "Thing", plural: "things" },
      scope: "Namespaced",
      versions: [{ name: "v1", served: true, storage: true, schema: { openAPIV3Schema: { type: "object" } } }]
    }
  }
]

layer(TestCluster.layer("kube-node", { nodes: 1 }), { excludeTestServices: true, timeout: "3 minutes" })(
  "a cluster with a node",
  (it) => {
    it.effect("says nothing of any kind that cannot be read", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const cluster = yield* LocalCluster
        yield* cluster.kubectl(["apply", "-f", "-"], {
          // What begins with `---` is read as YAML by every kubectl; old ones read one document of JSON alone.
          stdin: made.map((document) => `---\n${JSON.stringify(document)}\n`).join("")
        })
        yield* eventually(
          "the Deployment is available",
          Effect.map(
            kube.get(apps.Deployment, { name: "x", namespace: "default" }),
            ({ status }) => status.availableReplicas === 1
          ),
          60
        )
        for (const resource of present) {
          assert.isNotEmpty((yield* kube.list(resource)).items, resource.kind)
        }
        const node = (yield* kube.list(core.Node)).items[0]
        assert.match(node?.status.nodeInfo.kubeletVersion ?? "", /^v1\./)
        assert.strictEqual(node?.status.conditions.find(({ type }) => type === "Ready")?.status, "True")
        const pods = yield* kube.list(core.Pod, { namespace: "default", labelSelector: "app=x" })
        assert.isTrue(
          pods.items.some(({ status }) => status.containerStatuses[0]?.state.running?.startedAt !== undefined)
        )
      }), 90_000)

    it.effect("gives a container's log by lines, whole, its end, and while it grows", () =>
      Effect.gen(function*() {
        const kube = yield* Kube
        const ref = { name: yield* freshName("speaker"), namespace: "default" }
        const script =
          `for i in 1 2 3; do echo "line $i ü"; done; echo; printf %s "$(yes x | head -c 700000 | tr -d '\\n')"; ` +
          `echo; until [ -e /tmp/go ]; do sleep 0.1; done; echo after; sleep 3600`
        yield* kube.create(core.Pod, {
          metadata: ref,
          spec: {
            terminationGracePeriodSeconds: 0,
            containers: [{ name: "c", image: BUSYBOX_IMAGE, command: ["sh", "-c", script] }]
          }
        })
        yield* eventually(
          "it runs",
          Effect.map(kube.get(core.Pod, ref), ({ status }) => status.containerStatuses[0]?.ready),
          60
        )
        const first = yield* eventually(
          "it spoke",
          Effect.map(
            Stream.runCollect(kube.logs(ref)),
            (lines) => lines.slice(4).join("").length >= 350_000 ? lines : undefined
          ),
          60
        )
        assert.deepStrictEqual(first.slice(0, 4), ["line 1 ü", "line 2 ü", "line 3 ü", ""])
        assert.strictEqual(first.slice(4).join(""), "x".repeat(350_000))

        const followed = yield* Queue.unbounded<string>()
        const follower = yield* kube.logs(ref, { follow: true, tailLines: 1 }).pipe(
          Stream.runForEach((line) => Queue.offer(followed, line)),
          Effect.forkScoped
        )
        assert.match(yield* Queue.take(followed), /^x+$/)
        const cluster = yield* LocalCluster
        yield* cluster.kubectl(["exec", ref.name, "--", "touch", "/tmp/go"])
        const last = yield* Stream.fromQueue(followed).pipe(
          Stream.filter((line) => !/^x+$/.test(line)),
          Stream.runHead,
          Effect.timeout("20 seconds")
        )
        assert.deepStrictEqual(last, Option.some("after"))
        yield* kube.delete(core.Pod, ref, { gracePeriodSeconds: 0 })
        yield* Fiber.await(follower).pipe(Effect.timeout("30 seconds"))

        const missing = yield* Effect.flip(Stream.runDrain(kube.logs({ name: "nobody", namespace: "default" })))
        assert.strictEqual(missing.reason._tag, "NotFound")
      }), 120_000)
  }
)
