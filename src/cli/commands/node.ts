/** `kubeprober node`: what the DaemonSet of node agents runs. Not for people. */
import { Effect, Option, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { NODE_AGENT_PORT, NODE_KEY_FIELD, NODE_KEY_FOLDER } from "../../agent/nodes/nodeAgents.ts"

export const node = Command.make(
  "node",
  {
    port: Flag.Int("port").pipe(
      Flag.withDescription("Where the agent asks, over TLS with the key"),
      Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 65_535 }))),
      Flag.withDefault(NODE_AGENT_PORT)
    ),
    address: Flag.String("address").pipe(
      Flag.withDescription("The address of the node to listen on, and no other; all of them when absent"),
      Flag.withMetavar("IP"),
      Flag.optional
    ),
    keyFile: Flag.String("key-file").pipe(
      Flag.withDescription("The key that it shares with the agent, in base64"),
      Flag.withMetavar("FILE"),
      Flag.withDefault(`${NODE_KEY_FOLDER}/${NODE_KEY_FIELD}`)
    )
  },
  Effect.fn("node")(function*({ address, keyFile, port }) {
    const [NodeServer, { tasks }] = yield* Effect.promise(() =>
      Promise.all([import("../../agent/nodes/NodeServer.ts"), import("../../probes/workers/tasks.ts")])
    )
    yield* NodeServer.serve({ port, address: Option.getOrUndefined(address), keyFile, tasks })
    yield* Effect.logInfo("the node agent answers").pipe(
      Effect.annotateLogs({ port, address: Option.getOrElse(address, () => "all") })
    )
    return yield* Effect.never
  }, Effect.scoped)
).pipe(Command.withDescription("Answer the agent's questions about this node; a DaemonSet runs it on every node"))
