/**
 * Credentials from a program, as kubectl gets them from `aws`, `gke-gcloud-auth-plugin`, `kubelogin` and others.
 *
 * The protocol is `client.authentication.k8s.io` (v1 and v1beta1, KEP-541): the program is told about the cluster in
 * `KUBERNETES_EXEC_INFO` and prints an `ExecCredential`. What it prints is a credential: it is read, never shown. What it
 * says on stderr is shown when it fails, cut and with anything like a token blacked out.
 */
import { Clock, DateTime, Duration, Effect, Exit, Redacted, Schema, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { CredentialsUnavailable } from "../KubeConnection.ts"
import { listOf, maybe, part, time } from "../KubeResource.ts"

/** A kubeconfig's `users[].user.exec`. */
export const ExecConfig = Schema.Struct({
  apiVersion: Schema.Literals(["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"]),
  command: Schema.NonEmptyString,
  args: listOf(Schema.String),
  env: listOf(Schema.Struct({ name: Schema.String, value: Schema.String })),
  installHint: maybe(Schema.String),
  provideClusterInfo: maybe(Schema.Boolean),
  interactiveMode: maybe(Schema.Literals(["Never", "IfAvailable", "Always"]))
})
export type ExecConfig = typeof ExecConfig.Type

/** What a plugin gave: a token, a client certificate, or both. */
export interface PluginCredential {
  readonly token: Redacted.Redacted<string> | undefined
  readonly cert: string | undefined
  readonly key: Redacted.Redacted<string> | undefined
  /** Milliseconds since 1970; without it the credential is used until the server refuses it. */
  readonly expiresAt: number | undefined
}

export interface ExecPlugin {
  readonly cluster: string
  readonly config: ExecConfig
  /** `spec.cluster` of the ExecCredential, for plugins that ask for it (`provideClusterInfo`). */
  readonly clusterInfo: Effect.Effect<Readonly<Record<string, unknown>>, CredentialsUnavailable>
  /** Whether a person can answer the plugin's questions on this terminal. */
  readonly interactive: boolean
}

/** Longer than a cloud's slowest sign-in, shorter than a person's patience with a hung one. */
const TIMEOUT = Duration.seconds(60)
const MAXIMUM_OUTPUT = 1024 * 1024
const MAXIMUM_STDERR = 2_000
/** Clocks differ and requests take time: a credential is renewed this long before its end. */
const EXPIRY_MARGIN = 10_000
/** How long a failure stands, so that a hundred requests do not start a hundred failing programs. */
const FAILURE_TTL = Duration.seconds(5)

const ExecCredential = Schema.fromJsonString(Schema.Struct({
  apiVersion: Schema.String,
  kind: Schema.Literal("ExecCredential"),
  status: part({
    token: maybe(Schema.String),
    clientCertificateData: maybe(Schema.String),
    clientKeyData: maybe(Schema.String),
    expirationTimestamp: time
  })
}))
const decode = Schema.decodeUnknownEffect(ExecCredential)

/** JSON Web Tokens, EKS tokens and bearer headers. */
const blackOut = (text: string): string =>
  text.replaceAll(/\b(?:eyJ[\w-]{8,}[\w.-]*|k8s-aws-v1\.[\w-]+)|(?<=[Bb]earer )\S+/g, "<redacted>")

/**
 * Runs the plugin when first asked and when its credential ends. `forget` is for when the server refused it.
 */
export const make = Effect.fnUntraced(function*(plugin: ExecPlugin): Effect.fn.Return<
  { readonly get: Effect.Effect<PluginCredential, CredentialsUnavailable>; readonly forget: Effect.Effect<void> },
  never,
  ChildProcessSpawner.ChildProcessSpawner
> {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const get = run(plugin).pipe(
    Effect.flatMap((credential) => Effect.map(Clock.currentTimeMillis, (now) => ({ credential, now }))),
    Effect.provideService(ChildProcessSpawner.ChildProcessSpawner, spawner)
  )
  const [cached, forget] = yield* Effect.cachedInvalidateWithTTL(
    get,
    Exit.match({
      onFailure: () => FAILURE_TTL,
      onSuccess: ({ credential, now }) =>
        credential.expiresAt === undefined
          ? Duration.infinity
          : Duration.millis(Math.max(0, credential.expiresAt - EXPIRY_MARGIN - now))
    })
  )
  return { get: Effect.map(cached, ({ credential }) => credential), forget }
})

const run = Effect.fn("execPlugin.run")(function*(plugin: ExecPlugin) {
  const { config, interactive } = plugin
  const fail = (detail: string) =>
    new CredentialsUnavailable({ cluster: plugin.cluster, source: `exec plugin ${config.command}`, detail })
  if (config.interactiveMode === "Always" && !interactive) {
    return yield* fail("it needs a terminal to ask on; sign in with kubectl first or use other credentials")
  }
  const asks = interactive && config.interactiveMode !== "Never"
  const cluster = config.provideClusterInfo === true ? yield* plugin.clusterInfo : undefined
  const command = ChildProcess.make(config.command, config.args, {
    env: {
      ...Object.fromEntries(config.env.map(({ name, value }) => [name, value])),
      KUBERNETES_EXEC_INFO: JSON.stringify({
        apiVersion: config.apiVersion,
        kind: "ExecCredential",
        spec: { interactive: asks, cluster }
      })
    },
    extendEnv: true,
    stdin: asks ? "inherit" : "ignore",
    stderr: asks ? "inherit" : "pipe",
    killSignal: "SIGTERM",
    forceKillAfter: "2 seconds"
  })
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const [stdout, stderr, code] = yield* Effect.gen(function*() {
    const handle = yield* spawner.spawn(command)
    return yield* Effect.all([
      firstOf(handle.stdout, MAXIMUM_OUTPUT),
      asks ? Effect.succeed("") : firstOf(handle.stderr, MAXIMUM_STDERR),
      handle.exitCode
    ], { concurrency: "unbounded" })
  }).pipe(
    Effect.scoped,
    Effect.catchTag("PlatformError", (error) =>
      Effect.fail(fail(
        error.reason._tag === "NotFound"
          ? `it is not installed${config.installHint === undefined ? "" : `; ${config.installHint}`}`
          : error.message
      ))),
    Effect.timeoutOrElse({
      duration: TIMEOUT,
      orElse: () => Effect.fail(fail(`it did not end within ${Duration.format(TIMEOUT)}`))
    })
  )
  if (code !== 0) {
    const said = blackOut(stderr.trim())
    return yield* fail(`it ended with exit code ${code}${said === "" ? "" : `: ${said}`}`)
  }
  // The issue may quote what was printed, which may be a credential.
  const output = yield* Effect.mapError(decode(stdout), () => fail("it did not print an ExecCredential"))
  if (output.apiVersion !== config.apiVersion) {
    return yield* fail(`it speaks ${output.apiVersion}, the kubeconfig asks for ${config.apiVersion}`)
  }
  const { clientCertificateData, clientKeyData, expirationTimestamp, token } = output.status
  if (token === undefined && (clientCertificateData === undefined || clientKeyData === undefined)) {
    return yield* fail("it printed neither a token nor a client certificate with its key")
  }
  const credential: PluginCredential = {
    token: token === undefined ? undefined : Redacted.make(token, { label: "token" }),
    cert: clientCertificateData,
    key: clientKeyData === undefined ? undefined : Redacted.make(clientKeyData, { label: "key" }),
    expiresAt: expirationTimestamp === undefined ? undefined : DateTime.toEpochMillis(expirationTimestamp)
  }
  return credential
})

/** The first bytes of a stream as text; the rest is read and dropped, so that the writer does not block. */
const firstOf = <E>(bytes: Stream.Stream<Uint8Array, E>, maximum: number) =>
  Stream.runFold(
    bytes,
    () => Buffer.alloc(0),
    (kept, chunk) => kept.length >= maximum ? kept : Buffer.concat([kept, chunk]).subarray(0, maximum)
  ).pipe(
    Effect.map((kept) => kept.toString("utf8"))
  )
