/**
 * The agent's link: enrols when it must, dials, renews its certificate, and dials again when the link ends.
 */
import {
  Context,
  Data,
  DateTime,
  Duration,
  Effect,
  Layer,
  Option,
  type Redacted,
  Ref,
  Schedule,
  type Scope,
  Stream,
  SubscriptionRef
} from "effect"
import type { RpcGroup } from "effect/rpc"
import { Control } from "../../domain/rpc/Control.ts"
import type { Uplink } from "../../domain/rpc/Uplink.ts"
import { ClusterIdentity, type Identity, renewAt } from "../pki/ClusterIdentity.ts"
import * as JoinToken from "../pki/JoinToken.ts"
import type { CredentialStoreError, InvalidCredential, PinMismatch } from "../pki/PkiError.ts"
import { enrol, parseMaster } from "./enrol.ts"
import { LinkClosed, type MasterUnreachable, NotEnrolled, ProtocolFault, type Refusal } from "./LinkError.ts"
import * as LinkRpc from "./LinkRpc.ts"
import { watch } from "./liveness.ts"
import * as Mux from "./Mux.ts"
import * as Reconnect from "./reconnect.ts"
import { UplinkAndRenewal } from "./Renewal.ts"
import { HANDSHAKE_TIMEOUT, Transport } from "./Transport.ts"

/** The agent's procedures. */
export class ControlHandlers extends Context.Service<ControlHandlers, LinkRpc.Handlers<typeof Control>>()(
  "kubeprober/link/ControlHandlers"
) {}

/** A link as its agent sees it. */
export interface Session {
  readonly cluster: string
  /** The master's procedures. */
  readonly uplink: LinkRpc.LinkRpcClient<RpcGroup.Rpcs<typeof Uplink>>
  readonly closed: Effect.Effect<never, LinkClosed>
  /** Streams open now. */
  readonly streams: Effect.Effect<number>
}

/** Why there is no link. All of these may pass, so all are tried again. */
export type LinkFailure =
  | Refusal
  | MasterUnreachable
  | LinkClosed
  | NotEnrolled
  | PinMismatch
  | InvalidCredential
  | CredentialStoreError

export type LinkStatus = Data.TaggedEnum<{
  Connecting: {}
  Linked: { readonly session: Session; readonly since: DateTime.Utc }
  Waiting: { readonly because: LinkFailure; readonly until: DateTime.Utc }
}>
export const LinkStatus = Data.taggedEnum<LinkStatus>()

/** Whether the last link ended because the cluster has made another: a second agent of it works. */
export const isSuperseded = (status: LinkStatus): boolean =>
  status._tag === "Waiting" && status.because._tag === "LinkClosed" && status.because.reason._tag === "PeerLeft" &&
  status.because.reason.farewell._tag === "Superseded"

export interface LinkClientOptions {
  /** `https://host:port`. */
  readonly master: string
  /** Needed until the agent has a certificate, and when it has lost it. */
  readonly joinToken?: Redacted.Redacted<string> | undefined
}

export class LinkClient extends Context.Service<LinkClient, {
  readonly status: Effect.Effect<LinkStatus>
  /** The status now and every later one. */
  readonly changes: Stream.Stream<LinkStatus>
  /** Waits for a link. */
  readonly session: Effect.Effect<Session>
}>()("kubeprober/link/LinkClient") {
  /** Fails only for an address or a token that cannot be read; everything else is tried again. */
  static readonly layer = (options: LinkClientOptions) => Layer.effect(LinkClient, make(options))
}

