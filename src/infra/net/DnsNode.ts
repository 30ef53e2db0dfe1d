/** {@link Dns} with sockets of Node; messages are those of the library `dns-packet`. */
import * as packet from "dns-packet"
import { Effect } from "effect"
import { createSocket } from "node:dgram"
import { lookup } from "node:dns/promises"
import { readFile } from "node:fs/promises"
import { Socket, isIPv6 } from "node:net"
import { failure, hostPort, tooLate } from "./DialNode.ts"
import { Dns, type DnsQuestion, type Resolver } from "./Dns.ts"
import { NetError } from "./NetError.ts"

const RESOLV_CONF = "/etc/resolv.conf"

const randomId = (): number => crypto.getRandomValues(new Uint16Array(1))[0] ?? 0

const questionOf = ({ name, type }: DnsQuestion, id: number): packet.Packet => ({
  type: "query",
  id,
  flags: packet.RECURSION_DESIRED,
  questions: [{ type, name }]
})

/** Of a datagram that may be anybody's: nothing unless it answers the question of this id. */
const decode = (message: Buffer, id: number): packet.DecodedPacket | undefined => {
  try {
    const decoded = packet.decode(message)
    return decoded.id === id && decoded.type === "response" ? decoded : undefined
  } catch {
    return undefined
  }
}

const overUdp = (question: DnsQuestion, target: string) =>
  Effect.acquireUseRelease(
    Effect.sync(() => createSocket(isIPv6(question.server) ? "udp6" : "udp4")),
    (socket) =>
      Effect.callback<packet.DecodedPacket, NetError>((resume) => {
        const id = randomId()
        const asked = packet.encode(questionOf(question, id))
        socket.on("error", (error) => resume(Effect.fail(failure(target, "answer")(error))))
        socket.on("message", (message) => {
          const answer = decode(message, id)
          if (answer !== undefined) resume(Effect.succeed(answer))
        })
        // Connected, so that a port that refuses is told at once, by ICMP.
        socket.connect(question.port, question.server, (error?: Error) => {
          if (error !== undefined && error !== null) resume(Effect.fail(failure(target, "connect")(error)))
          else socket.send(asked)
        })
      }),
    (socket) => Effect.sync(() => socket.close())
  )

/** Messages over TCP have their length before them (RFC 1035 section 4.2.2). */
const overTcp = (question: DnsQuestion, target: string) =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Socket()),
    (socket) =>
      Effect.callback<packet.DecodedPacket, NetError>((resume) => {
        const id = randomId()
        let received = Buffer.alloc(0)
        let stage: "connect" | "answer" = "connect"
        const fail = (kind: "protocol" | "reset", detail: string) =>
          resume(Effect.fail(new NetError({ target, stage, kind, detail })))
        socket.on("error", (error) => resume(Effect.fail(failure(target, stage)(error))))
        socket.on("data", (chunk: Buffer) => {
          received = Buffer.concat([received, chunk])
          if (received.length < 2 || received.length < received.readUInt16BE(0) + 2) return
          const answer = decode(received.subarray(2, received.readUInt16BE(0) + 2), id)
          if (answer === undefined) fail("protocol", "the answer is no answer to the question")
          else resume(Effect.succeed(answer))
        })
        socket.on("end", () => fail("reset", "the connection was closed without an answer"))
        socket.connect(question.port, question.server, () => {
          stage = "answer"
          socket.write(packet.streamEncode(questionOf(question, id)))
        })
      }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** `rcode` is in what is decoded, and missing from the library's types. */
const codeOf = (answer: packet.DecodedPacket): string =>
  "rcode" in answer && typeof answer.rcode === "string" ? answer.rcode : "NOERROR"

/** The last `search` wins; `nameserver` may be there several times. */
export const parseResolver = (text: string): Resolver => {
  const lines = text.split("\n").map((line) => line.trim().split(/\s+/u))
  return {
    servers: lines.flatMap(([key, server]) => key === "nameserver" && server !== undefined ? [server] : []),
    search: lines.findLast(([key]) => key === "search" || key === "domain")?.slice(1) ?? []
  }
}

/** Stateless. */
export const service = Dns.of({
  ask: Effect.fn("Dns.ask")(function*(question) {
    const target = hostPort(question.server, question.port)
    const [took, answer] = yield* Effect.timed(
      question.protocol === "udp" ? overUdp(question, target) : overTcp(question, target)
    ).pipe(
      Effect.timeoutOrElse({ duration: question.timeout, orElse: tooLate(target, () => "answer", question.timeout) })
    )
    const addresses = (answer.answers ?? []).flatMap((record) =>
      record.type === "A" || record.type === "AAAA" ? [record.data] : []
    )
    return { code: codeOf(answer), addresses, took }
  }),
  system: Effect.fn("Dns.system")(function*(name, timeout) {
    const [took, found] = yield* Effect.timed(Effect.tryPromise({
      try: () => lookup(name, { all: true }),
      catch: (cause) =>
        new NetError({
          target: name,
          stage: "name",
          kind: "dns",
          detail: cause instanceof Error ? cause.message : String(cause)
        })
    })).pipe(
      Effect.timeoutOrElse({ duration: timeout, orElse: tooLate(name, () => "name", timeout) })
    )
    return { addresses: found.map(({ address }) => address), took }
  }),
  resolver: Effect.tryPromise(() => readFile(RESOLV_CONF, "utf8")).pipe(
    Effect.map(parseResolver),
    Effect.orElseSucceed((): Resolver => ({ servers: [], search: [] }))
  )
})
