import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as Dgram from "node:dgram"
import type { Report } from "../../src/domain/Report.ts"
import { isGuarded } from "../../src/infra/net/DialNode.ts"
import { type TcpConfig, tcp } from "../../src/probes/application/tcp.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { blind, fault, healthy } from "../proofs/proof.ts"
import * as Application from "./Application.ts"

type Targets = NonNullable<(typeof TcpConfig.Encoded)["targets"]>

const ask = (...targets: Targets) => Application.run(Probe.configure(tcp, { targets, timeout: "3s" }))

/** What does not answer as wanted is waited for until then. */
const askInVain = (...targets: Targets) => Application.run(Probe.configure(tcp, { targets, timeout: "1s" }))

const said = (report: Report, verdict: string, blamed?: string) => {
  assert.strictEqual(Application.verdict(report), verdict, report.message)
  if (blamed !== undefined) {
    assert.deepStrictEqual(report.findings.map(({ subject }) => subject), [{ kind: "Port", name: blamed }])
  }
  return report
}

/** Answers each datagram with `answer`, or with nothing. */
const udp = (answer: string | undefined) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<Dgram.Socket>((resume) => {
        const socket = Dgram.createSocket("udp4")
        socket.on("message", (message, from) => {
          if (answer !== undefined) socket.send(`${answer}:${message.toString("hex")}`, from.port, from.address)
        }).bind(0, "127.0.0.1", () => resume(Effect.succeed(socket)))
      }),
      (socket) => Effect.sync(() => socket.close())
    ),
    (socket) => socket.address().port
  )

describe("addresses that are not asked by default", () => {
  it("are link-local ones and those of cloud metadata, however they are written", () => {
    for (
      const address of [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "64:ff9b::a9fe:a9fe"
      ]
    ) assert.isTrue(isGuarded(address), address)
    for (const address of ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "2001:db8::1", "64:ff9b::a00:1"]) {
      assert.isFalse(isGuarded(address), address)
    }
  })
})

