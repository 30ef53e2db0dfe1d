/**
 * The fleet as people read it: checkers down, by layer from what users feel to what carries it; clusters across. Too many
 * clusters for that are listed one a line, worst first. Below, what is wrong and since when.
 */
import { DateTime, Duration, Order } from "effect"
import { ProbeLayer } from "../../domain/ProbeLayer.ts"
import type { Cell, ClusterView, MatrixRow, Transition } from "../../domain/rpc/Fleet.ts"
import * as Status from "../../domain/Status.ts"
import { checkerCodes } from "../../probes/CheckerCodes.ts"
import type { Style } from "./Style.ts"
import * as Table from "./Table.ts"

export interface FleetTableOptions {
  readonly style: Style
  /** Every checker's message, not only of those that ask for something. */
  readonly wide: boolean
  /** Columns of the terminal; unlimited when absent. */
  readonly width?: number | undefined
  readonly now: DateTime.Utc
}

/** More clusters than this are listed down, because nobody reads that far to the right. */
const MOST_COLUMNS = 8

/** Messages printed below the table; the rest is counted. */
const MOST_MESSAGES = 20

const ageOf = (since: DateTime.Utc | undefined, now: DateTime.Utc): string =>
  since === undefined
    ? "never"
    : Duration.format(Duration.seconds(Math.max(0, Math.floor(Duration.toSeconds(DateTime.distance(since, now))))))
      .split(" ").slice(0, 2).join("")

/** Checks of one name in two Probes are two rows, told apart by the Probe. */
const rowKey = (cell: Cell): string => `${cell.probe.name}/${cell.checker}`

const titleOf = (cell: Cell, all: ReadonlyArray<Cell>): string =>
  all.some((other) => other.checker === cell.checker && other.probe.name !== cell.probe.name)
    ? `${cell.probe.name}/${cell.checker}`
    : cell.checker

const cellText = (cell: Cell | undefined, { style }: FleetTableOptions): string => {
  if (cell === undefined) return style.dim("-")
  const code = cell.code === undefined || cell.status === "PASS" ? "" : ` ${cell.code}`
  const freshness = cell.freshness === "fresh" ? "" : style.dim(` ${cell.freshness}`)
  return `${style.status(cell.status)}${code}${freshness}`
}

const linkText = (row: MatrixRow, { style }: FleetTableOptions): string =>
  row.linked ? style.dim("linked") : style.status("UNKNOWN", "not linked")

/** Of `all` clusters the first that fit beside the names of the checkers; at least one. */
const across = (rows: ReadonlyArray<MatrixRow>, options: FleetTableOptions): ReadonlyArray<string> => {
  const cells = rows.flatMap((row) => row.cells)
  const byKey = new Map(cells.map((cell) => [rowKey(cell), cell]))
  const found = rows.map((row) => new Map(row.cells.map((cell) => [rowKey(cell), cell])))
  const lines: Array<ReadonlyArray<string>> = [
    ["PROBE", ...rows.map((row) => options.style.bold(row.cluster))],
    ["", ...rows.map((row) => linkText(row, options))]
  ]
  for (const layer of ProbeLayer.literals) {
    const members = [...byKey].filter(([, cell]) => cell.layer === layer)
      .toSorted(([a], [b]) => Order.String(a, b))
    if (members.length === 0) continue
    lines.push([options.style.bold(layer)])
    for (const [key, cell] of members) {
      lines.push([`  ${titleOf(cell, cells)}`, ...found.map((column) => cellText(column.get(key), options))])
    }
  }
  lines.push(["all", ...rows.map((row) => options.style.status(row.status))])
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

const down = (rows: ReadonlyArray<MatrixRow>, options: FleetTableOptions): ReadonlyArray<string> =>
  Table.render([
    ["CLUSTER", "STATUS", "LINK", "CHECKERS", "FAILING", "UNKNOWN"],
    ...rows.toSorted(worstFirst).map((row) => [
      row.cluster,
      options.style.status(row.status),
      linkText(row, options),
      String(row.cells.length),
      named(row.cells.filter(isFailing)),
      named(row.cells.filter(isUnknown))
    ])
  ])

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
    `${style.status("UNKNOWN")} ${style.bold(row.cluster)} ${count} ${count === 1 ? "checker" : "checkers"} ${message}`
  )
}

const noted = (cell: Cell, wide: boolean): boolean => wide ? cell.status !== "PASS" : isFailing(cell) || isUnknown(cell)

/** What is wrong, worst first. A cluster without a link is told once. */
export const messages = (rows: ReadonlyArray<MatrixRow>, options: FleetTableOptions): ReadonlyArray<string> => {
  const { now, style, wide } = options
  const lost = rows.filter((row) => !row.linked)
  const found = rows.flatMap((row) =>
    row.cells.filter((cell) =>
      noted(cell, wide) && (wide || !isRepetition(cell)) &&
      (cell.freshness !== "unreachable" || Status.isAtLeast(cell.status, "WARN"))
    ).map((cell) => ({ row, cell }))
  ).toSorted((a, b) => Status.order(b.cell.status, a.cell.status))
  const shown = wide ? found : found.slice(0, MOST_MESSAGES)
  const hidden = found.length - shown.length
  return [
    ...lost.map((row) =>
      `${style.status("UNKNOWN")} ${
        style.bold(row.cluster)
      } has no link: its agent does not run or does not reach the master`
    ),
    ...shown.map(({ cell, row }) =>
      `${style.status(cell.status)} ${style.bold(row.cluster)} ${cell.checker}${
        cell.code === undefined ? "" : ` ${cell.code}`
      }${style.dim(` for ${ageOf(cell.since, now)}, looked ${ageOf(cell.lastRun, now)} ago`)}\n  ${
        cell.message.split("\n").join("\n  ")
      }`
    ),
    ...wide ? [] : rows.filter(({ linked }) => linked).flatMap((row) => repetitions(row, options)),
    ...hidden > 0 ? [style.dim(`and ${hidden} more (-o wide shows all)`)] : []
  ]
}

/** One line that sums the fleet up. */
export const summary = (rows: ReadonlyArray<MatrixRow>, style: Style): string => {
  const cells = rows.flatMap((row) => row.cells)
  const counts = Status.Status.literals.toReversed()
    .map((status) => ({ status, count: cells.filter((cell) => cell.status === status).length }))
    .filter(({ count }) => count > 0)
    .map(({ count, status }) => style.status(status, `${count} ${status}`))
  const linked = rows.filter((row) => row.linked).length
  return `${rows.length} ${rows.length === 1 ? "cluster" : "clusters"}, ${linked} linked; ${cells.length} checkers${
    counts.length === 0 ? "" : `: ${counts.join(", ")}`
  }`
}

/** All of it: the table, what is wrong, the sum. */
export const render = (rows: ReadonlyArray<MatrixRow>, options: FleetTableOptions): ReadonlyArray<string> => {
  const said = messages(rows, options)
  return [...table(rows, options), ...said.length === 0 ? [] : ["", ...said], "", summary(rows, options.style)]
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
    ...views.map(({ labels, name, state, status }) => [
      name,
      options.style.status(status),
      state.link === undefined ? "never" : state.link.state === "Connected" ? "linked" : "lost",
      state.versions?.kubernetes ?? "",
      state.versions?.agent ?? "",
      state.nodeCount === undefined ? "" : String(state.nodeCount),
      state.heartbeat === undefined ? "never" : `${ageOf(state.heartbeat, options.now)} ago`,
      ...options.wide ? [Object.entries(labels).map(([key, value]) => `${key}=${value}`).join(",")] : []
    ])
  ])
