/**
 * Many streams on one connection, by HTTP/2: the master is the client, the agent the server.
 *
 * Only an HTTP/2 client opens streams, so the master opens them all: `control` and `uplink`, which stay open and carry
 * RPC, and one for each request to the cluster. HTTP/2 gives each its own flow control, half-close, reset and ping.
 */
import { Context, Data, Deferred, Effect, Exit, FiberSet, Latch, Layer, Option, Schema, type Scope } from "effect"
import * as Http2 from "node:http2"
import type { Duplex } from "node:stream"
import { type CloseReason, Farewell, Left, LinkClosed, PeerGone, PeerLeft, ProtocolFault } from "./LinkError.ts"
import type { Connection } from "./Transport.ts"

/** The RPC streams: on `control` the agent serves, on `uplink` the master. */
export type RpcStream = "control" | "uplink"

/** What a stream nobody reads may hold. The default of 64 KiB gives 0.7 MiB/s at 50 ms. */
export const STREAM_WINDOW = 1 << 20

/** What all streams together may have in flight. Node leaves it at 64 KiB, on both ends, whatever the streams have. */
const SESSION_WINDOW = 16 << 20

/** Streams at a time; more wait at the master. With {@link STREAM_WINDOW} this bounds what a link can hold. */
export const MAX_STREAMS = 512

const settings: Http2.Settings = {
  enablePush: false,
  initialWindowSize: STREAM_WINDOW,
  maxConcurrentStreams: MAX_STREAMS,
  maxHeaderListSize: 64 << 10
}

const options = {
  settings,
  peerMaxConcurrentStreams: MAX_STREAMS,
  /** MB. At the default of 10 Node resets streams when a few stall. */
  maxSessionMemory: 64,
  /** Streams reset a second: watches end that way. The default is 33, in bursts of 1,000; more closes the session. */
  streamResetRate: 1000,
  streamResetBurst: 10_000
}

/** One end of a link's streams. */
export interface Mux {
  /** Fails once the link is over, with the reason; race with it what must not outlive the link. */
  readonly closed: Effect.Effect<never, LinkClosed>
  /** Answered by the peer. Never fails: without an answer it does not end. */
  readonly ping: Effect.Effect<void>
  /** Bytes received so far. */
  readonly received: Effect.Effect<number>
  /** Streams open now, the RPC streams among them. */
  readonly streams: Effect.Effect<number>
  /** Ends the link at once: the peer is gone or at fault. */
  readonly abandon: (reason: CloseReason) => Effect.Effect<void>
  /** Tells the peer why, then ends the link; does not wait for a peer that does not read. */
  readonly leave: (farewell: Farewell) => Effect.Effect<void>
}

/** The peer reset a stream, or never answered it. */
export class StreamReset extends Data.TaggedError("StreamReset")<{ readonly path: string; readonly code: number }> {
  override get message(): string {
    return `${this.path} was reset by the agent (HTTP/2 error ${this.code})`
  }
}

/** A request on its way through a link. */
export interface Exchange {
  /** Write the body to it and end it; read the answer's body from it. */
  readonly stream: Http2.ClientHttp2Stream
  readonly response: Effect.Effect<Http2.IncomingHttpHeaders & Http2.IncomingHttpStatusHeader, LinkClosed | StreamReset>
}

/** The master's end. */
export interface MasterMux extends Mux {
  readonly open: (name: RpcStream) => Effect.Effect<Duplex, LinkClosed>
  /** Sends a request to the cluster. The stream is reset when the scope ends before it. */
  readonly request: (headers: Http2.OutgoingHttpHeaders) => Effect.Effect<Exchange, LinkClosed, Scope.Scope>
}

/** The agent's end. */
export interface AgentMux extends Mux {
  /** Waits until the master has opened the stream. */
  readonly accept: (name: RpcStream) => Effect.Effect<Duplex, LinkClosed>
}

