/**
 * Asking the node agents of a cluster: real node agents, each on a loopback address of its own, and what the cluster says
 * of its nodes written down by the test.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, FileSystem, Schema, Scope } from "effect"
import { spawn } from "node:child_process"
import { randomBytes } from "node:crypto"
import { type Server, type Socket, connect, createServer } from "node:net"
import * as KubernetesNodes from "../../src/agent/nodes/KubernetesNodes.ts"
import * as NodeServer from "../../src/agent/nodes/NodeServer.ts"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import type { NodeAnswer } from "../../src/probes/workers/Nodes.ts"
import * as Task from "../../src/probes/workers/Task.ts"
import * as FakeApiServer from "../kubeAccess/FakeApiServer.ts"

const greet = Task.make("test.greet", {
  input: Schema.Struct({}),
  output: Schema.Struct({ hello: Schema.String }),
  timeout: "20 seconds",
  run: () => Effect.succeed({ hello: "you" })
})

interface FakeNode {
  readonly name: string
  readonly address: string
  readonly ready: boolean
}

const list = (kind: string, apiVersion: string, items: ReadonlyArray<object>) =>
  JSON.stringify({ kind: `${kind}List`, apiVersion, metadata: { resourceVersion: "1" }, items })

/** The API server of a cluster with these nodes, each with the pod of a node agent. */
const cluster = Effect.fnUntraced(function*(nodes: ReadonlyArray<FakeNode>) {
  const old = "2026-01-01T00:00:00Z"
  const { url } = yield* FakeApiServer.start(({ url = "" }, response) => {
    const body = url.startsWith("/api/v1/nodes")
      ? list(
        "Node",
        "v1",
        nodes.map(({ name, ready }) => ({
          metadata: { name, creationTimestamp: old, labels: { "kubernetes.io/os": "linux" } },
          status: {
            conditions: [{
              type: "Ready",
              status: ready ? "True" : "Unknown",
              reason: ready ? "" : "NodeStatusUnknown"
            }]
          }
        }))
      )
      : url.includes("/pods")
      ? list(
        "Pod",
        "v1",
        nodes.map(({ address, name }) => ({
          metadata: { name: `agent-${name}`, namespace: "kubeprober-nodes", creationTimestamp: old },
          spec: { nodeName: name },
          status: { phase: "Running", hostIP: address }
        }))
      )
      : list("Lease", "coordination.k8s.io/v1", [])
    response.writeHead(200, { "content-type": "application/json" }).end(body)
  })
  return yield* KubeHttp.make(KubeConnection.make({ cluster: "test", server: url, identity: { tls: {} } }))
})

const key = randomBytes(32)

/** What a run that has `millis` left hears of each node. */
const askAll = Effect.fnUntraced(function*(nodes: ReadonlyArray<FakeNode>, port: number, millis: number) {
  const deadline = DateTime.add(yield* DateTime.now, { milliseconds: millis })
  const asking = yield* KubernetesNodes.make({ key: Effect.succeed(key), port })({
    kube: yield* cluster(nodes),
    deadline,
    scope: yield* Scope.make(),
    scratch: { name: () => Effect.die("not used"), create: () => Effect.die("not used") },
    context: { runId: "r", probeNamespace: "kubeprober", expiresAt: deadline }
  })
  const answers = yield* asking.run(greet, {})
  const left = Duration.toMillis(DateTime.distance(yield* DateTime.now, deadline))
  return { answers: new Map(answers.map((answer) => [answer.node, answer] as const)), left }
})

const saysOf = (answer: NodeAnswer<unknown> | undefined): string =>
  answer?._tag === "Silent" ? `${answer.why}: ${answer.detail}` : answer === undefined ? "nothing" : "answered"

/** A node agent on this address. */
const agentOn = Effect.fnUntraced(function*(address: string) {
  const fs = yield* FileSystem.FileSystem
  const keyFile = `${yield* fs.makeTempDirectoryScoped()}/key`
  yield* fs.writeFileString(keyFile, key.toString("base64"))
  return yield* NodeServer.serve({ address, port: 0, keyFile, tasks: [greet] })
})

