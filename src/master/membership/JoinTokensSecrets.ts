/**
 * Join tokens in Secrets, one each, for masters that share a managing cluster: of the token's secret its hash alone.
 *
 * Spending is a change of the version that was read, so of two masters one wins.
 */
import { DateTime, Effect, Layer, Option, Schedule, Schema } from "effect"
import { Kube } from "../../infra/kube/Kube.ts"
import { type KubeError, isTransient } from "../../infra/kube/KubeError.ts"
import { make as makeResource, stringMap } from "../../infra/kube/KubeResource.ts"
import { SecretMetadata } from "../../infra/kube/resources/core.ts"
import { type JoinTokenRecord, JoinTokenStore, KEPT } from "../../infra/pki/JoinTokens.ts"

/** Needs get, list, create, patch and delete on Secrets of `namespace`. */
export const layer = (options: { readonly namespace: string }): Layer.Layer<JoinTokenStore, never, Kube> =>
  Layer.effect(JoinTokenStore, make(options))

/** Selects the Secrets that are tokens. */
const LABEL = "kubeprober.io/join-token"
/** When the token expires, where it can be read without its data. */
const EXPIRES = "kubeprober.io/expires-at"

/** Values are base64. */
const TokenSecret = makeResource({
  kind: "Secret",
  plural: "secrets",
  scope: "Namespaced",
  fields: { data: stringMap }
})
type TokenSecret = typeof TokenSecret.object.Type

const Token = Schema.Struct({
  id: Schema.String,
  cluster: Schema.String,
  hash: Schema.String,
  expiresAt: Schema.DateTimeUtcFromString,
  spentFor: Schema.optionalKey(Schema.String)
})

const encodeBase64 = (text: string): string => Buffer.from(text).toString("base64")

const isGone = ({ reason }: KubeError): boolean => reason._tag === "NotFound" && reason.what === "object"

const transient = { schedule: Schedule.jittered(Schedule.exponential("250 millis")), times: 3, while: isTransient }
const contested = {
  schedule: Schedule.jittered(Schedule.exponential("50 millis")),
  times: 8,
  while: (error: KubeError) => error.reason._tag === "Conflict"
}

/** A failure of the API ends the request that needed it: the interface knows none. */
const make = Effect.fnUntraced(function*({ namespace }: { readonly namespace: string }) {
  const kube = yield* Kube
  // Ids tell upper from lower case and have underscores; names of objects may not.
  const refOf = (id: string) => ({ name: `kubeprober-join-${Buffer.from(id).toString("hex")}`, namespace })

  const read = (id: string) =>
    kube.get(TokenSecret, refOf(id)).pipe(
      Effect.retry(transient),
      Effect.asSome,
      Effect.catchIf(isGone, () => Effect.succeedNone)
    )

  const decode = ({ data }: TokenSecret) =>
    Effect.map(
      Schema.decodeUnknownEffect(Token)(
        Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value, "base64").toString()]))
      ),
      (token): JoinTokenRecord => token
    )

  /** Tokens that nobody needs to be told from unknown ones any more. */
  const sweep = Effect.gen(function*() {
    const now = yield* DateTime.now
    const { items } = yield* kube.list(SecretMetadata, { namespace, labelSelector: LABEL })
    for (const { metadata: { annotations = {}, name = "", uid } } of items) {
      const expires = DateTime.make(annotations[EXPIRES] ?? "")
      const needed = Option.exists(expires, (time) => DateTime.isGreaterThan(DateTime.addDuration(time, KEPT), now))
      if (!needed) {
        yield* Effect.catchIf(kube.delete(SecretMetadata, { name, namespace }, { uid }), isGone, () => Effect.void)
      }
    }
  }).pipe(Effect.catch(({ message }) =>
    // The next token sweeps again; this one is good all the same.
    Effect.logWarning("expired join tokens could not be removed").pipe(Effect.annotateLogs({ detail: message }))
  ))

  return JoinTokenStore.of({
    insert: Effect.fn("JoinTokenStore.insert")(function*({ cluster, expiresAt, hash, id, spentFor }) {
      yield* sweep
      const time = DateTime.formatIso(expiresAt)
      const fields = { id, cluster, hash, expiresAt: time, ...(spentFor === undefined ? {} : { spentFor }) }
      const manifest = {
        metadata: {
          ...refOf(id),
          labels: { [LABEL]: "", "app.kubernetes.io/managed-by": "kubeprober" },
          annotations: { [EXPIRES]: time }
        },
        type: LABEL,
        data: Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, encodeBase64(value)]))
      }
      yield* kube.create(TokenSecret, manifest).pipe(
        Effect.retry(transient),
        // An earlier try whose answer was lost: ids are random.
        Effect.catchIf(({ reason }) => reason._tag === "Conflict", () => Effect.void)
      )
    }, Effect.orDie),
    find: Effect.fn("JoinTokenStore.find")(function*(id) {
      const secret = yield* read(id)
      return Option.isNone(secret) ? Option.none() : Option.some(yield* decode(secret.value))
    }, Effect.orDie),
    spend: Effect.fn("JoinTokenStore.spend")(
      (id, key) =>
        Effect.gen(function*() {
          const secret = yield* read(id)
          if (Option.isNone(secret)) return Option.none<string>()
          const { spentFor } = yield* decode(secret.value)
          if (spentFor !== undefined) return Option.some(spentFor)
          const { resourceVersion } = secret.value.metadata
          yield* kube.patch(TokenSecret, refOf(id), {
            metadata: { resourceVersion },
            data: { spentFor: encodeBase64(key) }
          })
          return Option.some(key)
        }).pipe(Effect.retry({ ...contested, while: (error) => error._tag === "KubeError" && contested.while(error) })),
      Effect.orDie
    )
  })
})
