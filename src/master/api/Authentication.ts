/**
 * Who asks: what a bearer token says about its bearer.
 */
import { Cache, Context, Data, Duration, Effect, Exit, FileSystem, Layer, Path, Redacted, Semaphore } from "effect"
import { createHash, randomBytes, timingSafeEqual } from "node:crypto"
import { Unauthenticated, Unavailable } from "../../domain/rpc/Fleet.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { TokenReview } from "../../infra/kube/resources/authentication.ts"

/** Someone who has shown who they are. */
export interface Caller {
  readonly user: string
  readonly groups: ReadonlyArray<string>
  readonly uid?: string
  readonly extra?: Readonly<Record<string, ReadonlyArray<string>>>
}

/** The group of those who may do everything at a master that has no API server to ask. */
export const ADMIN_GROUP = "kubeprober:admins"

/** The file with the embedded master's token cannot be used. */
export class TokenFileError extends Data.TaggedError("TokenFileError")<{
  readonly file: string
  readonly detail: string
}> {
  override get message(): string {
    return `the token file ${this.file}: ${this.detail}`
  }
}

/** The only caller of an embedded master: whoever can read its token. */
const admin: Caller = { user: "admin", groups: [ADMIN_GROUP] }

/** A token in a header; longer ones are nobody's. Service account tokens have 1 to 2 KiB. */
const MAX_TOKEN = 8 << 10

/** How long a verdict stands: as long as a revoked token still works here. */
const REMEMBERED = Duration.seconds(10)

/** Tokens asked about at a time: strangers with made-up ones are no load for the API server. */
const ASKED = 16

/** Verdicts remembered at a time. */
const CACHED = 4096

export class Authentication extends Context.Service<Authentication, {
  /** Absent, as of a request without one, a token is nobody's. */
  readonly authenticate: (
    token: Redacted.Redacted<string> | undefined
  ) => Effect.Effect<Caller, Unauthenticated | Unavailable>
}>()("kubeprober/master/Authentication") {
  /** One token, in a file readable by its owner alone; made when there is none. */
  static readonly layerToken = (file: string) => Layer.effect(Authentication, makeToken(file))

  /**
   * Tokens of the managing cluster, asked of its API server (TokenReview). With audiences, tokens for others are refused;
   * without, they are those of the API server.
   */
  static readonly layerKubernetes = (options: { readonly audiences?: ReadonlyArray<string> | undefined } = {}) =>
    Layer.effect(Authentication, makeKubernetes(options.audiences ?? []))
}

/** The token of an `Authorization` header, if it has one. */
export const bearerOf = (header: string | undefined): Redacted.Redacted<string> | undefined => {
  const token = /^bearer +([\x21-\x7e]+) *$/iu.exec(header ?? "")?.[1]
  return token === undefined ? undefined : Redacted.make(token)
}

/** What can be no token of anybody, without asking. */
const acceptable = (
  token: Redacted.Redacted<string> | undefined
): Effect.Effect<Redacted.Redacted<string>, Unauthenticated> => {
  if (token === undefined) {
    return Effect.fail(new Unauthenticated({ detail: "there is no bearer token (header Authorization: Bearer ...)" }))
  }
  return Redacted.value(token).length > MAX_TOKEN
    ? Effect.fail(new Unauthenticated({ detail: `the token is longer than ${MAX_TOKEN} characters` }))
    : Effect.succeed(token)
}

const hash = (token: Redacted.Redacted<string>): Buffer => createHash("sha256").update(Redacted.value(token)).digest()

const makeToken = Effect.fnUntraced(function*(file: string) {
  // Of hashes, so that neither the length nor a common beginning shows in the time it takes.
  const expected = hash(yield* readOrMake(file))
  return Authentication.of({
    authenticate: (token) =>
      Effect.flatMap(acceptable(token), (given) =>
        timingSafeEqual(hash(given), expected)
          ? Effect.succeed(admin)
          : Effect.fail(new Unauthenticated({ detail: "the token is not this master's" })))
  })
})

