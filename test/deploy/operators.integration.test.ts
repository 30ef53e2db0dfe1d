/** The operators as people install them: the image on a real node, the manifests of deploy, nothing else. */
import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Schema } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, relative, resolve } from "node:path"
import { stringify } from "yaml"
import manifest from "../../package.json" with { type: "json" }
import { root } from "../../scripts/bundle.ts"
import { image, imageFiles } from "../../scripts/imageFiles.ts"
import { BUSYBOX_IMAGE } from "../../src/local/image/Images.ts"
import { imageTar } from "../../src/local/image/ImageTar.ts"
import { freshName } from "../clusters/freshName.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"

const IMAGE = `kubeprober:${manifest.version}`
const MASTER = "https://kubeprober-master.kubeprober.svc"
const namespace = "kubeprober"

/** What is read of a ProbeStatus. */
const Statuses = Schema.fromJsonString(Schema.Struct({
  items: Schema.Array(Schema.Struct({
    metadata: Schema.Struct({ name: Schema.String }),
    spec: Schema.Struct({
      checkers: Schema.optionalKey(
        Schema.Array(
          Schema.Struct({ name: Schema.String, status: Schema.String, message: Schema.optionalKey(Schema.String) })
        )
      )
    })
  }))
}))

const inProcessProbe = {
  apiVersion: "kubeprober.erda.cloud/v1",
  kind: "Probe",
  metadata: { name: "crud", namespace },
  spec: { policy: { interval: "30s" }, checks: [{ name: "crud", use: "k8s.api.crud" }] }
}

const busybox = (script: string, image = BUSYBOX_IMAGE) => ({
  name: "prober",
  image,
  imagePullPolicy: "Never",
  command: ["sh", "-c", script]
})

/** As a prober of the original reports: its format, to the address it was given, with nothing of ours. */
const report = (name: string, status: string, message: string): string => {
  const checker = JSON.stringify({ name, status, message, lastRun: "2021-07-01T02:10:07Z" }).replaceAll("\"", "\\\"")
  const body = `{\\"probeName\\":\\"$KUBEPROBER_PROBE_NAME\\",\\"probeNamespace\\":\\"$KUBEPROBER_PROBE_NAMESPACE\\",` +
    `\\"name\\":\\"\\",\\"checkers\\":[${checker}]}`
  return `wget -q -O - --header 'Content-Type: application/json' --post-data "${body}" $KUBEPROBER_STATUS_REPORT_URL`
}

/** A Probe in the original's form: a template, run once. */
const prober = (name: string, options: {
  readonly script: string
  readonly image?: string
  readonly pod?: object
  readonly policy?: object
}) => ({
  apiVersion: "kubeprober.erda.cloud/v1",
  kind: "Probe",
  metadata: { name, namespace },
  spec: {
    ...(options.policy === undefined ? {} : { policy: options.policy }),
    template: { ...options.pod, containers: [busybox(options.script, options.image)] }
  }
})

