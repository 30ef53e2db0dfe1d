/** Certificates that no agent would get in the ordinary way. */
import { Clock, Duration, Effect } from "effect"
import { CertificateAuthority } from "../../src/infra/pki/CertificateAuthority.ts"
import type { ClusterIdentity } from "../../src/infra/pki/ClusterIdentity.ts"

/** A certificate without enrolment, as only a master could make one. */
export const certify = Effect.fnUntraced(function*(
  identity: ClusterIdentity["Service"],
  name: { readonly cluster: string; readonly uid: string }
) {
  const authority = yield* CertificateAuthority
  const request = yield* identity.request(name.cluster)
  const certificate = yield* authority.signAgent({ csr: request.csr, ...name })
  return yield* identity.accept(request, { certificate, authorities: authority.certificate })
})

/** Runs the effect as if it were so much earlier. */
export const earlier = <A, E, R>(by: Duration.Input, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Clock.Clock, (clock) => {
    const offset = Duration.toMillis(by)
    const past: Clock.Clock = Object.assign(Object.create(clock), {
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() - offset,
      currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now - offset)
    })
    return Effect.provideService(effect, Clock.Clock, past)
  })
