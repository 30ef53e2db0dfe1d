/**
 * The fleet as people read it: checkers down, by layer from what users feel to what carries it; clusters across. Too many
 * clusters for that are listed one a line, worst first. Below, what is wrong and since when.
 */
import { DateTime, Duration, Order } from "effect"
import { counted } from "../../domain/counted.ts"
import { ProbeLayer } from "../../domain/ProbeLayer.ts"
import type { Finding } from "../../domain/Report.ts"
import { type Cell, type ClusterView, type MatrixRow, NEVER_RAN, type Transition } from "../../domain/rpc/Fleet.ts"
import * as Status from "../../domain/Status.ts"
import { checkerCodes } from "../../probes/CheckerCodes.ts"
import * as Folding from "./Folding.ts"
import { subjectOf } from "./Matrix.ts"
import type { Style } from "./Style.ts"
import * as Table from "./Table.ts"

export interface FleetTableOptions {
  readonly style: Style
  /** Every checker's message, not only of those that ask for something. */
  readonly wide: boolean
  /** Columns of the terminal; unlimited when absent. */
  readonly width?: number | undefined
  readonly now: DateTime.Utc
  /** Rows without anything that asks for anybody are counted instead. */
  readonly collapsed?: boolean
  /** Told with each message; the message alone when absent. */
  readonly details?: Details | undefined
  /** When this command started the fleet; absent when it did not. */
  readonly startedAt?: DateTime.Utc | undefined
}

/** What is known of a cell beside what the fleet's matrix has. */
export interface Details {
  /** Of the run that the cell shows; none when they are not known. */
  readonly findingsOf: (cluster: string, cell: Cell) => ReadonlyArray<Finding>
  /** What to do about the cell's code. */
  readonly fixOf: (cell: Cell) => string | undefined
}

/** More clusters than this are listed down, because nobody reads that far to the right. */
const MOST_COLUMNS = 8

/** Messages printed below the table; the rest is counted. */
const MOST_MESSAGES = 20

/** Nothing in the first second. */
const ageOf = (since: DateTime.Utc, now: DateTime.Utc): string | undefined => {
  const seconds = Math.floor(Duration.toSeconds(DateTime.distance(since, now)))
  return seconds < 1 ? undefined : Duration.format(Duration.seconds(seconds)).split(" ").slice(0, 2).join("")
}

const agoOf = (since: DateTime.Utc, now: DateTime.Utc): string => {
  const age = ageOf(since, now)
  return age === undefined ? "just now" : `${age} ago`
}

/** Since when it is so, and when that was last looked at; nothing of what never ran. */
const agesOf = ({ lastRun, since }: Cell, now: DateTime.Utc): string => {
  const age = since === undefined ? undefined : ageOf(since, now)
  const said = [
    ...age === undefined ? [] : [`for ${age}`],
    ...lastRun === undefined ? [] : [`looked ${agoOf(lastRun, now)}`]
  ].join(", ")
  return said === "" ? "" : ` ${said}`
}

/** Its turn has not come yet; what is never run for a reason says so. */
const hasNotRun = ({ lastRun, message }: Cell): boolean =>
  lastRun === undefined && (message === NEVER_RAN.linked || message === NEVER_RAN.unlinked)

/** First runs take no longer than this after the agent's link, on a busy machine too. Then their absence is a fault. */
const PATIENCE = Duration.minutes(2)

/** Whether a cluster has come so lately that what has not run in it is no outage, though nothing is known. */
const isNew = ({ linkedSince }: MatrixRow, { now, startedAt }: FleetTableOptions): boolean =>
  [linkedSince, startedAt].some((since) =>
    since !== undefined && Duration.isLessThan(DateTime.distance(since, now), PATIENCE)
  )

/** Cells of a cluster that wait for their first run. */
const waitingOf = (row: MatrixRow, options: FleetTableOptions): ReadonlyArray<Cell> =>
  isNew(row, options) ? row.cells.filter(hasNotRun) : []

const isUnheard = (row: MatrixRow, options: FleetTableOptions): boolean =>
  row.cells.length > 0 && waitingOf(row, options).length === row.cells.length

