/** From a check as a Probe resource writes it (`use`, `with`, `timeout`, `retries`) to the probe it names. */
import { Option } from "effect"
import type { Check as CheckSpec } from "../domain/kinds/Probe.ts"
import { type AnyProbe, type Check, retry, timeout } from "./Probe.ts"
import * as Retry from "./Retry.ts"

/** None when no probe of `available` has the id that `spec.use` names. */
export const resolve = (spec: CheckSpec, available: ReadonlyArray<AnyProbe>): Option.Option<Check> =>
  Option.map(Option.fromNullishOr(available.find((probe) => probe.id === spec.use)), (found) => {
    const timed = spec.timeout === undefined ? found : timeout(found, spec.timeout)
    const probe = spec.retries === undefined ? timed : retry(timed, Retry.times(spec.retries))
    return { _tag: "Check", name: spec.name, probe, with: spec.with ?? {} }
  })
