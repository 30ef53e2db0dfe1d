/** Probes as people and programs read them. */
import { Duration, Schema } from "effect"
import { looksLikeDuration } from "../../domain/Duration.ts"
import type { Status } from "../../domain/Status.ts"
import { describe } from "../../probes/Needs.ts"
import type { AnyProbe, Confirm, Placement } from "../../probes/Probe.ts"
import * as Retry from "../../probes/Retry.ts"
import type { Watch } from "../../probes/Watch.ts"
import type { Style } from "./Style.ts"
import * as Table from "./Table.ts"

interface ConfigField {
  readonly name: string
  readonly type: string
  readonly default: string
  readonly description: string
}

/** A probe as data: what `-o json` prints. */
export interface ProbeDescription {
  readonly id: string
  readonly layer: string
  readonly proves: string
  readonly writes: string
  readonly placement: Placement
  readonly costs: string
  readonly interval: string
  readonly timeout: string
  readonly retries: string
  readonly confirmed: string
  readonly dependsOn: ReadonlyArray<string>
  readonly onChange: ReadonlyArray<string>
  readonly needs: ReadonlyArray<{ readonly rule: string; readonly optional: boolean }>
  readonly config: ReadonlyArray<ConfigField>
  readonly codes: ReadonlyArray<
    { readonly code: string; readonly status: Status; readonly means: string; readonly fix: string }
  >
}

type JsonObject = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** The first value of `key` in a JSON Schema node, looking through `allOf` and `anyOf`. */
const lookup = (node: unknown, key: string): unknown => {
  if (!isObject(node)) return undefined
  if (node[key] !== undefined) return node[key]
  for (const combinator of ["allOf", "anyOf"]) {
    const members = node[combinator]
    if (!Array.isArray(members)) continue
    for (const member of members) {
      const found = lookup(member, key)
      if (found !== undefined) return found
    }
  }
  return undefined
}

const text = (value: unknown): string =>
  typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value)

/** What is to be written for a JSON Schema node, in a word or two: `duration`, `auto | never`, `list of string`. */
const typeOf = (node: unknown): string => {
  const validations = lookup(node, "x-kubernetes-validations")
  if (
    Array.isArray(validations) &&
    validations.some((validation) => isObject(validation) && validation["rule"] === looksLikeDuration.cel)
  ) return "duration"
  const choices = lookup(node, "enum")
  if (Array.isArray(choices)) return choices.map(text).join(" | ")
  const type = text(lookup(node, "type"))
  if (type === "array") return `list of ${typeOf(lookup(node, "items"))}`
  if (type !== "object") return type
  const properties = lookup(node, "properties")
  if (!isObject(properties)) return `map of ${typeOf(lookup(node, "additionalProperties"))}`
  const required = lookup(node, "required")
  const isRequired = (name: string) => Array.isArray(required) && required.includes(name)
  return `{${
    Object.entries(properties).map(([name, property]) => `${name}${isRequired(name) ? "" : "?"}: ${typeOf(property)}`)
      .join(", ")
  }}`
}

const configOf = (probe: AnyProbe): ReadonlyArray<ConfigField> => {
  const document = Schema.toJsonSchemaDocument(probe.config, {
    includeAnnotationKey: (key) => key.startsWith("x-kubernetes-")
  })
  const resolve = (node: unknown): unknown => {
    const reference = isObject(node) ? node["$ref"] : undefined
    return typeof reference === "string"
      ? document.definitions[decodeURIComponent(reference.replace("#/$defs/", ""))]
      : node
  }
  const properties = lookup(resolve(document.schema), "properties")
  return isObject(properties)
    ? Object.entries(properties).map(([name, property]) => {
      const node = resolve(property)
      return {
        name,
        type: typeOf(node),
        default: text(lookup(property, "default") ?? lookup(node, "default")),
        description: text(lookup(property, "description") ?? lookup(node, "description"))
      }
    })
    : []
}

const confirmInWords = (confirm: Confirm): string =>
  confirm === "rerun"
    ? "a new WARN or ERROR by another run"
    : confirm === "none"
    ? "nothing by another run"
    : `a new WARN or ERROR by another run, but not ${confirm.unless.join(", ")}`

