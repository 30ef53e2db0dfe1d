/** When a Probe runs, in a few characters. */
import { Duration } from "effect"
import type { ProbeSpec } from "../../domain/kinds/Probe.ts"

/** `every 1m`, `cron 0 5 * * *`, `once`, `when asked`. */
export const formatPolicy = ({ checks, policy = {} }: ProbeSpec): string => {
  if (policy.suspend === true) return "when asked"
  if (policy.interval !== undefined) return `every ${Duration.format(policy.interval).replaceAll(" ", "")}`
  if (policy.cron !== undefined) {
    return `cron ${policy.cron}${policy.timeZone === undefined ? "" : ` ${policy.timeZone}`}`
  }
  if (policy.runInterval !== undefined && policy.runInterval > 0) return `every ${policy.runInterval}m`
  return policy.runInterval === undefined && checks !== undefined ? "every 1m" : "once"
}
