/** How checks become Probes: a Probe has one policy, so there is one for each interval. */
import { Duration } from "effect"
import type { Check, ProbeSpec } from "../src/domain/kinds/Probe.ts"
import type { AnyProbe } from "../src/probes/Probe.ts"

export interface OnePerInterval {
  readonly interval: Duration.Duration
  readonly spec: ProbeSpec
}

/** For all clusters, shortest interval first. */
export const onePerInterval = (probes: ReadonlyArray<AnyProbe>, options: {
  readonly intervalOf: (probe: AnyProbe) => Duration.Duration
  readonly checkOf: (probe: AnyProbe) => Check
}): ReadonlyArray<OnePerInterval> =>
  [...Map.groupBy(probes, (probe) => Duration.toMillis(options.intervalOf(probe)))]
    .sort(([a], [b]) => a - b)
    .flatMap(([millis, members]) => {
      const [first, ...rest] = members.map(options.checkOf)
      const interval = Duration.millis(millis)
      return first === undefined
        ? []
        : [{ interval, spec: { checks: [first, ...rest], policy: { interval }, clusterSelector: {} } }]
    })
