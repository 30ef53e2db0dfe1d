/** What a run's pods prove themselves by: a token, and the Secret in which they get it. */
import { Effect, Redacted } from "effect"
import { make } from "../infra/kube/KubeResource.ts"

/** A Secret as we write it; nothing of it is read. */
export const WrittenSecret = make({ kind: "Secret", plural: "secrets", scope: "Namespaced", fields: {} })

/** 256 bits, as text that fits headers and environment variables. */
export const randomToken: Effect.Effect<Redacted.Redacted<string>> = Effect.sync(() =>
  Redacted.make(Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url"), { label: "run token" })
)