/** A cluster whose only unknowns have not run yet waits with them. */
const statusText = (row: MatrixRow, options: FleetTableOptions): string => {
  const waiting = waitingOf(row, options)
  const unknown = row.cells.filter(isUnknown)
  return row.status === "UNKNOWN" && unknown.length > 0 && unknown.every((cell) => waiting.includes(cell))
    ? options.style.dim("waiting")
    : options.style.status(row.status)
}

/** Checks of one name in two Probes are two rows, told apart by the Probe. */
const rowKey = (cell: Cell): string => `${cell.probe.name}/${cell.checker}`

const titleOf = (cell: Cell, all: ReadonlyArray<Cell>): string =>
  all.some((other) => other.checker === cell.checker && other.probe.name !== cell.probe.name)
    ? `${cell.probe.name}/${cell.checker}`
    : cell.checker

const cellText = (cell: Cell | undefined, row: MatrixRow, options: FleetTableOptions): string => {
  const { style } = options
  if (cell === undefined) return style.dim("-")
  if (hasNotRun(cell)) {
    return isNew(row, options) ? style.dim("waiting") : `${style.status(cell.status)}${style.dim(" not run yet")}`
  }
  const code = cell.code === undefined || cell.status === "PASS" ? "" : ` ${cell.code}`
  const freshness = cell.freshness === "fresh" ? "" : style.dim(` ${cell.freshness}`)
  return `${style.status(cell.status)}${code}${freshness}`
}

const linkText = (row: MatrixRow, options: FleetTableOptions): string =>
  row.linked
    ? options.style.dim("linked")
    : isUnheard(row, options)
    ? options.style.dim("not linked yet")
    : options.style.status("UNKNOWN", "not linked")

/** What asks for somebody. */
const isLoud = (cell: Cell, row: MatrixRow, options: FleetTableOptions): boolean =>
  cell.status !== "PASS" && cell.status !== "INFO" && !(hasNotRun(cell) && isNew(row, options))

/** How many rows, or clusters, that ask for nobody are not shown: what waits is not yet without a fault. */
const quietText = (hidden: ReadonlyArray<ReadonlyArray<Cell>>, { style }: FleetTableOptions): string => {
  const waits = hidden.filter((cells) => cells.some(hasNotRun)).length
  const said = [
    ...hidden.length === waits ? [] : [`${hidden.length - waits} without a fault`],
    ...waits === 0 ? [] : [`${waits} waiting`]
  ]
  return said.length === 0 ? "" : style.dim(` (${said.join(", ")})`)
}

/** Of `all` clusters the first that fit beside the names of the checkers; at least one. */
const across = (rows: ReadonlyArray<MatrixRow>, options: FleetTableOptions): ReadonlyArray<string> => {
  const cells = rows.flatMap((row) => row.cells)
  const byKey = new Map(cells.map((cell) => [rowKey(cell), cell]))
  const found = rows.map((row) => ({ row, cells: new Map(row.cells.map((cell) => [rowKey(cell), cell])) }))
  const lines: Array<ReadonlyArray<string>> = [
    ["PROBE", ...rows.map((row) => options.style.bold(row.cluster))],
    ["", ...rows.map((row) => linkText(row, options))]
  ]
  for (const layer of ProbeLayer.literals) {
    const members = [...byKey].filter(([, cell]) => cell.layer === layer)
      .toSorted(([a], [b]) => Order.String(a, b))
    if (members.length === 0) continue
    const shown = options.collapsed === true
      ? members.filter(([key]) =>
        found.some(({ cells, row }) => {
          const cell = cells.get(key)
          return cell !== undefined && isLoud(cell, row, options)
        })
      )
      : members
    const hidden = members.filter((member) => !shown.includes(member)).map(([key]) =>
      found.flatMap(({ cells }) => cells.get(key) ?? [])
    )
    lines.push([`${options.style.bold(layer)}${quietText(hidden, options)}`])
    for (const [key, cell] of shown) {
      lines.push([
        `  ${titleOf(cell, cells)}`,
        ...found.map((column) => cellText(column.cells.get(key), column.row, options))
      ])
    }
  }
  lines.push(["all", ...rows.map((row) => statusText(row, options))])
  return Table.render(lines)
}

