/**
 * ProbeRun: one manual run, asked for as a resource, and its result.
 */
import { Schema } from "effect"
import { ClusterSelector } from "../ClusterSelector.ts"
import * as Rule from "../crd/Rule.ts"
import { atLeast } from "../Duration.ts"
import { Code } from "../Report.ts"
import { RunId } from "../Run.ts"
import { Status } from "../Status.ts"
import { Timestamp } from "../Timestamp.ts"
import * as Kind from "./Kind.ts"
import { Checks } from "./Probe.ts"

/** Clusters one run may name; for more there is clusterSelector. */
const MAX_CLUSTERS = 256

/** Results kept in the resource, worst first. All of them are in the history. */
export const MAX_RESULTS = 100

const Name = Schema.String.check(Schema.isMinCodePoints(1), Schema.isMaxCodePoints(253))

/** What to run and where. It cannot be changed: another run is another ProbeRun. */
export const ProbeRunSpec = Schema.Struct({
  probe: Schema.optionalKey(Name.pipe(Rule.described(
    "The Probe of this namespace to run. Either this or checks."
  ))),
  checks: Schema.optionalKey(Checks.pipe(Rule.described(
    "Probes of the catalogue to run. Either this or probe."
  ))),
  clusters: Schema.optionalKey(
    Schema.NonEmptyArray(Name).check(Schema.isMaxLength(MAX_CLUSTERS)).pipe(Rule.described(
      "Names of the clusters to run on. Without clusters and clusterSelector the run happens where the ProbeRun is."
    ))
  ),
  clusterSelector: Schema.optionalKey(ClusterSelector.pipe(Rule.described(
    "The clusters to run on, by the labels of their Cluster; an empty selector means all."
  ))),
  timeout: Schema.optionalKey(
    atLeast("1 second", "a run needs time").pipe(Rule.described(
      "Deadline of the whole run; clusters that have not answered by then are reported so. 2m when absent."
    ))
  )
}).pipe(Rule.enforce([
  {
    cel: "has(self.probe) != has(self.checks)",
    message: "a ProbeRun names a probe or lists checks, exactly one of the two",
    holds: ({ checks, probe }) => (probe === undefined) !== (checks === undefined)
  },
  {
    cel: "!(has(self.clusters) && has(self.clusterSelector))",
    message: "choose one of clusters and clusterSelector",
    holds: ({ clusterSelector, clusters }) => clusters === undefined || clusterSelector === undefined
  }
]))
export type ProbeRunSpec = typeof ProbeRunSpec.Type

/** What one checker said on one cluster. */
const Result = Schema.Struct({
  cluster: Schema.String.pipe(Rule.described("The cluster.")),
  checker: Schema.optionalKey(Schema.String.pipe(Rule.described(
    "The checker; absent when the cluster as a whole could not run."
  ))),
  status: Status.pipe(Rule.described("What it said.")),
  code: Schema.optionalKey(Code.pipe(Rule.described("Stable identifier of what was noticed."))),
  message: Schema.optionalKey(Schema.String.pipe(Rule.described("What was noticed.")))
})

/** How many clusters stand where. */
const Progress = Schema.Struct({
  selected: Schema.Natural.pipe(Rule.described("Clusters the run is for.")),
  finished: Schema.Natural.pipe(Rule.described("Clusters that have answered in full.")),
  unreachable: Schema.Natural.pipe(Rule.described("Clusters that could not be asked or did not answer in time."))
})

/** How a run went. */
export const ProbeRunState = Schema.Struct({
  phase: Schema.optionalKey(
    Schema.Literals(["Pending", "Running", "Finished", "Refused"]).pipe(Rule.described(
      "Pending, Running, Finished (message says when the deadline cut it short) or Refused."
    ))
  ),
  run: Schema.optionalKey(RunId.pipe(Rule.described("Names the run in the history."))),
  startedAt: Schema.optionalKey(Timestamp.pipe(Rule.described("When it started."))),
  finishedAt: Schema.optionalKey(Timestamp.pipe(Rule.described("When it was over."))),
  status: Schema.optionalKey(Status.pipe(Rule.described("The worst of all results."))),
  message: Schema.optionalKey(Schema.String.pipe(Rule.described("The worst result, or why the run was refused."))),
  clusters: Schema.optionalKey(Progress.pipe(Rule.described("How many clusters stand where."))),
  results: Schema.optionalKey(
    Schema.Array(Result).check(Schema.isMaxLength(MAX_RESULTS)).pipe(Rule.described(
      `The worst ${MAX_RESULTS} results, worst first. All are in the history.`
    ))
  ),
  omitted: Schema.optionalKey(Schema.Natural.pipe(Rule.described("Results left out of results.")))
})
export type ProbeRunState = typeof ProbeRunState.Type

export const ProbeRun = Kind.make({
  kind: "ProbeRun",
  plural: "proberuns",
  shortNames: ["kpr"],
  description: "One manual run of a Probe or of checks, and its result.",
  columns: [
    { name: "PROBE", type: "string", jsonPath: ".spec.probe" },
    { name: "PHASE", type: "string", jsonPath: ".status.phase" },
    { name: "STATUS", type: "string", jsonPath: ".status.status" },
    { name: "CLUSTERS", type: "integer", jsonPath: ".status.clusters.selected" },
    { name: "FINISHED", type: "integer", jsonPath: ".status.clusters.finished" },
    { name: "MESSAGE", type: "string", jsonPath: ".status.message", wide: true },
    { name: "AGE", type: "date", jsonPath: ".metadata.creationTimestamp" }
  ],
  fields: {
    spec: ProbeRunSpec.pipe(
      Rule.described("What to run and where."),
      Rule.annotate([{
        cel: "self == oldSelf",
        message: "a ProbeRun cannot be changed; create another one"
      }])
    ),
    status: Schema.optionalKey(ProbeRunState.pipe(Rule.described("How it went.")))
  }
})
