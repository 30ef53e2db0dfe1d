/** Fields of a probe's configuration: each has a default and says what it is, so that `{}` is always a configuration. */
import { Effect, Schema, SchemaGetter } from "effect"

/**
 * A field that may be left out. `default` is as people write it; `description` names the unit where the type does not.
 * Both annotate what people write, which is what `kubeprober probe describe` and generated references show.
 */
export const setting = <S extends Schema.Top>(
  schema: S,
  options: { readonly default: S["Encoded"]; readonly description: string }
) =>
  Schema.optionalKey(Schema.toEncoded(schema).annotate(options)).pipe(
    Schema.decodeTo(schema, {
      decode: SchemaGetter.withDefault(Effect.succeed(options.default)),
      encode: SchemaGetter.passthrough()
    })
  )

/** A whole number from 0 on. */
export const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** A whole number from 0 to 100. */
export const Percent = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100 }))

/** Names or patterns, at most 200. */
export const Names = Schema.Array(Schema.String.check(Schema.isNonEmpty())).check(Schema.isMaxLength(200))

/** A field that has no default: left out, it means that there is none. */
export const optional = <S extends Schema.Top>(schema: S, options: { readonly description: string }) =>
  Schema.optionalKey(schema.annotate(options))