/** How many columns of `across` fit into the width. */
const fitting = (rows: ReadonlyArray<MatrixRow>, options: FleetTableOptions): number => {
  const most = Math.min(rows.length, MOST_COLUMNS)
  if (options.width === undefined) return most
  for (let count = most; count > 1; count--) {
    const widest = Math.max(...across(rows.slice(0, count), options).map(Table.visibleLength))
    if (widest <= options.width) return count
  }
  return 1
}

const worstFirst: Order.Order<MatrixRow> = Order.combine(
  Order.flip(Order.mapInput(Status.order, ({ status }: MatrixRow) => status)),
  Order.mapInput(Order.String, ({ cluster }: MatrixRow) => cluster)
)

const isFailing = (cell: Cell): boolean => Status.isAtLeast(cell.status, "WARN")

/** Nobody could look, or nothing newer is known. */
const isUnknown = (cell: Cell): boolean => cell.status === "UNKNOWN"

const named = (cells: ReadonlyArray<Cell>): string =>
  cells.length === 0
    ? ""
    : `${cells.length}: ${cells.slice(0, 3).map((cell) => cell.checker).join(", ")}${cells.length > 3 ? ", ..." : ""}`

const down = (rows: ReadonlyArray<MatrixRow>, options: FleetTableOptions): ReadonlyArray<string> => {
  const shown = options.collapsed === true
    ? rows.filter((row) =>
      row.cells.length === 0 || row.cells.some((cell) => isLoud(cell, row, options)) ||
      !(row.linked || isUnheard(row, options))
    )
    : rows
  const quiet = rows.filter((row) => !shown.includes(row)).map(({ cells }) => cells)
  return [
    ...Table.render([
      ["CLUSTER", "STATUS", "LINK", "CHECKERS", "FAILING", "UNKNOWN"],
      ...shown.toSorted(worstFirst).map((row) => [
        row.cluster,
        statusText(row, options),
        linkText(row, options),
        String(row.cells.length),
        named(row.cells.filter(isFailing)),
        named(row.cells.filter((cell) => isUnknown(cell) && isLoud(cell, row, options)))
      ])
    ]),
    ...quiet.length === 0
      ? []
      : [`${options.style.dim(`and ${counted(quiet.length, "cluster")}`)}${quietText(quiet, options)}`]
  ]
}

/** The table alone. */
export const table = (rows: ReadonlyArray<MatrixRow>, options: FleetTableOptions): ReadonlyArray<string> => {
  if (rows.length > MOST_COLUMNS) return down(rows, options)
  const lines: Array<string> = []
  for (let start = 0; start < rows.length;) {
    const count = fitting(rows.slice(start), options)
    lines.push(...start === 0 ? [] : [""], ...across(rows.slice(start, start + count), options))
    start += count
  }
  return lines
}

/** Checkers that were not run because of another are told together: they only repeat it. */
const isRepetition = (cell: Cell): boolean => cell.code === checkerCodes.PARENT_FAILED.code

const repetitions = (row: MatrixRow, { style }: FleetTableOptions): ReadonlyArray<string> => {
  const byMessage = new Map<string, number>()
  for (const { message } of row.cells.filter(isRepetition)) byMessage.set(message, (byMessage.get(message) ?? 0) + 1)
  return [...byMessage].map(([message, count]) =>
    `${style.status("UNKNOWN")} ${style.bold(row.cluster)} ${counted(count, "checker")} ${message}`
  )
}

const noted = (cell: Cell, wide: boolean): boolean =>
  !hasNotRun(cell) && (wide ? cell.status !== "PASS" : isFailing(cell) || isUnknown(cell))

