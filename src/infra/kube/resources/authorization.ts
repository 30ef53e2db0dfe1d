/** Kinds of `authorization.k8s.io/v1`. All are questions: `create` one and read `status`. */
import { Schema } from "effect"
import { flag, listOf, make, maybe, part } from "../KubeResource.ts"

const ResourceAttributes = Schema.Struct({
  verb: maybe(Schema.String),
  group: maybe(Schema.String),
  version: maybe(Schema.String),
  resource: maybe(Schema.String),
  subresource: maybe(Schema.String),
  namespace: maybe(Schema.String),
  name: maybe(Schema.String)
})

const NonResourceAttributes = Schema.Struct({ path: maybe(Schema.String), verb: maybe(Schema.String) })

const ReviewStatus = part({
  allowed: flag,
  denied: flag,
  reason: maybe(Schema.String),
  evaluationError: maybe(Schema.String)
})

/** May I? */
export const SelfSubjectAccessReview = make({
  group: "authorization.k8s.io",
  kind: "SelfSubjectAccessReview",
  plural: "selfsubjectaccessreviews",
  scope: "Cluster",
  fields: {
    spec: part({
      resourceAttributes: maybe(ResourceAttributes),
      nonResourceAttributes: maybe(NonResourceAttributes)
    }),
    status: ReviewStatus
  }
})
export type SelfSubjectAccessReview = typeof SelfSubjectAccessReview.object.Type

/** May they? */
export const SubjectAccessReview = make({
  group: "authorization.k8s.io",
  kind: "SubjectAccessReview",
  plural: "subjectaccessreviews",
  scope: "Cluster",
  fields: {
    spec: part({
      user: maybe(Schema.String),
      groups: listOf(Schema.String),
      resourceAttributes: maybe(ResourceAttributes),
      nonResourceAttributes: maybe(NonResourceAttributes)
    }),
    status: ReviewStatus
  }
})
export type SubjectAccessReview = typeof SubjectAccessReview.object.Type

/** What may I, in `spec.namespace`? `incomplete` when an authorizer cannot list its rules. */
export const SelfSubjectRulesReview = make({
  group: "authorization.k8s.io",
  kind: "SelfSubjectRulesReview",
  plural: "selfsubjectrulesreviews",
  scope: "Cluster",
  fields: {
    spec: part({ namespace: maybe(Schema.String) }),
    status: part({
      resourceRules: listOf(Schema.Struct({
        verbs: listOf(Schema.String),
        apiGroups: listOf(Schema.String),
        resources: listOf(Schema.String),
        resourceNames: listOf(Schema.String)
      })),
      nonResourceRules: listOf(Schema.Struct({
        verbs: listOf(Schema.String),
        nonResourceURLs: listOf(Schema.String)
      })),
      incomplete: flag,
      evaluationError: maybe(Schema.String)
    })
  }
})
export type SelfSubjectRulesReview = typeof SelfSubjectRulesReview.object.Type
