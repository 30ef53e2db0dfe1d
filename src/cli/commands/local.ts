/** `kubeprober local up|down|status`: real Kubernetes clusters on this machine that outlive the command. */
import { DateTime, Duration, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import type { ClusterStatus, LocalFleet } from "../../local/LocalFleet.ts"
import * as Structured from "../output/Structured.ts"
import * as Table from "../output/Table.ts"
import { note, print } from "../Screen.ts"
import * as flags from "./flags.ts"

const DEFAULT_NAME = "dev"

const name = Argument.String("NAME").pipe(
  Argument.withDescription(`The cluster's name, a DNS label; ${DEFAULT_NAME} when absent`),
  Argument.withDefault(DEFAULT_NAME)
)

/** Loaded when a command runs: other commands need none of it. */
const withFleet = <A, E, R>(use: (fleet: LocalFleet["Service"]) => Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const [Local, { LocalFleet }] = yield* Effect.promise(() =>
      Promise.all([import("../../local/Local.ts"), import("../../local/LocalFleet.ts")])
    )
    return yield* Effect.provide(LocalFleet.use(use), Local.layer)
  })

const up = Command.make(
  "up",
  {
    name,
    nodes: Flag.Int("nodes").pipe(
      Flag.withDescription("Nodes, each with its own containerd, kubelet and kube-proxy; 0 is a control plane alone"),
      Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 16 }))),
      Flag.withDefault(0)
    )
  },
  Effect.fn("local.up")(function*(options) {
    const LocalProgress = yield* Effect.promise(() => import("../LocalProgress.ts"))
    const onProgress = yield* LocalProgress.reporter
    yield* withFleet(Effect.fnUntraced(function*(fleet) {
      const cluster = yield* fleet.up({ name: options.name, nodes: options.nodes, onProgress })
      const context = Option.match(cluster.ready, { onNone: () => "", onSome: (ready) => ready.context })
      const at = `--kubeconfig ${fleet.kubeconfigPath} --context ${context}`
      yield* print([
        `cluster ${cluster.name} is up, until \`kubeprober local down ${cluster.name}\``,
        `kubeprober check ${at}`,
        `kubectl ${at} get namespaces`
      ])
    }))
  })
).pipe(Command.withDescription("Start a real Kubernetes cluster on this machine, in the background"))

const down = Command.make(
  "down",
  {
    names: Argument.String("NAME").pipe(
      Argument.withDescription(`The clusters to end; ${DEFAULT_NAME} when absent`),
      Argument.variadic()
    ),
    all: Flag.Boolean("all").pipe(Flag.withDescription("Every local cluster"), Flag.withDefault(false))
  },
  Effect.fn("local.down")(function*(options) {
    yield* withFleet(Effect.fnUntraced(function*(fleet) {
      const names = options.all
        ? (yield* fleet.status).map((cluster) => cluster.name)
        : options.names.length === 0
        ? [DEFAULT_NAME]
        : options.names
      yield* Effect.forEach(
        names,
        (cluster) => fleet.down(cluster).pipe(Effect.andThen(print([`cluster ${cluster} is down`]))),
        { concurrency: "unbounded" }
      )
      if (names.length === 0) yield* note(["no local cluster runs"])
    }))
  })
).pipe(Command.withDescription("End local clusters; nothing of them is left"))

const age = (cluster: ClusterStatus, now: DateTime.Utc): string =>
  Duration.format(Duration.seconds(Math.floor(Duration.toSeconds(DateTime.distance(cluster.createdAt, now)))))

const row = (cluster: ClusterStatus, now: DateTime.Utc, wide: boolean): ReadonlyArray<string> => {
  const ready = Option.getOrUndefined(cluster.ready)
  return [
    cluster.name,
    String(cluster.nodes),
    ready === undefined ? "starting" : "ready",
    ready?.kubernetesVersion ?? "",
    age(cluster, now),
    ...(wide ? [String(cluster.pid), ready?.server ?? "", ready?.context ?? ""] : [])
  ]
}

const status = Command.make(
  "status",
  { output: flags.listOutput },
  Effect.fn("local.status")(function*({ output }) {
    yield* withFleet(Effect.fnUntraced(function*(fleet) {
      const clusters = yield* fleet.status
      if (output === "json" || output === "yaml") {
        const plain = clusters.map(({ createdAt, ready, ...rest }) => ({
          ...rest,
          createdAt: DateTime.formatIso(createdAt),
          ready: Option.isSome(ready),
          ...Option.getOrElse(ready, () => ({}))
        }))
        return yield* print([yield* Structured.render(plain, output)])
      }
      if (clusters.length === 0) return yield* note(["no local cluster runs; `kubeprober local up` starts one"])
      const now = yield* DateTime.now
      const wide = output === "wide"
      return yield* print(Table.render([
        ["NAME", "NODES", "STATUS", "VERSION", "AGE", ...(wide ? ["PID", "SERVER", "CONTEXT"] : [])],
        ...clusters.map((cluster) => row(cluster, now, wide))
      ]))
    }))
  })
).pipe(Command.withDescription("List local clusters"))

export const local = Command.make("local").pipe(
  Command.withDescription("Real Kubernetes clusters on this machine"),
  Command.withSubcommands([up, down, status])
)