const make = Effect.fnUntraced(function*(options: LinkClientOptions) {
  const identities = yield* ClusterIdentity
  const transport = yield* Transport
  const control = yield* ControlHandlers
  const master = yield* Effect.fromResult(parseMaster(options.master))
  const token = options.joinToken === undefined
    ? undefined
    : yield* Effect.fromResult(JoinToken.parse(options.joinToken))

  const status = yield* SubscriptionRef.make<LinkStatus>(LinkStatus.Connecting())
  /** The master no longer takes the certificate there is; a token may get another. */
  const outcast = yield* Ref.make(false)

  const join = Effect.fnUntraced(function*(token: JoinToken.JoinToken) {
    const request = yield* identities.request(token.cluster)
    return yield* identities.accept(request, yield* enrol(master, token, request))
  })

  const identify = Effect.gen(function*() {
    const current = yield* identities.current
    const mustJoin = yield* Ref.getAndSet(outcast, false)
    if (Option.isSome(current) && !(mustJoin && token !== undefined)) return current.value
    if (token === undefined) return yield* new NotEnrolled({ master: master.host })
    return yield* join(token)
  })

  const renewing = Effect.fnUntraced(function*(
    link: LinkRpc.LinkRpcClient<RpcGroup.Rpcs<typeof UplinkAndRenewal>>,
    first: Identity
  ) {
    const renew = Effect.gen(function*() {
      const request = yield* identities.request(first.cluster)
      return yield* identities.accept(request, yield* link.renew({ csr: request.csr }))
    })
    let identity = first
    let shortest = Duration.zero
    while (true) {
      const left = DateTime.distance(yield* DateTime.now, yield* renewAt(identity))
      yield* Effect.sleep(Duration.max(left, shortest))
      shortest = RENEWAL_PAUSE
      identity = yield* renew.pipe(
        Effect.tapError((error) => Effect.logWarning("the certificate was not renewed", error)),
        Effect.retry({ while: (error) => error._tag !== "LinkClosed", schedule: renewalRetries })
      )
    }
  })

  /** One link, from dialling to its end. */
  const link = Effect.gen(function*(): Effect.fn.Return<
    never,
    LinkFailure,
    Scope.Scope | Mux.StreamHandler
  > {
    const identity = yield* identify
    const connection = yield* transport.dial(master, identity.credential)
    const mux = yield* Mux.serve(connection, master.host)
    yield* Effect.forkScoped(watch(mux))
    const [serving, calling] = yield* Effect.all([mux.accept("control"), mux.accept("uplink")]).pipe(
      Effect.timeoutOrElse({
        duration: HANDSHAKE_TIMEOUT,
        orElse: () => {
          const reason = new ProtocolFault({ detail: "the master did not open its streams" })
          return Effect.fail(new LinkClosed({ peer: master.host, reason }))
        }
      })
    )
    yield* LinkRpc.serve(Control, Control.toLayer(control), serving, mux)
    const uplink = yield* LinkRpc.client(UplinkAndRenewal, calling, mux)
    yield* Effect.forkScoped(Effect.ignore(renewing(uplink, identity)))
    const session: Session = { cluster: identity.cluster, uplink, closed: mux.closed, streams: mux.streams }
    yield* SubscriptionRef.set(status, LinkStatus.Linked({ session, since: yield* DateTime.now }))
    yield* Effect.logInfo("linked").pipe(Effect.annotateLogs({ master: master.host, cluster: identity.cluster }))
    return yield* mux.closed
  })

  const forever = Effect.gen(function*() {
    let attempts = Reconnect.fresh
    while (true) {
      yield* SubscriptionRef.set(status, LinkStatus.Connecting())
      const because = yield* Effect.flip(Effect.scoped(link))
      const now = yield* DateTime.now
      const before = yield* SubscriptionRef.get(status)
      const linkedFor = before._tag === "Linked" ? DateTime.distance(before.since, now) : Duration.zero
      yield* Ref.set(outcast, isOutcast(because))
      const notBefore = retryAfter(because)
      const [counted, ceiling] = Reconnect.next(attempts, { linkedFor, refused: isRefused(because) })
      attempts = counted
      const wait = yield* Reconnect.delay(ceiling, notBefore)
      const until = DateTime.addDuration(now, wait)
      yield* SubscriptionRef.set(status, LinkStatus.Waiting({ because, until }))
      yield* Effect.logWarning(because.message).pipe(Effect.annotateLogs({ next: Duration.format(wait) }))
      yield* Effect.sleep(wait)
    }
  })
  yield* Effect.forkScoped(forever)

  const changes = SubscriptionRef.changes(status)
  return LinkClient.of({
    status: SubscriptionRef.get(status),
    changes,
    session: changes.pipe(
      Stream.filter(LinkStatus.$is("Linked")),
      Stream.map(({ session }) => session),
      Stream.runHead,
      Effect.flatMap(Effect.fromOption),
      Effect.orDie
    )
  })
})

/** With a clock far ahead of the master's every certificate looks overdue. */
const RENEWAL_PAUSE = Duration.minutes(1)

/** From 5 s to 5 min: a quarter of a day is left when renewal begins. */
const renewalRetries = Schedule.min([Schedule.exponential("5 seconds"), Schedule.spaced("5 minutes")]).pipe(
  Schedule.jittered
)

/** The master does not take the certificate, and will not until something is done there. */
const isOutcast = (failure: LinkFailure): boolean =>
  ["Revoked", "UnknownCluster", "CertificateRefused", "CertificateRequired"].includes(tagOf(failure))

/** What the failure is at heart: a farewell says as much as a refusal. */
const tagOf = (failure: LinkFailure): string =>
  failure._tag === "LinkClosed" && failure.reason._tag === "PeerLeft" ? failure.reason.farewell._tag : failure._tag

/** Trying again at once would end the same way. */
const isRefused = (failure: LinkFailure): boolean =>
  failure._tag === "LinkClosed"
    ? failure.reason._tag === "PeerLeft" && failure.reason.farewell._tag !== "Draining"
    : failure._tag !== "MasterUnreachable"

const retryAfter = (failure: LinkFailure): Duration.Duration | undefined => {
  if (failure._tag === "Overloaded") return failure.retryAfter
  if (failure._tag !== "LinkClosed" || failure.reason._tag !== "PeerLeft") return undefined
  const { farewell } = failure.reason
  return farewell._tag === "Draining" ? farewell.retryAfter : undefined
}
