/** Asks the node agents of a cluster. Provides `Nodes`. */
import { DateTime, Duration, Effect, Result, Schema } from "effect"
import { request } from "node:https"
import { Kube } from "../../infra/kube/Kube.ts"
import { Node, Pod } from "../../infra/kube/resources/core.ts"
import * as Psk from "../../infra/tls/Psk.ts"
import * as Elapsed from "../../probes/Elapsed.ts"
import * as ServerTime from "../../probes/ServerTime.ts"
import { NODE_AGENT_NAMESPACE, type NodeAnswer, type Nodes } from "../../probes/workers/Nodes.ts"
import type { Task } from "../../probes/workers/Task.ts"
import { isVirtual } from "../../probes/workers/virtualNode.ts"
import type { RunScope } from "../RunScope.ts"
import { MAX_ANSWER, NODE_AGENT_PORT, NODE_AGENT_SELECTOR, PSK_IDENTITY, TaskAnswer, taskPath } from "./nodeAgents.ts"

/** Nodes asked at a time. */
const AT_ONCE = 32

/** Besides the task's own time: the way there and back, and a turn behind another task. */
const GRACE = Duration.seconds(5)

/**
 * For a connection: enough for two packets to be lost on the way (sent again after 1 s and 3 s). A machine that is off
 * holds a place among {@link AT_ONCE} for no longer.
 */
const CONNECT_PATIENCE = 4_000

/** Before the end of the probe's time, to judge and to say what was answered by then. */
const TO_SAY = Duration.seconds(2)

/** A node this young may still be starting its agent, unless options say otherwise. */
const JOINING = Duration.minutes(2)

export interface NodesOptions {
  /** The key that node agents know; nothing while there is none. */
  readonly key: Effect.Effect<Uint8Array | undefined>
  /** {@link NODE_AGENT_PORT} when absent. */
  readonly port?: number | undefined
  /** How young a node may be whose agent does not answer yet; 2 minutes when absent. */
  readonly joiningFor?: Duration.Input | undefined
}

const OS_LABEL = "kubernetes.io/os"

/** Nodes that must have an agent: as `deploy/nodes/daemonset.yaml` has it, and not on their way out. */
export const agentNodes = (nodes: ReadonlyArray<Node>): ReadonlyArray<Node> =>
  nodes.filter((node) => node.metadata.deletionTimestamp === undefined && !isVirtual(node))

const decodeAnswer = Schema.decodeUnknownResult(TaskAnswer)

/** One question, answered with the body. Fails with words. */
const ask = (
  host: string,
  port: number,
  key: Uint8Array,
  id: string,
  input: string
): Effect.Effect<string, string> =>
  Effect.callback((resume) => {
    const asked = request({
      ...Psk.client(PSK_IDENTITY, key),
      host,
      port,
      method: "POST",
      path: taskPath(id),
      agent: false,
      headers: { "content-type": "application/json", "content-length": Buffer.byteLength(input) }
    }, (response) => {
      const chunks: Array<Buffer> = []
      let size = 0
      response.on("data", (chunk: Buffer) => {
        size += chunk.length
        if (size > MAX_ANSWER) asked.destroy(new Error(`its answer is longer than ${MAX_ANSWER} bytes`))
        else chunks.push(chunk)
      })
      response.once("end", () => resume(Effect.succeed(Buffer.concat(chunks).toString())))
      response.once("error", (error) => resume(Effect.fail(error.message)))
    })
    asked.once("socket", (socket) => {
      const patience = setTimeout(
        () => asked.destroy(new Error(`no connection within ${CONNECT_PATIENCE / 1000} s`)),
        CONNECT_PATIENCE
      )
      socket.once("connect", () => clearTimeout(patience))
      socket.once("close", () => clearTimeout(patience))
    })
    asked.once("error", (error: NodeJS.ErrnoException) =>
      resume(Effect.fail(
        // What OpenSSL says of keys that differ (RFC 4279 section 2: decrypt_error or bad_record_mac).
        error.code?.startsWith("ERR_SSL") === true || error.code === "EPROTO"
          ? "the handshake failed: it does not hold this agent's key (yet)"
          : error.code ?? error.message
      )))
    asked.end(input)
    return Effect.sync(() => asked.destroy())
  })

/** Why a node is not Ready, when it is not. */
const unready = ({ status }: Node): string | undefined => {
  const ready = status.conditions.find(({ type }) => type === "Ready")
  return ready?.status === "True" ? undefined : ready?.reason ?? "its kubelet has not said that it is"
}

