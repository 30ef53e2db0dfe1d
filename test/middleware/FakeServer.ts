/** Servers that send whatever a test wants: what no real one can be brought to. */
import { Effect, type Scope } from "effect"
import * as Net from "node:net"
import * as Tls from "node:tls"
import type { KeyPairPem } from "../../src/local/Certificates.ts"

/** One client's connection: `turn` counts what it has sent, from zero. */
export type Answer = (socket: Net.Socket, request: Buffer, turn: number) => void

const closeAll = (server: Net.Server, sockets: ReadonlySet<Net.Socket>) =>
  Effect.sync(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })

/** On the loopback interface, until the scope ends; its port. */
export const start = (
  answer: Answer,
  greet: (socket: Net.Socket) => void = () => {}
): Effect.Effect<number, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly port: number; readonly close: Effect.Effect<void> }>((resume) => {
        const sockets = new Set<Net.Socket>()
        const server = Net.createServer((socket) => {
          let turn = 0
          sockets.add(socket)
          socket.on("error", () => {}).on("data", (request) => answer(socket, request, turn++))
          greet(socket)
        }).listen(0, "127.0.0.1", () => {
          const address = server.address()
          resume(Effect.succeed({
            port: typeof address === "object" && address !== null ? address.port : 0,
            close: closeAll(server, sockets)
          }))
        })
      }),
      ({ close }) => close
    ),
    ({ port }) => port
  )

/** From now on TLS, which `begun` already belongs to; for protocols that ask for it first. */
export const upgrade = (socket: Net.Socket, { cert, key }: KeyPairPem, answer: Answer, begun: Buffer): void => {
  socket.removeAllListeners("data").pause()
  if (begun.length > 0) socket.unshift(begun)
  let turn = 0
  const secure = new Tls.TLSSocket(socket, { isServer: true, secureContext: Tls.createSecureContext({ cert, key }) })
  secure.on("error", () => {}).on("data", (request) => answer(secure, request, turn++))
}

/** PostgreSQL's messages (https://www.postgresql.org/docs/current/protocol-message-formats.html). */
export const postgres = {
  message: (type: string, body: Buffer): Buffer => {
    const head = Buffer.from(`${type}\0\0\0\0`, "latin1")
    head.writeInt32BE(4 + body.length, 1)
    return Buffer.concat([head, body])
  },
  /** 0 is OK, 3 a password in plain text, 7 GSSAPI, 9 SSPI, 10 SASL. */
  authentication: (kind: number, rest = Buffer.alloc(0)): Buffer =>
    postgres.message("R", Buffer.concat([Buffer.from([0, 0, 0, kind]), rest])),
  ready: Buffer.from([0x5A, 0, 0, 0, 5, 0x49])
}

/** MySQL's packets (https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html). */
export const mysql = {
  packet: (sequence: number, body: Buffer): Buffer => {
    const head = Buffer.alloc(4)
    head.writeUIntLE(body.length, 0, 3)
    head[3] = sequence
    return Buffer.concat([head, body])
  },
  /** Of a server 8.0 with TLS. */
  greeting: (): Buffer =>
    mysql.packet(
      0,
      Buffer.concat([
        Buffer.from("\x0A8.0.36\0\x01\0\0\x0012345678\0", "latin1"),
        Buffer.from([0xFF, 0xFF, 45, 2, 0, 0xFF, 0xC1, 21]),
        Buffer.alloc(10),
        Buffer.from("123456789012\0mysql_native_password\0", "latin1")
      ])
    ),
  ok: (sequence: number): Buffer => mysql.packet(sequence, Buffer.from([0, 0, 0, 2, 0, 0, 0])),
  /** Asks for another way of logging in. */
  switchTo: (plugin: string): Buffer =>
    mysql.packet(2, Buffer.from(`\xFE${plugin}\x0012345678901234567890\0`, "latin1")),
  error: (sequence: number, number: number, message: string): Buffer =>
    mysql.packet(
      sequence,
      Buffer.concat([Buffer.from([0xFF, number & 0xFF, number >> 8]), Buffer.from(`#HY000${message}`)])
    )
}
