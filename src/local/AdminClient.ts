import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Duration, Effect, Layer, Schedule, Schema } from "effect"
import { HttpClient, HttpClientRequest, type HttpClientResponse } from "effect/http"
import type { KeyPairPem } from "./Certificates.ts"
import { ApiFailed, NotReady } from "./LocalError.ts"

/** What setting a cluster up needs of its API: a few requests as an administrator. */
export interface AdminClient {
  /** The body of a GET, decoded. */
  readonly get: <A>(path: string, schema: Schema.Codec<A, unknown>) => Effect.Effect<A, ApiFailed>
  /** The body of a GET as it is: `/readyz?verbose`, `/metrics`. */
  readonly text: (path: string) => Effect.Effect<string, ApiFailed>
  /** Server-side apply as `kubeprober`. */
  readonly apply: (path: string, manifest: object) => Effect.Effect<void, ApiFailed>
}

/** A request that takes longer has met a component that hangs. */
const REQUEST_TIMEOUT = Duration.seconds(10)

/** Connections are kept for the life of the scope. */
export const make = Effect.fnUntraced(function*(server: string, ca: string, admin: KeyPairPem) {
  const context = yield* Layer.build(
    NodeHttpClient.layerNodeHttpOptions({ ca, cert: admin.cert, key: admin.key, keepAlive: true })
  )
  const client = HttpClient.mapRequest(
    yield* Effect.provideContext(HttpClient.HttpClient, context),
    HttpClientRequest.prependUrl(server)
  )

  const send = <A>(
    request: HttpClientRequest.HttpClientRequest,
    read: (response: HttpClientResponse.HttpClientResponse) => Effect.Effect<A, { readonly message: string }>
  ): Effect.Effect<A, ApiFailed> => {
    const failed = (status: number | undefined, detail: string) =>
      new ApiFailed({ request: `${request.method} ${server}${request.url}`, status, detail })
    return client.execute(request).pipe(
      Effect.mapError((error) => failed(undefined, error.message)),
      Effect.flatMap((response) =>
        response.status < 300
          ? Effect.mapError(read(response), (error) => failed(response.status, error.message))
          : Effect.flatMap(
            Effect.orElseSucceed(response.text, () => ""),
            (body) => Effect.fail(failed(response.status, body.slice(0, 1000)))
          )
      ),
      Effect.timeoutOrElse({
        duration: REQUEST_TIMEOUT,
        orElse: () => Effect.fail(failed(undefined, `no answer within ${Duration.format(REQUEST_TIMEOUT)}`))
      })
    )
  }

  const adminClient: AdminClient = {
    get: (path, schema) =>
      send(
        HttpClientRequest.get(path),
        (response) => Effect.flatMap(response.json, Schema.decodeUnknownEffect(schema))
      ),
    text: (path) => send(HttpClientRequest.get(path), (response) => response.text),
    apply: (path, manifest) =>
      send(
        HttpClientRequest.patch(path).pipe(
          HttpClientRequest.setUrlParams({ fieldManager: "kubeprober", force: "true" }),
          // JSON is YAML, and needs no renderer.
          HttpClientRequest.bodyText(JSON.stringify(manifest), "application/apply-patch+yaml")
        ),
        (response) => Effect.asVoid(response.text)
      )
  }
  return adminClient
})

/**
 * Polls until the check succeeds. Use with a check that fails while the thing is not there yet; its last failure is
 * told when time runs out.
 */
export const until = <A, E extends { readonly message: string }, R>(
  what: string,
  within: Duration.Input,
  check: Effect.Effect<A, E, R>
): Effect.Effect<A, NotReady, R> =>
  Effect.suspend(() => {
    let last = "nothing was heard"
    return check.pipe(
      Effect.tapError((error) => Effect.sync(() => last = error.message)),
      Effect.retry(Schedule.spaced("100 millis")),
      // The schedule has no end, so this failure does not exist.
      Effect.orDie,
      Effect.timeoutOrElse({
        duration: within,
        orElse: () =>
          Effect.fail(new NotReady({ what, after: Duration.format(Duration.fromInputUnsafe(within)), last }))
      })
    )
  })
