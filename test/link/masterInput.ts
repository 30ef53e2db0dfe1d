/** What the master of the tests is told and says. */
import { Schema } from "effect"

const Member = Schema.Struct({
  cluster: Schema.String,
  uid: Schema.String,
  revoked: Schema.Boolean,
  epoch: Schema.Int
})

export const MasterInput = Schema.Struct({
  folder: Schema.String,
  port: Schema.Int,
  members: Schema.Array(Member)
})

export const MasterOutput = Schema.Struct({ port: Schema.Int, token: Schema.String, member: Member })
