/**
 * `k8s.cert.expiry`: will a certificate run out soon?
 *
 * Looks at what clients are shown (the API server, kubelets, hosts of one's own) and at what they trust (the cluster's CA,
 * the CA bundles of webhooks, aggregated APIs and conversions, the prober's own certificate).
 */
import { Array, DateTime, Duration, Effect, Option, Result, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import type { KubeObject, KubeResource } from "../../infra/kube/KubeResource.ts"
import { MutatingWebhookConfiguration, ValidatingWebhookConfiguration } from "../../infra/kube/resources/admission.ts"
import { ConfigMap, Node } from "../../infra/kube/resources/core.ts"
import { APIService, CustomResourceDefinition } from "../../infra/kube/resources/extensions.ts"
import { certificatesOf } from "../../infra/tls/pem.ts"
import { TlsPeer, type TlsPeerError } from "../../infra/tls/TlsPeer.ts"
import { type Validity, validityOf } from "../../infra/tls/validity.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Needs from "../Needs.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import * as ServerTime from "../ServerTime.ts"
import { setting } from "../Setting.ts"
import * as Watch from "../Watch.ts"

const codes = Codes.make({
  CERT_EXPIRED: Codes.error(
    "A certificate has expired: who verifies it refuses the connection.",
    "Renew it and reload whoever serves it (`kubeadm certs renew all` for a kubeadm control plane)."
  ),
  CERT_EXPIRING: Codes.error(
    "A certificate expires within the ERROR limit.",
    "Renew it now; if it should renew itself, look at cert-manager, or at the approver of CertificateSigningRequests."
  ),
  CERT_EXPIRING_SOON: Codes.warn(
    "A certificate expires within the WARN limit.",
    "Plan its renewal; if it should renew itself, look at cert-manager, or at the approver of CertificateSigningRequests."
  ),
  CERT_EXPIRED_IGNORED: Codes.warn(
    "The CA bundle of a webhook with failurePolicy Ignore has expired: objects pass without what it should check or change.",
    "Renew the certificate and the caBundle; look at the controller that injects it."
  ),
  CERT_NOT_YET_VALID: Codes.warn(
    "A certificate is not valid yet.",
    "Compare the clocks of whoever issued it, of whoever serves it and of the prober."
  ),
  CA_UNREADABLE: Codes.warn(
    "A CA bundle holds no certificate that can be read.",
    "Look at the controller that should inject the bundle."
  ),
  OWN_CERT_EXPIRING: Codes.info(
    "The client certificate the prober itself uses expires within the WARN limit.",
    "Renew the kubeconfig (`kubeadm kubeconfig user`, or your provider's command)."
  ),
  OWN_CERT_EXPIRING_NOW: Codes.warn(
    "The client certificate the prober itself uses expires within the ERROR limit; after that it sees nothing.",
    "Renew the kubeconfig (`kubeadm kubeconfig user`, or your provider's command)."
  ),
  NOT_SHOWN: Codes.unknown(
    "A server could not be asked for its certificate.",
    "Check the address, and that a connection from the prober to it is allowed."
  )
})

const HostPort = Schema.String.check(
  Schema.isPattern(/^(\[[0-9a-fA-F:.]+\]|[^:\s[\]]+):\d{1,5}$/u, { message: "a host is written host:port" })
)

const Config = Schema.Struct({
  warn: setting(DurationString, {
    default: "720h",
    description: "Less time left than this (30 days) is a warning, for a certificate of a long life."
  }),
  error: setting(DurationString, {
    default: "168h",
    description: "Less time left than this (7 days) is an error, for a certificate of a long life."
  }),
  apiServer: setting(Schema.Boolean, { default: true, description: "Whether the API server's certificate is judged." }),
  kubelets: setting(Schema.Boolean, {
    default: false,
    description: "Whether each node's kubelet is asked for its certificate; the prober must reach port 10250 of nodes."
  }),
  hosts: setting(
    Schema.Array(Schema.Struct({ host: HostPort, serverName: Schema.optionalKey(Schema.String) })).check(
      Schema.isMaxLength(50)
    ),
    { default: [], description: "More TLS servers, such as {host: \"shop.example.com:443\"}; at most 50." }
  ),
  timeout: setting(DurationString, { default: "3s", description: "How long one TLS handshake may take." })
})
type Config = typeof Config.Type

/** A certificate that replaces itself does so well before; less than this share of its life left means it did not. */
const WARN_SHARE = 0.2
/** Ours: at a quarter of the warning. */
const ERROR_SHARE = 0.05

/** How a certificate stands. `limit` is the one it is inside of. */
export type Standing =
  | { readonly _tag: "Expired" | "NotYetValid" | "Fine" }
  | { readonly _tag: "Expiring" | "ExpiringSoon"; readonly limit: Duration.Duration }

/**
 * Limits shrink with the certificate's life: 30 days before the end of a year are early, of a 24-hour certificate that
 * renews itself they are always.
 */
export const standing = (
  { notAfter, notBefore }: Validity,
  limits: { readonly warn: Duration.Duration; readonly error: Duration.Duration },
  now: DateTime.Utc
): Standing => {
  if (DateTime.isLessThanOrEqualTo(notAfter, now)) return { _tag: "Expired" }
  if (DateTime.isGreaterThan(notBefore, now)) return { _tag: "NotYetValid" }
  const life = DateTime.distance(notBefore, notAfter)
  const left = DateTime.distance(now, notAfter)
  const error = Duration.min(limits.error, Duration.times(life, ERROR_SHARE))
  if (Duration.isLessThan(left, error)) return { _tag: "Expiring", limit: error }
  const warn = Duration.min(limits.warn, Duration.times(life, WARN_SHARE))
  return Duration.isLessThan(left, warn) ? { _tag: "ExpiringSoon", limit: warn } : { _tag: "Fine" }
}

/** Something that holds or shows certificates. */
export interface Holder {
  /** As in `certificate of the API server 10.0.0.1:6443`. */
  readonly what: string
  readonly subject: Subject
  readonly own?: boolean
  /** Whether others go on without what it is for. */
  readonly isIgnored?: boolean
}

export const judgeValidity = (
  holder: Holder,
  validity: Validity,
  config: Pick<Config, "warn" | "error">,
  now: DateTime.Utc
): ReadonlyArray<Finding> => {
  const stands = standing(validity, config, now)
  const until = DateTime.formatIso(validity.notAfter)
  const evidence = { notAfter: until, notBefore: DateTime.formatIso(validity.notBefore) }
  const left = Elapsed.text(Elapsed.between(now, validity.notAfter))
  const { isIgnored = false, own = false, subject, what } = holder
  switch (stands._tag) {
    case "Fine":
      return []
    case "Expired":
      return [(own ? codes.OWN_CERT_EXPIRING_NOW : isIgnored ? codes.CERT_EXPIRED_IGNORED : codes.CERT_EXPIRED)({
        message: `${what} expired ${Elapsed.text(Elapsed.between(validity.notAfter, now))} ago, at ${until}`,
        subject,
        evidence
      })]
    case "NotYetValid":
      return [codes.CERT_NOT_YET_VALID({
        message: `${what} is not valid before ${DateTime.formatIso(validity.notBefore)}`,
        subject,
        evidence
      })]
    case "Expiring":
    case "ExpiringSoon": {
      const code = stands._tag === "Expiring" && !isIgnored
        ? own ? codes.OWN_CERT_EXPIRING_NOW : codes.CERT_EXPIRING
        : own
        ? codes.OWN_CERT_EXPIRING
        : codes.CERT_EXPIRING_SOON
      return [
        code({
          message: `${what} expires in ${left}, at ${until} (limit ${Elapsed.text(stands.limit)})`,
          subject,
          evidence
        })
      ]
    }
  }
}

/** A chain serves until the first of its certificates ends. A root among them is the verifier's own business. */
export const ofChain = (
  chain: ReadonlyArray<Validity & { readonly subject: string; readonly issuer: string }>
): Option.Option<Validity> => {
  const [leaf, ...issuers] = chain
  if (leaf === undefined) return Option.none()
  return Option.some(
    issuers.filter(({ issuer, subject }) => issuer !== subject)
      .reduce<Validity>((a, b) => DateTime.isLessThan(b.notAfter, a.notAfter) ? b : a, leaf)
  )
}

const decodeBase64 = Schema.decodeUnknownOption(Schema.StringFromBase64)

/** A bundle serves until the last of its certificates ends: during a rotation it holds the old one beside the new. */
export const ofBundle = (pem: string): Option.Option<Validity> => {
  const readable = Array.getSomes(Array.getSuccesses(certificatesOf(pem)).map(validityOf))
  return Array.isReadonlyArrayNonEmpty(readable)
    ? Option.some(readable.reduce((a, b) => DateTime.isGreaterThan(b.notAfter, a.notAfter) ? b : a))
    : Option.none()
}

interface Bundle {
  readonly holder: Holder
  readonly pem: string
}

const judgeBundle = ({ holder, pem }: Bundle, config: Config, now: DateTime.Utc): ReadonlyArray<Finding> =>
  Option.match(ofBundle(pem), {
    onNone: () => [codes.CA_UNREADABLE({
      message: `${holder.what} holds no certificate that can be read`,
      subject: holder.subject
    })],
    onSome: (validity) => judgeValidity(holder, validity, config, now)
  })

const bundleOf = (
  kind: string,
  name: string | undefined,
  what: string,
  base64: string | undefined,
  isIgnored = false
): ReadonlyArray<Bundle> =>
  base64 === undefined || base64 === "" ? [] : [{
    holder: { what: `CA bundle of ${what}`, subject: { kind, name: name ?? "" }, isIgnored },
    pem: Option.getOrElse(decodeBase64(base64), () => "")
  }]

const bundlesOfWebhooks =
  (resource: KubeResource<KubeObject>) => ({ metadata, webhooks }: ValidatingWebhookConfiguration) =>
    webhooks.flatMap(({ clientConfig, failurePolicy, name }) =>
      bundleOf(
        resource.kind,
        metadata.name,
        `webhook ${name} of ${resource.kind} ${metadata.name}`,
        clientConfig.caBundle,
        failurePolicy === "Ignore"
      )
    )

/** All CA bundles the API server calls others with, and the cluster's own CA. */
const bundles = Effect.gen(function*() {
  const kube = yield* Kube
  const [validating, mutating, services, definitions, root] = yield* Effect.all([
    kube.list(ValidatingWebhookConfiguration),
    kube.list(MutatingWebhookConfiguration),
    kube.list(APIService),
    kube.list(CustomResourceDefinition),
    // Every namespace holds it (KEP-1205); without it or the right to read it there is one thing less to look at.
    Effect.option(kube.get(ConfigMap, { name: "kube-root-ca.crt", namespace: "default" }))
  ], { concurrency: "unbounded" })
  return [
    ...validating.items.flatMap(bundlesOfWebhooks(ValidatingWebhookConfiguration)),
    ...mutating.items.flatMap(bundlesOfWebhooks(MutatingWebhookConfiguration)),
    ...services.items.flatMap(({ metadata, spec }) =>
      bundleOf("APIService", metadata.name, `APIService ${metadata.name}`, spec.caBundle)
    ),
    ...definitions.items.flatMap(({ metadata, spec: { conversion } }) =>
      bundleOf(
        "CustomResourceDefinition",
        metadata.name,
        `the conversion of CustomResourceDefinition ${metadata.name}`,
        conversion.strategy === "Webhook" ? conversion.webhook?.clientConfig?.caBundle : undefined
      )
    ),
    ...Option.toArray(root).flatMap(({ data }): ReadonlyArray<Bundle> =>
      data["ca.crt"] === undefined ? [] : [{
        holder: {
          what: "CA of the cluster (ConfigMap kube-root-ca.crt)",
          subject: { kind: "ConfigMap", name: "kube-root-ca.crt", namespace: "default" }
        },
        pem: data["ca.crt"]
      }]
    )
  ]
})

interface Peer {
  readonly holder: Holder
  readonly host: string
  readonly port: number
  readonly serverName?: string | undefined
}

const peerOf = (what: string, kind: string, hostPort: string, serverName?: string): Peer => {
  const at = hostPort.lastIndexOf(":")
  return {
    holder: { what: `certificate of ${what}`, subject: { kind, name: hostPort } },
    host: hostPort.slice(0, at).replace(/^\[(.*)\]$/, "$1"),
    port: Number(hostPort.slice(at + 1)),
    serverName
  }
}

/** `https://10.0.0.1:6443/prefix` as host:port; nothing for plain HTTP. */
export const hostOfServer = (server: string): Option.Option<string> => {
  const url = URL.parse(server)
  return url === null || url.protocol !== "https:"
    ? Option.none()
    : Option.some(`${url.hostname}:${url.port === "" ? "443" : url.port}`)
}

const peers = Effect.fnUntraced(function*(config: Config) {
  const kube = yield* Kube
  const nodes = config.kubelets ? (yield* kube.list(Node, { maximum: MAXIMUM_NODES })).items : []
  return [
    ...(config.apiServer ? Option.toArray(hostOfServer(kube.server)) : []).map((host) =>
      peerOf(`the API server ${host}`, "Host", host)
    ),
    ...nodes.flatMap(({ metadata, status }) => {
      const address = status.addresses.find(({ type }) => type === "InternalIP")?.address
      const port = status.daemonEndpoints.kubeletEndpoint.Port
      if (address === undefined || port === 0) return []
      return [{
        host: address,
        port,
        holder: {
          what: `certificate of the kubelet of node ${metadata.name}`,
          subject: { kind: "Node", name: metadata.name ?? "" }
        }
      }]
    }),
    ...config.hosts.map(({ host, serverName }) => peerOf(host, "Host", host, serverName))
  ]
})

/** Nodes whose kubelets are asked, in the API server's order. */
const MAXIMUM_NODES = 500
const HANDSHAKES_AT_ONCE = 20

const judgePeer = Effect.fnUntraced(function*(peer: Peer, config: Config, now: DateTime.Utc) {
  const tls = yield* TlsPeer
  const notShown = (error: TlsPeerError) => [
    codes.NOT_SHOWN({ message: `${peer.holder.what}: ${error.message}`, subject: peer.holder.subject })
  ]
  return yield* tls.certificates({ ...peer, timeout: config.timeout }).pipe(
    Effect.map((chain) =>
      Option.toArray(ofChain(chain)).flatMap((validity) => judgeValidity(peer.holder, validity, config, now))
    ),
    Effect.catch((error) => Effect.succeed(notShown(error)))
  )
})

const OWN: Holder = { what: "client certificate of the prober", subject: { kind: "Kubeconfig", name: "" }, own: true }

const run = Effect.fnUntraced(function*(config: Config) {
  const kube = yield* Kube
  const now = yield* ServerTime.nowOrOurs
  const [trusted, shown] = yield* Effect.all([
    bundles,
    Effect.flatMap(peers(config), (all) =>
      Effect.map(
        Effect.forEach(all, (peer) => judgePeer(peer, config, now), { concurrency: HANDSHAKES_AT_ONCE }),
        (findings) => ({ count: all.length, findings: findings.flat() })
      ))
  ], { concurrency: "unbounded" })
  const own = Option.fromUndefinedOr(yield* kube.clientCertificate).pipe(Option.flatMap(ofLeaf))
  const findings = [
    ...shown.findings,
    ...trusted.flatMap((bundle) => judgeBundle(bundle, config, now)),
    ...Option.toArray(own).flatMap((validity) => judgeValidity(OWN, validity, config, now))
  ]
  const count = shown.count + trusted.length + Option.toArray(own).length
  return Outcome.make(
    `${count} certificates and CA bundles are valid for longer than their limits (${
      Elapsed.text(config.warn)
    } at most)`,
    findings
  )
})

/** A client certificate's file holds the certificate first, and perhaps its issuers. */
const ofLeaf = (pem: string): Option.Option<Validity> =>
  Array.head(certificatesOf(pem)).pipe(Option.flatMap(Result.getSuccess), Option.flatMap(validityOf))

const bundlesOf = Watch.differsIn(
  ({ webhooks }: ValidatingWebhookConfiguration | MutatingWebhookConfiguration) =>
    webhooks.map(({ clientConfig }) => [clientConfig.service, clientConfig.url, clientConfig.caBundle])
)

export const certExpiry = Probe.make("k8s.cert.expiry", {
  layer: "kubernetes",
  proves:
    "No certificate of the API server, of a CA that admission or aggregation trusts, or of a named host ends soon.",
  writes: "nothing",
  costs:
    "6 API requests and one TLS handshake with the API server; one more request and a handshake with each node for " +
    "`kubelets`, and a handshake with each of `hosts`.",
  needs: [
    Needs.list("validatingwebhookconfigurations", { group: "admissionregistration.k8s.io" }),
    Needs.list("mutatingwebhookconfigurations", { group: "admissionregistration.k8s.io" }),
    Needs.list("apiservices", { group: "apiregistration.k8s.io" }),
    Needs.list("customresourcedefinitions", { group: "apiextensions.k8s.io" }),
    Needs.get("configmaps", { namespace: "default", names: ["kube-root-ca.crt"], optional: true }),
    Needs.list("nodes", { optional: true }),
    ServerTime.needs
  ],
  codes,
  config: Config,
  interval: "10 minutes",
  timeout: "60 seconds",
  timed: [],
  // Not CustomResourceDefinitions: their schemas are large, and each would be sent again and again.
  onChange: [
    Watch.of(ValidatingWebhookConfiguration, { when: bundlesOf }),
    Watch.of(MutatingWebhookConfiguration, { when: bundlesOf }),
    Watch.of(APIService, { when: Watch.differsIn(({ spec }: APIService) => [spec.service, spec.caBundle]) })
  ],
  dependsOn: ["k8s.api.health"],
  run
})
