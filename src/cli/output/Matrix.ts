/**
 * The table people read: checkers down, grouped by layer from what users feel to what carries it; clusters across.
 * Below it, every finding worth acting on, worst first, with its next step.
 */
import type { CheckerResult, ClusterResult } from "../../domain/CheckResult.ts"
import { counted } from "../../domain/counted.ts"
import { ProbeLayer } from "../../domain/ProbeLayer.ts"
import type { Finding } from "../../domain/Report.ts"
import { findingOrder } from "../../domain/Report.ts"
import * as Status from "../../domain/Status.ts"
import { checkerCodes } from "../../probes/CheckerCodes.ts"
import * as Selection from "../Selection.ts"
import * as Folding from "./Folding.ts"
import * as NextStep from "./NextStep.ts"
import type { Style } from "./Style.ts"
import * as Table from "./Table.ts"

/** A row: one checker as planned, whether or not any cluster has said something yet. */
export interface MatrixRow {
  readonly checker: string
  readonly layer: ProbeLayer
}

/** A column: what is known of one cluster so far. */
export interface MatrixColumn {
  readonly cluster: string
  readonly kubernetesVersion: string | undefined
  readonly reports: ReadonlyMap<string, CheckerResult>
  readonly notRun: ReadonlyMap<string, string>
  readonly running: ReadonlySet<string>
}

export const columnOf = (result: ClusterResult): MatrixColumn => ({
  cluster: result.cluster,
  kubernetesVersion: result.kubernetesVersion,
  reports: new Map(result.reports.map((report) => [report.checker, report])),
  notRun: new Map(result.notRun.map((entry) => [entry.checker, entry.reason])),
  running: new Set()
})

export interface MatrixOptions {
  readonly style: Style
  /** Durations beside each verdict, every finding instead of the worst, and INFO findings too. */
  readonly wide: boolean
  /** Columns of the terminal; clusters that do not fit continue below. Unlimited when absent. */
  readonly width?: number | undefined
  /** What to do about a code. */
  readonly fixOf: NextStep.FixOf
}

const seconds = (millis: number): string => millis < 1000 ? `${Math.round(millis)}ms` : `${(millis / 1000).toFixed(1)}s`

const cell = (column: MatrixColumn, row: MatrixRow, options: MatrixOptions): string => {
  const report = column.reports.get(row.checker)
  if (report === undefined) {
    if (column.running.has(row.checker)) return options.style.dim("running")
    return options.style.dim(column.notRun.has(row.checker) ? "not run" : "-")
  }
  const verdict = options.style.status(report.status)
  const code = report.code === undefined ? "" : ` ${report.code}`
  return `${verdict}${code}${options.wide ? options.style.dim(` ${seconds(report.duration)}`) : ""}`
}

const columnStatus = (column: MatrixColumn): Status.Status =>
  Status.worst([...column.reports.values()].map((report) => report.status))

const block = (
  rows: ReadonlyArray<MatrixRow>,
  columns: ReadonlyArray<MatrixColumn>,
  options: MatrixOptions
): ReadonlyArray<string> => {
  const { style } = options
  const lines: Array<ReadonlyArray<string>> = [["PROBE", ...columns.map((column) => style.bold(column.cluster))]]
  if (columns.some((column) => column.kubernetesVersion !== undefined)) {
    lines.push(["", ...columns.map((column) => style.dim(column.kubernetesVersion ?? ""))])
  }
  for (const layer of ProbeLayer.literals) {
    const members = rows.filter((row) => row.layer === layer)
    if (members.length === 0) continue
    lines.push([style.bold(layer)])
    for (const row of members) {
      lines.push([`  ${row.checker}`, ...columns.map((column) => cell(column, row, options))])
    }
  }
  lines.push([
    "all",
    ...columns.map((column) => column.reports.size === 0 ? style.dim("-") : style.status(columnStatus(column)))
  ])
  return Table.render(lines)
}

/** How many of the clusters, from the first on, fit beside the names of the checkers. At least one. */
const fitting = (
  rows: ReadonlyArray<MatrixRow>,
  columns: ReadonlyArray<MatrixColumn>,
  options: MatrixOptions
): number => {
  if (options.width === undefined) return columns.length
  const widest = (texts: ReadonlyArray<string>): number => Math.max(0, ...texts.map(Table.visibleLength))
  let used = widest(["PROBE", ...rows.map((row) => `  ${row.checker}`)])
  let count = 0
  for (const column of columns) {
    used += Table.GAP +
      widest([column.cluster, column.kubernetesVersion ?? "", ...rows.map((row) => cell(column, row, options))])
    if (count > 0 && used > options.width) break
    count += 1
  }
  return count
}

/** The table alone, in as many blocks of clusters as the terminal's width asks for. */
export const table = (
  rows: ReadonlyArray<MatrixRow>,
  columns: ReadonlyArray<MatrixColumn>,
  options: MatrixOptions
): ReadonlyArray<string> => {
  const lines: Array<string> = []
  for (let start = 0; start < columns.length;) {
    const end = start + fitting(rows, columns.slice(start), options)
    lines.push(...start === 0 ? [] : [""], ...block(rows, columns.slice(start, end), options))
    start = end
  }
  return lines
}

/** The object, unless the message names it already. */
export const subjectOf = (finding: Finding): string => {
  const { message, subject } = finding
  if (subject === undefined || message.includes(subject.name)) return ""
  return `${subject.kind} ${subject.namespace === undefined ? "" : `${subject.namespace}/`}${subject.name}: `
}

/** How many findings of one checker are printed unless `wide`; the rest is counted. */
const SHOWN = 3

