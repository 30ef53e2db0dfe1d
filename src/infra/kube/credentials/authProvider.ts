/**
 * Credentials by a kubeconfig's `auth-provider`: `oidc`, and the `azure` and `gcp` ones of old clusters, which go through
 * @kubernetes/client-node, loaded only then: `docs/decisions/0006-kubeconfig.md`.
 */
import { Clock, Duration, Effect, Exit, Option, Redacted, Ref, Schema } from "effect"
import { flatten } from "../../../domain/flatten.ts"
import { CredentialsUnavailable } from "../KubeConnection.ts"
import { maybe } from "../KubeResource.ts"
import * as oidc from "./oidc.ts"

/** A kubeconfig's `users[].user.auth-provider`. */
export const AuthProviderConfig = Schema.Struct({
  name: Schema.NonEmptyString,
  config: maybe(Schema.Record(Schema.String, Schema.Unknown))
})
export type AuthProviderConfig = typeof AuthProviderConfig.Type

export interface AuthProvider {
  readonly cluster: string
  readonly server: string
  readonly provider: AuthProviderConfig
  /** Reads a file named in the kubeconfig. */
  readonly read: (path: string) => Effect.Effect<string, CredentialsUnavailable>
}

/** When a token does not say when it ends. */
const UNKNOWN_LIFE = Duration.minutes(1)
const FAILURE_TTL = Duration.seconds(5)
const EXPIRY_MARGIN_SECONDS = 30
/** A sign-in asks the identity provider twice. */
const TIMEOUT = Duration.seconds(30)

/** The `Authorization` header, kept as long as its token lives; `forget` is for when the server refused it. */
export const make = Effect.fnUntraced(function*(options: AuthProvider): Effect.fn.Return<{
  readonly get: Effect.Effect<Redacted.Redacted<string>, CredentialsUnavailable>
  readonly forget: Effect.Effect<void>
}> {
  const fail = (detail: string) =>
    new CredentialsUnavailable({ cluster: options.cluster, source: `auth provider ${options.provider.name}`, detail })
  const latest = yield* Ref.make(Option.none<oidc.OidcTokens>())
  const ask = options.provider.name === "oidc" ? byOidc(options, latest, fail) : byClientNode(options, fail)
  const get = ask.pipe(
    Effect.timeoutOrElse({
      duration: TIMEOUT,
      orElse: () => Effect.fail(fail(`it did not answer within ${Duration.format(TIMEOUT)}`))
    }),
    Effect.flatMap((token) => Effect.map(Clock.currentTimeMillis, (now) => ({ token, now })))
  )
  const [cached, forget] = yield* Effect.cachedInvalidateWithTTL(
    get,
    Exit.match({
      onFailure: () => FAILURE_TTL,
      onSuccess: ({ now, token }) =>
        Option.match(oidc.expiry(Redacted.value(token)), {
          onNone: () => UNKNOWN_LIFE,
          onSome: (end) => Duration.seconds(Math.max(1, end - EXPIRY_MARGIN_SECONDS - now / 1_000))
        })
    })
  )
  return {
    get: Effect.map(cached, ({ token }) => Redacted.make(`Bearer ${Redacted.value(token)}`, { label: "token" })),
    forget
  }
})

const decodeOidcConfig = Schema.decodeUnknownEffect(oidc.OidcConfig)

type Fail = (detail: string) => CredentialsUnavailable

const byOidc = (options: AuthProvider, latest: Ref.Ref<Option.Option<oidc.OidcTokens>>, fail: Fail) =>
  Effect.gen(function*() {
    const config = yield* Effect.mapError(
      decodeOidcConfig(options.provider.config ?? {}),
      (issue) => fail(flatten(issue))
    )
    const data = config["idp-certificate-authority-data"]
    const file = config["idp-certificate-authority"]
    const ca = data !== undefined && data !== ""
      ? Buffer.from(data, "base64").toString("utf8")
      : file === undefined || file === ""
      ? undefined
      : yield* options.read(file)
    const known = yield* Ref.get(latest)
    const refreshToken = Option.match(known, {
      onNone: () => config["refresh-token"],
      onSome: (tokens) => tokens.refreshToken
    })
    // Asked again means that the token was refused, or has ended; without a refresh token it is all there is.
    const renew = Option.isSome(known) && refreshToken !== undefined
    const tokens = yield* Effect.mapError(
      oidc.tokens({ ...config, ...(refreshToken !== undefined && { "refresh-token": refreshToken }) }, ca, renew),
      ({ detail }) => fail(detail)
    )
    yield* Ref.set(latest, Option.some(tokens))
    return tokens.idToken
  })

const byClientNode = (options: AuthProvider, fail: Fail) =>
  Effect.gen(function*() {
    const { KubeConfig } = yield* Effect.promise(() => import("./clientNode.ts"))
    const config = new KubeConfig()
    config.loadFromOptions({
      clusters: [{ name: "cluster", server: options.server, skipTLSVerify: false }],
      users: [{
        name: "user",
        authProvider: { name: options.provider.name, config: { ...options.provider.config } }
      }],
      contexts: [{ name: "context", cluster: "cluster", user: "user" }],
      currentContext: "context"
    })
    const headers: Record<string, string> = {}
    yield* Effect.tryPromise({
      try: () => config.applyToHTTPSOptions({ headers }),
      // What was thrown may hold the answer of the identity provider, and that a token.
      catch: (cause) => fail(cause instanceof Error ? `it failed (${cause.name})` : "it failed")
    })
    const authorization = headers["Authorization"]
    return authorization === undefined
      ? yield* fail("it gave no token; sign in with kubectl again")
      : Redacted.make(authorization.replace(/^Bearer /, ""), { label: "token" })
  })
