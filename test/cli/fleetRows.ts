/** Rows of a fleet as the master tells them, good unless said otherwise. */
import { DateTime } from "effect"
import type { Cell, MatrixRow } from "../../src/domain/rpc/Fleet.ts"

export const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
export const EARLIER = DateTime.makeUnsafe("2026-01-01T11:58:30Z")

export const cell = (checker: string, options: Partial<Cell> = {}): Cell => ({
  probe: { namespace: "kubeprober", name: "basics" },
  checker,
  layer: "kubernetes",
  status: "PASS",
  freshness: "fresh",
  message: "fine",
  lastRun: EARLIER,
  since: EARLIER,
  ...options
})

export const row = (
  cluster: string,
  cells: ReadonlyArray<Cell>,
  options: Partial<MatrixRow> = {}
): MatrixRow => ({ cluster, status: "PASS", linked: true, cells, ...options })
