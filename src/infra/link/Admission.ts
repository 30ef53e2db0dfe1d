/**
 * How many links a master takes on, and how fast: after a restart a whole fleet dials at once, and a TLS handshake costs
 * 2 ms of a core. Those sent away are told when to come back, at different times.
 */
import { Context, Duration, Effect, Layer, Random } from "effect"
import { RateLimiter } from "effect/persistence"
import { Overloaded } from "../../domain/rpc/Uplink.ts"

/** What one master takes. */
export interface AdmissionLimits {
  /** New links a second, of all clusters. */
  readonly linksPerSecond: number
  /** New links a minute of one cluster; an agent in trouble takes two or three. */
  readonly linksPerMinuteOfOne: number
  /** Links at a time. */
  readonly links: number
  /** Enrolments a second. */
  readonly enrolmentsPerSecond: number
}

export const defaultLimits: AdmissionLimits = {
  linksPerSecond: 200,
  linksPerMinuteOfOne: 30,
  links: 10_000,
  enrolmentsPerSecond: 20
}

export class Admission extends Context.Service<Admission, {
  readonly limits: AdmissionLimits
  /** A new link, before anything is known of it; `links` is how many there are. */
  readonly link: (links: number) => Effect.Effect<void, Overloaded>
  /** The new link of a cluster that was authenticated. */
  readonly linkOf: (cluster: string) => Effect.Effect<void, Overloaded>
  readonly enrolment: Effect.Effect<void, Overloaded>
}>()("kubeprober/link/Admission") {
  static readonly layer = (limits: AdmissionLimits = defaultLimits) =>
    Layer.effect(Admission, make(limits)).pipe(
      Layer.provide(RateLimiter.layer),
      Layer.provide(RateLimiter.layerStoreMemory)
    )
}

const make = Effect.fnUntraced(function*(limits: AdmissionLimits) {
  const limiter = yield* RateLimiter.RateLimiter

  const overloaded = Effect.gen(function*() {
    const seconds = yield* Random.nextIntBetween(1, 10)
    return yield* new Overloaded({ retryAfter: Duration.seconds(seconds) })
  })

  const take = (key: string, limit: number, window: Duration.Input) =>
    limiter.consume({ algorithm: "token-bucket", onExceeded: "fail", key, limit, window }).pipe(
      Effect.catch(() => overloaded),
      Effect.asVoid
    )

  return Admission.of({
    limits,
    link: (links) => links >= limits.links ? overloaded : take("links", limits.linksPerSecond, "1 second"),
    linkOf: (cluster) => take(`links of ${cluster}`, limits.linksPerMinuteOfOne, "1 minute"),
    enrolment: take("enrolments", limits.enrolmentsPerSecond, "1 second")
  })
})
