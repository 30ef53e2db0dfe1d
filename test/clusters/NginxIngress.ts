/**
 * An Ingress controller for tests: a real nginx, whose configuration is rendered from Ingresses and the endpoints of their
 * Services by this code, a few times a second. It runs on this machine, which reaches pods as any node does, listens on an
 * address of its own in 127.0.0.0/8, and writes that into the Ingresses' status.
 *
 * What it proves of a probe are nginx's real answers over the real path to pods; not how any one controller follows Ingresses.
 */
import { NodeServices } from "@effect/platform-node"
import { Effect, Random, Ref, Schedule } from "effect"
import { EndpointSlice } from "../../src/infra/kube/resources/discovery.ts"
import { Ingress } from "../../src/infra/kube/resources/networking.ts"
import * as Certificates from "../../src/local/Certificates.ts"
import { nginx } from "../application/Application.ts"
import { TestCluster, eventually } from "./TestCluster.ts"

export const CLASS = "nginx-test"

/** The default class, for as long as the scope. */
export const ingressClass = Effect.gen(function*() {
  const { apply, kubectl } = yield* TestCluster
  yield* Effect.acquireRelease(
    apply({
      apiVersion: "networking.k8s.io/v1",
      kind: "IngressClass",
      metadata: { name: CLASS, annotations: { "ingressclass.kubernetes.io/is-default-class": "true" } },
      spec: { controller: "kubeprober.io/nginx-of-tests" }
    }),
    () => kubectl("delete", "ingressclass", CLASS)
  )
})

const serverOf = (
  address: string,
  { metadata, spec: { rules } }: Ingress,
  slices: ReadonlyArray<EndpointSlice>,
  extra: string
) =>
  rules.map(({ host, http: { paths } }, index) => {
    const service = paths[0]?.backend.service?.name
    const name = `${metadata.namespace}-${metadata.name}-${index}`
    const endpoints = slices.filter((slice) =>
      slice.metadata.namespace === metadata.namespace &&
      slice.metadata.labels?.["kubernetes.io/service-name"] === service
    ).flatMap(({ endpoints, ports }) =>
      endpoints.filter(({ conditions }) => conditions.ready !== false).flatMap(({ addresses }) =>
        addresses.flatMap((ip) => ports.map(({ port }) => `server ${ip}:${port} max_fails=0;`))
      )
    )
    const location = endpoints.length === 0 ? "return 503;" : `${extra} proxy_pass http://${name};`
    return `${endpoints.length === 0 ? "" : `upstream ${name} { ${endpoints.join(" ")} }`}
      server { listen ${address}:80; server_name ${host};
        location / { proxy_connect_timeout 1s; proxy_next_upstream off; ${location} } }`
  }).join("\n")

/** Serves Ingresses of {@link CLASS} until the scope ends. */
export const start = Effect.gen(function*() {
  const { kube, kubectl } = yield* TestCluster
  const server = yield* nginx
  const octet = Random.nextIntBetween(1, 254)
  const address = `127.${yield* octet}.${yield* octet}.${yield* octet}`
  const authority = yield* Certificates.makeAuthority("nobody trusts this")
  const pair = yield* authority.issue({ commonName: "ingress", dnsNames: ["*.ingress-probe.invalid"] })
  yield* server.file("tls.crt", pair.cert)
  yield* server.file("tls.key", pair.key)
  const extra = yield* Ref.make("")
  const follows = yield* Ref.make(true)
  const served = yield* Ref.make("")
  const begun = yield* Ref.make(0)
  const inForce = yield* Ref.make(0)

  const reconcile = Effect.gen(function*() {
    if (!(yield* Ref.get(follows))) return
    const turn = yield* Ref.updateAndGet(begun, (last) => last + 1)
    const ingresses = (yield* kube.list(Ingress)).items.filter(({ spec }) => spec.ingressClassName === CLASS)
    const slices = (yield* kube.list(EndpointSlice)).items
    const more = yield* Ref.get(extra)
    const text = `limit_req_zone $host zone=slow:1m rate=2r/s;
      server { listen ${address}:80 default_server; location / { return 404; } location = /known { return 200; } }
      server { listen ${address}:443 ssl default_server; location / { return 404; }
        ssl_certificate ${server.path("tls.crt")}; ssl_certificate_key ${server.path("tls.key")}; }
      ${ingresses.map((each) => serverOf(address, each, slices, more)).join("\n")}`
    if (text !== (yield* Ref.getAndSet(served, text))) yield* server.serve(text)
    yield* Ref.set(inForce, turn)
    yield* Effect.forEach(
      ingresses.filter(({ status }) => status.loadBalancer.ingress.length === 0),
      ({ metadata }) =>
        kubectl(
          "patch",
          "ingress",
          metadata.name ?? "",
          "-n",
          metadata.namespace ?? "",
          "--subresource=status",
          "--type=merge",
          "-p",
          JSON.stringify({ status: { loadBalancer: { ingress: [{ ip: address }] } } })
        ),
      { discard: true }
    )
  })
  yield* reconcile
  // An Ingress may be gone before its status is written.
  yield* reconcile.pipe(
    Effect.ignoreCause,
    Effect.repeat(Schedule.spaced("200 millis")),
    Effect.forkScoped
  )
  return {
    address,
    /** Directives at the beginning of each Ingress' location from now on. */
    directives: (text: string) => Ref.set(extra, text),
    /** Whether it looks at Ingresses; at first it does. */
    follow: (on: boolean) => Ref.set(follows, on),
    /** Waits until all that there is now is served, while it looks at Ingresses. */
    caughtUp: Effect.flatMap(
      Ref.get(begun),
      (last) => eventually(Ref.get(inForce), (turn) => turn > last, { every: "20 millis" })
    )
  }
}).pipe(Effect.provide(NodeServices.layer))
