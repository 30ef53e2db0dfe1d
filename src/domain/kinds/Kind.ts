/**
 * What makes a custom kind: where it lives, what people call it, and the schemas of its fields.
 *
 * A kind describes itself once. The CustomResourceDefinition, the client's resource and the decoders all come from it.
 */
import type { Schema } from "effect"
import type { Cel } from "../crd/Rule.ts"

/** The API group of the original, which ours continues. */
export const GROUP = "kubeprober.erda.cloud"

/** The only version served and stored. */
export const VERSION = "v1"

/** `kubectl get kubeprober` lists all kinds of this category. */
export const CATEGORY = "kubeprober"

/** A column of `kubectl get`. `wide` columns show with `-o wide` only. */
export interface Column {
  readonly name: string
  readonly type: "string" | "integer" | "date"
  readonly jsonPath: string
  readonly wide?: true
}

/** A custom kind. `fields` are the top-level fields beside `metadata`, `rules` hold for the whole object. */
export interface Kind<Fields extends Schema.Struct.Fields> {
  readonly group: typeof GROUP
  readonly version: typeof VERSION
  readonly scope: "Namespaced"
  readonly kind: string
  readonly plural: string
  readonly singular: string
  readonly shortNames: ReadonlyArray<string>
  readonly description: string
  readonly columns: ReadonlyArray<Column>
  readonly rules: ReadonlyArray<Cel>
  readonly fields: Fields
}

/** A kind whose fields are not known here. */
export type AnyKind = Kind<Schema.Struct.Fields>

/** Describe a kind of this group. */
export const make = <const Fields extends Schema.Struct.Fields>(options: {
  readonly kind: string
  readonly plural: string
  readonly shortNames: ReadonlyArray<string>
  readonly description: string
  readonly columns: ReadonlyArray<Column>
  readonly rules?: ReadonlyArray<Cel>
  readonly fields: Fields
}): Kind<Fields> => ({
  group: GROUP,
  version: VERSION,
  scope: "Namespaced",
  singular: options.kind.toLowerCase(),
  ...options,
  rules: options.rules ?? []
})
