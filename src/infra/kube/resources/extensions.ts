/** Kinds that add kinds: `apiextensions.k8s.io/v1` and `apiregistration.k8s.io/v1`. */
import { Schema } from "effect"
import { Condition, flag, listOf, make, maybe, part } from "../KubeResource.ts"
import { WebhookClientConfig } from "./admission.ts"

export const CustomResourceDefinition = make({
  group: "apiextensions.k8s.io",
  kind: "CustomResourceDefinition",
  plural: "customresourcedefinitions",
  scope: "Cluster",
  fields: {
    spec: Schema.Struct({
      group: Schema.String,
      names: Schema.Struct({ kind: Schema.String, plural: Schema.String }),
      scope: Schema.String,
      versions: listOf(Schema.Struct({ name: Schema.String, served: flag, storage: flag })),
      conversion: part({
        strategy: maybe(Schema.String),
        webhook: maybe(Schema.Struct({ clientConfig: maybe(WebhookClientConfig) }))
      })
    }),
    status: part({ conditions: listOf(Condition), storedVersions: listOf(Schema.String) })
  }
})
export type CustomResourceDefinition = typeof CustomResourceDefinition.object.Type

/** An API group version and who serves it; without `service` the API server itself does. `caBundle` is base64 of PEM. */
export const APIService = make({
  group: "apiregistration.k8s.io",
  kind: "APIService",
  plural: "apiservices",
  scope: "Cluster",
  fields: {
    spec: part({
      group: maybe(Schema.String),
      version: maybe(Schema.String),
      service: maybe(Schema.Struct({
        namespace: maybe(Schema.String),
        name: maybe(Schema.String),
        port: maybe(Schema.Int)
      })),
      insecureSkipTLSVerify: flag,
      caBundle: maybe(Schema.String)
    }),
    status: part({ conditions: listOf(Condition) })
  }
})
export type APIService = typeof APIService.object.Type
