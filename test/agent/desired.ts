/** Desired sets as a master announces them. */
import { createHash } from "node:crypto"
import { type DesiredProbe, type DesiredSet, canonical } from "../../src/domain/DesiredSet.ts"
import type { ProbeSpec } from "../../src/domain/kinds/Probe.ts"

export const hashOf = (desired: DesiredSet): string => createHash("sha256").update(canonical(desired)).digest("hex")

/** Probes of one namespace, by name. */
export const desiredOf = (
  specs: Readonly<Record<string, ProbeSpec>>,
  options: { readonly namespace?: string; readonly extraInfo?: Readonly<Record<string, string>> } = {}
): DesiredSet => ({
  probes: Object.entries(specs).map(([name, spec]): DesiredProbe => ({
    namespace: options.namespace ?? "kubeprober",
    name,
    spec
  })),
  extraInfo: options.extraInfo ?? {}
})
