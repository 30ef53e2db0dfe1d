/**
 * A master until it is killed: takes where its authority is kept, the port and the members it has; says the port, a join
 * token and the member `staging`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Layer, Redacted, References, Schema } from "effect"
import { text } from "node:stream/consumers"
import { Membership } from "../../src/infra/link/Membership.ts"
import { CertificateAuthority } from "../../src/infra/pki/CertificateAuthority.ts"
import { CredentialStore } from "../../src/infra/pki/CredentialStore.ts"
import { JoinTokenStore, JoinTokens } from "../../src/infra/pki/JoinTokens.ts"
import { invite, startMaster } from "./fixture.ts"
import { MasterInput } from "./masterInput.ts"

Effect.gen(function*() {
  const input = yield* Schema.decodeEffect(Schema.fromJsonString(MasterInput))(
    yield* Effect.promise(() => text(process.stdin))
  )
  return yield* Effect.gen(function*() {
    const { port } = yield* startMaster({ port: input.port })
    const token = Redacted.value(yield* invite("staging"))
    const member = yield* (yield* Membership).find("staging")
    yield* Effect.sync(() => process.stdout.write(`${JSON.stringify({ port, token, member })}\n`))
    return yield* Effect.never
  }).pipe(Effect.provide(
    Layer.merge(JoinTokens.layer, Membership.layerMemory(input.members)).pipe(
      Layer.provideMerge(Layer.merge(JoinTokenStore.layerMemory, CertificateAuthority.layer)),
      Layer.provide(CredentialStore.layerFiles(input.folder))
    )
  ))
}).pipe(
  Effect.scoped,
  Effect.provide(NodeServices.layer),
  Effect.provideService(References.MinimumLogLevel, "None"),
  NodeRuntime.runMain
)
