/**
 * Clusters by kubeconfig, read as kubectl reads it
 * (https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/).
 *
 * {@link load} reads and merges the files; `connection` of what it gives makes one context's connection. Nothing is
 * dialled, and no plugin runs, before the connection is used. The YAML parser is loaded when a file is read, @kubernetes/client-node only for users with
 * an `auth-provider` other than `oidc`: `docs/decisions/0006-kubeconfig.md`.
 */
import { Config, Data, Effect, FileSystem, Option, Path, Redacted, Result, Schema } from "effect"
import type { ChildProcessSpawner } from "effect/process"
import { X509Certificate, createPrivateKey } from "node:crypto"
import { homedir } from "node:os"
import * as EditDistance from "../../domain/EditDistance.ts"
import { flatten } from "../../domain/flatten.ts"
import * as authProvider from "./credentials/authProvider.ts"
import * as execPlugin from "./credentials/execPlugin.ts"
import { REREAD, REREAD_CERTIFICATES, readFile, readToken } from "./credentials/material.ts"
import * as proxy from "./credentials/proxy.ts"
import type { CredentialsUnavailable, Identity, KubeConnection, TlsSettings } from "./KubeConnection.ts"
import { flag, listOf, maybe, part } from "./KubeResource.ts"

/** There is no kubeconfig where one was looked for. */
export class KubeConfigNotFound extends Data.TaggedError("KubeConfigNotFound")<{
  readonly paths: ReadonlyArray<string>
}> {
  override get message(): string {
    return `there is no kubeconfig at ${this.paths.join(", ")}; name one with --kubeconfig or KUBECONFIG`
  }
}

/** A kubeconfig cannot be used as it stands. Line and column count from 1. */
export class KubeConfigInvalid extends Data.TaggedError("KubeConfigInvalid")<{
  readonly path: string
  readonly line?: number | undefined
  readonly column?: number | undefined
  readonly detail: string
}> {
  override get message(): string {
    const place = this.line === undefined ? this.path : `${this.path}:${this.line}:${this.column ?? 1}`
    return `the kubeconfig ${place} cannot be used: ${this.detail}`
  }
}

/** No context of this name. `known` has the closest names first. */
export class ContextNotFound extends Data.TaggedError("ContextNotFound")<{
  readonly context: string | undefined
  readonly known: ReadonlyArray<string>
}> {
  override get message(): string {
    const known = this.known.length === 0
      ? "the kubeconfig has none"
      : `known are ${this.known.slice(0, 10).join(", ")}${this.known.length > 10 ? " and more" : ""}`
    return this.context === undefined
      ? `no context is current; name one with --context, ${known}`
      : `there is no context ${this.context}; ${known}`
  }
}

export type KubeConfigError = KubeConfigNotFound | KubeConfigInvalid | ContextNotFound

/** One way to one cluster. */
export interface KubeContext {
  readonly name: string
  readonly cluster: string
  readonly user: string
  /** Default `default`. */
  readonly namespace: string
}

/** Everything the files say, merged. */
export interface KubeConfig {
  /** The files that were read, in order. */
  readonly paths: ReadonlyArray<string>
  readonly currentContext: string | undefined
  /** The contexts' names. */
  readonly contexts: ReadonlyArray<string>
  /** The context of this name, or the current one. */
  readonly context: (name?: string) => Effect.Effect<KubeContext, ContextNotFound>
  /** The connection of a context, or of the current one. Its cluster is called as the context. */
  readonly connection: (name?: string, options?: ConnectionOptions) => Effect.Effect<
    KubeConnection,
    KubeConfigError,
    FileSystem.FileSystem | Path.Path | ChildProcessSpawner.ChildProcessSpawner
  >
}

export interface ConnectionOptions {
  /** Whether exec plugins may ask a person on this terminal; default false. */
  readonly interactive?: boolean | undefined
}

export interface LoadOptions {
  /** `--kubeconfig`: this file alone. Otherwise the files of `KUBECONFIG`, otherwise `~/.kube/config`. */
  readonly path?: string | undefined
}

const text = maybe(Schema.String)

const ClusterEntry = Schema.Struct({
  "server": text,
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": flag,
  "tls-server-name": text,
  "proxy-url": text,
  "extensions": listOf(Schema.Struct({ name: Schema.String, extension: Schema.Unknown }))
})
const decodeCluster = Schema.decodeUnknownEffect(ClusterEntry)