/** What an agent does with a request of its master: every stream that is not RPC. */
export class StreamHandler extends Context.Service<StreamHandler, {
  /** Answer on the stream. It is interrupted when the stream closes, and reset when it fails. */
  readonly handle: (
    stream: Http2.ServerHttp2Stream,
    headers: Http2.IncomingHttpHeaders
  ) => Effect.Effect<void, never, Scope.Scope>
}>()("kubeprober/link/StreamHandler") {
  /** Answers 501 to everything. */
  static readonly layerNone = Layer.succeed(
    StreamHandler,
    StreamHandler.of({ handle: (stream) => Effect.sync(() => stream.respond({ ":status": 501 }, { endStream: true })) })
  )
}

const pathOf = (name: RpcStream): string => `/rpc/${name}`

/** The master's end over a connection. It ends with the scope. */
export const connect = Effect.fnUntraced(function*(
  connection: Connection,
  peer: string
): Effect.fn.Return<MasterMux, LinkClosed, Scope.Scope> {
  const session = Http2.connect("http://agent", { ...options, createConnection: () => connection.duplex })
  session.once("remoteSettings", () => session.setLocalWindowSize(SESSION_WINDOW))
  const { closed, isOver, mux, track } = yield* supervise(session, connection, peer)

  const start = (headers: Http2.OutgoingHttpHeaders): Effect.Effect<Http2.ClientHttp2Stream, LinkClosed> =>
    Effect.suspend(() => isOver() ? closed : Effect.succeed(track(session.request(headers, { endStream: false }))))

  const request = Effect.fnUntraced(function*(headers: Http2.OutgoingHttpHeaders) {
    const stream = yield* Effect.acquireRelease(start(headers), (stream) =>
      Effect.sync(() => {
        if (!stream.closed) stream.close(Http2.constants.NGHTTP2_CANCEL)
      }))
    const answered = yield* Deferred.make<Http2.IncomingHttpHeaders & Http2.IncomingHttpStatusHeader, StreamReset>()
    stream.once("response", (response) => Deferred.doneUnsafe(answered, Exit.succeed(response)))
    stream.once("close", () => {
      const path = String(headers[":path"] ?? "/")
      Deferred.doneUnsafe(answered, Exit.fail(new StreamReset({ path, code: stream.rstCode ?? 0 })))
    })
    return { stream, response: Effect.raceFirst(closed, Deferred.await(answered)) }
  })

  return { ...mux, request, open: (name) => start({ ":method": "POST", ":path": pathOf(name) }) }
})

/** The agent's end over a connection. It ends with the scope. */
export const serve = Effect.fnUntraced(function*(
  connection: Connection,
  peer: string
): Effect.fn.Return<AgentMux, never, Scope.Scope | StreamHandler> {
  const { handle } = yield* StreamHandler
  const run = yield* FiberSet.makeRuntime<never>()
  const rpc: Readonly<Record<RpcStream, Deferred.Deferred<Duplex>>> = {
    control: yield* Deferred.make<Duplex>(),
    uplink: yield* Deferred.make<Duplex>()
  }
  const session = Http2.performServerHandshake(connection.duplex, options)
  session.setLocalWindowSize(SESSION_WINDOW)
  const { abandon, closed, mux, track } = yield* supervise(session, connection, peer)

  const take = (stream: Http2.ServerHttp2Stream, headers: Http2.IncomingHttpHeaders): void => {
    track(stream)
    // Reset, or its session ended, in the same turn in which it was opened: Node tells of it all the same.
    if (stream.destroyed || stream.closed) return
    const waiting = headers[":method"] === "POST"
      ? Object.entries(rpc).find(([name]) => headers[":path"] === `/rpc/${name}`)?.[1]
      : undefined
    if (waiting !== undefined) {
      stream.respond({ ":status": 200 })
      if (!Deferred.doneUnsafe(waiting, Exit.succeed(stream))) stream.close(Http2.constants.NGHTTP2_REFUSED_STREAM)
      return
    }
    const gone = Effect.callback<void>((resume) => {
      if (stream.closed) resume(Effect.void)
      stream.once("close", () => resume(Effect.void))
    })
    run(
      Effect.scoped(handle(stream, headers)).pipe(
        Effect.raceFirst(gone),
        Effect.onExit((exit) =>
          Effect.sync(() => {
            if (Exit.isFailure(exit) && !stream.closed) stream.close(Http2.constants.NGHTTP2_INTERNAL_ERROR)
          })
        ),
        Effect.ignoreCause({ log: "Warn", message: "a request of the master failed" })
      )
    )
  }
  session.on("stream", (stream, headers) => {
    try {
      take(stream, headers)
    } catch (cause) {
      // Thrown on, it would end the process.
      const detail = cause instanceof Error ? cause.message : String(cause)
      abandon(new ProtocolFault({ detail: `a stream of the peer could not be taken: ${detail}` }))
    }
  })

  return { ...mux, accept: (name) => Effect.raceFirst(closed, Deferred.await(rpc[name])) }
})

