/**
 * Tokens of an OpenID Connect user: the kubeconfig's ID token as long as it lives, then one by its refresh token.
 *
 * Ours, because the sign-in of @kubernetes/client-node 2.0.1 cannot succeed (kubernetes-client/javascript#2202, and any
 * `idp-certificate-authority` breaks it once more). Unlike kubectl we do not write new tokens back into the kubeconfig.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Clock, Data, Effect, Option, Redacted, Schema } from "effect"
import { HttpBody, HttpClientRequest, type HttpClientResponse } from "effect/http"
import { maybe } from "../KubeResource.ts"
import * as proxy from "./proxy.ts"

const secret = maybe(Schema.RedactedFromValue(Schema.String))

/** `users[].user.auth-provider.config` of the provider `oidc`. */
export const OidcConfig = Schema.Struct({
  "idp-issuer-url": Schema.String,
  "client-id": Schema.String,
  "client-secret": secret,
  "id-token": secret,
  "refresh-token": secret,
  "idp-certificate-authority": maybe(Schema.String),
  "idp-certificate-authority-data": maybe(Schema.String)
})
export type OidcConfig = typeof OidcConfig.Type

/** Why there is no token; never what the issuer said in its own words. */
export class OidcFailure extends Data.TaggedError("OidcFailure")<{ readonly detail: string }> {}

const CONNECT_TIMEOUT = 5_000
/** A token that ends sooner than this is as good as ended. */
const EXPIRY_MARGIN_SECONDS = 30

const Discovery = Schema.Struct({
  token_endpoint: Schema.String,
  token_endpoint_auth_methods_supported: Schema.optionalKey(Schema.Array(Schema.String))
})
const Tokens = Schema.Struct({ id_token: Schema.String, refresh_token: maybe(Schema.String) })
/** RFC 6749 section 5.2. */
const Refusal = Schema.Struct({ error: Schema.String.check(Schema.isPattern(/^[a-z_]{1,64}$/u)) })
const Claims = Schema.fromJsonString(Schema.Struct({ exp: Schema.Finite }))

const decodeDiscovery = Schema.decodeUnknownEffect(Discovery)
const decodeTokens = Schema.decodeUnknownEffect(Tokens)
const decodeRefusal = Schema.decodeUnknownOption(Refusal)
const decodeClaims = Schema.decodeUnknownOption(Claims)

/** The `exp` claim of a JSON Web Token (RFC 7519 section 4.1.4), seconds since 1970. The signature is the server's business. */
export const expiry = (token: string): Option.Option<number> =>
  Option.map(
    decodeClaims(Buffer.from(token.split(".")[1] ?? "", "base64url").toString("utf8")),
    (claims) => claims.exp
  )

/** What to use now, and what to sign in with next: an issuer may give a new refresh token with each sign-in. */
export interface OidcTokens {
  readonly idToken: Redacted.Redacted<string>
  readonly refreshToken: Redacted.Redacted<string> | undefined
}

/** The tokens to use now. `ca` is PEM of the issuer's roots; `renew` signs in even if the known token seems good. */
export const tokens = Effect.fn("oidc.tokens")(function*(
  config: OidcConfig,
  ca: string | undefined,
  renew: boolean
): Effect.fn.Return<OidcTokens, OidcFailure> {
  const known = config["id-token"]
  const now = (yield* Clock.currentTimeMillis) / 1_000
  const lives = (token: Redacted.Redacted<string>) =>
    Option.exists(expiry(Redacted.value(token)), (end) => end - EXPIRY_MARGIN_SECONDS > now)
  const refreshToken = config["refresh-token"]
  if (known !== undefined && !renew && lives(known)) return { idToken: known, refreshToken }
  if (refreshToken === undefined) {
    return yield* new OidcFailure({ detail: "its token has ended and there is no refresh token; sign in again" })
  }
  return yield* Effect.scoped(signIn(config, refreshToken, ca))
})

const signIn = Effect.fnUntraced(function*(
  config: OidcConfig,
  refreshToken: Redacted.Redacted<string>,
  ca: string | undefined
) {
  const issuer = config["idp-issuer-url"].replace(/\/+$/, "")
  if (!URL.canParse(issuer)) return yield* new OidcFailure({ detail: "its idp-issuer-url is not a URL" })
  const undici = yield* Effect.promise(() => import("undici"))
  const proxyUrl = yield* proxy.fromEnvironment(new URL(issuer))
  const tls = { timeout: CONNECT_TIMEOUT, ...(ca !== undefined && { ca }) }
  const agent = yield* Effect.acquireRelease(
    Effect.sync(() =>
      proxyUrl === undefined
        ? new undici.Agent({ allowH2: false, connect: tls })
        : new undici.ProxyAgent({ allowH2: false, uri: proxyUrl, requestTls: tls })
    ),
    (agent) => Effect.promise(() => agent.destroy())
  )
  const http = yield* Effect.provideService(NodeHttpClient.makeUndici, NodeHttpClient.Dispatcher, agent)
  const unreadable = () => new OidcFailure({ detail: `what ${issuer} answered cannot be read` })
  const ask = (request: HttpClientRequest.HttpClientRequest) =>
    Effect.mapError(http.execute(request), () => new OidcFailure({ detail: `${issuer} cannot be reached` }))
  const bodyOf = (response: HttpClientResponse.HttpClientResponse) => Effect.mapError(response.json, unreadable)

  const discovery = yield* ask(HttpClientRequest.get(`${issuer}/.well-known/openid-configuration`)).pipe(
    Effect.flatMap(bodyOf),
    Effect.flatMap((json) => Effect.mapError(decodeDiscovery(json), unreadable))
  )
  const clientSecret = Redacted.value(config["client-secret"] ?? Redacted.make(""))
  // Unless the issuer says otherwise (OpenID Connect Discovery 1.0 section 3) the secret goes into the header.
  const inHeader = clientSecret !== "" &&
    (discovery.token_endpoint_auth_methods_supported ?? ["client_secret_basic"]).includes("client_secret_basic")
  const form = {
    grant_type: "refresh_token",
    refresh_token: Redacted.value(refreshToken),
    ...(!inHeader && { client_id: config["client-id"] }),
    ...(!inHeader && clientSecret !== "" && { client_secret: clientSecret })
  }
  const request = HttpClientRequest.post(discovery.token_endpoint, {
    body: HttpBody.text(new URLSearchParams(form).toString(), "application/x-www-form-urlencoded")
  })
  const response = yield* ask(
    inHeader
      ? HttpClientRequest.basicAuth(request, encodeURIComponent(config["client-id"]), encodeURIComponent(clientSecret))
      : request
  )
  const json = yield* bodyOf(response)
  if (response.status !== 200) {
    const code = Option.match(decodeRefusal(json), {
      onNone: () => `status ${response.status}`,
      onSome: ({ error }) => error
    })
    return yield* new OidcFailure({ detail: `${issuer} refuses the refresh token (${code}); sign in again` })
  }
  const tokens = yield* Effect.mapError(decodeTokens(json), unreadable)
  return {
    idToken: Redacted.make(tokens.id_token, { label: "token" }),
    refreshToken: tokens.refresh_token === undefined
      ? refreshToken
      : Redacted.make(tokens.refresh_token, { label: "refresh token" })
  }
})
