/**
 * Effect RPC over one stream of a link.
 *
 * A call ends with its answer or with {@link LinkClosed}, never by interruption or by waiting for ever: RPC itself reports
 * a peer that stops as an interruption, which callers could not tell from their own.
 */
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import { Cause, Duration, Effect, Layer, Predicate, Schedule, type Scope, Stream } from "effect"
import * as NetAddress from "effect/net/NetAddress"
import { type Rpc, RpcClient, type RpcGroup, RpcSerialization, RpcServer } from "effect/rpc"
import { Socket, SocketServer } from "effect/socket"
import type { Duplex } from "node:stream"
import { type LinkClosed, ProtocolFault } from "./LinkError.ts"
import type { Mux } from "./Mux.ts"

/** Calls one end works on at a time; more wait. */
const CONCURRENCY = 64

/** The largest message. A delivery of 500 records with their evidence is a tenth of that. */
const MAX_MESSAGE = 4 << 20

const serialization = RpcSerialization.layerSchemaBinary({ maxFrameSize: MAX_MESSAGE })

/** Calls of a group that fail with `LinkClosed` when the link ends. */
export type LinkRpcClient<Rpcs extends Rpc.Any> = RpcClient.RpcClient<Rpcs, LinkClosed>

/** One function for each procedure of a group, in need of nothing. */
export type Handlers<Group extends RpcGroup.Any> = {
  readonly [Current in RpcGroup.Rpcs<Group> as Current["_tag"]]: Rpc.ToHandlerFn<Current, never>
}

/** Serves `group` on the stream until the link ends. Handlers come from the layer. */
export const serve = Effect.fnUntraced(function*<Rpcs extends Rpc.Any, R>(
  group: RpcGroup.RpcGroup<Rpcs>,
  handlers: Layer.Layer<Rpc.ToHandler<Rpcs>, never, R>,
  stream: Duplex,
  mux: Mux
) {
  const socket = yield* NodeSocket.fromDuplex(Effect.succeed(stream))
  const listening = SocketServer.SocketServer.of({
    // Asked for by the type and read by nobody.
    address: NetAddress.unixPathAddress("link"),
    run: (handler) =>
      handler(socket).pipe(
        Effect.ignoreCause,
        Effect.andThen(Effect.ignore(streamBroke(mux))),
        Effect.andThen(Effect.never)
      )
  })
  yield* Layer.build(
    // A defect of one call must not end the others; spans cost half the calls a second.
    RpcServer.layer(group, { disableFatalDefects: true, disableTracing: true, concurrency: CONCURRENCY }).pipe(
      Layer.provide(handlers),
      Layer.provide(RpcServer.layerProtocolSocketServer),
      Layer.provide(Layer.succeed(SocketServer.SocketServer, listening)),
      Layer.provide(serialization)
    )
  )
})

/** A client of `group` on the stream, for as long as the scope. */
export const client = Effect.fnUntraced(function*<Rpcs extends Rpc.Any>(
  group: RpcGroup.RpcGroup<Rpcs>,
  stream: Duplex,
  mux: Mux
): Effect.fn.Return<LinkRpcClient<Rpcs>, never, Scope.Scope | Rpc.MiddlewareClient<Rpcs>> {
  const socket = yield* NodeSocket.fromDuplex(Effect.succeed(stream))
  const protocol = yield* RpcClient.makeProtocolSocket({
    // The link has its own liveness and reconnects as a whole.
    pingInterval: Duration.infinity,
    retryPolicy: Schedule.recurs(0)
  }).pipe(Effect.provideService(Socket.Socket, socket), Effect.provide(serialization))
  const calls = yield* RpcClient.make(group, { flatten: true, disableTracing: true }).pipe(
    Effect.provideService(RpcClient.Protocol, protocol)
  )
  const call: (tag: string, payload: unknown, options: unknown) => unknown = calls as never
  const guarded = Array.from(group.requests.keys(), (tag) => [
    tag,
    (payload: unknown, options: unknown) => guard(call(tag, payload, options), mux)
  ])
  // The same methods with `LinkClosed` in place of `RpcClientError`, which TypeScript cannot follow through the names.
  return Object.fromEntries(guarded) as LinkRpcClient<Rpcs>
})

const guard = (call: unknown, mux: Mux): unknown =>
  Stream.isStream(call)
    ? Stream.interruptWhen(Stream.catchCause(call, (cause) => Stream.fromEffect(explain(cause, mux))), mux.closed)
    : Effect.isEffect(call)
    ? Effect.raceFirst(mux.closed, Effect.catchCause(call, (cause) => explain(cause, mux)))
    : call

/** How long the link may take to notice what one of its streams noticed. */
const NOTICE = "1 second"

/** The link's own reason for its end, when it has one; a link without its RPC is of no use. */
const streamBroke = (mux: Mux): Effect.Effect<never, LinkClosed> =>
  Effect.timeoutOrElse(mux.closed, {
    duration: NOTICE,
    orElse: () =>
      Effect.andThen(mux.abandon(new ProtocolFault({ detail: "an RPC stream of the link broke" })), mux.closed)
  })

const explain = (cause: Cause.Cause<unknown>, mux: Mux): Effect.Effect<never, unknown> =>
  Cause.hasInterruptsOnly(cause) || cause.reasons.some(isBroken) ? streamBroke(mux) : Effect.failCause(cause)

const isBroken = (reason: Cause.Reason<unknown>): boolean =>
  reason._tag === "Fail" && Predicate.isTagged(reason.error, "RpcClientError")