describe("app.tcp", () => {
  layer(NodeServices.layer, { excludeTestServices: true })("on real servers", (it) => {
    it.effect(
      healthy(tcp, "open ports that answer, and closed ones, of nginx and UDP servers"),
      () =>
        Effect.gen(function*() {
          const nginx = yield* Application.nginx
          const { free, web } = yield* Application.ports("free", "web")
          yield* nginx.serve(`server { listen 127.0.0.1:${web}; location / { return 200 hello; } }`)
          const echo = yield* udp("pong")
          const mute = yield* udp(undefined)
          const report = said(
            yield* ask(
              { address: `127.0.0.1:${web}` },
              { address: `localhost:${web}`, send: "GET / HTTP/1.0\r\n\r\n", answer: "^HTTP/1.1 200" },
              { address: `127.0.0.1:${echo}`, protocol: "udp", sendHex: "00ff", answer: "^pong:00ff$" },
              { address: `127.0.0.1:${free}`, must: "closed" },
              { address: `127.0.0.1:${mute}`, protocol: "udp", must: "closed" }
            ),
            "PASS"
          )
          assert.include(report.message, "3 ports are open and 2 closed")
          said(yield* Application.run(tcp), "INFO NOT_APPLICABLE")
        })
    )

    it.effect(fault(tcp, "PORT_REFUSED", "nothing listens on the port"), () =>
      Effect.gen(function*() {
        const { free } = yield* Application.ports("free")
        const target = { address: `127.0.0.1:${free}` }
        said(yield* ask(target), "ERROR PORT_REFUSED", `tcp://127.0.0.1:${free}`)
        said(yield* ask({ ...target, protocol: "udp" }), "ERROR PORT_REFUSED", `udp://127.0.0.1:${free}`)
        yield* Application.listener(() => {}, free)
        said(yield* ask(target), "PASS")
      }))

    it.effect(fault(tcp, "PORT_OPEN", "a port that must be closed is open"), () =>
      Effect.gen(function*() {
        const { free } = yield* Application.ports("free")
        const target = { address: `127.0.0.1:${free}`, must: "closed" } as const
        yield* Effect.scoped(Effect.gen(function*() {
          yield* Application.listener(() => {}, free)
          said(yield* ask(target), "ERROR PORT_OPEN", `tcp://127.0.0.1:${free}`)
        }))
        said(yield* ask(target), "PASS")
        const echo = yield* udp("pong")
        said(
          yield* ask({ address: `127.0.0.1:${echo}`, protocol: "udp", must: "closed" }),
          "ERROR PORT_OPEN",
          `udp://127.0.0.1:${echo}`
        )
      }))

    it.effect(fault(tcp, "PORT_SILENT", "a server that accepts and says nothing"), () =>
      Effect.gen(function*() {
        const port = yield* Application.listener(() => {})
        const mute = yield* udp(undefined)
        const [ofPort, ofMute] = yield* Effect.all([
          askInVain({ address: `127.0.0.1:${port}`, answer: "ready" }),
          askInVain({ address: `127.0.0.1:${mute}`, protocol: "udp" })
        ], { concurrency: 2 })
        said(ofPort, "ERROR PORT_SILENT", `tcp://127.0.0.1:${port}`)
        said(ofMute, "ERROR PORT_SILENT", `udp://127.0.0.1:${mute}`)
      }))

    it.effect(fault(tcp, "PORT_CUT", "a server that resets what it has accepted"), () =>
      Effect.gen(function*() {
        const port = yield* Application.listener((socket) => socket.once("data", () => socket.resetAndDestroy()))
        said(
          yield* ask({ address: `127.0.0.1:${port}`, send: "hello", answer: "ready" }),
          "ERROR PORT_CUT",
          `tcp://127.0.0.1:${port}`
        )
      }))

    it.effect(fault(tcp, "PORT_ANSWER", "another server listens on the port"), () =>
      Effect.gen(function*() {
        const port = yield* Application.listener((socket) => socket.write("220 mail ESMTP\r\n"))
        const target = { address: `127.0.0.1:${port}`, answer: "^SSH-2" }
        const report = said(yield* askInVain(target), "ERROR PORT_ANSWER", `tcp://127.0.0.1:${port}`)
        assert.include(JSON.stringify(report.findings[0]?.evidence), "220 mail ESMTP")
        said(yield* ask({ ...target, answer: "^220 " }), "PASS")
      }))

    it.effect(fault(tcp, "PORT_SLOW", "a UDP server that takes its time"), () =>
      Effect.gen(function*() {
        const socket = yield* Effect.acquireRelease(
          Effect.callback<Dgram.Socket>((resume) => {
            const socket = Dgram.createSocket("udp4")
            socket.on("message", (_message, from) => {
              setTimeout(() => socket.send("late", from.port, from.address), 300)
            }).bind(0, "127.0.0.1", () => resume(Effect.succeed(socket)))
          }),
          (socket) => Effect.sync(() => socket.close())
        )
        const { port } = socket.address()
        const check = (slow: string) =>
          Application.run(
            Probe.configure(tcp, { targets: [{ address: `127.0.0.1:${port}`, protocol: "udp" }], slow })
          )
        said(yield* check("200ms"), "WARN PORT_SLOW", `udp://127.0.0.1:${port}`)
        said(yield* check("2s"), "PASS")
      }))

    it.effect(blind(tcp, "NAME_UNRESOLVED", "a name that does not resolve here"), () =>
      Effect.gen(function*() {
        said(yield* ask({ address: "db.invalid:5432" }), "UNKNOWN NAME_UNRESOLVED", "tcp://db.invalid:5432")
        said(yield* ask({ address: "db.invalid:5432", must: "closed" }), "UNKNOWN NAME_UNRESOLVED")
      }))

    it.effect(
      blind(tcp, "NO_ROUTE", "an address that no connection can be made to (multicast)"),
      () =>
        Effect.gen(function*() {
          said(yield* ask({ address: "224.0.0.1:5432" }), "UNKNOWN NO_ROUTE")
        })
    )

    it.effect(
      blind(tcp, "ADDRESS_REFUSED", "a link-local address that is meant to be open"),
      () =>
        Effect.gen(function*() {
          said(yield* ask({ address: "169.254.169.254:80" }), "UNKNOWN ADDRESS_REFUSED")
        })
    )

    it.effect(blind(tcp, "INVALID_CONFIG", "a target that is none"), () =>
      Effect.gen(function*() {
        for (const target of [{ address: "db" }, { address: "db:70000" }, { address: "db:1", answer: "(" }]) {
          said(yield* ask(target), "UNKNOWN INVALID_CONFIG")
        }
        said(yield* ask({ address: "db:1", send: "a", sendHex: "61" }), "UNKNOWN INVALID_CONFIG")
      }))
  })
})
