/** What is run in a soak: every probe of the catalogue that a profile permits and that needs no target of its own. */
import { Duration } from "effect"
import { onePerInterval } from "../../scripts/onePerInterval.ts"
import type { Check, ProbeSpec } from "../../src/domain/kinds/Probe.ts"
import { type Profile, permits } from "../../src/domain/Profile.ts"
import { catalogue } from "../../src/probes/Catalogue.ts"
import type { AnyProbe } from "../../src/probes/Probe.ts"

export interface PlannedProbe {
  readonly name: string
  readonly spec: ProbeSpec
}

export const probesOf = (profile: Profile): ReadonlyArray<AnyProbe> =>
  catalogue.filter((probe) => permits(profile, probe.writes) && probe.asks === "cluster")

/** The shortest interval that a Probe may have. */
const SHORTEST = Duration.seconds(1)

/** How often a probe runs at so many times its normal rate. */
export const intervalOf = (probe: AnyProbe, rate: number): Duration.Duration =>
  Duration.max(SHORTEST, Duration.millis(Math.round(Duration.toMillis(probe.interval) / rate)))

/** Configuration of probes, by id. */
export type Configured = Readonly<Record<string, Check["with"]>>

/** One Probe for each interval. */
export const planOf = (
  probes: ReadonlyArray<AnyProbe>,
  rate: number,
  configured: Configured = {}
): ReadonlyArray<PlannedProbe> =>
  onePerInterval(probes, {
    intervalOf: (probe) => intervalOf(probe, rate),
    checkOf: ({ id }) => {
      const config = configured[id]
      return { name: id, use: id, ...(config === undefined ? {} : { with: config }) }
    }
  }).map(({ interval, spec }) => ({ name: `soak-${Math.round(Duration.toSeconds(interval))}s`, spec }))