const secret = maybe(Schema.RedactedFromValue(Schema.String))

const UserEntry = Schema.Struct({
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": secret,
  "token": secret,
  "tokenFile": text,
  "username": text,
  "password": secret,
  "exec": maybe(execPlugin.ExecConfig),
  "auth-provider": maybe(authProvider.AuthProviderConfig),
  "as": text,
  "as-uid": text,
  "as-groups": listOf(Schema.String),
  "as-user-extra": maybe(Schema.Record(Schema.String, Schema.Array(Schema.String)))
})
const decodeUser = Schema.decodeUnknownEffect(UserEntry)

/** A cluster or user as its file has it: decoded when used, so that one bad entry does not spoil the others. */
interface Entry {
  readonly path: string
  readonly value: Redacted.Redacted<unknown>
}

const File = part({
  "current-context": text,
  "clusters": listOf(Schema.Struct({ name: Schema.String, cluster: Schema.optionalKey(Schema.Unknown) })),
  "users": listOf(Schema.Struct({ name: Schema.String, user: Schema.optionalKey(Schema.Unknown) })),
  "contexts": listOf(Schema.Struct({
    name: Schema.String,
    context: part({ cluster: text, user: text, namespace: text })
  }))
})
const decodeFile = Schema.decodeUnknownEffect(Schema.Struct({ file: File }))

/** No kubeconfig is larger; fleets of a thousand clusters take a few MiB. */
const MAXIMUM_FILE = 64 * 1024 * 1024

/**
 * Read and merge. As in kubectl the first file that has a name or the current context decides, and files named in
 * `KUBECONFIG` may be missing as long as one is there.
 */
export const load = Effect.fn("KubeConfigFile.load")(function*(
  options?: LoadOptions
): Effect.fn.Return<KubeConfig, KubeConfigError, FileSystem.FileSystem | Path.Path> {
  const fs = yield* FileSystem.FileSystem
  const candidates = yield* candidatesOf(options?.path)
  const paths: Array<string> = []
  const clusters = new Map<string, Entry>()
  const users = new Map<string, Entry>()
  const contexts = new Map<string, KubeContext>()
  let currentContext: string | undefined
  for (const path of candidates) {
    const source = yield* fs.readFileString(path).pipe(
      Effect.asSome,
      Effect.catchTag("PlatformError", (error) =>
        error.reason._tag === "NotFound"
          ? Effect.succeedNone
          : Effect.fail(new KubeConfigInvalid({ path, detail: `it cannot be read (${error.reason._tag})` })))
    )
    if (Option.isNone(source)) continue
    const file = yield* parse(path, source.value)
    paths.push(path)
    for (const { cluster, name } of file.clusters) {
      if (!clusters.has(name)) clusters.set(name, { path, value: Redacted.make(cluster) })
    }
    for (const { name, user } of file.users) {
      if (!users.has(name)) users.set(name, { path, value: Redacted.make(user) })
    }
    for (const { context, name } of file.contexts) {
      if (contexts.has(name)) continue
      contexts.set(name, {
        name,
        cluster: context.cluster ?? "",
        user: context.user ?? "",
        namespace: context.namespace === undefined || context.namespace === "" ? "default" : context.namespace
      })
    }
    if (currentContext === undefined && file["current-context"] !== "") currentContext = file["current-context"]
  }
  if (paths.length === 0) return yield* new KubeConfigNotFound({ paths: candidates })

  const context = Effect.fnUntraced(function*(name?: string) {
    const wanted = name ?? currentContext
    const found = wanted === undefined ? undefined : contexts.get(wanted)
    return found ?? (yield* new ContextNotFound({ context: wanted, known: closestFirst(wanted, [...contexts.keys()]) }))
  })

  return {
    paths,
    currentContext,
    contexts: [...contexts.keys()],
    context,
    connection: Effect.fn("KubeConfigFile.connection")(function*(name?: string, options?: ConnectionOptions) {
      const wanted = yield* context(name)
      const missing = (what: string, value: string) =>
        new KubeConfigInvalid({
          path: paths.join(", "),
          detail: `the context ${wanted.name} names the ${what} "${value}", which is not there`
        })
      const cluster = clusters.get(wanted.cluster)
      if (cluster === undefined) return yield* missing("cluster", wanted.cluster)
      const user = users.get(wanted.user)
      // Without a user a request is anonymous; with one that is not there somebody made a mistake.
      if (user === undefined && wanted.user !== "") return yield* missing("user", wanted.user)
      return yield* connect(wanted, cluster, user, options?.interactive ?? false)
    })
  }
})