/** The token in the file. Of two masters that make it at once, both use the first's. */
const readOrMake = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const failed = (error: { readonly message: string }) => new TokenFileError({ file, detail: error.message })
  yield* Effect.gen(function*() {
    if (yield* fs.exists(file)) return
    yield* fs.makeDirectory(path.dirname(file), { recursive: true, mode: 0o700 })
    const drafts = yield* fs.makeTempDirectoryScoped({ directory: path.dirname(file), prefix: ".draft-" })
    const draft = path.join(drafts, "token")
    yield* fs.writeFileString(draft, `${randomBytes(32).toString("base64url")}\n`, { mode: 0o600 })
    // A link fails when its name is taken; a rename would replace.
    yield* fs.link(draft, file).pipe(
      Effect.catchIf((error) => error.reason._tag === "AlreadyExists", () => Effect.void)
    )
  }).pipe(Effect.scoped, Effect.mapError(failed))
  const { mode } = yield* Effect.mapError(fs.stat(file), failed)
  if ((Number(mode) & 0o077) !== 0) {
    return yield* new TokenFileError({
      file,
      detail: `its mode ${(Number(mode) & 0o777).toString(8)} lets others at it (chmod 600)`
    })
  }
  const token = (yield* Effect.mapError(fs.readFileString(file), failed)).trim()
  if (!/^[\x21-\x7e]{32,8192}$/u.test(token)) {
    return yield* new TokenFileError({
      file,
      detail: "it holds no token of at least 32 characters; remove it for a new one"
    })
  }
  return Redacted.make(token)
})

const makeKubernetes = Effect.fnUntraced(function*(audiences: ReadonlyArray<string>) {
  const kube = yield* Kube
  const asking = yield* Semaphore.make(ASKED)
  const ask = Effect.fnUntraced(function*(
    token: Redacted.Redacted<string>
  ): Effect.fn.Return<Caller, Unauthenticated | Unavailable> {
    const { status } = yield* kube.create(TokenReview, {
      metadata: {},
      spec: { token: Redacted.value(token), ...(audiences.length === 0 ? {} : { audiences }) }
    }).pipe(
      Effect.timeout("10 seconds"),
      Effect.mapError((error) => new Unavailable({ detail: `tokens cannot be reviewed: ${error.message}` }))
    )
    const { username } = status.user
    if (!status.authenticated || username === undefined || username === "") {
      return yield* new Unauthenticated({ detail: status.error ?? "the API server does not know the token" })
    }
    // An authenticator that knows nothing of audiences leaves them out, and may have taken a token meant for others.
    if (audiences.length > 0 && !status.audiences.some((audience) => audiences.includes(audience))) {
      return yield* new Unauthenticated({ detail: `the token is not for ${audiences.join(" or ")}` })
    }
    const { extra, groups, uid } = status.user
    return {
      user: username,
      groups,
      ...(uid === undefined ? {} : { uid }),
      ...(extra === undefined ? {} : { extra })
    }
  })

  /** By hash: the cache holds no token. */
  const pending = new Map<string, Redacted.Redacted<string>>()
  const cache = yield* Cache.makeWith(
    (key: string) => {
      const token = pending.get(key)
      return token === undefined
        ? Effect.fail(new Unavailable({ detail: "tokens cannot be reviewed" }))
        : asking.withPermits(1)(ask(token))
    },
    {
      capacity: CACHED,
      // What may pass is asked again.
      timeToLive: (exit) =>
        Exit.isSuccess(exit) ||
          Exit.findErrorOption(exit).pipe((error) => error._tag === "Some" && error.value._tag === "Unauthenticated")
          ? REMEMBERED
          : Duration.zero
    }
  )
  return Authentication.of({
    authenticate: Effect.fnUntraced(function*(shown) {
      const token = yield* acceptable(shown)
      const key = hash(token).toString("base64url")
      pending.set(key, token)
      return yield* Effect.ensuring(Cache.get(cache, key), Effect.sync(() => pending.delete(key)))
    })
  })
})