/** Takes connections and says nothing. */
const muteOn = (address: string, port: number) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly server: Server; readonly held: Set<Socket> }>((resume) => {
      const held = new Set<Socket>()
      const server = createServer((socket) => {
        held.add(socket.on("error", () => {}))
      })
      server.listen(port, address, () => resume(Effect.succeed({ server, held })))
    }),
    ({ held, server }) =>
      Effect.sync(() => {
        for (const socket of held) socket.destroy()
        server.close()
      })
  )

/** A port whose packets for new connections are dropped, as those to a machine that is off: its queue is full. */
const unreachableOn = Effect.fnUntraced(function*(address: string) {
  const program = `require("net").createServer().listen({ port: 0, host: "${address}", backlog: 1 }, function () {
    console.log(this.address().port)
  })`
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "ignore"] })),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  const port = yield* Effect.callback<number>((resume) => {
    child.stdout.once("data", (data: Buffer) => resume(Effect.succeed(Number(data.toString()))))
  })
  child.kill("SIGSTOP")
  const tryConnect = Effect.acquireRelease(
    Effect.callback<Socket>((resume) => {
      const socket = connect({ host: address, port })
      const done = () => resume(Effect.succeed(socket))
      socket.on("error", done).once("connect", done)
      setTimeout(done, 500)
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )
  yield* Effect.repeat(tryConnect, { while: ({ connecting }) => !connecting })
  return port
})

const numbers = (count: number) => Array.from({ length: count }, (_, index) => index)

describe("asking node agents", () => {
  it.live("ends before the probe's time does, with what was answered, and names the rest", () =>
    Effect.gen(function*() {
      const port = yield* agentOn("127.0.0.2")
      yield* muteOn("127.0.0.3", port)
      const silent = numbers(60).map((index): FakeNode => ({ name: `n${index}`, address: "127.0.0.3", ready: true }))
      const { answers, left } = yield* askAll(
        [{ name: "first", address: "127.0.0.2", ready: true }, ...silent],
        port,
        4000
      )
      assert.isAbove(left, 0)
      assert.strictEqual(answers.size, 61)
      assert.strictEqual(answers.get("first")?._tag, "Answered")
      assert.include(saysOf(answers.get("n0")), "unreachable: the node agent on n0 (127.0.0.3): no answer within")
      assert.include(saysOf(answers.get("n59")), "unasked: there was no time left to ask the node agent on n59")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("asks nodes that are Ready first, and others too: a dead kubelet does not silence its node's agent", () =>
    Effect.gen(function*() {
      const port = yield* agentOn("127.0.0.2")
      yield* muteOn("127.0.0.3", port)
      const lost = numbers(40).map((index): FakeNode => ({ name: `n${index}`, address: "127.0.0.3", ready: false }))
      const fine = { name: "fine", address: "127.0.0.2", ready: true }
      const { answers } = yield* askAll([...lost, fine], port, 4000)
      assert.strictEqual(answers.get("fine")?._tag, "Answered")
      assert.include(saysOf(answers.get("n39")), "the node is not Ready: NodeStatusUnknown")
      const alone = yield* askAll([{ ...fine, ready: false }], port, 4000)
      assert.strictEqual(alone.answers.get("fine")?._tag, "Answered")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("does not wait for a machine that takes no connection", () =>
    Effect.gen(function*() {
      const port = yield* unreachableOn("127.0.0.4")
      const { answers } = yield* askAll([{ name: "off", address: "127.0.0.4", ready: false }], port, 60_000)
      assert.include(saysOf(answers.get("off")), "no connection within 4 s")
    }).pipe(Effect.scoped), 20_000)

  it.live("finds a node agent at its node's own address, and nobody does at another", () =>
    Effect.gen(function*() {
      const port = yield* agentOn("127.0.0.2")
      const of = (address: string) =>
        Effect.map(
          askAll([{ name: "a", address, ready: true }], port, 10_000),
          ({ answers }) => saysOf(answers.get("a"))
        )
      assert.strictEqual(yield* of("127.0.0.2"), "answered")
      assert.include(yield* of("127.0.0.1"), "ECONNREFUSED")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
