/**
 * The master's port: agents enrol here without a certificate and link here with one.
 *
 * TLS asks for a client certificate and does not insist: only so can who has none enrol on the same port, and who has a
 * wrong one be told what is wrong. Every link is authenticated here before anything else happens with it.
 */
import {
  Context,
  DateTime,
  Duration,
  Effect,
  FiberSet,
  Layer,
  Option,
  Redacted,
  Ref,
  Result,
  Schema,
  type Scope,
  Stream
} from "effect"
import { X509Certificate } from "node:crypto"
import type { IncomingMessage, ServerResponse } from "node:http"
import { type Server, createServer } from "node:https"
import type { Duplex } from "node:stream"
import { TLSSocket } from "node:tls"
import { Control } from "../../domain/rpc/Control.ts"
import type { Uplink } from "../../domain/rpc/Uplink.ts"
import { type AgentName, read as readName } from "../pki/AgentName.ts"
import { CertificateAuthority, SERVER_CERTIFICATE_LIFE } from "../pki/CertificateAuthority.ts"
import type { Credential } from "../pki/Credential.ts"
import { validityOf } from "../tls/validity.ts"
import { Admission } from "./Admission.ts"
import { ENROL_PATH, EnrolmentRequest, Enrolments } from "./Enrolments.ts"
import {
  BadRequest,
  CertificateExpired,
  CertificateRefused,
  CertificateRequired,
  Draining,
  type LinkClosed,
  ListenFailed,
  type Refusal
} from "./LinkError.ts"
import * as LinkRpc from "./LinkRpc.ts"
import { type Link, Links } from "./Links.ts"
import { watch } from "./liveness.ts"
import { type Member, Membership } from "./Membership.ts"
import * as Mux from "./Mux.ts"
import { answerOf, rawAnswerOf, readBody } from "./refusals.ts"
import { SignedCertificate, UplinkAndRenewal } from "./Renewal.ts"
import { HANDSHAKE_TIMEOUT, LINK_PATH, Transport } from "./Transport.ts"

/** The master's procedures, for the link whose agent calls them. */
export class UplinkHandlers extends Context.Service<UplinkHandlers, {
  readonly of: (link: Pick<Link, "cluster" | "uid" | "epoch">) => LinkRpc.Handlers<typeof Uplink>
}>()("kubeprober/link/UplinkHandlers") {}

export interface LinkServerOptions {
  /** The address to listen on. */
  readonly host: string
  /** 0 for any free one. */
  readonly port: number
  /** DNS names and IP addresses by which agents may reach this port; they go into its certificate. */
  readonly names: ReadonlyArray<string>
}

export class LinkServer extends Context.Service<LinkServer, {
  /** The port that is listened on. */
  readonly port: number
}>()("kubeprober/link/LinkServer") {
  static readonly layer = (options: LinkServerOptions) => Layer.effect(LinkServer, make(options))
}

/** Agents sent away by a shutdown come back at different times within this. */
const DRAIN = Duration.seconds(2)

/** Connections at a time that are not links: each holds a TLS state and costs a handshake. The next is dropped unheard. */
const UNAUTHENTICATED = 1024

/** How long a peer that was refused may take to close its end. */
const FAREWELL = "2 seconds"

