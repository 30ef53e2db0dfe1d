/**
 * Names of tests that prove something about a probe. The table in `docs/proofs.md` is made of them after a run, so a proof
 * is in the table only when its test has passed.
 *
 * ```ts
 * it.effect(fault(dnsCluster, "DNS_VIP_FAILED", "CoreDNS scaled to zero"), () => ...)
 * ```
 */
import { checkerCodes } from "../../src/probes/CheckerCodes.ts"
import type { AnyProbe } from "../../src/probes/Probe.ts"

type Proven = Pick<AnyProbe, "id" | "codes">

const known = ({ codes, id }: Proven, code: string): string => {
  if (codes[code] === undefined && (checkerCodes as Readonly<Record<string, unknown>>)[code] === undefined) {
    throw new TypeError(`${id} has no code ${code}`)
  }
  return code
}

/** A healthy target, on which the probe says PASS (or INFO where it says so of every healthy one). */
export const healthy = (probe: Proven, what: string): string => `${what} [healthy ${probe.id}]`

/** A fault, made for real, that the probe reports with this WARN or ERROR code and the right subject. */
export const fault = (probe: Proven, code: string, what: string): string =>
  `${what} [fault ${probe.id} ${known(probe, code)}]`

/** Several faults of one test, one after the other. */
export const faults = (probe: Proven, what: string, ...codes: ReadonlyArray<string>): string =>
  codes.reduce((title, code) => fault(probe, code, title), what)

/** The probe cannot look (a right is missing, the target cannot be reached, credentials are wrong) and is UNKNOWN. */
export const blind = (probe: Proven, code: string, what: string): string =>
  `${what} [blind ${probe.id} ${known(probe, code)}]`

/** The runner is killed at every boundary where something is made or removed, and one sweep leaves nothing. */
export const killed = (probe: Proven, what: string): string => `${what} [killed ${probe.id}]`
