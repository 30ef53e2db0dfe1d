/**
 * `app.tcp`: are ports open that must be, and closed that must be?
 *
 * A port that must be open is connected to; with `send` and `answer`, spoken to. Over UDP only an answer proves anything.
 */
import { Duration, Effect, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import { quote } from "../../domain/Redaction.ts"
import type { Finding } from "../../domain/Report.ts"
import type { NetError } from "../../infra/net/NetError.ts"
import { type Heard, Tcp } from "../../infra/net/Tcp.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { setting } from "../Setting.ts"
import * as Asking from "./asking.ts"
import { type Find, pattern } from "./matching.ts"

/** Of one check. */
const MAXIMUM_TARGETS = 50
const AT_ONCE = 10
const PAUSE = "500 millis"

const HostPort = Schema.String.check(
  Schema.isPattern(/^(\[[0-9a-fA-F:.]+\]|[^:\s[\]]+):\d{1,5}$/u, { message: "a port is written host:port" }),
  Schema.makeFilter((text) => Number(text.slice(text.lastIndexOf(":") + 1)) <= 65_535, {
    expected: "a port up to 65535"
  })
)

const Target = Schema.Struct({
  address: HostPort.annotate({ description: "Such as db.example.com:5432 or [fd00::1]:53." }),
  protocol: Schema.optionalKey(Schema.Literals(["tcp", "udp"]).annotate({ description: "tcp when absent." })),
  must: Schema.optionalKey(
    Schema.Literals(["open", "closed"]).annotate({
      description: "open when absent. Closed is a port that refuses, drops, or cannot be routed to from here."
    })
  ),
  send: Schema.optionalKey(
    Schema.String.check(Schema.isMaxLength(4096)).annotate({ description: "Text to send first." })
  ),
  sendHex: Schema.optionalKey(
    Schema.String.check(
      Schema.isPattern(/^([0-9a-fA-F]{2}){1,2048}$/u, { message: "bytes are written as pairs of hexadecimal digits" })
    )
      .annotate({ description: "Bytes to send first, instead of `send`." })
  ),
  answer: Schema.optionalKey(
    Schema.String.check(Schema.isMaxLength(1024)).annotate({
      description: "A regular expression (RE2) that what is heard must match; bytes count as Latin-1."
    })
  )
})
type Target = typeof Target.Type

export const TcpConfig = Schema.Struct({
  targets: setting(Schema.Array(Target).check(Schema.isMaxLength(MAXIMUM_TARGETS)), {
    default: [],
    description: "Ports, at most 50: [{address: \"db:5432\"}, {address: \"10.0.0.1:22\", must: closed}]."
  }),
  slow: setting(DurationString, { default: "500ms", description: "A connection that takes longer is a warning." }),
  timeout: setting(DurationString, { default: "3s", description: "How long a port has to connect and to answer." }),
  allowLinkLocal: setting(Schema.Boolean, {
    default: false,
    description: "Whether link-local addresses, and those where clouds serve credentials, may be meant to be open. " +
      "That they are closed is always asked."
  })
})
export type TcpConfig = typeof TcpConfig.Type

export const codes = {
  ...Codes.make({
    PORT_REFUSED: Codes.error(
      "A port that must be open refuses: nothing listens there.",
      "Look at the server, and at the Service or load balancer before it."
    ),
    PORT_SILENT: Codes.error(
      "A port that must be open did not connect, or did not answer, in time, or nobody is at its address. A firewall that drops " +
        "looks the same.",
      "Look at the load of the server, then at firewalls and network policies between the prober and it."
    ),
    PORT_CUT: Codes.error(
      "A port that must be open cut the connection before it said what is expected.",
      "Read the log of the server at the time of the run."
    ),
    PORT_ANSWER: Codes.error(
      "A port is open and says something else than expected.",
      "Check that the right server listens there."
    ),
    PORT_OPEN: Codes.error(
      "A port that must be closed is open.",
      "Close it: in the server, in the firewall, or by a network policy."
    ),
    PORT_SLOW: Codes.warn(
      "A port is open and took longer than allowed to connect; over UDP, to answer.",
      "Look at the load of the server and at the network between the prober and it."
    )
  }),
  ...Asking.askingCodes
}

/** What trying one port came to. */
export type Tried =
  | { readonly _tag: "Heard"; readonly heard: Heard }
  | { readonly _tag: "Failure"; readonly error: NetError }

const subjectOf = ({ address, protocol = "tcp" }: Target) => ({ kind: "Port", name: `${protocol}://${address}` })

const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1")

const judgeClosed = (target: Target, tried: Tried): ReadonlyArray<Finding> => {
  const subject = subjectOf(target)
  if (tried._tag === "Heard") {
    return [codes.PORT_OPEN({ message: `${subject.name} is open and must be closed`, subject })]
  }
  const { error } = tried
  const about = { message: `${subject.name}: ${error.message}`, subject }
  switch (error.kind) {
    case "refused":
    case "timeout":
    case "unreachable":
      return []
    case "reset":
      // A connection that stood was open.
      return error.stage === "connect"
        ? []
        : [codes.PORT_OPEN({ message: `${subject.name} is open and must be closed; it cut the connection`, subject })]
    default:
      return [Asking.notAsked(error, about) ?? checkerCodes.CHECKER_FAILED(about)]
  }
}

const judgeOpen = (
  target: Target,
  find: Find | undefined,
  config: TcpConfig,
  tried: Tried,
  limits: Hysteresis.Limits
): ReadonlyArray<Finding> => {
  const subject = subjectOf(target)
  if (tried._tag === "Failure") {
    const { error } = tried
    const about = { message: `${subject.name}: ${error.message}`, subject }
    const ours = Asking.notAsked(error, about)
    if (ours !== undefined) return [ours]
    const code = error.kind === "refused"
      ? codes.PORT_REFUSED
      : error.kind === "timeout"
      ? codes.PORT_SILENT
      : codes.PORT_CUT
    return [code({ ...about, evidence: { stage: error.stage } })]
  }
  const { heard: { address, received, took } } = tried
  const millis = Math.round(Duration.toMillis(took))
  const evidence = { address, millis }
  if (find !== undefined && find(latin1(received)) === undefined) {
    return received.length === 0
      ? [codes.PORT_SILENT({ message: `${subject.name} is open and says nothing`, subject, evidence })]
      : [codes.PORT_ANSWER({
        message: `${subject.name} is open and what it says does not match /${target.answer ?? ""}/`,
        subject,
        evidence: { ...evidence, heard: quote(latin1(received), 100) }
      })]
  }
  return limits.takesLonger(took, config.slow, { code: codes.PORT_SLOW, subject })
    ? [codes.PORT_SLOW({
      message: `${subject.name} took ${millis} ms (${
        Hysteresis.text(
          `${Math.round(Duration.toMillis(config.slow))} ms`,
          Duration.isGreaterThan(took, config.slow)
        )
      })`,
      subject,
      evidence
    })]
    : []
}

/** The verdict on one port. */
export const judge =
  (config: TcpConfig, limits: Hysteresis.Limits = Hysteresis.strict) =>
  (target: Target, find: Find | undefined, tried: Tried) =>
    target.must === "closed" ? judgeClosed(target, tried) : judgeOpen(target, find, config, tried, limits)

const bytesOf = ({ send, sendHex }: Target): Uint8Array | undefined =>
  sendHex !== undefined ? Buffer.from(sendHex, "hex") : send === undefined ? undefined : Buffer.from(send)

const judgeTarget = Effect.fnUntraced(function*(target: Target, config: TcpConfig) {
  const tcp = yield* Tcp
  const limits = yield* Hysteresis.limits
  const closed = target.must === "closed"
  const find = target.answer === undefined ? undefined : yield* pattern(target.answer)
  const at = target.address.lastIndexOf(":")
  const conversation = {
    host: target.address.slice(0, at).replace(/^\[(.*)\]$/u, "$1"),
    port: Number(target.address.slice(at + 1)),
    timeout: config.timeout,
    send: bytesOf(target),
    enough: find === undefined ? undefined : (received: Uint8Array) => find(latin1(received)) !== undefined,
    // To find that a port is closed nothing is asked of whoever is there.
    allowLinkLocal: config.allowLinkLocal || closed
  }
  const once = (target.protocol === "udp" ? tcp.datagram(conversation) : tcp.connect(
    closed ? { ...conversation, send: undefined, enough: undefined } : conversation
  )).pipe(
    Effect.match({
      onSuccess: (heard): Tried => ({ _tag: "Heard", heard }),
      onFailure: (error): Tried => ({ _tag: "Failure", error })
    }),
    Effect.map((tried) => judge(config, limits)(target, find, tried))
  )
  const first = yield* once
  // One lost packet is no fault; an open port that must be closed is one at once.
  return first.some(({ status }) => status === "ERROR") && !closed
    ? yield* Effect.delay(once, PAUSE)
    : first
})

const run = Effect.fnUntraced(function*(config: TcpConfig) {
  if (config.targets.length === 0) {
    return Outcome.make("", [
      checkerCodes.NOT_APPLICABLE({ message: "no `targets` are configured, so there is nothing to ask" })
    ])
  }
  const twoPayloads = config.targets.find(({ send, sendHex }) => send !== undefined && sendHex !== undefined)
  if (twoPayloads !== undefined) {
    return yield* checkerCodes.INVALID_CONFIG.fail({
      message: `target ${twoPayloads.address} has both \`send\` and \`sendHex\`; leave one out`
    })
  }
  const findings = yield* Effect.forEach(config.targets, (target) => judgeTarget(target, config), {
    concurrency: AT_ONCE
  })
  const closed = config.targets.filter(({ must }) => must === "closed").length
  return Outcome.make(
    `${config.targets.length - closed} ports are open and ${closed} closed, as they must be`,
    findings.flat()
  )
})

export const tcp = Probe.make("app.tcp", {
  asks: "configured",
  layer: "application",
  proves: "Ports that must be open are, and answer as expected; ports that must be closed are.",
  writes: "nothing",
  costs: "One connection to each port (two when it fails), and none to the API.",
  needs: [],
  codes,
  config: TcpConfig,
  timeout: "60 seconds",
  run
})