/** How long the last words may take to leave. */
const LAST_WORDS = "500 millis"

const encodeFarewell = Schema.encodeSync(Schema.fromJsonString(Farewell))
const decodeFarewell = Schema.decodeUnknownOption(Schema.fromJsonString(Farewell))

/** What both ends have in common: one reason for the end, known to all who wait for it. */
const supervise = Effect.fnUntraced(function*(
  session: Http2.Http2Session,
  connection: Connection,
  peer: string
) {
  const end = yield* Deferred.make<never, LinkClosed>()
  const conclude = (reason: CloseReason): void => {
    Deferred.doneUnsafe(end, Exit.fail(new LinkClosed({ peer, reason })))
  }
  const destroy = (): void => {
    session.destroy()
    connection.duplex.destroy()
  }
  const abandon = (reason: CloseReason): void => {
    conclude(reason)
    destroy()
  }

  let open = 0
  const track = <S extends Http2.Http2Stream>(stream: S): S => {
    open += 1
    stream.once("close", () => {
      open -= 1
    })
    // Whoever uses the stream sees its close; without a listener an error would end the process.
    stream.on("error", () => {})
    return stream
  }

  session.on("goaway", (code, _last, data) => {
    const farewell = data === undefined ? Option.none() : decodeFarewell(Buffer.from(data).toString())
    conclude(Option.match(farewell, {
      onNone: () => new PeerGone({ detail: `the peer closed the session (HTTP/2 error ${code})` }),
      onSome: (said) => new PeerLeft({ farewell: said })
    }))
    destroy()
  })
  session.on("error", (cause) => conclude(new PeerGone({ detail: cause.message })))
  session.on(
    "frameError",
    (type, code) => conclude(new ProtocolFault({ detail: `a frame of type ${type} could not be sent (${code})` }))
  )
  session.on("close", () => {
    conclude(new PeerGone({ detail: "the connection was closed" }))
    connection.duplex.destroy()
  })
  connection.duplex.on("close", () => {
    conclude(new PeerGone({ detail: "the connection was lost" }))
    session.destroy()
  })
  /** Open unless last words are on their way. */
  const said = yield* Latch.make(true)
  yield* Effect.addFinalizer(() =>
    Effect.andThen(
      said.await,
      Effect.sync(() => {
        conclude(new PeerGone({ detail: "this end was shut down" }))
        destroy()
      })
    )
  )
  // Lost between the handshake and here.
  if (connection.duplex.destroyed) conclude(new PeerGone({ detail: "the connection was lost" }))

  const closed: Effect.Effect<never, LinkClosed> = Deferred.await(end)

  const mux: Mux = {
    closed,
    ping: Effect.callback<void>((resume) => {
      if (!session.destroyed) session.ping((error) => error === null && resume(Effect.void))
    }),
    received: Effect.sync(connection.received),
    streams: Effect.sync(() => open),
    abandon: (reason) => Effect.sync(() => abandon(reason)),
    // Not to be interrupted: the end it announces may be that of its own fiber's scope.
    leave: Effect.fnUntraced(function*(farewell) {
      if (session.destroyed) return
      said.closeUnsafe()
      conclude(new Left({ farewell }))
      session.goaway(Http2.constants.NGHTTP2_NO_ERROR, 0, Buffer.from(encodeFarewell(farewell)))
      const lost = Effect.callback<void>((resume) => {
        connection.duplex.once("close", () => resume(Effect.void))
      })
      yield* Effect.timeoutOption(Effect.interruptible(lost), LAST_WORDS)
      destroy()
      said.openUnsafe()
    }, Effect.uninterruptible)
  }
  return { abandon, mux, closed, isOver: () => Deferred.isDoneUnsafe(end) || session.destroyed, track }
})
