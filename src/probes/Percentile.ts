/** Percentiles of measurements. */

/** The nearest-rank percentile: the smallest value that at least `percent` of all values do not exceed; 0 of none. */
export const percentile = (values: ReadonlyArray<number>, percent: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * percent / 100) - 1)] ?? 0
}
