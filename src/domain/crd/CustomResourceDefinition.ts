/**
 * From a kind's description to its CustomResourceDefinition, `apiextensions.k8s.io/v1`.
 */
import { Result, Schema } from "effect"
import { type AnyKind, CATEGORY, type Column } from "../kinds/Kind.ts"
import { type NotStructural, type StructuralSchema, structural } from "./StructuralSchema.ts"

/** The manifest, its keys in the order people read them. */
export interface CustomResourceDefinition {
  readonly apiVersion: "apiextensions.k8s.io/v1"
  readonly kind: "CustomResourceDefinition"
  readonly metadata: { readonly name: string }
  readonly spec: {
    readonly group: string
    readonly names: {
      readonly kind: string
      readonly listKind: string
      readonly plural: string
      readonly singular: string
      readonly shortNames: ReadonlyArray<string>
      readonly categories: ReadonlyArray<string>
    }
    readonly scope: "Namespaced"
    readonly versions: readonly [{
      readonly name: string
      readonly served: true
      readonly storage: true
      readonly subresources: { readonly status: {} }
      readonly additionalPrinterColumns: ReadonlyArray<{
        readonly name: string
        readonly type: string
        readonly jsonPath: string
        readonly priority?: 1
      }>
      readonly schema: { readonly openAPIV3Schema: StructuralSchema }
    }]
  }
}

/** What every object has. Of `metadata` nothing else may be said: the API server defines it. */
const objectFields: { readonly [name: string]: StructuralSchema } = {
  apiVersion: { type: "string", description: "Group and version of this object's schema." },
  kind: { type: "string", description: "Kind of this object." },
  metadata: { type: "object" }
}

const column = ({ jsonPath, name, type, wide }: Column) => ({
  name,
  type,
  jsonPath,
  ...(wide === true ? { priority: 1 as const } : {})
})

/** The whole object's schema. */
const objectSchema = (kind: AnyKind): Result.Result<StructuralSchema, NotStructural> =>
  Result.map(structural(Schema.Struct(kind.fields), kind.kind), (fields) => ({
    description: kind.description,
    type: "object",
    ...(fields.required === undefined ? {} : { required: fields.required }),
    properties: { ...objectFields, ...fields.properties },
    ...(kind.rules.length === 0
      ? {}
      : { "x-kubernetes-validations": kind.rules.map(({ cel, message }) => ({ rule: cel, message })) })
  }))

/** Fails when a field has no structural form, naming it. */
export const make = (kind: AnyKind): Result.Result<CustomResourceDefinition, NotStructural> =>
  Result.map(objectSchema(kind), (schema) => ({
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${kind.plural}.${kind.group}` },
    spec: {
      group: kind.group,
      names: {
        kind: kind.kind,
        listKind: `${kind.kind}List`,
        plural: kind.plural,
        singular: kind.singular,
        shortNames: kind.shortNames,
        categories: [CATEGORY]
      },
      scope: kind.scope,
      versions: [{
        name: kind.version,
        served: true,
        storage: true,
        subresources: { status: {} },
        additionalPrinterColumns: kind.columns.map(column),
        schema: { openAPIV3Schema: schema }
      }]
    }
  }))
