import { assert, layer } from "@effect/vitest"
import { Context, Effect, FileSystem, Layer, Redacted, References, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import { Pod } from "../../src/infra/kube/resources/core.ts"
import { LocalBinaries } from "../../src/local/binaries/LocalBinaries.ts"
import { BUSYBOX_IMAGE } from "../../src/local/image/Images.ts"
import * as Local from "../../src/local/Local.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { Authentication } from "../../src/master/api/Authentication.ts"
import { Authorization } from "../../src/master/api/Authorization.ts"
import { Registry } from "../../src/master/Registry.ts"
import { freshName } from "../clusters/freshName.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { apiWith } from "../master/api/apiFixture.ts"
import { front, link } from "./fixture.ts"

/** The managing cluster asked for tokens and rights, and the managed one: one and the same here. */
const cluster = TestCluster.layer({ name: "kube-access", nodes: 1 })

const access = Layer.merge(
  Authentication.layerKubernetes({ audiences: [] }),
  Authorization.layerKubernetes({ namespace: "default" })
)

const everything = apiWith(access).pipe(
  Layer.provideMerge(cluster),
  Layer.provideMerge(Layer.succeed(References.MinimumLogLevel, "None"))
)

const account = (name: string) => ({
  apiVersion: "v1",
  kind: "ServiceAccount",
  metadata: { name, namespace: "default" }
})

const bound = (
  name: string,
  subject: object,
  rules: ReadonlyArray<object>,
  kind: "Cluster" | "" = "Cluster"
): ReadonlyArray<object> => {
  const metadata = { name, ...(kind === "" && { namespace: "default" }) }
  const apiGroup = "rbac.authorization.k8s.io"
  return [
    { apiVersion: `${apiGroup}/v1`, kind: `${kind}Role`, metadata, rules },
    {
      apiVersion: `${apiGroup}/v1`,
      kind: `${kind}RoleBinding`,
      metadata,
      roleRef: { apiGroup, kind: `${kind}Role`, name },
      subjects: [subject]
    }
  ]
}

/** May reach cluster c1 through the master. */
const mayReach = (name: string, verbs: ReadonlyArray<string>) =>
  bound(`reach-${name}`, { kind: "ServiceAccount", name, namespace: "default" }, [
    { apiGroups: ["kubeprober.erda.cloud"], resources: ["clusters/proxy"], resourceNames: ["c1"], verbs }
  ], "")

const pod = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "speaker", namespace: "default", labels: { app: "speaker" } },
  spec: {
    terminationGracePeriodSeconds: 0,
    containers: [{
      name: "c",
      image: BUSYBOX_IMAGE,
      command: ["sh", "-c", "echo first; until [ -e /tmp/go ]; do sleep 0.1; done; echo second; sleep 3600"]
    }]
  }
}

/** kubectl through the master, as a service account. */
const kubectlAs = Effect.fnUntraced(function*(name: string) {
  const local = yield* LocalCluster
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-test-" })
  const { ca, url } = yield* Front
  const token = (yield* local.kubectl(["create", "token", name])).trim()
  const authority = `${folder}/ca.crt`
  yield* fs.writeFileString(authority, ca)
  const flags = [
    "--kubeconfig=/dev/null",
    `--server=${url}/clusters/c1`,
    `--certificate-authority=${authority}`,
    `--token=${token}`,
    `--cache-dir=${folder}/cache`
  ]
  return { flags, run: (...args: ReadonlyArray<string>) => local.kubectl([...flags, ...args]) }
})

