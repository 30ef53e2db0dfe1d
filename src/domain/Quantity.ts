/**
 * Amounts as Kubernetes writes them: `500m`, `4Gi`, `1e3`
 * (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/).
 */

/** Powers of ten, applied to the text so that nothing is lost to rounding. */
const DECIMAL: Readonly<Record<string, number>> = { n: -9, u: -6, m: -3, k: 3, M: 6, G: 9, T: 12, P: 15, E: 18 }

/** Largest first. */
const BINARY = [["Ei", 2 ** 60], ["Pi", 2 ** 50], ["Ti", 2 ** 40], ["Gi", 2 ** 30], ["Mi", 2 ** 20], [
  "Ki",
  2 ** 10
]] as const

const FORM = /^([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i))?$/u

/** In the resource's base unit (cores, bytes, pieces); none when the text is no quantity. */
export const parse = (text: string): number | undefined => {
  const [, number, exponent = "", suffix = ""] = FORM.exec(text) ?? []
  if (number === undefined) return undefined
  const decimal = DECIMAL[suffix]
  const factor = BINARY.find(([unit]) => unit === suffix)?.[1] ?? 1
  return Number(decimal === undefined ? `${number}${exponent}` : `${number}e${decimal}`) * factor
}

/** Bytes for people, such as `1.5Gi`. */
export const formatBytes = (bytes: number): string => {
  const [unit, factor] = BINARY.find(([, factor]) => Math.abs(bytes) >= factor) ?? ["", 1]
  return `${Number((bytes / factor).toFixed(1))}${unit}`
}