/** How many checks wait for their first run, and in which clusters that takes too long. */
const notRun = (rows: ReadonlyArray<MatrixRow>, options: FleetTableOptions): ReadonlyArray<string> => {
  const { now, style } = options
  const said = (count: number): string => `${counted(count, "check")} ${count === 1 ? "has" : "have"} not run yet`
  const waiting = rows.flatMap((row) => waitingOf(row, options)).length
  const late = rows.filter((row) => row.linked && !isNew(row, options)).flatMap((row) => {
    const count = row.cells.filter(hasNotRun).length
    const age = row.linkedSince === undefined ? undefined : ageOf(row.linkedSince, now)
    return count === 0 ? [] : [
      `${style.status("UNKNOWN")} ${style.bold(row.cluster)} ${said(count)}${
        age === undefined ? "" : `, and its agent is linked for ${age}`
      }: they are new, or the agent cannot start (its log says why)`
    ]
  })
  return [...late, ...waiting === 0 ? [] : [style.dim(said(waiting))]]
}

const indented = (text: string): ReadonlyArray<string> => text.split("\n").map((line) => `  ${line}`)

/** One thing a checker noticed, by its own status and code where it noticed several. */
const findingText = (finding: Finding, { style }: FleetTableOptions): ReadonlyArray<string> =>
  indented(`${style.status(finding.status)} ${finding.code}: ${subjectOf(finding)}${finding.message}`)

/** A cell that asks for something: its verdict and ages, what it says, what to do, who says the same. */
const message = (cluster: string, cell: Cell, others: ReadonlyArray<string>, options: FleetTableOptions): string => {
  const { details, now, style } = options
  const code = cell.code === undefined ? "" : ` ${cell.code}`
  const findings = details?.findingsOf(cluster, cell) ?? []
  const told = findings.length > 1 ? findings.map((finding) => findingText(finding, options)) : [indented(cell.message)]
  const codes = [...new Set([...cell.code === undefined ? [] : [cell.code], ...findings.map((one) => one.code)])]
  const next = codes.flatMap((one) => {
    const fix = details?.fixOf({ ...cell, code: one })
    return fix === undefined ? [] : [style.dim(`  next${codes.length > 1 ? ` for ${one}` : ""}: ${fix}`)]
  })
  return [
    `${style.status(cell.status)} ${style.bold(cluster)} ${cell.checker}${code}${style.dim(agesOf(cell, now))}`,
    ...told.flat(),
    ...next,
    ...others.map((line) => `  ${line}`)
  ].join("\n")
}

/** Checks without rights, told together. */
const lackingText = (cluster: string, words: ReadonlyArray<string>, { style }: FleetTableOptions): string => {
  const [head = "", ...next] = words
  return [
    `${style.status("UNKNOWN")} ${style.bold(cluster)} ${head}`,
    ...next.map((line) => style.dim(`  ${line}`))
  ].join("\n")
}

/** What is wrong, worst first. A cluster without a link is told once, and so is a cause that many checks tell of. */
export const messages = (rows: ReadonlyArray<MatrixRow>, options: FleetTableOptions): ReadonlyArray<string> => {
  const { style, wide } = options
  const lost = rows.filter((row) => !row.linked)
  const told = rows.map((row) => {
    const cells = row.cells.filter((cell) =>
      noted(cell, wide) && (wide || !isRepetition(cell)) &&
      (cell.freshness !== "unreachable" || Status.isAtLeast(cell.status, "WARN"))
    )
    const folded = wide
      ? { shown: cells.map((cell) => ({ told: cell, others: 0 })), lacking: [] }
      : Folding.fold(cells)
    return { row, ...folded }
  })
  const found = told.flatMap(({ row, shown }) => shown.map((folded) => ({ row, folded })))
    .toSorted((a, b) => Status.order(b.folded.told.status, a.folded.told.status))
  const shown = wide ? found : found.slice(0, MOST_MESSAGES)
  const hidden = found.length - shown.length
  return [
    ...lost.map((row) =>
      isUnheard(row, options)
        ? `${style.dim("waiting")} ${
          style.bold(row.cluster)
        } has no link yet: its agent joins, or has never been started`
        : `${style.status("UNKNOWN")} ${
          style.bold(row.cluster)
        } has no link: its agent does not run or does not reach the master`
    ),
    ...shown.map(({ folded, row }) => message(row.cluster, folded.told, Folding.othersInWords(folded), options)),
    ...told.flatMap(({ lacking, row }) =>
      lacking.length === 0 ? [] : [lackingText(row.cluster, Folding.lackingInWords(lacking), options)]
    ),
    ...wide ? [] : rows.filter(({ linked }) => linked).flatMap((row) => repetitions(row, options)),
    ...hidden > 0 ? [style.dim(`and ${hidden} more (-o wide shows all)`)] : [],
    ...notRun(rows, options)
  ]
}