const candidatesOf = Effect.fnUntraced(function*(explicit: string | undefined) {
  const path = yield* Path.Path
  if (explicit !== undefined) return [path.resolve(explicit)]
  const variable = yield* Config.option(Config.NonEmptyString("KUBECONFIG")).pipe(
    Effect.orElseSucceed(() => Option.none<string>())
  )
  const named = Option.getOrElse(variable, () => "")
    .split(path.sep === "\\" ? ";" : ":")
    .filter((name) => name !== "")
  return named.length > 0 ? named.map((name) => path.resolve(name)) : [path.join(homedir(), ".kube", "config")]
})

const parse = Effect.fnUntraced(function*(path: string, source: string) {
  if (source.length > MAXIMUM_FILE) {
    return yield* new KubeConfigInvalid({ path, detail: `it is larger than ${MAXIMUM_FILE} bytes` })
  }
  const yaml = yield* Effect.promise(() => import("yaml"))
  const document = yaml.parseDocument(source, { prettyErrors: false })
  const error = document.errors[0]
  if (error !== undefined) {
    const lines = source.slice(0, error.pos[0]).split("\n")
    return yield* new KubeConfigInvalid({
      path,
      line: lines.length,
      column: (lines.at(-1)?.length ?? 0) + 1,
      // The messages of the parser quote what they are about, which may be a token.
      detail: `it is not YAML (${error.code})`
    })
  }
  const file: unknown = yield* Effect.try({
    try: () => document.toJS(),
    catch: () => new KubeConfigInvalid({ path, detail: "it has too many aliases" })
  })
  const decoded = yield* Effect.mapError(
    decodeFile({ file }),
    (issue) => new KubeConfigInvalid({ path, detail: flatten(issue) })
  )
  return decoded.file
})

const connect = Effect.fnUntraced(function*(
  context: KubeContext,
  clusterEntry: Entry,
  userEntry: Entry | undefined,
  interactive: boolean
): Effect.fn.Return<
  KubeConnection,
  KubeConfigInvalid,
  FileSystem.FileSystem | Path.Path | ChildProcessSpawner.ChildProcessSpawner
> {
  const invalid = (entry: Entry, detail: string) => new KubeConfigInvalid({ path: entry.path, detail })
  const issueOf = (entry: Entry, what: string) => (issue: { readonly message: string }) =>
    invalid(entry, `${what}: ${flatten(issue)}`)
  const cluster = yield* Effect.mapError(
    decodeCluster(Redacted.value(clusterEntry.value) ?? {}),
    issueOf(clusterEntry, `the cluster ${context.cluster}`)
  )
  const user = userEntry === undefined ? undefined : yield* Effect.mapError(
    decodeUser(Redacted.value(userEntry.value) ?? {}),
    issueOf(userEntry, `the user ${context.user}`)
  )
  const server = cluster.server ?? ""
  if (!URL.canParse(server) || !/^https?:$/.test(new URL(server).protocol)) {
    return yield* invalid(clusterEntry, `the cluster ${context.cluster} has no http(s) URL as its server`)
  }
  const named = cluster["proxy-url"]
  const proxyUrl = named === undefined || named === "" ? yield* proxy.fromEnvironment(new URL(server)) : named
  if (proxyUrl !== undefined && !isProxyUrl(proxyUrl)) {
    return yield* invalid(clusterEntry, `the proxy of the cluster ${context.cluster} is no http, https or socks5 URL`)
  }
  const identity = yield* identityOf(context.name, { ...clusterEntry, cluster }, {
    path: userEntry?.path ?? clusterEntry.path,
    user: user ?? ANONYMOUS
  }, interactive)
  const headers = impersonation(user ?? ANONYMOUS)
  return {
    cluster: context.name,
    server,
    proxy: proxyUrl === undefined ? undefined : Redacted.make(proxyUrl, { label: "proxy" }),
    headers: Object.keys(headers).length === 0 ? undefined : headers,
    identity: identity.get,
    refresh: identity.forget
  }
})

