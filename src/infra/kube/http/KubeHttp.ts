/** `Kube` over HTTP: the Kubernetes API's verbs, paging, watches and errors. */
import { Duration, Effect, Layer, Result, Schema, type Scope, Semaphore, Stream } from "effect"
import { type HttpClientError, HttpClientRequest, type HttpClientResponse } from "effect/http"
import { flatten } from "../../../domain/flatten.ts"
import {
  type DeleteOptions,
  Kube,
  type KubeList,
  type LogOptions,
  type Manifest,
  type ObjectRef,
  type RawResponse,
  type Selection,
  type WatchEvent,
  type WriteOptions
} from "../Kube.ts"
import type { KubeConnection } from "../KubeConnection.ts"
import {
  CredentialsUnavailable,
  Invalid,
  type KubeCall,
  KubeError,
  type KubeErrorReason,
  Undecodable,
  Unreachable
} from "../KubeError.ts"
import { KubeGate } from "../KubeGate.ts"
import {
  type KubeObject,
  type KubeResource,
  apiVersion,
  collectionPath,
  count,
  listOf,
  maybe,
  part
} from "../KubeResource.ts"
import { KubeWaits } from "../KubeWaits.ts"
import { Pod } from "../resources/core.ts"
import * as KubeTransport from "./KubeTransport.ts"
import { lines } from "./lines.ts"
import { Status, reasonOfAnswer, reasonOfNetwork, reasonOfStatus } from "./reason.ts"
import { type WatchFrame, reflect } from "./Reflector.ts"

/** The name we own fields by (KEP-555). */
export const FIELD_MANAGER = "kubeprober"

export interface KubeHttpOptions {
  /**
   * From asking, waiting for a turn included, to the end of the answer; default 30 s. Watches and followed logs only have
   * it for headers.
   */
  readonly timeout?: Duration.Input | undefined
  /** Objects a page of a list; default 500, as kubectl. */
  readonly pageSize?: number | undefined
}

const MAXIMUM_ITEMS = 100_000
/** One page of objects: 500 at the 1.5 MiB etcd allows would be more, but then a smaller page is needed, not more memory. */
const MAXIMUM_BODY = 128 * 1024 * 1024
const MAXIMUM_RAW = 16 * 1024 * 1024
/** Ten times what etcd stores (1.5 MiB), since JSON is longer than protobuf. */
const MAXIMUM_FRAME = 16 * 1024 * 1024
const MAXIMUM_LOG_LINE = 256 * 1024
/** Of the pool's 68 connections so many at most are for long streams, so that none keeps a request waiting. */
const MAXIMUM_STREAMS = 48
/** How long one more waits for another to end. */
const STREAM_WAIT = Duration.seconds(10)
/** The others are for requests: a burst of a thousand opens no more, and takes the server's attention from nobody. */
const MAXIMUM_REQUESTS = 16
/** How often a list starts again because its continue token expired. */
const LIST_RESTARTS = 2
/** Empty pages one after the other that promise more. A server may give one now and then, as when objects go meanwhile. */
const MAXIMUM_EMPTY_PAGES = 16
/** Pages may be as much smaller than asked for, on average: an aggregated server has a limit of its own. */
const SHORTEST_PAGES = 16
const WATCH_TIMEOUT = Duration.minutes(5)

const Page = Schema.fromJsonString(Schema.Struct({
  metadata: part({
    resourceVersion: maybe(Schema.String),
    continue: maybe(Schema.String),
    remainingItemCount: count
  }),
  items: listOf(Schema.Unknown)
}))
const Frame = Schema.fromJsonString(Schema.Struct({ type: Schema.String, object: Schema.Unknown }))
const Bookmark = Schema.Struct({ metadata: Schema.Struct({ resourceVersion: Schema.String }) })
const decodeJson = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Unknown))
const decodePage = Schema.decodeUnknownEffect(Page)
const decodeFrame = Schema.decodeUnknownEffect(Frame)
const decodeBookmark = Schema.decodeUnknownEffect(Bookmark)
const decodeStatus = Schema.decodeUnknownEffect(Status)

const WATCH_TAGS: Readonly<Record<string, WatchEvent<never>["_tag"]>> = {
  ADDED: "Added",
  MODIFIED: "Modified",
  DELETED: "Deleted"
}

type Parameters = Readonly<Record<string, string | number | boolean | undefined>>