/** One line that sums the fleet up. */
export const summary = (rows: ReadonlyArray<MatrixRow>, style: Style): string => {
  const cells = rows.flatMap((row) => row.cells)
  const counts = Status.Status.literals.toReversed()
    .map((status) => ({ status, count: cells.filter((cell) => cell.status === status && !hasNotRun(cell)).length }))
    .filter(({ count }) => count > 0)
    .map(({ count, status }) => style.status(status, `${count} ${status}`))
  const unheard = cells.filter(hasNotRun).length
  if (unheard > 0) counts.push(style.dim(`${unheard} not run yet`))
  const linked = rows.filter((row) => row.linked).length
  return `${counted(rows.length, "cluster")}, ${linked} linked; ${counted(cells.length, "checker")}${
    counts.length === 0 ? "" : `: ${counts.join(", ")}`
  }`
}

/** All of it: the table, what is wrong, the sum. */
export const render = (rows: ReadonlyArray<MatrixRow>, options: FleetTableOptions): ReadonlyArray<string> => {
  const said = messages(rows, options)
  return [...table(rows, options), ...said.length === 0 ? [] : ["", ...said], "", summary(rows, options.style)]
}

const lines = (elements: ReadonlyArray<string>): ReadonlyArray<string> =>
  elements.flatMap((element) => element.split("\n"))

/**
 * All of it on a screen of this height. Where that is too low for it: the sum, how each cluster is and what is wrong
 * first, then the table without what asks for nobody.
 */
export const frame = (
  rows: ReadonlyArray<MatrixRow>,
  options: FleetTableOptions & { readonly height: number }
): ReadonlyArray<string> => {
  const { height, style, width } = options
  const wrapped = (elements: ReadonlyArray<string>): ReadonlyArray<string> =>
    width === undefined ? lines(elements) : lines(elements).flatMap((line) => Table.wrap(line, width))
  const said = wrapped(messages(rows, options))
  const sum = wrapped([summary(rows, style)])
  const whole = [...table(rows, options), ...said.length === 0 ? [] : ["", ...said], "", ...sum]
  if (whole.length <= height) return whole
  const all = rows.length > MOST_COLUMNS
    ? []
    : wrapped([`all: ${rows.map((row) => `${style.bold(row.cluster)} ${statusText(row, options)}`).join(", ")}`])
  return [...sum, ...all, ...said, ...table(rows, { ...options, collapsed: true })]
}

/** One change, as a line of a log. */
export const transition = (change: Transition, style: Style): string =>
  `${DateTime.formatIso(change.at)} ${style.bold(change.cluster)} ${change.checker} ${
    change.from === undefined ? "new" : style.status(change.from)
  } -> ${style.status(change.to)}${change.code === undefined ? "" : ` ${change.code}`}${
    change.freshness === "fresh" ? "" : ` (${change.freshness})`
  }${change.to === "PASS" ? "" : `: ${change.message.split("\n").join(" ")}`}`

/** `kubeprober cluster list`. */
export const clusters = (views: ReadonlyArray<ClusterView>, options: FleetTableOptions): ReadonlyArray<string> =>
  Table.render([
    ["NAME", "STATUS", "LINK", "KUBERNETES", "AGENT", "NODES", "HEARD", ...options.wide ? ["LABELS"] : []],
    ...views.map(({ labels, name, revoked, state, status }) => [
      name,
      options.style.status(status),
      revoked === true
        ? "revoked"
        : state.link === undefined
        ? "never"
        : state.link.state === "Connected"
        ? "linked"
        : "lost",
      state.versions?.kubernetes ?? "",
      state.versions?.agent ?? "",
      state.nodeCount === undefined ? "" : String(state.nodeCount),
      state.heartbeat === undefined ? "never" : agoOf(state.heartbeat, options.now),
      ...options.wide ? [Object.entries(labels).map(([key, value]) => `${key}=${value}`).join(",")] : []
    ])
  ])
