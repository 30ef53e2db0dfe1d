/** {@link Tcp} with Node's sockets. */
import { Duration, Effect, Layer, Ref } from "effect"
import * as Dgram from "node:dgram"
import * as Dial from "./DialNode.ts"
import type { NetError, NetStage } from "./NetError.ts"
import { type Conversation, type Heard, Tcp } from "./Tcp.ts"

/** Enough for any greeting; the largest datagram. */
const MAXIMUM_HEARD = 65_536

/** Listens until it is enough, the other side has no more to say, or the limit is reached. */
const listen = (
  socket: Dial.Connected["socket"],
  { enough, send }: Conversation,
  target: string,
  received: Ref.Ref<Buffer>
) =>
  Effect.callback<void, NetError>((resume) => {
    socket.on("data", (chunk: Buffer) => {
      const all = Effect.runSync(Ref.updateAndGet(received, (before) => Buffer.concat([before, chunk])))
      if (all.length >= MAXIMUM_HEARD || enough?.(all) !== false) resume(Effect.void)
    })
    socket.once("end", () => resume(Effect.void))
    socket.once("close", () => resume(Effect.void))
    socket.once("error", (error) => resume(Effect.fail(Dial.failure(target, "answer")(error))))
    if (send !== undefined) socket.write(send)
  })

const connect = Effect.fn("Tcp.connect")(function*(conversation: Conversation) {
  const { enough, host, port, send, timeout } = conversation
  const target = Dial.hostPort(host, port)
  let stage: NetStage = "name"
  const limit = Duration.fromInputUnsafe(timeout)
  const dial = Dial.connect(conversation, (reached) => stage = reached).pipe(
    Effect.timeoutOrElse({ duration: limit, orElse: Dial.tooLate(target, () => stage, limit) })
  )
  const { address, connect, name, socket } = yield* dial
  const took = Duration.sum(name, connect)
  const received = yield* Ref.make<Buffer>(Buffer.alloc(0))
  if (send !== undefined || enough !== undefined) {
    const rest = Duration.max(Duration.millis(1), Duration.subtract(limit, took))
    // Silence is told by what was received until then.
    if (enough !== undefined) yield* Effect.timeoutOption(listen(socket, conversation, target, received), rest)
    else if (send !== undefined) yield* Effect.sync(() => socket.end(send))
  }
  return { address, took, received: (yield* Ref.get(received)).subarray(0, MAXIMUM_HEARD) }
}, Effect.scoped)

const datagram = Effect.fn("Tcp.datagram")(function*(conversation: Conversation) {
  const { enough, host, port, send, timeout } = conversation
  const target = Dial.hostPort(host, port)
  let stage: NetStage = "name"
  const [first] = yield* Dial.addressesOf(host, port, conversation).pipe(
    Effect.timeoutOrElse({ duration: timeout, orElse: Dial.tooLate(target, () => stage, timeout) })
  )
  stage = "answer"
  const { address, family } = first ?? { address: host, family: 4 }
  const socket = yield* Effect.acquireRelease(
    Effect.sync(() => Dgram.createSocket(family === 6 ? "udp6" : "udp4")),
    (socket) => Effect.sync(() => socket.close())
  )
  const [took, received] = yield* Effect.callback<Buffer, NetError>((resume) => {
    let all: Buffer = Buffer.alloc(0)
    socket.on("error", (error) => resume(Effect.fail(Dial.failure(target, "answer")(error))))
    socket.on("message", (message) => {
      all = Buffer.concat([all, message]).subarray(0, MAXIMUM_HEARD)
      if (all.length >= MAXIMUM_HEARD || enough?.(all) !== false) resume(Effect.succeed(all))
    })
    // Connected, so that only this address is heard and its ICMP refusals are told.
    socket.connect(port, address, (error?: Error) => {
      if (error !== undefined && error !== null) resume(Effect.fail(Dial.failure(target, "connect")(error)))
      else socket.send(send ?? new Uint8Array())
    })
  }).pipe(
    Effect.timed,
    Effect.timeoutOrElse({ duration: timeout, orElse: Dial.tooLate(target, () => stage, timeout) })
  )
  const heard: Heard = { address, took, received }
  return heard
}, Effect.scoped)

/** Stateless: each conversation has a socket of its own. */
export const service = Tcp.of({ connect, datagram })

export const layer = Layer.succeed(Tcp, service)
