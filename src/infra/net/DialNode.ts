/** Names, addresses and connections with Node, for the services of this folder. */
import { Duration, Effect, type Scope } from "effect"
import * as Dns from "node:dns"
import * as Net from "node:net"
import { ADDRESS_ATTEMPT } from "./addressAttempt.ts"
import { type AddressRules, NetError, type NetErrorKind, type NetStage } from "./NetError.ts"
import { IN_SHORT, type SocketFault, codeOf, foremostOf, socketFaultOf } from "./socketFault.ts"

/**
 * Link-local (RFC 3927, RFC 4291), where AWS, Azure, Google and others serve instance metadata, and the places of those
 * who serve it elsewhere: AWS over IPv6, Alibaba, Azure's wire server, Oracle. Also by way of NAT64 (RFC 6052).
 */
const guarded = new Net.BlockList()
guarded.addSubnet("169.254.0.0", 16, "ipv4")
guarded.addAddress("100.100.100.200", "ipv4")
guarded.addAddress("168.63.129.16", "ipv4")
guarded.addAddress("192.0.0.192", "ipv4")
guarded.addSubnet("fe80::", 10, "ipv6")
guarded.addAddress("fd00:ec2::254", "ipv6")
guarded.addSubnet("64:ff9b::a9fe:0", 112, "ipv6")

const withoutZone = (address: string): string => address.replace(/%.*$/u, "")

/** Whether an IP address is asked only when that is allowed explicitly. */
export const isGuarded = (address: string): boolean =>
  guarded.check(withoutZone(address), Net.isIPv6(withoutZone(address)) ? "ipv6" : "ipv4")

const KINDS: Readonly<Record<SocketFault, NetErrorKind>> = {
  ...IN_SHORT,
  unroutable: "unreachable",
  protocol: "protocol"
}

export const hostPort = (host: string, port: number): string => `${Net.isIPv6(host) ? `[${host}]` : host}:${port}`

/** A failure of Node's as ours. */
export const failure = (target: string, stage: NetStage) => (thrown: NodeJS.ErrnoException): NetError => {
  const foremost = foremostOf(thrown)
  const error = foremost instanceof Error ? foremost : thrown
  const code = codeOf(error)
  return new NetError({
    target,
    stage,
    kind: KINDS[socketFaultOf(code)],
    code,
    // An error of several addresses has a code and no text.
    detail: error.message === "" ? code : error.message.includes(code) ? error.message : `${error.message} (${code})`
  })
}

/** The failure of whatever takes longer than `timeout`. */
export const tooLate = (target: string, stage: () => NetStage, timeout: Duration.Input) => () =>
  Effect.suspend(() =>
    Effect.fail(
      new NetError({
        target,
        stage: stage(),
        // Name servers that are silent are ours; of the other side nothing is known yet.
        kind: stage() === "name" ? "dns" : "timeout",
        detail: `no ${stage() === "answer" ? "answer" : stage() === "name" ? "address" : "connection"} within ${
          Duration.format(Duration.fromInputUnsafe(timeout))
        }`
      })
    )
  )

/** The addresses of a host, itself when it is one. Fails with `forbidden` when the rules leave out any of them. */
export const addressesOf = Effect.fnUntraced(
  function*(host: string, port: number, rules: AddressRules): Effect.fn.Return<
    ReadonlyArray<Dns.LookupAddress>,
    NetError
  > {
    const target = hostPort(host, port)
    const family = Net.isIP(withoutZone(host))
    const addresses = family !== 0
      ? [{ address: host, family }]
      : yield* Effect.callback<ReadonlyArray<Dns.LookupAddress>, NetError>((resume) => {
        Dns.lookup(host, { all: true }, (error, found) => {
          resume(
            error === null
              ? Effect.succeed(found)
              : Effect.fail(
                new NetError({
                  target,
                  stage: "name",
                  kind: "dns",
                  detail: `${host} has no address here: ${error.message}`
                })
              )
          )
        })
      })
    const refused = rules.allowLinkLocal === true ? undefined : addresses.find(({ address }) => isGuarded(address))
    if (refused !== undefined) {
      return yield* new NetError({
        target,
        stage: "name",
        kind: "forbidden",
        detail: `${refused.address} is link-local or a cloud's metadata address, which is not asked by default`
      })
    }
    return addresses
  }
)

export interface Connected {
  readonly socket: Net.Socket
  readonly address: string
  /** How long the look-up took. */
  readonly name: Duration.Duration
  readonly connect: Duration.Duration
}

/** A TCP connection for as long as the scope. `onStage` is told when the name is known. */
export const connect = Effect.fnUntraced(
  function*(
    options: AddressRules & { readonly host: string; readonly port: number },
    onStage: (stage: NetStage) => void
  ): Effect.fn.Return<Connected, NetError, Scope.Scope> {
    const { host, port } = options
    const target = hostPort(host, port)
    onStage("name")
    const [name, addresses] = yield* Effect.timed(addressesOf(host, port, options))
    onStage("connect")
    const dial = Effect.acquireRelease(
      Effect.sync(() =>
        new Net.Socket().setNoDelay(true).on("error", () => {
          // Whoever uses the socket listens too; without a listener Node would end the process.
        })
      ),
      (socket) => Effect.sync(() => socket.destroy())
    ).pipe(
      Effect.tap((socket) =>
        Effect.callback<void, NetError>((resume) => {
          socket.once("error", (error) => resume(Effect.fail(failure(target, "connect")(error))))
          socket.once("connect", () => resume(Effect.void))
          socket.connect({
            host,
            port,
            autoSelectFamilyAttemptTimeout: ADDRESS_ATTEMPT,
            // Just the addresses that were judged; with several, Node tries one after the other (RFC 8305).
            lookup: (_host, { all }, callback) => {
              const [first = { address: host, family: 4 }] = addresses
              if (all === true) callback(null, [...addresses])
              else callback(null, first.address, first.family)
            }
          })
        })
      )
    )
    const [took, socket] = yield* Effect.timed(dial)
    return { socket, address: socket.remoteAddress ?? "", name, connect: took }
  }
)
