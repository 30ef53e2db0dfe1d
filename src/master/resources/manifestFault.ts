/**
 * What a Kubernetes API would refuse of an object's metadata
 * (https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and .../labels/).
 */
import type { ResourceManifest } from "../Resources.ts"

const NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
const KEY = /^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/
const VALUE = /^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/

/** Of all annotations of an object, in bytes (apimachinery, validation.TotalAnnotationSizeLimitB). */
const MAX_ANNOTATIONS = 256 * 1024

/** Names that become labels, by the rules of the definitions in `crds/`. */
const MAX_NAME: Readonly<Record<string, number>> = { Probe: 63 }

export const manifestFault = (
  kind: string,
  { annotations = {}, labels = {}, name }: ResourceManifest["metadata"]
): string | undefined => {
  const longest = MAX_NAME[kind] ?? 253
  if (!NAME.test(name)) return "metadata.name: lower-case letters, digits, and inner dashes and dots"
  if (name.length > longest) return `metadata.name: at most ${longest} characters`
  for (const [key, value] of Object.entries(labels)) {
    if (!KEY.test(key)) return `metadata.labels: ${key} is not the key of a label`
    if (!VALUE.test(value)) {
      return `metadata.labels.${key}: at most 63 letters, digits, and inner dashes, dots and underscores`
    }
  }
  let size = 0
  for (const [key, value] of Object.entries(annotations)) {
    if (!KEY.test(key)) return `metadata.annotations: ${key} is not the key of an annotation`
    size += Buffer.byteLength(key) + Buffer.byteLength(value)
  }
  return size > MAX_ANNOTATIONS ? `metadata.annotations: at most ${MAX_ANNOTATIONS} bytes together` : undefined
}