/** The nodes as seen by the run that `run` is of. */
export const make = (options: NodesOptions) => (run: RunScope): Effect.Effect<Nodes["Service"]> => {
  const { deadline, kube } = run
  const until = DateTime.subtractDuration(deadline, TO_SAY)
  const askNode = Effect.fnUntraced(function*<Input, Output>(
    task: Task<Input, Output>,
    input: string,
    node: Node,
    pod: Pod | undefined,
    isJoining: boolean
  ): Effect.fn.Return<NodeAnswer<Output>> {
    const name = node.metadata.name ?? ""
    const unreadiness = unready(node)
    const silent = (why: "missing" | "unreachable" | "failed" | "unasked", detail: string): NodeAnswer<Output> => ({
      _tag: "Silent",
      node: name,
      why: isJoining && (why === "missing" || why === "unreachable") ? "joining" : why,
      detail: unreadiness === undefined ? detail : `${detail}; the node is not Ready: ${unreadiness}`
    })
    if (pod === undefined) return silent("missing", `no node agent runs on ${name}`)
    const host = pod.status.hostIP
    if (host === undefined) return silent("unreachable", `the node agent ${pod.metadata.name ?? ""} has not started`)
    const key = yield* options.key
    if (key === undefined) return silent("unreachable", "there is no key for node agents yet")
    const left = DateTime.distance(yield* DateTime.now, until)
    if (Duration.isLessThanOrEqualTo(left, Duration.zero)) {
      return silent("unasked", `there was no time left to ask the node agent on ${name}`)
    }
    const within = Duration.min(Duration.sum(Duration.fromInputUnsafe(task.timeout), GRACE), left)
    const body = yield* ask(host, options.port ?? NODE_AGENT_PORT, key, task.id, input).pipe(
      Effect.timeoutOrElse({
        duration: within,
        orElse: () => Effect.fail(`no answer within ${Duration.format(within)}`)
      }),
      Effect.result
    )
    if (Result.isFailure(body)) return silent("unreachable", `the node agent on ${name} (${host}): ${body.failure}`)
    const answer = decodeAnswer(body.success)
    if (Result.isFailure(answer)) return silent("failed", `the node agent on ${name} answered what cannot be read`)
    if (!answer.success.ok) return silent("failed", `the node agent on ${name}: ${answer.success.error}`)
    const output = Schema.decodeUnknownResult(task.output)(answer.success.output)
    return Result.isSuccess(output)
      ? { _tag: "Answered", node: name, output: output.success }
      : silent("failed", `the node agent on ${name} is of another version: ${output.failure.message}`)
  })

  return Effect.succeed({
    run: Effect.fn("Nodes.run")(function*(task, input, { all, nodes } = {}) {
      const encoded = JSON.stringify(yield* Effect.orDie(Schema.encodeEffect(task.input)(input)))
      const [found, { items: pods }, now] = yield* Effect.all([
        all === undefined
          ? Effect.map(kube.list(Node, { labelSelector: `${OS_LABEL}=linux` }), ({ items }) => items)
          : Effect.succeed(all.filter(({ metadata }) => metadata.labels?.[OS_LABEL] === "linux")),
        kube.list(Pod, { namespace: NODE_AGENT_NAMESPACE, labelSelector: NODE_AGENT_SELECTOR }),
        Effect.provideService(ServerTime.nowOrOurs, Kube, kube)
      ], { concurrency: 3 })
      const agents = new Map(
        pods.filter(({ metadata, status }) =>
          metadata.deletionTimestamp === undefined && status.phase !== "Failed" && status.phase !== "Succeeded"
        ).map((pod) => [pod.spec.nodeName ?? "", pod])
      )
      const wanted = agentNodes(found).filter(({ metadata }) =>
        nodes === undefined || nodes.includes(metadata.name ?? "")
      )
      // Those that are likely to answer first. A node whose kubelet is dead still answers: its kubelet alone is not Ready.
      const isReady = (node: Node) => unready(node) === undefined
      const inTurn = [...wanted.filter(isReady), ...wanted.filter((node) => !isReady(node))]
      return yield* Effect.forEach(inTurn, (node) => {
        const { creationTimestamp, name = "" } = node.metadata
        const isJoining = creationTimestamp !== undefined &&
          Duration.isLessThan(
            Elapsed.between(creationTimestamp, now),
            Duration.fromInputUnsafe(options.joiningFor ?? JOINING)
          )
        return askNode(task, encoded, node, agents.get(name), isJoining)
      }, { concurrency: AT_ONCE })
    })
  })
}
