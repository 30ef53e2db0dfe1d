/** `kubeprober cluster add|list|label|revoke|remove`: who is in the fleet. */
import { DateTime, Effect, Option, Redacted, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { ClusterView } from "../../domain/rpc/Fleet.ts"
import { Failure } from "../Failure.ts"
import * as Structured from "../output/Structured.ts"
import { Screen, note, print } from "../Screen.ts"
import * as TokenFile from "../TokenFile.ts"
import * as flags from "./flags.ts"

const encodeView = Schema.encodeSync(ClusterView)

const load = Effect.promise(() => Promise.all([import("../MasterSession.ts"), import("../output/FleetTable.ts")]))

/** For whoever has to know better where the master is. */
const MASTER = "https://MASTER:8443"

/** Whether an address means whoever uses it. */
const isThisMachine = (url: string): boolean =>
  ["localhost", "127.0.0.1", "[::1]"].includes(URL.parse(url)?.hostname ?? "")

const name = Argument.String("NAME").pipe(Argument.withDescription("The cluster's name"))

const add = Command.make(
  "add",
  {
    ...flags.master,
    name,
    labels: Flag.String("label").pipe(
      Flag.atLeast(0),
      Flag.withDescription("A label of its Cluster, such as env=prod; Probes select by them"),
      Flag.withMetavar("KEY=VALUE")
    ),
    tokenOut: Flag.String("token-out").pipe(
      Flag.withDescription("Write the join token to this file, readable by you alone, instead of printing it"),
      Flag.withMetavar("FILE"),
      Flag.optional
    ),
    masterUrl: Flag.String("master-url").pipe(
      Flag.withDescription(
        "How agents reach the master, for the command that is printed; as the master on this machine says when absent"
      ),
      Flag.withMetavar("URL"),
      Flag.optional
    )
  },
  Effect.fn("cluster.add")(function*(options) {
    const labels = yield* labelsOf(options.labels)
    const [{ linkOf, withFleet }] = yield* load
    yield* withFleet(options, (fleet) =>
      Effect.gen(function*() {
        const masterUrl = Option.isSome(options.masterUrl)
          ? options.masterUrl.value
          : (yield* linkOf(options)) ?? MASTER
        const create = fleet.createJoinToken({ cluster: options.name, labels })
        const { expiresAt, token } = yield* Option.match(options.tokenOut, {
          onNone: () => create,
          onSome: (file) => TokenFile.write(file, create, ({ token }) => Redacted.value(token))
        })
        const file = Option.getOrElse(options.tokenOut, () => `${options.name}.token`)
        if (Option.isNone(options.tokenOut)) yield* print([Redacted.value(token)])
        yield* note([
          "",
          `That is the join token of ${options.name}: good once, until ${DateTime.formatIso(expiresAt)}.`,
          `With the token in the file ${file}, for an agent outside the cluster:`,
          `  kubeprober agent --master ${masterUrl} --join-token-file ${file}`,
          "and for one in the cluster (deploy/README.md):",
          "  kubectl create namespace kubeprober",
          `  kubectl -n kubeprober create secret generic kubeprober-join --from-file=token=${file}`,
          `  kubectl -n kubeprober create configmap kubeprober-agent-settings --from-literal=master=${masterUrl}`,
          "  kubectl apply --server-side -k deploy/crds",
          "  kubectl apply --server-side -k deploy/agent",
          ...isThisMachine(masterUrl)
            ? [
              `${masterUrl} is for agents on this machine; \`kubeprober master --link-name NAME\` lets others reach it`
            ]
            : []
        ])
      }))
  })
).pipe(Command.withDescription("Add a cluster to the fleet, and print the join token its agent needs once"))

const list = Command.make(
  "list",
  { ...flags.master, selector: flags.selecting.selector, output: flags.listOutput },
  Effect.fn("cluster.list")(function*(options) {
    const [{ allPages, withFleet }, FleetTable] = yield* load
    yield* withFleet(options, (fleet) =>
      Effect.gen(function*() {
        const filter = yield* flags.filterOf({ ...options, clusters: [], layers: [], probes: [] })
        const views = yield* allPages((after) =>
          Effect.map(fleet.clusters({ filter, ...after }), ({ clusters, next }) => ({ items: clusters, next }))
        )
        if (options.output === "json" || options.output === "yaml") {
          return yield* print([yield* Structured.render(views.map((view) => encodeView(view)), options.output)])
        }
        if (views.length === 0) return yield* note(["no cluster yet; `kubeprober cluster add NAME` adds one"])
        const { style, width } = (yield* Screen).out
        const now = yield* DateTime.now
        yield* print(FleetTable.clusters(views, { style, wide: options.output === "wide", width: yield* width, now }))
      }))
  })
).pipe(Command.withAlias("ls"), Command.withDescription("List the clusters of the fleet"))

const label = Command.make(
  "label",
  {
    ...flags.master,
    name,
    labels: Argument.String("KEY=VALUE").pipe(
      Argument.withDescription("A label to set; KEY- removes one"),
      Argument.variadic({ min: 1 })
    )
  },
  Effect.fn("cluster.label")(function*(options) {
    const removed = options.labels.filter((text) => text.endsWith("-") && !text.includes("="))
    const set = yield* labelsOf(options.labels.filter((text) => !removed.includes(text)))
    const labels = { ...set, ...Object.fromEntries(removed.map((text) => [text.slice(0, -1), null])) }
    const [{ withFleet }] = yield* load
    yield* withFleet(options, (fleet) =>
      fleet.labelCluster({ cluster: options.name, labels }).pipe(
        Effect.andThen((view) =>
          print([`${view.name} ${Object.entries(view.labels).map(([key, value]) => `${key}=${value}`).join(",")}`])
        )
      ))
  })
).pipe(Command.withDescription("Set and remove labels of a cluster; `probe/NAME=true` gives it the Probe NAME"))

const revoke = Command.make(
  "revoke",
  { ...flags.master, name },
  Effect.fn("cluster.revoke")(function*(options) {
    const [{ withFleet }] = yield* load
    yield* withFleet(options, (fleet) =>
      Effect.andThen(
        fleet.revoke({ cluster: options.name }),
        print([`${options.name} is revoked: its link is dropped and it cannot come back before it is added again`])
      ))
  })
).pipe(Command.withDescription("Drop a cluster's link and refuse its return"))

const remove = Command.make(
  "remove",
  { ...flags.master, name },
  Effect.fn("cluster.remove")(function*(options) {
    const [{ withFleet }] = yield* load
    yield* withFleet(options, (fleet) =>
      Effect.andThen(
        fleet.removeCluster({ cluster: options.name }),
        print([`${options.name} is removed, with all that was known of it`])
      ))
  })
).pipe(Command.withAlias("rm"), Command.withDescription("Revoke a cluster and forget it"))

const labelsOf = Effect.fnUntraced(function*(texts: ReadonlyArray<string>) {
  const pairs = yield* Effect.forEach(texts, (text) => {
    const at = text.indexOf("=")
    return at <= 0
      ? Effect.fail(new Failure({ reason: `${text} is not a label; write it like env=prod` }))
      : Effect.succeed([text.slice(0, at), text.slice(at + 1)] as const)
  })
  return Object.fromEntries(pairs)
})

export const cluster = Command.make("cluster").pipe(
  Command.withDescription("The clusters of the fleet"),
  Command.withSubcommands([add, list, label, revoke, remove])
)
