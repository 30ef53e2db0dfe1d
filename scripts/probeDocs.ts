/** `docs/probes/`: a page for each probe of the catalogue, and an index; the same data as `kubeprober probe describe`. */
import { type ProbeDescription, describeProbe, placementInWords, writesInWords } from "../src/cli/output/ProbeOutput.ts"
import { ProbeLayer } from "../src/domain/ProbeLayer.ts"
import { checkerCodes } from "../src/probes/CheckerCodes.ts"
import type { AnyProbe } from "../src/probes/Probe.ts"

export interface Page {
  readonly name: string
  readonly content: string
}

const HEADER = "<!-- Generated from src/probes by `npm run generate`. Do not edit. -->\n"

/** Text in a cell of a Markdown table: bars would end it, and angle brackets be taken for HTML outside of code. */
export const cell = (text: string): string =>
  text.split(/(`[^`]*`)/u).map((part) =>
    part.startsWith("`") ? part.replaceAll("|", "\\|") : part.replaceAll(/[|<>*_]/gu, (special) => `\\${special}`)
  ).join("").replaceAll("\n", " ")

/** A Markdown table. Cells are Markdown already. */
export const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  rows.length === 0
    ? ""
    : [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n")

const code = (text: string): string => text.includes("`") ? `\`\` ${text} \`\`` : `\`${text}\``

const link = (id: string): string => `[${code(id)}](${id}.md)`

const list = (items: ReadonlyArray<string>): string => items.length === 0 ? "nothing" : items.join(", ")

const codesTable = (codes: ProbeDescription["codes"]): string =>
  table(
    ["Code", "Status", "It means", "What to do"],
    codes.map((entry) => [code(entry.code), entry.status, cell(entry.means), cell(entry.fix)])
  )

const page = (probe: AnyProbe): string => {
  const described = describeProbe(probe)
  const facts = [
    ["Layer", described.layer],
    ["Works", placementInWords[probe.placement]],
    ["Writes", writesInWords[probe.writes]],
    ["Costs", described.costs],
    ["Normal interval", described.interval],
    ["Timeout", `${described.timeout}, retries included`],
    ["Retries", described.retries],
    ["Confirms", described.confirmed],
    ["Parents", list(described.dependsOn.map(link))],
    ["Re-run at once on changes of", list(described.onChange.map(code))]
  ]
  const sections = [
    [
      "Needs",
      table(
        ["RBAC rule", "Without it"],
        described.needs.map(({ optional, rule }) => [code(rule), optional ? "says less" : "UNKNOWN `ACCESS_MISSING`"])
      )
    ],
    [
      "Configuration",
      table(
        ["Field", "Type", "Default", "What it says"],
        described.config.map((field) => [
          code(field.name),
          code(field.type).replaceAll("|", "\\|"),
          field.default === "" ? "" : code(field.default).replaceAll("|", "\\|"),
          cell(field.description)
        ])
      )
    ],
    ["Codes", codesTable(described.codes)]
  ].flatMap(([title, body = ""]) => body === "" ? [] : [`## ${title}`, body])
  return [
    HEADER,
    `# ${described.id}`,
    described.proves,
    table(["", ""], facts.map(([name = "", value = ""]) => [`**${name}**`, name === "Parents" ? value : cell(value)])),
    ...sections,
    "Codes that every probe may end with are in [the index](README.md#codes-of-every-probe).",
    ""
  ].map((part) => part.trimEnd()).join("\n\n").trimEnd() + "\n"
}

const index = (probes: ReadonlyArray<AnyProbe>): string => {
  const layers = ProbeLayer.literals.flatMap((layer) => {
    const members = probes.filter((probe) => probe.layer === layer)
    return members.length === 0 ? [] : [
      `## ${layer}`,
      table(
        ["Probe", "A PASS proves", "Works", "Writes", "Interval"],
        members.map((probe) => [
          link(probe.id),
          cell(probe.proves),
          probe.placement,
          probe.writes,
          describeProbe(probe).interval
        ])
      )
    ]
  })
  return [
    HEADER,
    "# Probes",
    `The catalogue has ${probes.length} probes. \`kubeprober probe describe ID\` prints what is here, also of probes of ` +
    "your own. Where a probe works: `agent` asks from the agent alone, `workers` starts pods for the run, `nodes` asks the " +
    "agents on the nodes. Costs are those of one run of one probe; each round of checks adds a pre-flight: an access review " +
    "for each namespace that their rules name, and one for each rule that those do not show.",
    ...layers,
    "## Codes of every probe",
    "A checker that cannot look is UNKNOWN and never takes the target for healthy or broken.",
    codesTable(Object.values(checkerCodes).map((each) => ({ code: each.code, ...each.spec }))),
    ""
  ].map((part) => part.trimEnd()).join("\n\n").trimEnd() + "\n"
}

/** All pages, the index first. */
export const pages = (probes: ReadonlyArray<AnyProbe>): ReadonlyArray<Page> => [
  { name: "README.md", content: index(probes) },
  ...probes.map((probe) => ({ name: `${probe.id}.md`, content: page(probe) }))
]
