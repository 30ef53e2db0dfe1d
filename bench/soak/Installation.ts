/**
 * A cluster with KubeProber as people install it, for benchmarks: the agent is a pod of the packed image under exactly the
 * roles that are generated, the master a process of the program beside the cluster. What the agent asks of the API server
 * is counted by the API server itself, in its audit log.
 */
import { Context, type DateTime, Effect, FileSystem, Layer, Option, Path, Redacted, Schema, Stream } from "effect"
import { createServer } from "node:net"
import manifest from "../../package.json" with { type: "json" }
import { root } from "../../scripts/bundle.ts"
import { image, imageFiles } from "../../scripts/imageFiles.ts"
import * as Connection from "../../src/client/Connection.ts"
import { FleetClient } from "../../src/client/FleetClient.ts"
import { DEFAULT_BUDGET } from "../../src/domain/ClusterBudget.ts"
import type { Cell, HistoryEntry } from "../../src/domain/rpc/Fleet.ts"
import { imageTar } from "../../src/local/image/ImageTar.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { TOKEN_FILE } from "../../src/master/Master.ts"
import { eventually } from "../../test/clusters/TestCluster.ts"
import { said, start } from "../../test/fleet/fleetProcesses.ts"
import type { PlannedProbe } from "./plan.ts"

const IMAGE = `kubeprober:${manifest.version}`
const NAMESPACE = "kubeprober"
const CLUSTER = "soak"
const AGENT = `system:serviceaccount:${NAMESPACE}:kubeprober-agent`

/** One request that the API server has answered, or begun to answer for as long as it lasts. */
export interface Audited {
  readonly at: number
  readonly agent: boolean
  readonly verb: string
  readonly resource: string
  /** A pod was created, by whomever, in the namespace of probes. */
  readonly pod: boolean
}

const AuditEvent = Schema.fromJsonString(Schema.Struct({
  auditID: Schema.String,
  stageTimestamp: Schema.String,
  verb: Schema.String,
  requestURI: Schema.String,
  user: Schema.Struct({ username: Schema.optionalKey(Schema.String) }),
  objectRef: Schema.optionalKey(
    Schema.Struct({ resource: Schema.optionalKey(Schema.String), subresource: Schema.optionalKey(Schema.String) })
  ),
  responseStatus: Schema.optionalKey(Schema.Struct({ code: Schema.optionalKey(Schema.Number) }))
}))

/** Requests of the agent, and pods that anyone creates in its namespace; nothing else and no bodies. */
const AUDIT_POLICY = {
  apiVersion: "audit.k8s.io/v1",
  kind: "Policy",
  omitStages: ["RequestReceived"],
  rules: [
    { level: "Metadata", users: [AGENT] },
    { level: "Metadata", verbs: ["create"], resources: [{ group: "", resources: ["pods"] }], namespaces: [NAMESPACE] },
    { level: "None" }
  ]
}

/** Each request once: one that lasts is told when it begins and when it ends. */
const audited = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const seen = new Set<string>()
  const found: Array<Audited> = []
  yield* fs.stream(file).pipe(
    Stream.decodeText,
    Stream.splitLines,
    Stream.filter((line) => line !== ""),
    Stream.mapEffect((line) => Schema.decodeEffect(AuditEvent)(line)),
    Stream.runForEach((event) =>
      Effect.sync(() => {
        if (seen.has(event.auditID)) return
        seen.add(event.auditID)
        const { objectRef: { resource = "", subresource = "" } = {} } = event
        const code = event.responseStatus?.code ?? 200
        found.push({
          at: Date.parse(event.stageTimestamp),
          agent: event.user.username === AGENT,
          verb: event.verb,
          resource: subresource === "" ? resource || "path" : `${resource}/${subresource}`,
          pod: event.verb === "create" && resource === "pods" && subresource === "" && code < 300 &&
            !event.requestURI.includes("dryRun")
        })
      })
    )
  )
  return found
})

const freePort = Effect.callback<number, Error>((resume) => {
  const server = createServer()
  server.once("error", (error) => resume(Effect.fail(error)))
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0)))
  })
})

export interface InstallationOptions {
  readonly nodes: number
  /** How many times more often than normally checks will run: the agent's budget is so many times the default one. */
  readonly rate: number
}

