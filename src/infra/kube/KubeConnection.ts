/**
 * How one cluster's API server is reached and as whom.
 *
 * A connection is data plus one effect, {@link KubeConnection.identity}, evaluated before every request: it must be cheap
 * (cache it), and when what it returns changes, the next request uses the new material. Make one from a kubeconfig with
 * `KubeConfigFile`, inside a pod with `InCluster`, or by hand with {@link make}.
 */
import { Data, Effect, type Redacted } from "effect"

/** TLS material, PEM. System and bundled roots when `ca` is absent. */
export interface TlsSettings {
  readonly ca?: string | undefined
  readonly cert?: string | undefined
  readonly key?: Redacted.Redacted<string> | undefined
  /** The name to ask for and verify, when it is not the URL's host. */
  readonly serverName?: string | undefined
  /** Do not verify the server. Its answers, and our token, are then open to whoever sits in between. */
  readonly insecure?: boolean | undefined
}

/** Who we are at this moment. */
export interface Identity {
  readonly tls: TlsSettings
  /** The whole `Authorization` header, such as `Bearer ...`. */
  readonly authorization?: Redacted.Redacted<string> | undefined
}

/** No credentials could be had: a file is gone, a plugin failed. `detail` never holds a credential. */
export class CredentialsUnavailable extends Data.TaggedError("CredentialsUnavailable")<{
  readonly cluster: string
  /** Where they should come from, such as `exec plugin aws` or a file's name. */
  readonly source: string
  readonly detail: string
}> {
  override get message(): string {
    return `no credentials for cluster ${this.cluster} from ${this.source}: ${this.detail}`
  }
}

export interface KubeConnection {
  /** The name people know the cluster by. */
  readonly cluster: string
  /** `https://host:port`, with a path prefix if it has one. */
  readonly server: string
  /** `http`, `https` or `socks5` URL of a proxy; may hold a password. */
  readonly proxy?: Redacted.Redacted<string> | undefined
  /** Headers of every request, such as `impersonate-group`, which may have several values. Never secrets. */
  readonly headers?: Readonly<Record<string, string | ReadonlyArray<string>>> | undefined
  readonly identity: Effect.Effect<Identity, CredentialsUnavailable>
  /** Forget cached credentials: the server refused them. */
  readonly refresh: Effect.Effect<void>
}

/** A connection whose identity never changes. */
export const make = (options: {
  readonly cluster: string
  readonly server: string
  readonly proxy?: Redacted.Redacted<string> | undefined
  readonly headers?: Readonly<Record<string, string | ReadonlyArray<string>>> | undefined
  readonly identity: Identity
}): KubeConnection => ({
  ...options,
  identity: Effect.succeed(options.identity),
  refresh: Effect.void
})
