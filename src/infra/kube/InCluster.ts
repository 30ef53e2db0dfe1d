/**
 * The API server as a pod reaches it, with the pod's own service account
 * (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/).
 *
 * No kubeconfig and no proxy is involved: a Service's address is reached directly from every pod.
 */
import { Config, Data, Effect, FileSystem, Option, Redacted } from "effect"
import { isIPv6 } from "node:net"
import { REREAD, readFile, readToken } from "./credentials/material.ts"
import type { CredentialsUnavailable, Identity, KubeConnection } from "./KubeConnection.ts"

/** Where the kubelet projects the token (KEP-1205), its CA and the namespace. */
export const SERVICE_ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"

/** This is not a pod, or one without a service account token. */
export class NotInCluster extends Data.TaggedError("NotInCluster")<{ readonly missing: string }> {
  override get message(): string {
    return `not running in a cluster: ${this.missing} is missing; name a kubeconfig with --kubeconfig or KUBECONFIG, or ` +
      `set automountServiceAccountToken on the pod`
  }
}

export interface InClusterOptions {
  /** The name of the cluster; default `in-cluster`. */
  readonly cluster?: string | undefined
  /** Default {@link SERVICE_ACCOUNT_FOLDER}. */
  readonly folder?: string | undefined
}

/** The connection of this pod's service account. The token and the CA are read again each minute, and after a 401. */
export const connection = Effect.fnUntraced(function*(
  options?: InClusterOptions
): Effect.fn.Return<KubeConnection, NotInCluster, FileSystem.FileSystem> {
  const fs = yield* FileSystem.FileSystem
  const folder = options?.folder ?? SERVICE_ACCOUNT_FOLDER
  const cluster = options?.cluster ?? "in-cluster"
  const host = yield* variable("KUBERNETES_SERVICE_HOST")
  const port = yield* variable("KUBERNETES_SERVICE_PORT")
  const tokenFile = `${folder}/token`
  if (!(yield* Effect.orElseSucceed(fs.exists(tokenFile), () => false))) {
    return yield* new NotInCluster({ missing: tokenFile })
  }
  const read = Effect.gen(function*(): Effect.fn.Return<Identity, CredentialsUnavailable, FileSystem.FileSystem> {
    const token = yield* readToken(cluster, tokenFile)
    const ca = yield* readFile(cluster, `${folder}/ca.crt`)
    return { tls: { ca }, authorization: Redacted.make(`Bearer ${token}`, { label: "service account token" }) }
  }).pipe(Effect.provideService(FileSystem.FileSystem, fs))
  const [identity, refresh] = yield* Effect.cachedInvalidateWithTTL(
    read,
    (exit) => exit._tag === "Success" ? REREAD : "1 second"
  )
  return { cluster, server: `https://${isIPv6(host) ? `[${host}]` : host}:${port}`, identity, refresh }
})

/** The namespace this pod runs in. */
export const namespace = (options?: InClusterOptions) =>
  Effect.map(
    readFile(options?.cluster ?? "in-cluster", `${options?.folder ?? SERVICE_ACCOUNT_FOLDER}/namespace`),
    (text) => text.trim()
  )

const variable = (name: string) =>
  Config.option(Config.NonEmptyString(name)).pipe(
    Effect.orElseSucceed(() => Option.none<string>()),
    Effect.flatMap(Option.match({
      onNone: () => Effect.fail(new NotInCluster({ missing: `the environment variable ${name}` })),
      onSome: Effect.succeed
    }))
  )