/** Everything runs until the scope ends. */
export const make = Effect.fn("Installation.make")(function*(options: InstallationOptions) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-soak-" })
  const policy = path.join(folder, "audit-policy.json")
  const log = path.join(folder, "audit.log")
  yield* fs.writeFileString(policy, JSON.stringify(AUDIT_POLICY))

  const cluster = yield* LocalCluster.make({
    name: `soak-${process.pid}`,
    nodes: options.nodes,
    extraFlags: {
      "kube-apiserver": [
        `--audit-policy-file=${policy}`,
        `--audit-log-path=${log}`,
        // One file: what is rotated away would not be counted.
        "--audit-log-maxsize=4096"
      ]
    }
  })
  const kubectl = (...args: ReadonlyArray<string>) => cluster.kubectl(args)
  const apply = (...objects: ReadonlyArray<object>) =>
    cluster.kubectl(["apply", "--server-side", "--force-conflicts", "-f", "-"], {
      stdin: objects.map((object) => `---\n${JSON.stringify(object)}\n`).join("")
    })
  const kustomize = (base: string) =>
    kubectl("apply", "--server-side", "--force-conflicts", "-k", path.join(root, "deploy", base))

  // Worker pods of probes run from the same image.
  yield* imageTar(image(IMAGE, yield* imageFiles(path.join(folder, "program"))), path.join(folder, "image.tar"))
  yield* Effect.forEach(cluster.nodes, (node) => node.importImage(path.join(folder, "image.tar")))

  const home = path.join(folder, "home")
  const state = path.join(folder, "master")
  yield* fs.makeDirectory(home)
  // This machine, as pods reach it: the last address of the network that the API server has the first of.
  const host = new URL(cluster.server).hostname.replace(/\.\d+$/u, ".254")
  const [linkPort, apiPort] = [yield* freePort, yield* freePort]
  const master = yield* start(home, [
    "master",
    "--state",
    state,
    "--link-listen",
    `${host}:${linkPort}`,
    "--link-name",
    host,
    "--api-listen",
    `127.0.0.1:${apiPort}`
  ])
  yield* said(master, /the master serves/u)
  const file = yield* fs.readFileString(path.join(home, ".local", "state", "kubeprober", "connection.json")).pipe(
    Effect.flatMap(Schema.decodeEffect(Schema.fromJsonString(Connection.ConnectionFile)))
  )
  const connection = yield* Connection.resolve({
    server: Option.some(file.server),
    tokenFile: Option.some(path.join(state, TOKEN_FILE)),
    caFile: Option.none()
  })
  const fleet = Context.get(
    yield* Layer.build(FleetClient.layer({ ...connection, ...(file.ca === undefined ? {} : { ca: file.ca }) })),
    FleetClient
  )

  yield* kustomize("crds")
  yield* kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
  yield* kustomize("namespace")
  const { token } = yield* fleet.createJoinToken({ cluster: CLUSTER })
  yield* apply({
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "kubeprober-join", namespace: NAMESPACE },
    stringData: { token: Redacted.value(token) }
  }, {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name: "kubeprober-agent-settings", namespace: NAMESPACE },
    data: {
      master: `https://${host}:${linkPort}`,
      "budget-requests": String(DEFAULT_BUDGET.requests * options.rate),
      "budget-pods": String(DEFAULT_BUDGET.pods * options.rate)
    }
  })
  // Before the agent, which at its start makes the key that the pods of node agents wait for.
  if (cluster.nodes.length > 0) yield* kustomize("nodes")
  yield* kustomize("agent")
  // Faults are of the last node: the agent must live to tell them.
  const nodeSelector = { "kubernetes.io/hostname": cluster.nodes[0]?.name }
  const patch = { spec: { template: { spec: { nodeSelector } } } }
  yield* kubectl("patch", "deployment", "kubeprober-agent", "-n", NAMESPACE, "-p", JSON.stringify(patch))
  yield* kubectl("rollout", "status", "deployment/kubeprober-agent", "-n", NAMESPACE, "--timeout=120s")
  if (cluster.nodes.length > 0) {
    yield* kubectl("rollout", "status", "daemonset/kubeprober-node", "-n", "kubeprober-nodes", "--timeout=300s")
  }
  yield* eventually(
    fleet.matrix({ filter: {} }),
    ({ rows }) => rows.some(({ linked }) => linked),
    { within: "3 minutes", every: "500 millis" }
  )

  return {
    cluster,
    fleet,
    kubectl,
    apply,
    /** Gives the cluster these Probes. */
    give: (probes: ReadonlyArray<PlannedProbe>) =>
      Effect.forEach(probes, ({ name, spec }) => fleet.applyProbe({ name, spec }), { discard: true }),
    /** Every cell as it is shown now; none while the master has no row. */
    cells: Effect.map(fleet.matrix({ filter: {} }), ({ rows }) => rows.flatMap(({ cells }) => cells)),
    /** All that the history has of a cell since then: runs that failed or changed the status, oldest first. */
    history: Effect.fnUntraced(function*(cell: Pick<Cell, "probe" | "checker">, from: DateTime.Utc) {
      const entries: Array<HistoryEntry> = []
      let after: string | undefined
      do {
        const page = yield* fleet.history({
          cluster: CLUSTER,
          probe: cell.probe,
          checker: cell.checker,
          from,
          ...(after === undefined ? {} : { after })
        })
        entries.push(...page.entries)
        after = page.next
      } while (after !== undefined)
      return entries.toReversed()
    }),
    /** What the API server has been asked so far. */
    audited: audited(log)
  }
})

export type Installation = Effect.Success<ReturnType<typeof make>>
