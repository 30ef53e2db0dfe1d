/** `dns.lookups`: names asked from a pod, of certain servers and as programs ask, several times each. */
import { Clock, Duration, Effect, Result, Schema } from "effect"
import { quote } from "../../../domain/Redaction.ts"
import { Dns } from "../../../infra/net/Dns.ts"
import { percentile } from "../../Percentile.ts"
import * as Stopwatch from "../../Stopwatch.ts"
import * as Task from "../Task.ts"

/** Stands for the cluster's domain, which the pod's own resolv.conf tells. */
export const CLUSTER_DOMAIN = "%CLUSTER_DOMAIN%"

/** What Kubernetes calls it unless told otherwise (kubelet's `clusterDomain`). */
const DEFAULT_DOMAIN = "cluster.local"

/** Answers that are what was asked for: an address, or that there is no such name. */
const Wanted = Schema.Literals(["address", "nothing"])

const Lookup = Schema.Struct({
  /** By which the result is known. */
  id: Schema.String,
  name: Schema.String,
  /** Absent: as programs of the pod ask. */
  server: Schema.optionalKey(Schema.String),
  /** Of which family its addresses are: what a server is asked for. Programs take either. `A` when absent. */
  type: Schema.optionalKey(Schema.Literals(["A", "AAAA"])),
  port: Schema.Int,
  protocol: Schema.Literals(["udp", "tcp"]),
  wanted: Wanted,
  /** Asked until it is answered as wanted, for this many milliseconds at most; absent: asked `tries` times. */
  untilMillis: Schema.optionalKey(Schema.Finite),
  /** Asked so many times instead, spread over a second or more and when nothing else is asked: how long answers take. */
  timed: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100 })))
})
export type Lookup = typeof Lookup.Type

const Input = Schema.Struct({
  lookups: Schema.Array(Lookup).check(Schema.isMaxLength(40)),
  tries: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 20 })),
  timeoutMillis: Schema.Finite
})

const Looked = Schema.Struct({
  id: Schema.String,
  good: Schema.Int,
  tries: Schema.Int,
  /** Of answers as wanted; of what is timed without the time in which the pod itself was too busy to read them. */
  p50Millis: Schema.optionalKey(Schema.Finite),
  p95Millis: Schema.Finite,
  /** Of the last try that was not answered as wanted. */
  why: Schema.optionalKey(Schema.String)
})
export type Looked = typeof Looked.Type

/** The cluster's domain: the search list of a pod begins with `NAMESPACE.svc.DOMAIN`. */
export const domainOf = (search: ReadonlyArray<string>): string =>
  search.find((domain) => domain.startsWith("svc."))?.slice("svc.".length) ?? DEFAULT_DOMAIN

/** Between the tries of what is asked until it is there. */
const AGAIN_AFTER = "250 millis"

/** Between the tries of what is timed, so that one moment in which the machine was busy is one or two of them. */
const SPREAD = "50 millis"

/** No more of what is timed is asked after this long, or after so many tries without an answer, which others tell. */
const TIMED_FOR = Duration.seconds(15)
const MOST_UNANSWERED = 2

/** Keeps the result in a termination message. */
const MAX_WHY = 80

/** One try. */
interface Once {
  /** Nothing when it was answered as wanted; else why not. */
  readonly why?: string | undefined
  /** Nothing is said by it unless it was answered. */
  readonly millis: number
}

const lookedOf = (id: string, results: ReadonlyArray<Once>): Looked => {
  const why = results.findLast((result) => result.why !== undefined)?.why
  const answered = results.filter((result) => result.why === undefined).map(({ millis }) => millis)
  return {
    id,
    good: answered.length,
    tries: results.length,
    p50Millis: percentile(answered, 50),
    p95Millis: percentile(answered, 95),
    ...(why === undefined ? {} : { why: quote(why, MAX_WHY) })
  }
}

export const dnsLookups = Task.make("dns.lookups", {
  input: Input,
  output: Schema.Struct({ looked: Schema.Array(Looked) }),
  timeout: "60 seconds",
  run: Effect.fnUntraced(function*({ lookups, timeoutMillis, tries }: typeof Input.Type) {
    const dns = yield* Dns
    const domain = domainOf((yield* dns.resolver).search)
    const timeout = Duration.millis(timeoutMillis)

    const once = Effect.fnUntraced(function*(lookup: Lookup): Effect.fn.Return<Once> {
      const name = lookup.name.replace(CLUSTER_DOMAIN, domain)
      const asked = lookup.server === undefined
        ? Effect.map(dns.system(name, timeout), ({ addresses, took }) => ({ code: "NOERROR", addresses, took }))
        : dns.ask({ ...lookup, server: lookup.server, name, type: lookup.type ?? "A", timeout })
      const result = yield* Effect.result(asked)
      if (Result.isFailure(result)) return { why: `${result.failure.kind}: ${result.failure.detail}`, millis: 0 }
      const { addresses, code, took } = result.success
      const millis = Duration.toMillis(took)
      if (lookup.wanted === "nothing") {
        return addresses.length === 0 && code === "NXDOMAIN"
          ? { millis }
          : { why: addresses.length > 0 ? `answered ${addresses[0]}` : `answered ${code}`, millis }
      }
      return addresses.length > 0 ? { millis } : { why: `answered ${code} without an address`, millis }
    })

    const look = Effect.fnUntraced(function*(lookup: Lookup): Effect.fn.Return<Looked> {
      if (lookup.untilMillis !== undefined) {
        const last = yield* once(lookup).pipe(
          Effect.tap((answer) => answer.why === undefined ? Effect.void : Effect.sleep(AGAIN_AFTER)),
          Effect.repeat({ until: ({ why }) => why === undefined }),
          Effect.timeoutOrElse({ duration: lookup.untilMillis, orElse: () => once(lookup) })
        )
        return {
          id: lookup.id,
          good: last.why === undefined ? 1 : 0,
          tries: 1,
          p95Millis: last.millis,
          ...(last.why === undefined ? {} : { why: quote(last.why, MAX_WHY) })
        }
      }
      return lookedOf(lookup.id, yield* Effect.forEach(Array.from({ length: tries }), () => once(lookup)))
    })

    const time = Effect.fnUntraced(function*(lookup: Lookup, times: number) {
      const until = (yield* Clock.currentTimeMillis) + Duration.toMillis(TIMED_FOR)
      const results: Array<Once> = []
      const unanswered = () => results.filter(({ why }) => why !== undefined).length
      while (
        results.length < times && unanswered() < MOST_UNANSWERED && (yield* Clock.currentTimeMillis) < until
      ) {
        if (results.length > 0) yield* Effect.sleep(SPREAD)
        const [took, { why }] = yield* Stopwatch.timed(once(lookup))
        results.push({ millis: Duration.toMillis(took), why })
      }
      return lookedOf(lookup.id, results)
    })

    const looked = yield* Effect.forEach(lookups.filter(({ timed }) => timed === undefined), look, { concurrency: 8 })
    const timed = yield* Effect.forEach(
      lookups.flatMap(({ timed, ...lookup }) => timed === undefined ? [] : [{ lookup, timed }]),
      ({ lookup, timed }) => time(lookup, timed)
    )
    return { looked: [...looked, ...timed] }
  })
})