interface Asked {
  readonly call: KubeCall
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE"
  readonly path: string
  readonly parameters?: Parameters
  readonly body?: unknown
  readonly contentType?: string
  readonly accept?: string
  /** Another replica's URL. */
  readonly server?: string | undefined
}

type AnyResource = KubeResource<KubeObject>

/** A name and namespace, as far as they are known. */
interface Addressed {
  readonly name?: string | undefined
  readonly namespace?: string | undefined
}

const callOf = (
  verb: string,
  resource: AnyResource,
  ref: Addressed,
  subresource?: string
): KubeCall => ({
  verb,
  ...(resource.group !== "" && { group: resource.group }),
  resource: subresource === undefined ? resource.plural : `${resource.plural}/${subresource}`,
  ...(resource.scope === "Namespaced" && ref.namespace !== undefined && { namespace: ref.namespace }),
  ...(ref.name !== undefined && { name: ref.name })
})

const acceptOf = (resource: AnyResource, as: "PartialObjectMetadata" | "PartialObjectMetadataList"): string =>
  resource.metadataOnly === true ? `application/json;as=${as};g=meta.k8s.io;v=v1` : "application/json"

/**
 * Whether this can be one segment of a URL (apimachinery pkg/api/validation/path). An empty one, or `..` once the URL is
 * resolved, would address the collection or the namespace instead: a DELETE of that takes everything with it.
 */
const isSegment = (name: string): boolean => name !== "" && name !== "." && name !== ".." && !/[/%]/.test(name)

/** `299 - "text"`, any number of them (RFC 9111 section 5.5; KEP-1693). */
const parseWarnings = (header: string | undefined): ReadonlyArray<string> =>
  [...(header ?? "").matchAll(/\d{3} \S+ "((?:[^"\\]|\\.)*)"/g)].map((match) =>
    (match[1] ?? "").replaceAll(/\\(.)/g, "$1")
  )

const writeParameters = (options: WriteOptions | undefined): Parameters => ({
  fieldManager: FIELD_MANAGER,
  dryRun: options?.dryRun === true ? "All" : undefined
})

const selectionParameters = (selection: Selection | undefined): Parameters => ({
  labelSelector: selection?.labelSelector,
  fieldSelector: selection?.fieldSelector
})

