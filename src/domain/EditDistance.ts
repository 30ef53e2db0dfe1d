/** How far two names are apart, for "did you mean". */

/** Levenshtein's distance: insertions, deletions and substitutions of characters that turn one into the other. */
export const between = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitution = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next[j] = Math.min(substitution, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1)
    }
    row = next
  }
  return row[b.length] ?? 0
}

/** The candidates closest to `wanted`, at most three: those that a slip of the hand explains, or that contain it. */
export const closest = (wanted: string, candidates: ReadonlyArray<string>): ReadonlyArray<string> =>
  candidates
    .map((candidate) => ({ candidate, distance: between(wanted, candidate) }))
    .filter(({ candidate, distance }) =>
      distance <= Math.max(2, Math.floor(wanted.length / 3)) || candidate.includes(wanted)
    )
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ candidate }) => candidate)
