import { Effect, FileSystem } from "effect"
import type { CertificateAuthority, KeyPairPem } from "../Certificates.ts"
import * as Certificates from "../Certificates.ts"
import * as Kubeconfig from "../Kubeconfig.ts"
import { KUBERNETES_SERVICE_IP } from "./Flags.ts"

/** The authority of a cluster and what is signed by it. */
export interface Credentials {
  readonly authority: CertificateAuthority
  /** In the group `system:masters`, which no policy restricts. */
  readonly admin: KeyPairPem
  /** A kubeconfig of a new client of that name. */
  readonly kubeconfigOf: (
    commonName: string,
    organizations?: ReadonlyArray<string>
  ) => Effect.Effect<string>
}

/** Makes new credentials, and writes those of the control plane into its folder, readable by the owner alone. */
export const make = Effect.fn("Credentials.make")(function*(options: {
  readonly name: string
  readonly folder: string
  /** The address that clients dial, and the URL. */
  readonly address: string
  readonly server: string
}) {
  const fs = yield* FileSystem.FileSystem
  const { address, folder, name, server } = options
  const authority = yield* Certificates.makeAuthority(`kubeprober-local-${name}`)
  // Of its own, so that no client certificate of the cluster passes for the front proxy, which may speak for anyone.
  const frontProxy = yield* Certificates.makeAuthority(`kubeprober-local-${name}-front-proxy`)
  const serviceAccounts = yield* Certificates.makeSigningKey

  const kubeconfigOf: Credentials["kubeconfigOf"] = (commonName, organizations = []) =>
    Effect.map(
      authority.issue({ commonName, organizations }),
      (client) => Kubeconfig.render([{ context: commonName, server, ca: authority.cert, client }])
    )
  const pairs: Record<string, KeyPairPem> = {
    ca: authority,
    apiserver: yield* authority.issue({
      commonName: "kube-apiserver",
      dnsNames: [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local"
      ],
      ipAddresses: [...new Set(["127.0.0.1", address, KUBERNETES_SERVICE_IP])]
    }),
    "apiserver-client": yield* authority.issue({
      commonName: "kube-apiserver-kubelet-client",
      organizations: ["system:masters"]
    }),
    etcd: yield* authority.issue({ commonName: "etcd", dnsNames: ["localhost"], ipAddresses: ["127.0.0.1"] }),
    "front-proxy": yield* frontProxy.issue({ commonName: "front-proxy" })
  }
  const files: Record<string, string> = {
    ...Object.fromEntries(
      Object.entries(pairs).flatMap(([file, { cert, key }]) => [
        [`${file}.crt`, cert],
        [`${file}.key`, key]
      ])
    ),
    "front-proxy-ca.crt": frontProxy.cert,
    "service-accounts.key": serviceAccounts.privateKey,
    "service-accounts.pub": serviceAccounts.publicKey,
    "controller-manager.conf": yield* kubeconfigOf("system:kube-controller-manager"),
    "scheduler.conf": yield* kubeconfigOf("system:kube-scheduler")
  }
  yield* Effect.forEach(
    Object.entries(files),
    ([file, content]) => fs.writeFileString(`${folder}/${file}`, content, { mode: 0o600 })
  )
  const admin = yield* authority.issue({ commonName: "kubeprober-local-admin", organizations: ["system:masters"] })
  const credentials: Credentials = { authority, admin, kubeconfigOf }
  return credentials
})
