/** `net.pairs`: from a pod, other pods that echo (`Responder`): over TCP and UDP, little and much. */
import { Clock, Duration, Effect, Option, Schedule, Schema } from "effect"
import { Links } from "../../../infra/net/Links.ts"
import type { NetError } from "../../../infra/net/NetError.ts"
import { type Heard, Tcp } from "../../../infra/net/Tcp.ts"
import { percentile } from "../../Percentile.ts"
import * as Task from "../Task.ts"

const Input = Schema.Struct({
  /** IP addresses. */
  targets: Schema.Array(Schema.String).check(Schema.isMaxLength(50)),
  port: Schema.Int,
  /** Small ones to each target. */
  datagrams: Schema.Int.check(Schema.isBetween({ minimum: 10, maximum: 1000 }))
})

/**
 * One target, in the order of the input: whether a TCP connection echoed little, whether one echoed much, small datagrams
 * sent and echoed, whether a datagram of the largest size was echoed, the 99th percentile of small datagrams' times in
 * milliseconds, and the kind of the last failure. A tuple, because a pod's last word is short.
 */
const Pair = Schema.Tuple([
  Schema.Boolean,
  Schema.Boolean,
  Schema.Int,
  Schema.Int,
  Schema.Boolean,
  Schema.Finite,
  Schema.String
])

const Output = Schema.Struct({
  pairs: Schema.Array(Pair),
  /** Bytes of the largest datagram's packet; what the others had to carry in one piece. */
  mtu: Schema.Int
})
export type NetPairs = typeof Output.Type

/** As a request of a health check: it fits any packet. */
const LITTLE = 32

/** More than any packet, of jumbo frames too (9,000), and more than the 10 packets sent before the first answer (RFC 6928). */
const MUCH = 65_536

const PATIENCE = Duration.seconds(2)

/** A SYN that is lost is sent again after 1 s (RFC 6298), so each try has two. A route to a new node may take this long. */
const KNOCK_FOR = Duration.seconds(9)

/** Enough for the lost of a connection to be sent again; packets too large for the path are lost each time. */
const MUCH_WITHIN = Duration.seconds(4)

const TRIES = 3

/** The first of a size may be lost while the sender learns the path's (RFC 1191). */
const LARGEST_TRIES = 4

/** Small datagrams on their way to one target at a time, far below what a socket's queue holds. */
const AT_ONCE = 10

const TARGETS_AT_ONCE = 25

/** When the pod's own interface cannot be looked at: fits a VXLAN in an Ethernet (1,450). */
const USUAL_MTU = 1450

/** Headers of IP and UDP: RFC 791 and RFC 8200 without options, RFC 768. */
const headersOf = (address: string) => (address.includes(":") ? 40 : 20) + 8

/** The largest payload of UDP over IPv4 (RFC 768); a loopback's interface would allow more. */
const MOST = 65_507

const bytesOf = (size: number): Uint8Array => Uint8Array.from({ length: size }, (_, index) => index % 251)

/** The echo of at least this much of it has come back. */
const isEcho = (sent: Uint8Array, { received }: Heard, least = sent.length) =>
  received.length >= least && Buffer.compare(sent.subarray(0, received.length), received) === 0

export const netPairs = Task.make("net.pairs", {
  input: Input,
  output: Output,
  timeout: "100 seconds",
  run: Effect.fnUntraced(function*({ datagrams, port, targets }: typeof Input.Type) {
    const tcp = yield* Tcp
    const mtu = Option.getOrElse(yield* (yield* Links).mtu, () => USUAL_MTU)
    const little = bytesOf(LITTLE)
    const much = bytesOf(MUCH)

    const pair = Effect.fnUntraced(function*(host: string) {
      let why = ""
      /** The echo, or nothing. */
      const heard = (sent: Uint8Array, asked: Effect.Effect<Heard, NetError>, least?: number) =>
        Effect.match(asked, {
          onSuccess: (answer) => {
            const same = isEcho(sent, answer, least)
            if (!same) why = "incomplete"
            return same ? Option.some(answer.took) : Option.none()
          },
          onFailure: ({ kind }) => {
            why = kind
            return Option.none()
          }
        })
      const stream = (send: Uint8Array, timeout: Duration.Duration, least?: number) =>
        heard(send, tcp.connect({ host, port, send, enough: ({ length }) => length >= send.length, timeout }), least)
      const datagram = (send: Uint8Array) => heard(send, tcp.datagram({ host, port, send, timeout: PATIENCE }))
      const batch = (times: number) =>
        Effect.map(
          Effect.forEach(Array.from({ length: times }), () => datagram(little), { concurrency: AT_ONCE }),
          (answers) => answers.flatMap((took) => Option.isSome(took) ? [Duration.toMillis(took.value)] : [])
        )

      const until = (yield* Clock.currentTimeMillis) + Duration.toMillis(KNOCK_FOR)
      let tries = 0
      const connects = Option.isSome(
        yield* stream(little, PATIENCE).pipe(
          Effect.tap(() => Effect.sync(() => tries++)),
          Effect.repeat({
            schedule: Schedule.spaced("1 second"),
            until: (took) =>
              Effect.map(
                Clock.currentTimeMillis,
                (now) => Option.isSome(took) || (tries >= TRIES && now >= until)
              )
          })
        )
      )
      // To where nothing goes, a few tell as much as hundreds.
      let times = Array.from(yield* Effect.repeat(batch(AT_ONCE), { times: 1, until: ({ length }) => length > 0 }))
      let sent = AT_ONCE
      if (times.length > 0) {
        times = times.concat(yield* batch(datagrams - AT_ONCE))
        sent = datagrams
        if (times.length < sent) {
          // What was lost by a burst of somebody's is not lost again.
          const again = yield* batch(datagrams)
          if (again.length === datagrams) times = Array.from(again)
          else {
            times = times.concat(again)
            sent += datagrams
          }
        }
      }
      const largest = bytesOf(Math.min(mtu - headersOf(host), MOST))
      const again = (times: number) => ({ times: times - 1, until: Option.isSome<Duration.Duration> })
      const fits = times.length > 0 &&
        Option.isSome(yield* Effect.repeat(datagram(largest), again(LARGEST_TRIES)))
      // Two packets' worth is enough: a link that is only slow or busy lets that through, and one of the wrong size nothing.
      const carries = connects && Option.isSome(yield* Effect.repeat(stream(much, MUCH_WITHIN, 2 * mtu), again(TRIES)))
      return [
        connects,
        carries,
        sent,
        times.length,
        fits,
        Math.round(percentile(times, 99) * 10) / 10,
        connects && carries && times.length === sent && fits ? "" : why
      ] as const
    })
    return { pairs: yield* Effect.forEach(targets, pair, { concurrency: TARGETS_AT_ONCE }), mtu }
  })
})
