import { stringify } from "yaml"
import type { KeyPairPem } from "./Certificates.ts"

export interface KubeconfigEntry {
  /** Name of the context, the cluster and the user. */
  readonly context: string
  readonly server: string
  readonly ca: string
  readonly client: KeyPairPem
}

/** The context that a local cluster has in kubeconfigs. */
export const contextName = (cluster: string): string => `kubeprober-local-${cluster}`

/** A self-contained kubeconfig (credentials inside) with these contexts, of which the first is the current one. */
export const render = (entries: ReadonlyArray<KubeconfigEntry>): string =>
  stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: entries.map(({ ca, context, server }) => ({
      name: context,
      cluster: { server, "certificate-authority-data": base64(ca) }
    })),
    users: entries.map(({ client, context }) => ({
      name: context,
      user: { "client-certificate-data": base64(client.cert), "client-key-data": base64(client.key) }
    })),
    contexts: entries.map(({ context }) => ({ name: context, context: { cluster: context, user: context } })),
    "current-context": entries[0]?.context ?? ""
  }, { lineWidth: 0 })

const base64 = (text: string): string => Buffer.from(text).toString("base64")
