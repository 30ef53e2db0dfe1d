/** What a Probe of this cluster means for whoever schedules, runs and shows it. */
import { Duration, Option, Result } from "effect"
import * as Policy from "../domain/Policy.ts"
import * as FromSpec from "../probes/FromSpec.ts"
import type { AnyProbe, Check } from "../probes/Probe.ts"
import type { StoredProbe } from "./ProbeStore.ts"

const defaultsOf = ({ spec }: StoredProbe) =>
  spec.template === undefined
    ? { schedule: Policy.DEFAULT_SCHEDULE }
    : { timeout: Policy.TEMPLATE_TIMEOUT }

/** The plan, or why it cannot be followed. */
export const planOf = (probe: StoredProbe): Result.Result<Policy.RunPlan, string> =>
  probe.fault === undefined
    ? Result.mapError(Policy.plan(probe.spec.policy ?? {}, defaultsOf(probe)), ({ message }) => message)
    : Result.fail(probe.fault)

/** By what its results grow stale. A suspended Probe's do so as if it were not. */
export const stalenessOf = (probe: StoredProbe): Policy.RunSchedule => {
  const { suspend: _, ...policy } = probe.spec.policy ?? {}
  return Result.getOrElse(
    Policy.schedule(policy, defaultsOf(probe).schedule),
    () => Policy.RunSchedule.Manual()
  )
}

/** What a run says of things that could not be removed, under a name of its own. */
export const cleanupOf = (checker: string): string => `${checker}/cleanup`

/** Whether a checker is one of the Probe's. Which checkers a template has only its runs tell. */
export const hasChecker = ({ spec }: StoredProbe, checker: string): boolean =>
  spec.checks === undefined ||
  spec.checks.some((check) => check.name === checker || cleanupOf(check.name) === checker)

/**
 * Inside the cluster rights are those we asked for and replicas may be asked one by one, so checks are stricter. From
 * outside, with a person's kubeconfig, the same would be false alarms.
 */
const insideDefaults: Readonly<Record<string, Readonly<Record<string, string | boolean>>>> = {
  "k8s.self.access": { strict: true },
  "k8s.api.health": { endpoints: "always" }
}

/** One check of a Probe: what to run, or the id that nothing here has. */
export type PlannedCheck =
  | { readonly _tag: "Known"; readonly check: Check }
  | { readonly _tag: "Unknown"; readonly name: string; readonly use: string }

/** The checks of a Probe. Its policy's timeout and retries hold for checks that have none of their own. */
export const checksOf = (
  { spec: { checks, policy } }: Pick<StoredProbe, "spec">,
  { available, inside }: { readonly available: ReadonlyArray<AnyProbe>; readonly inside: boolean }
): ReadonlyArray<PlannedCheck> =>
  (checks ?? []).map((check): PlannedCheck => {
    const timeout = check.timeout ?? policy?.timeout
    const retries = check.retries ?? policy?.retries
    return Option.match(
      FromSpec.resolve({
        ...check,
        with: { ...inside ? insideDefaults[check.use] : {}, ...check.with },
        ...(timeout === undefined ? {} : { timeout }),
        ...(retries === undefined ? {} : { retries })
      }, available),
      {
        onNone: () => ({ _tag: "Unknown", name: check.name, use: check.use }),
        onSome: (known) => ({ _tag: "Known", check: known })
      }
    )
  })

/** How long a run may take as a whole when nothing says so: its checks have timeouts of their own. */
export const BACKSTOP = Duration.minutes(30)