const make = Effect.fnUntraced(function*(options: LinkServerOptions) {
  const admission = yield* Admission
  const authority = yield* CertificateAuthority
  const enrolments = yield* Enrolments
  const links = yield* Links
  const membership = yield* Membership
  const transport = yield* Transport
  const uplink = yield* UplinkHandlers

  const server = yield* listen(options, authority, admission.limits.links + UNAUTHENTICATED)
  const run = yield* FiberSet.makeRuntime<never>()
  yield* Effect.addFinalizer(() =>
    Effect.flatMap(links.all, (all) =>
      Effect.forEach(all, (link) => link.close(new Draining({ retryAfter: DRAIN })), {
        concurrency: "unbounded",
        discard: true
      }))
  )

  const expelled = yield* membership.expelled
  yield* expelled.pipe(
    Stream.runForEach(({ member, why }) =>
      links.find(member.cluster).pipe(
        Effect.andThen((link) => link.uid === member.uid ? link.close(why) : Effect.void),
        Effect.ignore,
        Effect.forkScoped
      )
    ),
    Effect.scoped,
    Effect.forkScoped
  )

  /** One link, from its admission to its end. */
  const hold = Effect.fnUntraced(function*(
    member: Member,
    validUntil: DateTime.Utc,
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer
  ): Effect.fn.Return<never, LinkClosed | Refusal, Scope.Scope> {
    const address = request.socket.remoteAddress ?? "unknown"
    const connection = yield* transport.accept(request, socket, head)
    const mux = yield* Mux.connect(connection, member.cluster)
    const certified = yield* Ref.make(validUntil)
    const { cluster, epoch, uid } = member

    const renew = Effect.fnUntraced(function*({ csr }: { readonly csr: string }) {
      const signed = yield* enrolments.renew({ cluster, uid }, csr)
      yield* Ref.set(certified, Option.getOrThrow(validityOf(new X509Certificate(signed.certificate))).notAfter)
      return signed
    })
    const handlers = UplinkAndRenewal.toLayer({ ...uplink.of({ cluster, uid, epoch }), renew })
    yield* LinkRpc.serve(UplinkAndRenewal, handlers, yield* mux.open("uplink"), mux)
    const link: Link = {
      cluster,
      uid,
      epoch,
      address,
      since: yield* DateTime.now,
      control: yield* LinkRpc.client(Control, yield* mux.open("control"), mux),
      request: mux.request,
      closed: mux.closed,
      streams: mux.streams,
      close: mux.leave
    }
    yield* Effect.forkScoped(watch(mux))
    yield* Effect.forkScoped(expire(link, certified))
    yield* links.hold(link)
    // It may have been revoked since it was admitted; from here on the event finds it.
    yield* Effect.catch(membership.admit(member), link.close)
    return yield* mux.closed
  })

  const onUpgrade = Effect.fnUntraced(function*(request: IncomingMessage, socket: Duplex, head: Buffer) {
    const refuse = (refusal: Refusal) =>
      Effect.gen(function*() {
        yield* Effect.logInfo("a link was refused").pipe(
          Effect.annotateLogs({ address: request.socket.remoteAddress, reason: refusal.message })
        )
        if (socket.writable) socket.end(rawAnswerOf(refusal))
        // Destroyed at once, the answer might not arrive.
        yield* Effect.timeoutOption(closed, FAREWELL)
      })
    const closed = Effect.callback<void>((resume) => {
      if (socket.destroyed) resume(Effect.void)
      socket.once("close", () => resume(Effect.void))
    })
    const admitted = Effect.gen(function*() {
      if (request.url !== LINK_PATH) return yield* new BadRequest({ status: 404, detail: "there is no such path" })
      const { name, notAfter } = yield* authenticate(request)
      yield* membership.admit(name)
      yield* admission.link(yield* links.size)
      yield* admission.linkOf(name.cluster)
      return { member: yield* membership.openEpoch(name), notAfter }
    })
    yield* admitted.pipe(
      Effect.flatMap(({ member, notAfter }) =>
        hold(member, notAfter, request, socket, head).pipe(
          Effect.catchTag("LinkClosed", (closed) => Effect.logInfo(closed.message)),
          Effect.annotateLogs({ cluster: member.cluster, epoch: member.epoch })
        )
      ),
      Effect.catch(refuse),
      Effect.scoped,
      Effect.ensuring(Effect.sync(() => socket.destroy()))
    )
  })

  const enrol = Effect.fnUntraced(function*(request: IncomingMessage) {
    if (request.url !== ENROL_PATH) return yield* new BadRequest({ status: 404, detail: "there is no such path" })
    if (request.method !== "POST") return yield* new BadRequest({ status: 405, detail: "enrolment is a POST" })
    yield* admission.enrolment
    const body = yield* readBody(request).pipe(
      Effect.mapError(({ detail, status }) => new BadRequest({ status, detail })),
      Effect.timeoutOrElse({
        duration: HANDSHAKE_TIMEOUT,
        orElse: () => Effect.fail(new BadRequest({ status: 408, detail: "the body did not arrive in time" }))
      })
    )
    const decoded = yield* decodeEnrolment(body).pipe(
      // The issue would quote the token.
      Effect.mapError(() => new BadRequest({ status: 400, detail: "the body is no enrolment request" }))
    )
    return yield* enrolments.enrol(decoded)
  })

  const onRequest = (request: IncomingMessage, response: ServerResponse) =>
    enrol(request).pipe(
      Effect.flatMap(encodeSigned),
      Effect.catchTag("SchemaError", Effect.die),
      // A store that fails is a defect here; whoever waits for an answer gets one, and comes again.
      Effect.catchDefect((defect) =>
        Effect.andThen(
          Effect.logError("an enrolment failed", defect),
          Effect.fail(new BadRequest({ status: 500, detail: "it failed here, see its log; try again" }))
        )
      ),
      Effect.matchEffect({
        onSuccess: (body) =>
          Effect.sync(() =>
            response.writeHead(200, { "content-type": "application/json", connection: "close" }).end(body)
          ),
        onFailure: (refusal) =>
          Effect.gen(function*() {
            yield* Effect.logInfo("an enrolment was refused").pipe(
              Effect.annotateLogs({ address: request.socket.remoteAddress, reason: refusal.message })
            )
            const { body, headers, status } = answerOf(refusal)
            response.writeHead(status, headers).end(body)
          })
      })
    )

  server.on("request", (request, response) => run(supervised(onRequest(request, response))))
  server.on("upgrade", (request, socket, head) => {
    // The peer may reset at any time, also before anybody else listens.
    socket.on("error", () => {})
    run(supervised(onUpgrade(request, socket, head)))
  })

  const address = server.address()
  return LinkServer.of({ port: typeof address === "object" && address !== null ? address.port : options.port })
})

