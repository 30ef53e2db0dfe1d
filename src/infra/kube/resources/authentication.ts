/** Kinds of `authentication.k8s.io/v1`. All are questions: `create` one and read `status`. */
import { Schema } from "effect"
import { flag, listOf, make, maybe, part } from "../KubeResource.ts"

const UserInfo = part({
  username: maybe(Schema.String),
  uid: maybe(Schema.String),
  groups: listOf(Schema.String),
  extra: maybe(Schema.Record(Schema.String, Schema.Array(Schema.String)))
})

/** Whose token is this? The token itself is not read back. */
export const TokenReview = make({
  group: "authentication.k8s.io",
  kind: "TokenReview",
  plural: "tokenreviews",
  scope: "Cluster",
  fields: {
    status: part({
      authenticated: flag,
      user: UserInfo,
      audiences: listOf(Schema.String),
      error: maybe(Schema.String)
    })
  }
})
export type TokenReview = typeof TokenReview.object.Type

/** Who am I? Served since Kubernetes 1.28 (KEP-3325). */
export const SelfSubjectReview = make({
  group: "authentication.k8s.io",
  kind: "SelfSubjectReview",
  plural: "selfsubjectreviews",
  scope: "Cluster",
  fields: { status: part({ userInfo: UserInfo }) }
})
export type SelfSubjectReview = typeof SelfSubjectReview.object.Type
