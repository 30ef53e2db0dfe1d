/**
 * The key by which the agent and the node agents know each other.
 *
 * The agent mounts its Secret, so no right to read Secrets is needed. Without one, which is so at the first start, it makes a
 * key and writes it to both namespaces; the node agents' pods wait for theirs.
 */
import { Context, Effect, FileSystem, Layer, Redacted, Ref, Schedule } from "effect"
import { Kube } from "../../infra/kube/Kube.ts"
import type { KubeError } from "../../infra/kube/KubeError.ts"
import { KEY_BYTES } from "../../infra/tls/Psk.ts"
import { WrittenSecret } from "../runToken.ts"
import { NODE_AGENT_NAMESPACE, NODE_KEY_FIELD, NODE_KEY_FOLDER, NODE_KEY_SECRET } from "./nodeAgents.ts"

/** How soon node agents that were installed anew have the key again. */
const AGAIN_EVERY = "5 minutes"

const retries = Schedule.min([Schedule.exponential("1 second"), Schedule.spaced("2 minutes")]).pipe(Schedule.jittered)

export class NodeKey extends Context.Service<NodeKey, {
  /** Nothing while it is not known to be where the node agents find it. */
  readonly key: Effect.Effect<Uint8Array | undefined>
}>()("kubeprober/agent/NodeKey") {
  /** Of the mounted Secret, or made and written to the namespace `namespace` and that of the node agents. */
  static readonly layer = (options: { readonly namespace: string; readonly folder?: string | undefined }) =>
    Layer.effect(NodeKey, make(options))
}

const make = Effect.fnUntraced(
  function*(options: { readonly namespace: string; readonly folder?: string | undefined }) {
    const fs = yield* FileSystem.FileSystem
    const kube = yield* Kube
    const current = yield* Ref.make<Uint8Array | undefined>(undefined)
    const mounted = fs.readFileString(`${options.folder ?? NODE_KEY_FOLDER}/${NODE_KEY_FIELD}`).pipe(
      Effect.map((text) => Buffer.from(text.trim(), "base64")),
      Effect.map((key) => key.length >= KEY_BYTES ? key : undefined),
      Effect.orElseSucceed(() => undefined)
    )
    const found = yield* mounted
    const mine = Redacted.make(found ?? crypto.getRandomValues(new Uint8Array(KEY_BYTES)), { label: "node key" })
    const write = (namespace: string) =>
      kube.apply(WrittenSecret, {
        metadata: {
          name: NODE_KEY_SECRET,
          namespace,
          labels: { "app.kubernetes.io/managed-by": "kubeprober" }
        },
        data: { [NODE_KEY_FIELD]: Buffer.from(Buffer.from(Redacted.value(mine)).toString("base64")).toString("base64") }
      }, { force: true })
    const told = <E extends KubeError, R>(written: Effect.Effect<unknown, E, R>) =>
      Effect.tapError(written, (error) =>
        // Before deploy/nodes is installed there is neither the namespace nor the right to write into it.
        error.reason._tag === "NotFound" || error.reason._tag === "Forbidden"
          ? Effect.logDebug("there are no node agents here")
          : Effect.logWarning(`the key of the node agents could not be written: ${error.message}`))
    yield* told(write(NODE_AGENT_NAMESPACE)).pipe(
      Effect.andThen(found === undefined ? told(write(options.namespace)) : Effect.void),
      Effect.andThen(Ref.set(current, Redacted.value(mine))),
      Effect.retry(retries),
      Effect.ignore,
      // Node agents that are installed anew have a namespace without the key; their pods wait for it.
      Effect.andThen(
        Effect.repeat(Effect.ignore(told(write(NODE_AGENT_NAMESPACE))), Schedule.jittered(Schedule.spaced(AGAIN_EVERY)))
      ),
      Effect.forkScoped
    )
    if (found !== undefined) yield* Ref.set(current, found)
    return NodeKey.of({ key: Ref.get(current) })
  }
)