const decodeEnrolment = Schema.decodeUnknownEffect(Schema.fromJsonString(EnrolmentRequest))
const encodeSigned = Schema.encodeEffect(Schema.fromJsonString(SignedCertificate))

const supervised = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<void> =>
  Effect.ignoreCause(effect, { log: "Error", message: "the master's port failed at a request" })

/** Ends the link when its certificate runs out; a renewal puts that off. */
const expire = Effect.fnUntraced(function*(link: Link, validUntil: Ref.Ref<DateTime.Utc>) {
  while (true) {
    const left = DateTime.distance(yield* DateTime.now, yield* Ref.get(validUntil))
    if (!Duration.isPositive(left)) return yield* link.close(new CertificateExpired())
    yield* Effect.sleep(left)
  }
})

/** Who is at the other end, by its certificate alone. */
const authenticate = Effect.fnUntraced(function*({ socket }: IncomingMessage): Effect.fn.Return<
  { readonly name: AgentName; readonly notAfter: DateTime.Utc },
  CertificateRequired | CertificateRefused
> {
  const certificate = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined
  if (!(socket instanceof TLSSocket) || certificate === undefined) return yield* new CertificateRequired()
  const now = yield* DateTime.now
  const validity = validityOf(certificate)
  // No authority signs a date that cannot be read, and OpenSSL trusts none.
  if (Option.isNone(validity)) return yield* new CertificateRefused({ fault: "untrusted" })
  const { notAfter, notBefore } = validity.value
  // By our own clock each time: a resumed TLS session keeps the verdict of its first handshake.
  if (DateTime.isLessThanOrEqualTo(notAfter, now)) return yield* new CertificateRefused({ fault: "expired" })
  if (DateTime.isGreaterThan(notBefore, now)) return yield* new CertificateRefused({ fault: "not-yet-valid" })
  if (!socket.authorized) return yield* new CertificateRefused({ fault: "untrusted" })
  const name = readName(certificate)
  if (Result.isFailure(name)) return yield* new CertificateRefused({ fault: "not-an-agent" })
  return { name: name.success, notAfter }
})

/** The listening server, with a certificate that is renewed in time. */
const listen = Effect.fnUntraced(function*(
  options: LinkServerOptions,
  authority: CertificateAuthority["Service"],
  connections: number
) {
  const issue = Effect.map(authority.issueServer(options.names), (credential: Credential) => ({
    // With the authority, so that who has only its pin can find it.
    cert: credential.certificate + credential.authorities,
    key: Redacted.value(credential.key),
    ca: authority.certificate,
    minVersion: "TLSv1.3" as const
  }))
  const tls = yield* issue
  // Of its own count: the server's leaves out those in a handshake and those upgraded.
  const sockets = new Set<Duplex>()
  const server = yield* Effect.acquireRelease(
    Effect.callback<Server, ListenFailed>((resume) => {
      const server = createServer({
        ...tls,
        requestCert: true,
        rejectUnauthorized: false,
        handshakeTimeout: HANDSHAKE_TIMEOUT,
        headersTimeout: HANDSHAKE_TIMEOUT,
        requestTimeout: HANDSHAKE_TIMEOUT,
        maxHeaderSize: 16 << 10
      })
      const failed = (cause: Error) =>
        resume(Effect.fail(new ListenFailed({ address: `${options.host}:${options.port}`, detail: cause.message })))
      server.once("error", failed)
      server.maxConnections = connections
      server.on("clientError", (_, socket) => socket.destroy())
      server.on("connection", (socket) => {
        sockets.add(socket)
        socket.once("close", () => sockets.delete(socket))
      })
      server.listen(options.port, options.host, () => {
        server.off("error", failed)
        resume(Effect.succeed(server))
      })
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        sockets.forEach((socket) => socket.destroy())
      })
  )
  yield* issue.pipe(
    Effect.tap((renewed) => Effect.sync(() => server.setSecureContext(renewed))),
    Effect.delay(Duration.times(SERVER_CERTIFICATE_LIFE, 2 / 3)),
    Effect.forever,
    Effect.forkScoped
  )
  return server
})