/** The address people use. */
class Front extends Context.Service<Front, { readonly url: string; readonly ca: string }>()("kubeprober/test/Front") {
  /** With the agent of c1 linked, which may do nothing but speak in others' names. */
  static readonly layer = Layer.effect(
    Front,
    Effect.gen(function*() {
      const test = yield* TestCluster
      yield* test.apply(
        ...bound("gateway", { kind: "User", name: "agent" }, [
          { apiGroups: [""], resources: ["users", "groups"], verbs: ["impersonate"] }
        ]),
        ...["reader", "outsider", "lister"].map(account),
        ...mayReach("reader", ["get", "list", "watch"]),
        ...mayReach("lister", ["get", "list"]),
        ...bound("kube-reader", { kind: "User", name: "kubeprober:system:serviceaccount:default:reader" }, [
          {
            apiGroups: [""],
            resources: ["pods", "pods/log", "configmaps", "namespaces"],
            verbs: ["get", "list", "watch"]
          },
          // Reachable in the cluster, and yet not through the master.
          { apiGroups: [""], resources: ["pods/exec", "pods/portforward"], verbs: ["create", "get"] },
          { apiGroups: [""], resources: ["configmaps"], verbs: ["create", "delete"] }
        ]),
        pod
      )
      const { cert, key } = yield* test.cluster.issueClientCertificate({ user: "agent" })
      const { caCertPem: ca, server } = test.cluster
      yield* link(
        "c1",
        KubeConnection.make({ cluster: "c1", server, identity: { tls: { ca, cert, key: Redacted.make(key) } } })
      )
      yield* eventually(
        test.kube.get(Pod, { name: "speaker", namespace: "default" }),
        ({ status }) => status.containerStatuses[0]?.ready === true
      )
      return yield* front
    })
  )
}

const failure = <A, R>(effect: Effect.Effect<A, { readonly message: string }, R>) =>
  Effect.map(Effect.flip(effect), ({ message }) => message)