const watchInWords = ({ namespace, resource: { group, plural } }: Watch): string =>
  `${plural}${group === "" ? "" : `.${group}`}${namespace === undefined ? "" : ` in ${namespace}`}`

export const describeProbe = (probe: AnyProbe): ProbeDescription => ({
  id: probe.id,
  layer: probe.layer,
  proves: probe.proves,
  writes: probe.writes,
  placement: probe.placement,
  costs: probe.costs,
  interval: Duration.format(probe.interval),
  timeout: Duration.format(probe.timeout),
  retries: Retry.inWords(probe.retry),
  confirmed: confirmInWords(probe.confirm),
  dependsOn: probe.dependsOn,
  onChange: probe.onChange.map(watchInWords),
  needs: probe.needs.map((need) => ({ rule: describe(need), optional: need.optional })),
  config: configOf(probe),
  codes: Object.values(probe.codes).map(({ code, spec }) => ({ code, ...spec }))
})

export const list = (probes: ReadonlyArray<AnyProbe>, options: { readonly wide: boolean }): ReadonlyArray<string> =>
  Table.render([
    ["ID", "LAYER", "WRITES", ...(options.wide ? ["TIMEOUT", "NEEDS"] : []), "PROVES"],
    ...probes.map((probe) => [
      probe.id,
      probe.layer,
      probe.writes,
      ...(options.wide ? [Duration.format(probe.timeout), String(probe.needs.length)] : []),
      probe.proves
    ])
  ])

export const writesInWords: Record<AnyProbe["writes"], string> = {
  nothing: "nothing",
  "dry-run": "nothing; it sends creates with dryRun=All, which pass admission and are not stored",
  namespace: "objects in the probe namespace, deleted when the run ends",
  cluster: "cluster-scoped objects, deleted when the run ends",
  middleware: "data in the service it looks at, which expires by itself"
}

export const placementInWords: Record<Placement, string> = {
  agent: "in the agent",
  workers: "in the agent, and in pods that it starts for the run",
  nodes: "in the agent, and in the node agents"
}

const section = (title: string, rows: ReadonlyArray<ReadonlyArray<string>>, style: Style): ReadonlyArray<string> =>
  rows.length === 0
    ? []
    : ["", style.bold(title), ...Table.render(rows.map(([first = "", ...rest]) => [`  ${first}`, ...rest]))]

export const describeText = (probe: AnyProbe, style: Style): ReadonlyArray<string> => {
  const description = describeProbe(probe)
  return [
    ...Table.render([
      ["ID", description.id],
      ["LAYER", description.layer],
      ["PROVES", description.proves],
      ["WORKS", placementInWords[probe.placement]],
      ["WRITES", writesInWords[probe.writes]],
      ...(description.costs === "" ? [] : [["COSTS", description.costs]]),
      ["INTERVAL", `${description.interval}, unless told otherwise`],
      ["TIMEOUT", description.timeout],
      ["RETRIES", description.retries],
      ["CONFIRMS", description.confirmed],
      ...(description.dependsOn.length === 0 ? [] : [["AFTER", description.dependsOn.join(", ")]]),
      ...(description.onChange.length === 0 ? [] : [["RE-RUN ON", `changes of ${description.onChange.join(", ")}`]])
    ]),
    ...section(
      "NEEDS",
      description.needs.map((need) => need.optional ? [need.rule, "optional"] : [need.rule]),
      style
    ),
    ...description.config.length === 0 ? [] : ["", style.bold("CONFIG")],
    ...description.config.flatMap((field) => [
      `  ${field.name}: ${field.type}${field.default === "" ? "" : `, default ${field.default}`}`,
      `    ${field.description}`
    ]),
    ...description.codes.length === 0 ? [] : ["", style.bold("CODES")],
    ...description.codes.flatMap((entry) => [
      `  ${style.status(entry.status)} ${entry.code}`,
      `    ${entry.means}`,
      style.dim(`    next: ${entry.fix}`)
    ])
  ]
}
