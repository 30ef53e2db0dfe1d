/**
 * A master in its two forms: embedded, with all state in one folder, and in a cluster, with its state in the Kubernetes
 * API.
 */
import { Effect, Layer, Path } from "effect"
import { HealthServer } from "../infra/health/HealthServer.ts"
import type { LinkServerOptions } from "../infra/link/LinkServer.ts"
import { CertificateAuthority } from "../infra/pki/CertificateAuthority.ts"
import { CredentialStore } from "../infra/pki/CredentialStore.ts"
import * as Sqlite from "../infra/sql/Sqlite.ts"
import { ApiServer, type ApiServerOptions } from "./api/ApiServer.ts"
import { Authentication } from "./api/Authentication.ts"
import { Authorization } from "./api/Authorization.ts"
import * as Fleet from "./Fleet.ts"
import * as HistorySqlite from "./history/HistorySqlite.ts"
import { KubeAccess } from "./KubeAccess.ts"
import * as JoinTokensSecrets from "./membership/JoinTokensSecrets.ts"
import * as JoinTokensSqlite from "./membership/JoinTokensSqlite.ts"
import * as MembershipDurable from "./membership/MembershipDurable.ts"
import { MemberStore } from "./membership/MemberStore.ts"
import * as ResourcesKubernetes from "./resources/ResourcesKubernetes.ts"
import * as ResourcesSqlite from "./resources/ResourcesSqlite.ts"

export interface MasterOptions {
  /** Where agents enrol and link. */
  readonly link: LinkServerOptions
  /** Where people and services ask. */
  readonly api: ApiServerOptions
  /** Where a kubelet asks; nowhere when absent. */
  readonly health?: { readonly host: string; readonly port: number } | undefined
  /** The folder of what outlives the process. */
  readonly state: string
}

/** The namespace that objects of an embedded master are in; the original's. */
const EMBEDDED_NAMESPACE = "default"

/** The file of the embedded master's administrator, in its state folder. */
export const TOKEN_FILE = "admin.token"

const serving = ({ api, health, link }: MasterOptions) =>
  Layer.mergeAll(
    ApiServer.layer(api),
    health === undefined ? Layer.empty : HealthServer.layer({ ...health, unready: Effect.undefined })
  ).pipe(
    Layer.provideMerge(KubeAccess.layer),
    Layer.provideMerge(Fleet.layer(link))
  )

/** With its state in SQLite files and PEM files of the folder, and one token for its administrator. */
export const layerEmbedded = (options: MasterOptions) =>
  Layer.unwrap(Effect.gen(function*() {
    const path = yield* Path.Path
    const file = (name: string) => path.join(options.state, name)
    // The history is written all the time and the rest hardly ever: neither waits for the other.
    const history = HistorySqlite.layer().pipe(
      Layer.provide(Sqlite.layer({ file: file("history.db"), synchronous: "FULL" }))
    )
    const state = Layer.mergeAll(
      MembershipDurable.layer.pipe(Layer.provide(MemberStore.layerSqlite)),
      JoinTokensSqlite.layer
    ).pipe(
      Layer.provideMerge(ResourcesSqlite.layer({ namespace: EMBEDDED_NAMESPACE })),
      Layer.provide(Sqlite.layer({ file: file("master.db"), synchronous: "FULL" }))
    )
    return serving(options).pipe(
      Layer.provide([Authentication.layerToken(file(TOKEN_FILE)), Authorization.layerAdmin]),
      Layer.provide(Layer.merge(state, history)),
      Layer.provideMerge(CertificateAuthority.layer),
      Layer.provide(CredentialStore.layerFiles(file("pki")))
    )
  }))

export interface KubernetesOptions {
  /** The namespace of the master's own Secrets. */
  readonly namespace: string
  /** The namespace of Clusters, Probes and ProbeRuns. */
  readonly resourceNamespace: string
}

/**
 * With its desired state in the cluster of `Kube`, whose API server also says who callers are and what they may. The
 * history stays in the state folder.
 */
export const layerKubernetes = (options: MasterOptions & KubernetesOptions) =>
  Layer.unwrap(Effect.gen(function*() {
    const path = yield* Path.Path
    const { namespace, resourceNamespace } = options
    const history = HistorySqlite.layer().pipe(
      Layer.provide(Sqlite.layer({ file: path.join(options.state, "history.db"), synchronous: "FULL" }))
    )
    const state = Layer.mergeAll(
      MembershipDurable.layer.pipe(Layer.provide(MemberStore.layerLeases({ namespace: resourceNamespace }))),
      JoinTokensSecrets.layer({ namespace })
    ).pipe(Layer.provideMerge(ResourcesKubernetes.layer({ namespace: resourceNamespace })))
    return serving(options).pipe(
      Layer.provide([
        Authentication.layerKubernetes(),
        Authorization.layerKubernetes({ namespace: resourceNamespace })
      ]),
      Layer.provide(Layer.merge(state, history)),
      Layer.provideMerge(CertificateAuthority.layer),
      Layer.provide(CredentialStore.layerSecrets(namespace))
    )
  }))