layer(Layer.provideMerge(Front.layer, everything).pipe(Layer.provideMerge(Local.layer)), {
  excludeTestServices: true,
  timeout: "3 minutes"
})("kubectl through a master", (it) => {
  it.effect("gets and lists", () =>
    Effect.gen(function*() {
      const kubectl = yield* kubectlAs("reader")
      assert.include(yield* kubectl.run("get", "pods"), "speaker")
      const found = JSON.parse(yield* kubectl.run("get", "pod", "speaker", "-o", "json"))
      assert.deepInclude(found, { kind: "Pod", apiVersion: "v1" })
      assert.include(yield* kubectl.run("get", "pods", "-A", "-l", "app=speaker", "-o", "name"), "pod/speaker")
      assert.include(yield* kubectl.run("describe", "pod", "speaker"), "speaker")
      assert.include(yield* kubectl.run("api-resources"), "deployments")
      assert.include(yield* kubectl.run("version"), "Server Version")
    }), 60_000)

  it.effect("asks who one is there, and what one may", () =>
    Effect.gen(function*() {
      const kubectl = yield* kubectlAs("reader")
      const { status } = JSON.parse(yield* kubectl.run("auth", "whoami", "-o", "json"))
      assert.strictEqual(status.userInfo.username, "kubeprober:system:serviceaccount:default:reader")
      assert.includeMembers(status.userInfo.groups, ["kubeprober:system:serviceaccounts", "system:authenticated"])
      assert.include(yield* kubectl.run("auth", "can-i", "list", "pods"), "yes")
      assert.include(yield* failure(kubectl.run("auth", "can-i", "list", "secrets")), "no")
    }), 60_000)

  it.effect("prints a log, and follows it", () =>
    Effect.gen(function*() {
      const test = yield* TestCluster
      const kubectl = yield* kubectlAs("reader")
      const name = yield* freshName("speaker")
      yield* test.apply({ ...pod, metadata: { name, namespace: "default" } })
      yield* eventually(Effect.orElseSucceed(kubectl.run("logs", name), () => ""), (text) => text === "first\n")
      const binaries = yield* (yield* LocalBinaries).resolve(["kubectl"])
      const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
      const following = yield* spawner.spawn(
        ChildProcess.make(binaries.kubectl.path, [...kubectl.flags, "logs", name, "-f"])
      )
      // The log grows, and ends, once what was there before has come through.
      const followed = yield* Stream.splitLines(Stream.decodeText(following.stdout)).pipe(
        Stream.tap((line) =>
          line === "first"
            ? test.kubectl("exec", name, "--", "touch", "/tmp/go")
            : test.kubectl("delete", "pod", name, "--grace-period=0", "--force")
        ),
        Stream.runCollect,
        Effect.timeout("60 seconds")
      )
      assert.deepStrictEqual(Array.from(followed), ["first", "second"])
    }), 120_000)

  it.effect("watches", () =>
    Effect.gen(function*() {
      const test = yield* TestCluster
      const { flags } = yield* kubectlAs("reader")
      const { kubectl } = yield* (yield* LocalBinaries).resolve(["kubectl"])
      const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
      const watching = yield* spawner.spawn(
        ChildProcess.make(kubectl.path, [...flags, "get", "configmaps", "--watch", "-o", "name"])
      )
      const name = yield* freshName("seen")
      const lines = Stream.splitLines(Stream.decodeText(watching.stdout))
      const seen = yield* lines.pipe(
        Stream.tap((line) =>
          line === "configmap/kube-root-ca.crt" ? test.kubectl("create", "configmap", name) : Effect.void
        ),
        Stream.takeUntil((line) => line === `configmap/${name}`),
        Stream.runCollect,
        Effect.timeout("30 seconds")
      )
      assert.include(Array.from(seen), `configmap/${name}`)
    }), 60_000)

  it.effect(
    "writes nothing and opens nothing, whatever the caller may do in the cluster",
    () =>
      Effect.gen(function*() {
        const kubectl = yield* kubectlAs("reader")
        const test = yield* TestCluster
        yield* test.apply({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "kept", namespace: "default" } })
        assert.include(yield* failure(kubectl.run("create", "configmap", "made")), "nothing is written")
        assert.include(yield* failure(kubectl.run("delete", "configmap", "kept")), "nothing is written")
        yield* test.apply({ ...pod, metadata: { ...pod.metadata, name: "target" } })
        yield* eventually(
          test.kube.get(Pod, { name: "target", namespace: "default" }),
          ({ status }) => status.containerStatuses[0]?.ready === true
        )
        assert.include(yield* failure(kubectl.run("exec", "target", "--", "true")), "through a master")
        assert.include(yield* failure(kubectl.run("port-forward", "pod/target", "18080:80")), "through a master")
        assert.include(
          yield* failure(kubectl.run("get", "--raw", "/clusters/c1/api/v1/nodes/n/proxy/metrics")),
          "only objects and their logs"
        )
      }),
    60_000
  )

  it.effect("is refused where either cluster does not let the caller", () =>
    Effect.gen(function*() {
      const outsider = yield* kubectlAs("outsider")
      assert.include(
        yield* failure(outsider.run("get", "pods")),
        "system:serviceaccount:default:outsider may not"
      )
      // May reach the cluster; its own RBAC has never heard of them.
      const lister = yield* kubectlAs("lister")
      assert.include(
        yield* failure(lister.run("get", "pods")),
        `User "kubeprober:system:serviceaccount:default:lister" cannot list resource "pods"`
      )
      assert.include(
        yield* failure(lister.run("get", "--raw", "/clusters/c1/api/v1/pods?watch=true")),
        "may not watch clusters/proxy c1"
      )
      const reader = yield* kubectlAs("reader")
      assert.include(yield* failure(reader.run("get", "secrets")), "cannot list resource")
      // Whoever they say they are.
      assert.include(
        yield* failure(reader.run("get", "secrets", "--as=admin", "--as-group=system:masters")),
        "cannot list"
      )
      assert.include(yield* failure(reader.run("get", "pods", "--token=nonsense")), "You must be logged in")
      const { url } = yield* Front
      assert.include(yield* failure(reader.run("get", "pods", `--server=${url}/clusters/c2`)), "may not")
    }), 60_000)

  it.effect("says that a cluster is not linked", () =>
    Effect.gen(function*() {
      const test = yield* TestCluster
      yield* test.apply(
        account("waiter"),
        ...bound("reach-away", { kind: "ServiceAccount", name: "waiter", namespace: "default" }, [
          { apiGroups: ["kubeprober.erda.cloud"], resources: ["clusters/proxy"], verbs: ["get", "list"] }
        ], "")
      )
      yield* (yield* Registry).add("away", {})
      const waiter = yield* kubectlAs("waiter")
      const { url } = yield* Front
      // The API server learns of the role by a watch.
      yield* eventually(
        failure(waiter.run("get", "pods", `--server=${url}/clusters/away`)),
        (message) => message.includes("there is no link to cluster away")
      )
    }), 60_000)
})