const indent = (text: string, by: string): string => text.split("\n").join(`\n${by}`)

/** Each request of an identity that is refused says the same of its own path. */
const isNews = ({ code }: Finding, index: number, all: ReadonlyArray<Finding>): boolean =>
  code !== checkerCodes.UNAUTHENTICATED.code || all.findIndex((other) => other.code === code) === index

const isBecauseOf = (finding: Finding, parent: string): boolean =>
  finding.code === checkerCodes.PARENT_FAILED.code && finding.evidence?.["parent"] === parent

interface Group {
  readonly cluster: string
  readonly report: CheckerResult
  readonly findings: readonly [Finding, ...ReadonlyArray<Finding>]
  /** Checks that were not run because of this one. */
  readonly children: number
  /** How many others say the same, in words. */
  readonly others: ReadonlyArray<string>
}

/** Checks without rights, told together. */
interface Lacking {
  readonly cluster: string
  readonly words: ReadonlyArray<string>
}

const groupsOf = (
  column: MatrixColumn,
  threshold: Status.Status,
  wide: boolean
): { readonly groups: ReadonlyArray<Group>; readonly lacking: Lacking } => {
  const reports = [...column.reports.values()]
  const all = reports.flatMap((report) => report.findings)
  const groups = reports.flatMap((report): ReadonlyArray<Group> => {
    const [first, ...rest] = report.findings.filter((finding) =>
      Status.isAtLeast(finding.status, threshold) &&
      // Said once, with the parent, instead of once for each child.
      (wide || !reports.some((parent) => isBecauseOf(finding, parent.checker)))
    )
    if (first === undefined) return []
    const children = all.filter((finding) => isBecauseOf(finding, report.checker)).length
    return [{ cluster: column.cluster, report, findings: [first, ...rest], children, others: [] }]
  })
  if (wide) return { groups, lacking: { cluster: column.cluster, words: [] } }
  const { lacking, shown } = Folding.fold(groups.map((group) => ({
    group,
    checker: group.report.checker,
    code: group.findings.every(({ code }) => code === group.findings[0].code) ? group.findings[0].code : undefined,
    message: group.findings.map(({ message }) => message).join("\n")
  })))
  return {
    groups: shown.map((folded) => ({ ...folded.told.group, others: Folding.othersInWords(folded) })),
    lacking: { cluster: column.cluster, words: Folding.lackingInWords(lacking) }
  }
}

/** Every finding worth acting on, worst first, each code's fix once a checker. Empty when there is nothing. */
export const findings = (columns: ReadonlyArray<MatrixColumn>, options: MatrixOptions): ReadonlyArray<string> => {
  const { style, wide } = options
  const told = columns.map((column) => groupsOf(column, wide ? "INFO" : "UNKNOWN", wide))
  const groups = told.flatMap(({ groups }) => groups)
    .toSorted((a, b) => findingOrder(a.findings[0], b.findings[0]))

  const blocks = groups.flatMap(({ children, cluster, findings, others, report }) => {
    const shown = wide ? findings : findings.filter(isNews).slice(0, SHOWN)
    const hidden = findings.length - shown.length + report.truncated
    const lines = [""]
    const explained = new Set<string>()
    for (const finding of shown) {
      const head = `${style.status(finding.status)} ${style.bold(cluster)} ${report.checker} ${finding.code}`
      lines.push(head, `  ${subjectOf(finding)}${indent(finding.message, "  ")}`)
      const fix = explained.has(finding.code)
        ? undefined
        : NextStep.of({ ...finding, checker: report.checker }, options.fixOf)
      explained.add(finding.code)
      if (fix !== undefined) lines.push(style.dim(`  next: ${fix}`))
    }
    if (hidden > 0) lines.push(style.dim(`  and ${hidden} more like these${wide ? "" : " (-o wide shows them)"}`))
    if (children > 0) lines.push(`  ${children} ${children === 1 ? "check was" : "checks were"} not run because of it`)
    lines.push(...others.map((line) => `  ${line}`))
    return lines
  })
  return [
    ...blocks,
    ...told.flatMap(({ lacking: { cluster, words: [head, ...next] } }) =>
      head === undefined
        ? []
        : [
          "",
          `${style.status("UNKNOWN")} ${style.bold(cluster)} ${head}`,
          ...next.map((line) => style.dim(`  ${line}`))
        ]
    )
  ]
}

/** How many checks were left out, by reason; nothing when none was. A check left out in one cluster is so in all. */
export const notRun = (columns: ReadonlyArray<MatrixColumn>, { style }: MatrixOptions): ReadonlyArray<string> => {
  const reasons = new Map(columns.flatMap((column) => [...column.notRun]))
  return reasons.size === 0 ? [] : [style.dim(`${reasons.size} not run: ${Selection.summary([...reasons.values()])}`)]
}

/** One line that sums a call up. */
export const summary = (
  result: { readonly clusters: ReadonlyArray<ClusterResult>; readonly duration: number },
  style: Style
): string => {
  const reports = result.clusters.flatMap((cluster) => cluster.reports)
  const counts = Status.Status.literals.toReversed().map((status) => ({
    status,
    count: reports.filter((report) => report.status === status).length
  })).filter(({ count }) => count > 0)
  const requests = result.clusters.reduce((sum, cluster) => sum + cluster.requests, 0)
  return `${counted(result.clusters.length, "cluster")}, ${counted(reports.length, "verdict")}: ${
    counts.map(({ count, status }) => style.status(status, `${count} ${status}`)).join(", ")
  } (${seconds(result.duration)}, ${counted(requests, "API request")})`
}