/** Of any transport, such as a tunnel's. Use {@link make} or {@link layer} for a cluster that is reached directly. */
export const fromTransport = Effect.fnUntraced(function*(target: {
  readonly cluster: string
  readonly server: string
  readonly transport: KubeTransport.KubeTransport
  readonly clientCertificate?: Kube["Service"]["clientCertificate"] | undefined
  /** Whether the server is not verified, so that credentials must not go anywhere else; default no. */
  readonly insecure?: Effect.Effect<boolean> | undefined
  readonly options?: KubeHttpOptions | undefined
}): Effect.fn.Return<Kube["Service"]> {
  const { cluster, transport } = target
  const server = target.server.replace(/\/+$/, "")
  const timeout = Duration.fromInputUnsafe(target.options?.timeout ?? "30 seconds")
  const pageSize = target.options?.pageSize ?? 500
  const streams = yield* Semaphore.make(MAXIMUM_STREAMS)
  const requests = yield* Semaphore.make(MAXIMUM_REQUESTS)

  const fail = (call: KubeCall, reason: KubeErrorReason) => new KubeError({ cluster, call, reason })

  const inTime = <A, R>(call: KubeCall, effect: Effect.Effect<A, KubeError, R>) =>
    Effect.timeoutOrElse(effect, {
      duration: timeout,
      orElse: () =>
        Effect.fail(
          fail(call, new Unreachable({ kind: "timeout", detail: `no answer in ${Duration.format(timeout)}` }))
        )
    })

  /** Before the request has a turn at the connections, so that who waits here keeps nobody from them. */
  const admitted = Effect.fnUntraced(function*(asked: Asked) {
    const { admit } = yield* KubeGate
    const { during } = yield* KubeWaits
    yield* during(admit({
      call: asked.call,
      stores: asked.method !== "GET" && asked.parameters?.["dryRun"] === undefined,
      body: asked.body
    })).pipe(Effect.mapError((reason) => fail(asked.call, reason)))
  })

  /** With a turn at the connections, once it comes. */
  const inTurn = <A, R>(effect: Effect.Effect<A, KubeError, R>) =>
    Effect.scoped(Effect.flatMap(KubeWaits, ({ during }) => Effect.andThen(during(requests.takeScoped(1)), effect)))

  const requestOf = (asked: Asked) => {
    const request = HttpClientRequest.make(asked.method)(`${asked.server ?? server}${asked.path}`, {
      headers: { accept: asked.accept ?? "application/json", "user-agent": "kubeprober" },
      urlParams: asked.parameters ?? {}
    })
    return asked.body === undefined
      ? request
      : HttpClientRequest.bodyText(request, JSON.stringify(asked.body), asked.contentType ?? "application/json")
  }

  const networkFault = (error: { readonly cause?: unknown }) => reasonOfNetwork(error.cause ?? error, transport.proxy)

  const whyNotSent = ({ call }: Asked) => (error: Effect.Error<ReturnType<typeof transport.execute>>) =>
    fail(
      call,
      error._tag === "CredentialsUnavailable"
        ? new CredentialsUnavailable({ detail: error.message })
        : networkFault(error)
    )

  const send = (asked: Asked) => Effect.mapError(transport.execute(requestOf(asked)), whyNotSent(asked))
  const sendAlone = (asked: Asked) => Effect.mapError(transport.executeAlone(requestOf(asked)), whyNotSent(asked))

  const lost = (call: KubeCall) => (error: HttpClientError.HttpClientError) => fail(call, networkFault(error))

  const bytes = (call: KubeCall, response: HttpClientResponse.HttpClientResponse) =>
    Stream.mapError(response.stream, lost(call))

  const readText = Effect.fnUntraced(
    function*(call: KubeCall, response: HttpClientResponse.HttpClientResponse, maximum: number) {
      // The parser holds a server to the length it announced, so that what is short can be read in one piece: cheaper.
      if (Number(response.headers["content-length"] ?? Infinity) <= maximum) {
        return yield* Effect.mapError(response.text, lost(call))
      }
      const chunks: Array<Uint8Array> = []
      let size = 0
      yield* Stream.runForEach(bytes(call, response), (chunk) => {
        size += chunk.length
        chunks.push(chunk)
        return size > maximum
          ? Effect.fail(fail(call, new Undecodable({ issue: `the answer is longer than ${maximum} bytes` })))
          : Effect.void
      })
      return Buffer.concat(chunks, size).toString("utf8")
    }
  )

  const refuse = Effect.fnUntraced(function*(call: KubeCall, response: HttpClientResponse.HttpClientResponse) {
    const body = yield* readText(call, response, MAXIMUM_BODY)
    return yield* fail(
      call,
      reasonOfAnswer({ status: response.status, body, retryAfter: response.headers["retry-after"] })
    )
  })

  /** The body of a 2xx answer; anything else is an error. */
  const ask = Effect.fnUntraced(function*(asked: Asked) {
    const response = yield* send(asked)
    return response.status >= 200 && response.status < 300
      ? yield* readText(asked.call, response, MAXIMUM_BODY)
      : yield* refuse(asked.call, response)
  }, (effect, asked) => Effect.andThen(admitted(asked), inTime(asked.call, inTurn(effect))))

  const undecodable = (call: KubeCall) => (issue: { readonly message: string }) =>
    fail(call, new Undecodable({ issue: flatten(issue) }))

  const decodeObject = <A extends KubeObject>(call: KubeCall, resource: KubeResource<A>, json: unknown) =>
    Result.mapError(Schema.decodeUnknownResult(resource.object)(json), undecodable(call))

  const askFor = Effect.fnUntraced(function*<A extends KubeObject>(resource: KubeResource<A>, asked: Asked) {
    const text = yield* ask({ accept: acceptOf(resource, "PartialObjectMetadata"), ...asked })
    const json = yield* Effect.mapError(decodeJson(text), undecodable(asked.call))
    return yield* Effect.fromResult(decodeObject(asked.call, resource, json))
  })

  const refuseRef = (call: KubeCall, field: string, why: string) =>
    fail(call, new Invalid({ detail: `metadata.${field} ${why}`, causes: [`metadata.${field}: ${why}`] }))

  /** The path of a collection, in one namespace or over all (`namespace` absent). */
  const collection = (call: KubeCall, resource: AnyResource, namespace: string | undefined) =>
    namespace === undefined || resource.scope === "Cluster" || isSegment(namespace)
      ? Effect.succeed(collectionPath(resource, namespace))
      : Effect.fail(refuseRef(call, "namespace", "is not a name"))

  const writeCollection = (call: KubeCall, resource: AnyResource, namespace: string | undefined) =>
    resource.scope === "Namespaced" && namespace === undefined
      ? Effect.fail(refuseRef(call, "namespace", "is required"))
      : collection(call, resource, namespace)

  const object = Effect.fnUntraced(function*(call: KubeCall, resource: AnyResource, ref: Addressed) {
    const path = yield* writeCollection(call, resource, ref.namespace)
    if (ref.name === undefined) return yield* refuseRef(call, "name", "is required")
    if (!isSegment(ref.name)) return yield* refuseRef(call, "name", "is not a name")
    return `${path}/${encodeURIComponent(ref.name)}`
  })

  const withType = (resource: AnyResource, manifest: Manifest) => ({
    apiVersion: apiVersion(resource),
    kind: resource.kind,
    ...manifest
  })

  const write = Effect.fnUntraced(function*<A extends KubeObject>(
    verb: "update" | "patch",
    resource: KubeResource<A>,
    ref: Addressed,
    subresource: string | undefined,
    request: Pick<Asked, "method" | "parameters" | "body" | "contentType">
  ) {
    const call = callOf(verb, resource, ref, subresource)
    const path = yield* object(call, resource, ref)
    return yield* askFor(resource, {
      ...request,
      call,
      path: subresource === undefined ? path : `${path}/${subresource}`
    })
  })

  const apply = (subresource: "status" | undefined): Kube["Service"]["apply"] => (resource, manifest, options) =>
    write("patch", resource, manifest.metadata, subresource, {
      method: "PATCH",
      contentType: "application/apply-patch+yaml",
      parameters: { ...writeParameters(options), force: options?.force === true },
      body: withType(resource, manifest)
    })

  const listOnce = Effect.fnUntraced(function*<A extends KubeObject>(
    resource: KubeResource<A>,
    selection: Selection & { readonly maximum?: number | undefined } | undefined
  ): Effect.fn.Return<KubeList<A>, KubeError> {
    const call = callOf("list", resource, { namespace: selection?.namespace })
    const path = yield* collection(call, resource, selection?.namespace)
    const maximum = selection?.maximum ?? MAXIMUM_ITEMS
    const items: Array<A> = []
    let from: string | undefined
    let empty = 0
    const nonsense = (issue: string) => fail(call, new Undecodable({ issue: `the list does not end: ${issue}` }))
    const most = SHORTEST_PAGES * Math.max(1, Math.ceil(maximum / pageSize))
    for (let pages = 1;; pages++) {
      const text = yield* ask({
        call,
        method: "GET",
        path,
        accept: acceptOf(resource, "PartialObjectMetadataList"),
        parameters: {
          ...selectionParameters(selection),
          // A limit of 0 would mean none.
          limit: Math.max(1, Math.min(pageSize, maximum - items.length)),
          continue: from
        }
      })
      const page = yield* Effect.mapError(decodePage(text), undecodable(call))
      for (const item of page.items) items.push(yield* Effect.fromResult(decodeObject(call, resource, item)))
      const before = from
      from = page.metadata.continue === "" ? undefined : page.metadata.continue
      empty = page.items.length === 0 ? empty + 1 : 0
      if (from === undefined || items.length >= maximum) {
        return {
          items,
          resourceVersion: page.metadata.resourceVersion ?? "",
          // The server does not count what a selector leaves.
          remaining: Math.max(page.metadata.remainingItemCount, from === undefined ? 0 : 1)
        }
      }
      if (from === before) return yield* nonsense("a page continues where it began")
      if (empty >= MAXIMUM_EMPTY_PAGES) return yield* nonsense(`${empty} pages in a row are empty`)
      if (pages >= most) return yield* nonsense(`${pages} pages have ${items.length} objects`)
    }
  })

  const list: Kube["Service"]["list"] = (resource, selection) =>
    Effect.retry(listOnce(resource, selection), {
      times: LIST_RESTARTS,
      while: (error) => error.reason._tag === "Expired"
    })

  /** A long answer, whose headers must come in time and whose connection ends with the stream. */
  const open = (asked: Asked) =>
    Effect.gen(function*() {
      yield* admitted(asked)
      yield* Effect.timeoutOrElse(streams.takeScoped(1), {
        duration: STREAM_WAIT,
        orElse: () =>
          Effect.fail(
            fail(
              asked.call,
              new Unreachable({ kind: "unknown", detail: `too many streams: ${MAXIMUM_STREAMS} are open from here` })
            )
          )
      })
      return yield* inTime(
        asked.call,
        Effect.gen(function*() {
          const response = yield* send(asked)
          return response.status === 200 ? bytes(asked.call, response) : yield* refuse(asked.call, response)
        })
      )
    })

  const frames = <A extends KubeObject>(
    resource: KubeResource<A>,
    selection: Selection | undefined,
    resourceVersion: string,
    timeoutSeconds: number
  ): Stream.Stream<WatchFrame<A>, KubeError> => {
    const call = callOf("watch", resource, { namespace: selection?.namespace })
    const decode = Effect.fnUntraced(
      function*(line: string): Effect.fn.Return<WatchFrame<A>, KubeError | Schema.SchemaError> {
        if (line.length >= MAXIMUM_FRAME) {
          return yield* fail(
            call,
            new Undecodable({ issue: `a watch frame is longer than ${MAXIMUM_FRAME} characters` })
          )
        }
        const frame = yield* decodeFrame(line)
        const tag = WATCH_TAGS[frame.type]
        if (tag !== undefined) {
          return { _tag: tag, object: yield* Effect.fromResult(decodeObject(call, resource, frame.object)) }
        }
        if (frame.type === "BOOKMARK") {
          const { metadata } = yield* decodeBookmark(frame.object)
          return { _tag: "Bookmark", resourceVersion: metadata.resourceVersion }
        }
        if (frame.type !== "ERROR") {
          return yield* fail(call, new Undecodable({ issue: `unknown watch frame type ${JSON.stringify(frame.type)}` }))
        }
        const status = yield* decodeStatus(frame.object)
        return yield* fail(call, reasonOfStatus(status.code ?? 500, status))
      },
      Effect.catchTag("SchemaError", (issue) => Effect.fail(undecodable(call)(issue)))
    )
    return Stream.unwrap(Effect.flatMap(collection(call, resource, selection?.namespace), (path) =>
      open({
        call,
        method: "GET",
        path,
        accept: acceptOf(resource, "PartialObjectMetadata"),
        parameters: {
          ...selectionParameters(selection),
          watch: true,
          allowWatchBookmarks: true,
          resourceVersion,
          timeoutSeconds
        }
      }))).pipe(
        lines({ maximum: MAXIMUM_FRAME, terminated: true }),
        Stream.filter((line) => line !== ""),
        Stream.mapEffect(decode)
      )
  }

  return Kube.of({
    cluster,
    server,
    requests: transport.requests,
    clientCertificate: target.clientCertificate ?? Effect.succeed(undefined),
    get: Effect.fn("Kube.get")(function*(resource, ref) {
      const call = callOf("get", resource, ref)
      const path = yield* object(call, resource, ref)
      return yield* askFor(resource, { call, method: "GET", path })
    }),
    list,
    create: Effect.fn("Kube.create")(function*(resource, manifest, options) {
      const call = callOf("create", resource, manifest.metadata, options?.subresource)
      const path = options?.subresource === undefined
        ? yield* writeCollection(call, resource, manifest.metadata.namespace)
        : `${yield* object(call, resource, manifest.metadata)}/${options.subresource}`
      return yield* askFor(resource, {
        call,
        method: "POST",
        path,
        parameters: writeParameters(options),
        body: withType(resource, manifest)
      })
    }),
    apply: apply(undefined),
    applyStatus: apply("status"),
    patch: (resource, ref, patch, options) =>
      write("patch", resource, ref, options?.subresource, {
        method: "PATCH",
        contentType: "application/merge-patch+json",
        parameters: writeParameters(options),
        body: patch
      }),
    replace: (resource, manifest, options) =>
      write("update", resource, manifest.metadata, undefined, {
        method: "PUT",
        parameters: writeParameters(options),
        body: withType(resource, manifest)
      }),
    delete: Effect.fn("Kube.delete")(
      function*(resource: AnyResource, ref: ObjectRef, options?: DeleteOptions) {
        const call = callOf("delete", resource, ref)
        const path = yield* object(call, resource, ref)
        yield* ask({
          call,
          method: "DELETE",
          path,
          accept: acceptOf(resource, "PartialObjectMetadata"),
          body: {
            apiVersion: "v1",
            kind: "DeleteOptions",
            propagationPolicy: options?.propagationPolicy,
            gracePeriodSeconds: options?.gracePeriodSeconds,
            ...(options?.uid !== undefined && { preconditions: { uid: options.uid } }),
            ...(options?.dryRun === true && { dryRun: ["All"] })
          }
        })
      }
    ),
    watch: (resource, selection) => {
      const seconds = Math.max(
        1,
        Math.round(Duration.toSeconds(
          Duration.fromInputUnsafe(selection.timeout ?? WATCH_TIMEOUT)
        ))
      )
      return frames(resource, selection, selection.resourceVersion, seconds).pipe(
        Stream.filter((frame) => frame._tag !== "Bookmark")
      )
    },
    reflect: (resource, selection) =>
      reflect({
        list: Effect.filterOrFail(list(resource, selection), ({ remaining }) => remaining === 0, () =>
          fail(
            callOf("list", resource, { namespace: selection?.namespace }),
            new Undecodable({ issue: `there are more than ${MAXIMUM_ITEMS} objects; select fewer` })
          )),
        watch: (version, duration) => frames(resource, selection, version, Duration.toSeconds(duration))
      }),
    logs: (pod, options) => {
      const call: KubeCall = {
        verb: "get",
        resource: "pods/log",
        name: pod.name,
        ...(pod.namespace !== undefined && { namespace: pod.namespace })
      }
      return Stream.unwrap(
        Effect.flatMap(
          object(call, Pod, pod),
          (path) =>
            open({ call, method: "GET", path: `${path}/log`, accept: "*/*", parameters: logParameters(options) })
        )
      ).pipe(lines({ maximum: MAXIMUM_LOG_LINE }))
    },
    raw: Effect.fn("Kube.raw")(function*(path, options): Effect.fn.Return<RawResponse, KubeError> {
      const call: KubeCall = { verb: "get", resource: path }
      // What does not begin with a slash would go on with the host's name, and take the credentials elsewhere.
      if (!path.startsWith("/")) {
        return yield* fail(call, new Invalid({ detail: "the path does not begin with a slash", causes: [] }))
      }
      // Whoever has got that address would be handed our token.
      if (options?.server !== undefined && (yield* target.insecure ?? Effect.succeed(false))) {
        return yield* fail(
          call,
          new Unreachable({
            kind: "tls",
            detail: `credentials go to no other server than ${server} while certificates are not verified`
          })
        )
      }
      const asked: Asked = { call, method: "GET", path, accept: "*/*", server: options?.server }
      yield* admitted(asked)
      const answer = Effect.gen(function*() {
        const response = yield* options?.alone === true ? sendAlone(asked) : send(asked)
        return {
          status: response.status,
          body: yield* readText(call, response, options?.maximumBytes ?? MAXIMUM_RAW),
          warnings: parseWarnings(response.headers["warning"])
        }
      }).pipe(Effect.scoped)
      // Other replicas have pools of their own.
      const waits = options?.server === undefined && options?.atOnce !== true && options?.alone !== true
      return yield* inTime(call, waits ? inTurn(answer) : answer)
    })
  })
})

const logParameters = (options: LogOptions | undefined): Parameters => ({
  container: options?.container,
  previous: options?.previous === true ? true : undefined,
  follow: options?.follow === true ? true : undefined,
  tailLines: options?.tailLines,
  limitBytes: options?.limitBytes
})

/** A cluster that is reached directly, with its own connection pool, closed with the scope. */
export const make = Effect.fnUntraced(function*(
  connection: KubeConnection,
  options?: KubeHttpOptions
): Effect.fn.Return<Kube["Service"], never, Scope.Scope> {
  const transport = yield* KubeTransport.make(connection)
  return yield* fromTransport({
    cluster: connection.cluster,
    server: connection.server,
    transport,
    clientCertificate: connection.identity.pipe(
      Effect.map(({ tls }) => tls.cert),
      Effect.orElseSucceed(() => undefined)
    ),
    // Without an identity nothing is sent at all.
    insecure: connection.identity.pipe(
      Effect.map(({ tls }) => tls.insecure === true),
      Effect.orElseSucceed(() => false)
    ),
    options
  })
})

/** {@link make} as a layer. */
export const layer = (connection: KubeConnection, options?: KubeHttpOptions): Layer.Layer<Kube> =>
  Layer.effect(Kube, make(connection, options))