layer(TestCluster.layer({ name: "operators", nodes: 1 }), { excludeTestServices: true, timeout: "180 seconds" })(
  "the operators in a cluster",
  (it) => {
    const apply = (base: string) =>
      TestCluster.use(({ kubectl }) =>
        kubectl("apply", "--server-side", "--force-conflicts", "-k", resolve(root, "deploy", base))
      )

    const ready = (deployment: string) =>
      TestCluster.use(({ cluster, kubectl }) =>
        cluster.kubectl(["rollout", "status", `deployment/${deployment}`, "-n", namespace, "--timeout=90s"]).pipe(
          Effect.catch((error) =>
            Effect.gen(function*() {
              const pods = yield* kubectl("describe", "pods", "-n", namespace)
              const logs = yield* Effect.orElseSucceed(
                cluster.kubectl(["logs", "-n", namespace, `deployment/${deployment}`, "--tail=50"]),
                () => ""
              )
              return yield* Effect.die(new Error(`${error.message}\n${pods}\n${logs}`))
            })
          )
        )
      )

    /** Status of each checker, by `probe/checker`. */
    const checkers = TestCluster.use(({ kubectl }) =>
      kubectl("get", "probestatuses", "-n", namespace, "-o", "json").pipe(
        Effect.flatMap(Schema.decodeEffect(Statuses)),
        Effect.map(({ items }) =>
          Object.fromEntries(
            items.flatMap(({ metadata, spec }) =>
              (spec.checkers ?? []).map(({ message, name, status }) =>
                [`${metadata.name}/${name}`, status === "PASS" ? status : `${status} ${message}`] as const
              )
            )
          )
        )
      )
    )

    /** Nothing the operator tried was refused for want of a right. */
    const nothingDenied = Effect.fnUntraced(function*(deployment: string) {
      const { kubectl } = yield* TestCluster
      const logs = yield* kubectl("logs", "-n", namespace, `deployment/${deployment}`, "--tail=2000")
      assert.deepStrictEqual(logs.split("\n").filter((line) => /not allowed for|forbidden/i.test(line)), [])
    })

    /** `Connected 3`: how the master shows the link of c1, and its number. Ready is an agent without a link too. */
    const link = TestCluster.use(({ kubectl }) =>
      kubectl(
        "get",
        "cluster.kubeprober.erda.cloud",
        "c1",
        "-n",
        "default",
        "-o",
        "jsonpath={.status.link.state} {.status.epoch}"
      )
    )
    const isConnected = (shown: string): boolean => shown.startsWith("Connected ")
    const epochOf = (shown: string): number => Number(shown.split(" ")[1])

    /** Runs our command line in a pod, as a person of whom the API server knows, and answers what it printed. */
    const commandLine = Effect.fnUntraced(function*(prefix: string, ...args: ReadonlyArray<string>) {
      const { apply, kubectl } = yield* TestCluster
      const pod = yield* freshName(prefix)
      yield* apply({
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: pod, namespace },
        spec: {
          restartPolicy: "Never",
          serviceAccountName: "person",
          securityContext: { runAsNonRoot: true, fsGroup: 65_532, seccompProfile: { type: "RuntimeDefault" } },
          containers: [{
            name: "kubeprober",
            image: IMAGE,
            imagePullPolicy: "Never",
            args: [
              ...args,
              "--server",
              `${MASTER}:9443`,
              "--token-file",
              "/var/run/secrets/kubernetes.io/serviceaccount/token",
              "--certificate-authority",
              "/var/run/master/ca.crt"
            ],
            securityContext: {
              allowPrivilegeEscalation: false,
              readOnlyRootFilesystem: true,
              capabilities: { drop: ["ALL"] }
            },
            volumeMounts: [{ name: "master", mountPath: "/var/run/master" }]
          }],
          volumes: [{
            name: "master",
            secret: { secretName: "kubeprober-authority", items: [{ key: "tls.crt", path: "ca.crt" }] }
          }]
        }
      })
      const phase = yield* eventually(
        kubectl("get", "pod", pod, "-n", namespace, "-o", "jsonpath={.status.phase}"),
        (phase) => phase === "Succeeded" || phase === "Failed"
      )
      const said = yield* kubectl("logs", pod, "-n", namespace)
      assert.strictEqual(phase, "Succeeded", said)
      return said
    })

    it.effect(
      "run Probes without a master",
      () =>
        Effect.gen(function*() {
          const test = yield* TestCluster
          const fs = yield* FileSystem.FileSystem
          const folder = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-image-" })
          yield* imageTar(image(IMAGE, yield* imageFiles(`${folder}/program`)), `${folder}/image.tar`)
          for (const node of test.cluster.nodes) yield* node.importImage(`${folder}/image.tar`)

          yield* apply("crds")
          yield* test.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
          yield* apply("standalone")
          yield* test.apply(inProcessProbe)
          yield* ready("kubeprober-agent")
          yield* eventually(
            checkers,
            (all) => all["crud/crud"] === "PASS",
            { within: "90 seconds", every: "1 second" }
          )
          yield* nothingDenied("kubeprober-agent")
        }).pipe(Effect.provide(NodeServices.layer)),
      240_000
    )

    it.effect(
      "see every node from itself, once the node agents are installed, with the roles as generated",
      () =>
        Effect.gen(function*() {
          const test = yield* TestCluster
          // Nodes have the name servers of the machine that runs the test, which may have none.
          for (const { exec } of test.cluster.nodes) {
            yield* exec(["sh", "-c", "echo nameserver 192.0.2.53 > /etc/resolv.conf"])
          }
          yield* apply("nodes")
          // The disk is that of the machine that runs the test.
          const lenient = { freeWarn: 2, freeError: 1, useWarn: 98, useError: 99, stalledWarn: 99 }
          yield* test.apply({
            apiVersion: "kubeprober.erda.cloud/v1",
            kind: "Probe",
            metadata: { name: "nodes", namespace },
            spec: {
              policy: { interval: "5s" },
              checks: [
                { name: "resources", use: "infra.node.resources", with: lenient },
                { name: "baseline", use: "infra.node.baseline" },
                { name: "runtime", use: "infra.node.runtime" },
                { name: "kernel", use: "infra.node.kernel" }
              ]
            }
          })
          yield* test.kubectl(
            "rollout",
            "status",
            "daemonset/kubeprober-node",
            "-n",
            "kubeprober-nodes",
            "--timeout=150s"
          )
          yield* eventually(
            checkers,
            (all) => ["resources", "baseline", "runtime", "kernel"].every((name) => all[`nodes/${name}`] === "PASS"),
            { within: "90 seconds", every: "1 second" }
          )
          yield* nothingDenied("kubeprober-agent")
          yield* test.kubectl("delete", "probes.kubeprober.erda.cloud", "nodes", "-n", namespace)
        }),
      300_000
    )

    it.effect(
      "run probers made for the original, and say UNKNOWN with the cause of those that cannot be heard",
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          yield* apply(
            prober("healthy", { script: report("shop", "pass", "all shelves are full") }),
            prober("failing", { script: `${report("till", "ERROR", "no change")} && ${report("door", "PASS", "")}` }),
            prober("crashing", { script: `${report("before", "PASS", "fine")}; echo out of paper; exit 7` }),
            prober("silent", { script: "true" }),
            prober("hanging", { script: "sleep 600", policy: { timeout: "10s" } }),
            prober("missing", { script: "true", image: "kubeprober.local/nobody:0" }),
            prober("homeless", { script: "true", pod: { nodeSelector: { zone: "nowhere" } } })
          )
          const all = yield* eventually(checkers, (all) =>
            ["healthy/shop", "failing/till", "crashing/crashing", "silent/silent", "hanging/hanging", "missing/missing"]
              .every((name) =>
                name in all
              ) && "homeless/homeless" in all, { within: "150 seconds", every: "1 second" })
          assert.strictEqual(all["healthy/shop"], "PASS")
          assert.strictEqual(all["failing/till"], "ERROR no change")
          assert.strictEqual(all["failing/door"], "PASS")
          assert.strictEqual(all["crashing/before"], "PASS")
          assert.match(all["crashing/crashing"] ?? "", /^UNKNOWN .*exit code 7.*out of paper/su)
          assert.match(all["silent/silent"] ?? "", /^UNKNOWN .*reported nothing/u)
          assert.match(all["hanging/hanging"] ?? "", /^UNKNOWN .*did not end within 10s/u)
          assert.match(all["missing/missing"] ?? "", /^UNKNOWN .*ErrImageNeverPull/u)
          assert.match(all["homeless/homeless"] ?? "", /^UNKNOWN .*no node takes/u)

          const shown = yield* kubectl("get", "probestatus", "-n", namespace)
          assert.match(shown, /^NAME +STATUS +FAILING +MESSAGE/u)
          assert.match(shown, /^failing +ERROR +1\/2 +till: no change/mu)
          assert.match(shown, /^healthy +PASS/mu)
          assert.match(shown, /^crashing +UNKNOWN/mu)
          // Every Job is gone when its run is over, and its Secret with it.
          yield* eventually(kubectl("get", "jobs", "-n", namespace, "-o", "name"), (left) =>
            left.trim() === "")
        }),
      240_000
    )

    it.effect("take no report from a pod that is not the run's", () =>
      Effect.gen(function*() {
        const { apply, kubectl } = yield* TestCluster
        const forged = report("till", "PASS", "trust me").replaceAll("$KUBEPROBER_PROBE_NAME", "failing")
          .replaceAll("$KUBEPROBER_PROBE_NAMESPACE", namespace)
          .replaceAll(
            "$KUBEPROBER_STATUS_REPORT_URL",
            `http://probeagent.${namespace}.svc.cluster.local:8082/probe-status`
          )
        const forger = yield* freshName("forger")
        yield* apply({
          apiVersion: "v1",
          kind: "Pod",
          metadata: { name: forger, namespace },
          spec: { restartPolicy: "Never", containers: [busybox(`${forged} || echo refused`)] }
        })
        yield* eventually(
          kubectl("get", "pod", forger, "-n", namespace, "-o", "jsonpath={.status.phase}"),
          (phase) => phase === "Succeeded"
        )
        assert.include(yield* kubectl("logs", forger, "-n", namespace), "refused")
        assert.strictEqual((yield* checkers)["failing/till"], "ERROR no change")
      }), 120_000)

    it.effect("link a cluster to a master, and show it", () =>
      Effect.gen(function*() {
        const test = yield* TestCluster
        // Without the volume: the nodes' volumes are folders of root, to which fsGroup does not apply.
        const folder = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "kubeprober-deploy-"))),
          (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
        )
        const from = (path: string) => relative(folder, join(root, "deploy", path))
        writeFileSync(
          join(folder, "kustomization.yaml"),
          stringify({ resources: [from("master")], components: [from("master/components/ephemeral")] })
        )
        yield* apply(folder)
        yield* ready("kubeprober-master")
        yield* test.apply(
          { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "person", namespace } },
          {
            apiVersion: "rbac.authorization.k8s.io/v1",
            kind: "RoleBinding",
            metadata: { name: "person", namespace: "default" },
            roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "kubeprober-edit" },
            subjects: [{ kind: "ServiceAccount", name: "person", namespace }]
          }
        )
        const token = (yield* commandLine("add", "cluster", "add", "c1", "--label", "env=test")).split("\n")[0] ?? ""
        yield* test.apply(
          {
            apiVersion: "v1",
            kind: "Secret",
            metadata: { name: "kubeprober-join", namespace },
            stringData: { token }
          },
          {
            apiVersion: "v1",
            kind: "ConfigMap",
            metadata: { name: "kubeprober-agent-settings", namespace },
            data: { master: `${MASTER}:8443` }
          }
        )
        yield* apply("agent")
        yield* ready("kubeprober-agent")
        yield* eventually(link, isConnected)
        const list = yield* commandLine("list", "cluster", "list")
        assert.match(list, /^c1\b/m)
        yield* nothingDenied("kubeprober-agent")
        yield* nothingDenied("kubeprober-master")
      }), 300_000)

    it.effect(
      "give a labelled Cluster its Probe, and kubectl tells the story by its columns",
      () =>
        Effect.gen(function*() {
          const { apply, kubectl } = yield* TestCluster
          yield* apply({
            apiVersion: "kubeprober.erda.cloud/v1",
            kind: "Probe",
            metadata: { name: "basics", namespace: "default" },
            spec: { policy: { interval: "5s" }, checks: [{ name: "nodes", use: "k8s.node.readiness" }] }
          })
          yield* kubectl("label", "clusters.kubeprober.erda.cloud", "c1", "-n", "default", "probe/basics=true")
          yield* eventually(checkers, (all) => all["basics/nodes"] === "PASS", { within: "60 seconds" })
          const story = (kind: string, namespace: string) =>
            kubectl("get", `${kind}.kubeprober.erda.cloud`, "-n", namespace)
          const clusters = yield* eventually(
            story("clusters", "default"),
            (shown) => /^c1 .*\["basics"\] +1\/0 +\d{4}-\d\d-\d\d \S+ +Connected/mu.test(shown),
            { within: "90 seconds", every: "1 second" }
          )
          assert.match(clusters, /^NAME +VERSION +NODECOUNT .*PROBE +TOTAL\/ERROR +HEARTBEATTIME +LINK/u)
          assert.match(yield* story("probes", namespace), /^basics +5s/mu)
          yield* eventually(
            story("probestatuses", namespace),
            (shown) => /^basics +PASS +0\/1/mu.test(shown),
            { within: "60 seconds" }
          )
          yield* kubectl("label", "clusters.kubeprober.erda.cloud", "c1", "-n", "default", "probe/basics-")
          yield* eventually(story("probes", namespace), (shown) => !/^basics /mu.test(shown), { within: "60 seconds" })
        }),
      240_000
    )

    it.effect("survive the loss of their pods: same identity, no token", () =>
      Effect.gen(function*() {
        const { kubectl } = yield* TestCluster
        const identity = kubectl(
          "get",
          "secret",
          "kubeprober-agent",
          "-n",
          namespace,
          "-o",
          "jsonpath={.data.tls\\.crt}"
        )
        const before = { identity: yield* identity, epoch: epochOf(yield* link) }
        yield* kubectl("delete", "secret", "kubeprober-join", "-n", namespace)
        yield* kubectl("delete", "pods", "-n", namespace, "-l", "app.kubernetes.io/name=kubeprober", "--wait")
        yield* eventually(link, (shown) => isConnected(shown) && epochOf(shown) > before.epoch, {
          within: "90 seconds"
        })
        assert.isAbove(before.identity.length, 100)
        assert.strictEqual(yield* identity, before.identity)
        assert.match(yield* commandLine("list-again", "cluster", "list"), /^c1\b/m)
      }), 300_000)
  }
)
