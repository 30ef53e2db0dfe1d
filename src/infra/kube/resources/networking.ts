/** Kinds of `networking.k8s.io/v1`. */
import { Schema } from "effect"
import { listOf, make, maybe, part } from "../KubeResource.ts"

/** Where an Ingress sends requests: a Service and one of its ports by number or name. Without `service` to another object. */
export const IngressBackend = Schema.Struct({
  service: maybe(Schema.Struct({
    name: Schema.String,
    port: part({ name: maybe(Schema.String), number: maybe(Schema.Int) })
  }))
})
export type IngressBackend = typeof IngressBackend.Type

/** Which requests from outside go to which Services. The class of old ones is the annotation `kubernetes.io/ingress.class`. */
export const Ingress = make({
  group: "networking.k8s.io",
  kind: "Ingress",
  plural: "ingresses",
  scope: "Namespaced",
  fields: {
    spec: part({
      ingressClassName: maybe(Schema.String),
      defaultBackend: maybe(IngressBackend),
      rules: listOf(Schema.Struct({
        host: maybe(Schema.String),
        http: part({ paths: listOf(Schema.Struct({ path: maybe(Schema.String), backend: IngressBackend })) })
      }))
    }),
    status: part({
      loadBalancer: part({
        ingress: listOf(Schema.Struct({ ip: maybe(Schema.String), hostname: maybe(Schema.String) }))
      })
    })
  }
})
export type Ingress = typeof Ingress.object.Type

/** Who serves Ingresses. The default one has the annotation `ingressclass.kubernetes.io/is-default-class: "true"`. */
export const IngressClass = make({
  group: "networking.k8s.io",
  kind: "IngressClass",
  plural: "ingressclasses",
  scope: "Cluster",
  fields: { spec: part({ controller: maybe(Schema.String) }) }
})
export type IngressClass = typeof IngressClass.object.Type