/** What undici would throw for is found here, since its errors carry the URL and so the password. */
const isProxyUrl = (text: string): boolean => {
  if (!/^(https?|socks5):\/\//.test(text) || !URL.canParse(text)) return false
  const { password, username } = new URL(text)
  return !/%(?![0-9a-f]{2})/i.test(username + password)
}

const ANONYMOUS: typeof UserEntry.Type = { "as-groups": [] }

/** https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation */
const impersonation = (user: typeof UserEntry.Type): Record<string, string | ReadonlyArray<string>> => ({
  ...(user.as !== undefined && user.as !== "" && { "impersonate-user": user.as }),
  ...(user["as-uid"] !== undefined && { "impersonate-uid": user["as-uid"] }),
  ...(user["as-groups"].length > 0 && { "impersonate-group": user["as-groups"] }),
  ...Object.fromEntries(
    Object.entries(user["as-user-extra"] ?? {}).map(([key, values]) =>
      [`impersonate-extra-${encodeURIComponent(key).toLowerCase()}`, values] as const
    )
  )
})

/** Something of an identity, and how to forget what is remembered of it. */
interface Source<A> {
  readonly get: Effect.Effect<A, CredentialsUnavailable>
  readonly forget: Effect.Effect<void>
}

const fixed = <A>(value: A): Source<A> => ({ get: Effect.succeed(value), forget: Effect.void })

const identityOf = Effect.fnUntraced(function*(
  context: string,
  { cluster, path: clusterPath }: { readonly path: string; readonly cluster: typeof ClusterEntry.Type },
  { path: userPath, user }: { readonly path: string; readonly user: typeof UserEntry.Type },
  interactive: boolean
): Effect.fn.Return<
  Source<Identity>,
  KubeConfigInvalid,
  FileSystem.FileSystem | Path.Path | ChildProcessSpawner.ChildProcessSpawner
> {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path

  const reread = <A>(
    every: typeof REREAD | typeof REREAD_CERTIFICATES,
    read: Effect.Effect<A, CredentialsUnavailable, FileSystem.FileSystem>
  ): Effect.Effect<Source<A>> =>
    Effect.map(
      Effect.cachedInvalidateWithTTL(
        Effect.provideService(read, FileSystem.FileSystem, fs),
        (exit) => exit._tag === "Success" ? every : "1 second"
      ),
      ([get, forget]) => ({ get, forget })
    )

  /** Paths are relative to the file that has them. */
  const besides = (kubeconfig: string, file: string) => path.resolve(path.dirname(kubeconfig), file)

  /** How to read it now. As kubectl: embedded data wins over the file. */
  const pem = Effect.fnUntraced(function*(
    kubeconfig: string,
    field: string,
    data: string | undefined,
    file: string | undefined
  ): Effect.fn.Return<
    Effect.Effect<string | undefined, CredentialsUnavailable, FileSystem.FileSystem>,
    KubeConfigInvalid
  > {
    if (data !== undefined && data !== "") {
      const decoded = Buffer.from(data, "base64").toString("utf8")
      return decoded.includes("-----BEGIN ")
        ? Effect.succeed(decoded)
        : yield* new KubeConfigInvalid({ path: kubeconfig, detail: `a ${field}-data is not PEM in base64` })
    }
    return file === undefined || file === ""
      ? Effect.succeed(undefined)
      : readFile(context, besides(kubeconfig, file))
  })

  const ca = yield* reread(
    REREAD_CERTIFICATES,
    yield* pem(
      clusterPath,
      "certificate-authority",
      cluster["certificate-authority-data"],
      cluster["certificate-authority"]
    )
  )
  const base: Source<TlsSettings> = {
    get: Effect.map(ca.get, (ca) => ({
      ca,
      serverName: cluster["tls-server-name"] === "" ? undefined : cluster["tls-server-name"],
      insecure: cluster["insecure-skip-tls-verify"]
    })),
    forget: ca.forget
  }

  const { exec, "auth-provider": provider, "client-key-data": keyData, password, token, tokenFile, username } = user
  if (exec !== undefined) {
    const plugin = yield* execPlugin.make({
      cluster: context,
      // A bare command is looked for on PATH, one with a slash next to the kubeconfig.
      config: /[/\\]/.test(exec.command) ? { ...exec, command: besides(userPath, exec.command) } : exec,
      clusterInfo: Effect.map(ca.get, (ca) => clusterInfo(cluster, ca)),
      interactive
    })
    return {
      get: Effect.zipWith(base.get, plugin.get, (tls, credential): Identity => ({
        tls: credential.cert === undefined ? tls : { ...tls, cert: credential.cert, key: credential.key },
        authorization: credential.token === undefined ? undefined : bearer(Redacted.value(credential.token))
      })),
      forget: Effect.andThen(base.forget, plugin.forget)
    }
  }
  if (provider !== undefined) {
    const signedIn = yield* authProvider.make({
      cluster: context,
      server: cluster.server ?? "",
      provider,
      read: (file) => Effect.provideService(readFile(context, besides(userPath, file)), FileSystem.FileSystem, fs)
    })
    return {
      get: Effect.zipWith(base.get, signedIn.get, (tls, authorization): Identity => ({ tls, authorization })),
      forget: Effect.andThen(base.forget, signedIn.forget)
    }
  }

  const cert = yield* pem(userPath, "client-certificate", user["client-certificate-data"], user["client-certificate"])
  const key = yield* pem(
    userPath,
    "client-key",
    keyData === undefined ? undefined : Redacted.value(keyData),
    user["client-key"]
  )
  let whole: ClientPair | undefined
  const pair = yield* reread(
    REREAD_CERTIFICATES,
    Effect.gen(function*() {
      const read = { cert: yield* cert, key: yield* key }
      // Somebody is in the middle of replacing them, file by file.
      if (whole !== undefined && !isPair(read)) return whole
      whole = read
      return read
    })
  )
  const authorization: Source<Redacted.Redacted<string> | undefined> = tokenFile !== undefined && tokenFile !== ""
    ? yield* reread(REREAD, Effect.map(readToken(context, besides(userPath, tokenFile)), bearer))
    : token !== undefined && Redacted.value(token) !== ""
    ? fixed(bearer(Redacted.value(token)))
    : username !== undefined && username !== ""
    ? fixed(basic(username, password === undefined ? "" : Redacted.value(password)))
    : fixed(undefined)
  return {
    get: Effect.gen(function*(): Effect.fn.Return<Identity, CredentialsUnavailable> {
      const tls = yield* base.get
      const { cert: certPem, key: keyPem } = yield* pair.get
      return {
        tls: certPem === undefined || keyPem === undefined
          ? tls
          : { ...tls, cert: certPem, key: Redacted.make(keyPem, { label: "key" }) },
        authorization: yield* authorization.get
      }
    }),
    forget: Effect.all([base.forget, pair.forget, authorization.forget], { discard: true })
  }
})

interface ClientPair {
  readonly cert: string | undefined
  readonly key: string | undefined
}

/** Whether the key is that of the certificate; what cannot be read is none. */
const isPair = ({ cert, key }: ClientPair): boolean => {
  if (cert === undefined || key === undefined) return true
  return Result.getOrElse(
    Result.try(() => new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))),
    () => false
  )
}

