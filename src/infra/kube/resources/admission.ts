/** Kinds of `admissionregistration.k8s.io/v1`. */
import { Schema } from "effect"
import { listOf, make, maybe, stringMap } from "../KubeResource.ts"

/** Where a webhook, conversion or aggregated API is served. `port` is 443 when absent. */
export const ServiceReference = Schema.Struct({
  namespace: Schema.String,
  name: Schema.String,
  path: maybe(Schema.String),
  port: maybe(Schema.Int)
})
export type ServiceReference = typeof ServiceReference.Type

/** How the API server reaches a webhook. `caBundle` is base64 of PEM. */
export const WebhookClientConfig = Schema.Struct({
  url: maybe(Schema.String),
  service: maybe(ServiceReference),
  caBundle: maybe(Schema.String)
})
export type WebhookClientConfig = typeof WebhookClientConfig.Type

const Selector = Schema.Struct({
  matchLabels: stringMap,
  matchExpressions: listOf(Schema.Struct({
    key: Schema.String,
    operator: Schema.String,
    values: listOf(Schema.String)
  }))
})

const Webhook = Schema.Struct({
  name: Schema.String,
  clientConfig: WebhookClientConfig,
  rules: listOf(Schema.Struct({
    apiGroups: listOf(Schema.String),
    apiVersions: listOf(Schema.String),
    operations: listOf(Schema.String),
    resources: listOf(Schema.String),
    scope: maybe(Schema.String)
  })),
  failurePolicy: maybe(Schema.String),
  matchPolicy: maybe(Schema.String),
  namespaceSelector: maybe(Selector),
  objectSelector: maybe(Selector),
  matchConditions: listOf(Schema.Struct({ name: Schema.String, expression: Schema.String })),
  sideEffects: maybe(Schema.String),
  timeoutSeconds: maybe(Schema.Int)
})
/** One webhook of either kind. The server writes the defaults: `failurePolicy` Fail, `timeoutSeconds` 10. */
export type Webhook = typeof Webhook.Type

export const ValidatingWebhookConfiguration = make({
  group: "admissionregistration.k8s.io",
  kind: "ValidatingWebhookConfiguration",
  plural: "validatingwebhookconfigurations",
  scope: "Cluster",
  fields: { webhooks: listOf(Webhook) }
})
export type ValidatingWebhookConfiguration = typeof ValidatingWebhookConfiguration.object.Type

export const MutatingWebhookConfiguration = make({
  group: "admissionregistration.k8s.io",
  kind: "MutatingWebhookConfiguration",
  plural: "mutatingwebhookconfigurations",
  scope: "Cluster",
  fields: { webhooks: listOf(Webhook) }
})
export type MutatingWebhookConfiguration = typeof MutatingWebhookConfiguration.object.Type
