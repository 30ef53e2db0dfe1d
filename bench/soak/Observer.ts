/** What was seen of every checker while a soak went on. */
import { DateTime, Effect } from "effect"
import { isDeepStrictEqual } from "node:util"
import type { Cell } from "../../src/domain/rpc/Fleet.ts"
import type { Status } from "../../src/domain/Status.ts"
import type { Installation } from "./Installation.ts"

/** Neither of these is a reason to wake anybody. */
export const isGood = (status: Status): boolean => status === "PASS" || status === "INFO"

/** One way in which a checker was not good. */
export interface Trouble {
  readonly status: Status
  readonly code: string
  readonly times: number
  readonly first: string
  readonly message: string
}

/** One checker of one Probe. */
export interface Checker {
  readonly checker: string
  readonly probe: string
  readonly runs: number
  readonly troubles: ReadonlyArray<Trouble>
}

export const nameOf = ({ checker, probe }: Pick<Cell, "checker" | "probe">): string => `${probe.name}/${checker}`

/** Counts runs by looking each second, which misses one that is followed by another within the second. */
export const make = (installation: Installation) => {
  const last = new Map<string, Cell>()
  const runs = new Map<string, number>()
  const look = Effect.tap(installation.cells, (cells) =>
    Effect.sync(() => {
      for (const cell of cells) {
        const name = nameOf(cell)
        if (cell.lastRun !== undefined && !isDeepStrictEqual(last.get(name)?.lastRun, cell.lastRun)) {
          runs.set(name, (runs.get(name) ?? 0) + 1)
        }
        last.set(name, cell)
      }
    }))
  return {
    look,
    /** By what the history keeps of runs that were not good, since then. */
    summary: (from: DateTime.Utc) =>
      Effect.forEach(
        [...last.values()].sort((a, b) => nameOf(a) < nameOf(b) ? -1 : 1),
        Effect.fnUntraced(
          function*(cell): Effect.fn.Return<Checker, Effect.Error<ReturnType<Installation["history"]>>> {
            const troubles = new Map<string, Trouble>()
            for (const { record: { report } } of yield* installation.history(cell, from)) {
              if (isGood(report.status)) continue
              const { code = "", message, startedAt, status } = report
              const key = `${status} ${code}`
              const known = troubles.get(key) ??
                { status, code, times: 0, first: DateTime.formatIso(startedAt), message }
              troubles.set(key, { ...known, times: known.times + 1 })
            }
            return {
              checker: cell.checker,
              probe: cell.probe.name,
              runs: runs.get(nameOf(cell)) ?? 0,
              troubles: [...troubles.values()]
            }
          }
        )
      )
  }
}