const bearer = (token: string) => Redacted.make(`Bearer ${token}`, { label: "token" })

const basic = (username: string, password: string) =>
  Redacted.make(`Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`, { label: "password" })

/** `spec.cluster` of an ExecCredential (client-go pkg/apis/clientauthentication/v1, Cluster). */
const clusterInfo = (cluster: typeof ClusterEntry.Type, ca: string | undefined): Record<string, unknown> => ({
  "server": cluster.server,
  "tls-server-name": cluster["tls-server-name"],
  "insecure-skip-tls-verify": cluster["insecure-skip-tls-verify"] ? true : undefined,
  "certificate-authority-data": ca === undefined ? undefined : Buffer.from(ca).toString("base64"),
  "proxy-url": cluster["proxy-url"],
  "config": cluster.extensions.find(({ name }) => name === "client.authentication.k8s.io/exec")?.extension
})

/** Those that were probably meant come first. */
const closestFirst = (wanted: string | undefined, known: ReadonlyArray<string>): ReadonlyArray<string> =>
  wanted === undefined
    ? known
    : known.map((name) => [distance(wanted.toLowerCase(), name.toLowerCase()), name] as const)
      .sort(([a], [b]) => a - b)
      .map(([, name]) => name)

/** One being a part of the other counts as close. */
const distance = (wanted: string, known: string): number =>
  known.includes(wanted) || wanted.includes(known) ? 0.5 : EditDistance.between(wanted, known)
