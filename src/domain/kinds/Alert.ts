/**
 * Alert: who is told what, when, and when not.
 *
 * Ours keeps every secret in a Secret. The original's plain `token` and `sign` are still accepted, as one DingTalk
 * route, and never printed.
 */
import { DateTime, Schema } from "effect"
import { ClusterSelector } from "../ClusterSelector.ts"
import * as Rule from "../crd/Rule.ts"
import { DurationString } from "../Duration.ts"
import { ProbeLayer } from "../ProbeLayer.ts"
import { Code } from "../Report.ts"
import { Timestamp } from "../Timestamp.ts"
import { Conditions } from "./Condition.ts"
import * as Kind from "./Kind.ts"

const MAX_ROUTES = 32
const MAX_THRESHOLDS = 64
const MAX_SILENCES = 64
const MAX_NAMES = 64

const Name = Schema.String.check(Schema.isMinCodePoints(1), Schema.isMaxCodePoints(253))

/** A URL people may read: whoever puts a password there publishes it. */
const PublicUrl = Schema.String.check(Schema.isMaxCodePoints(2048)).pipe(Rule.enforce([Rule.matching(
  "https?://[^/?#@ ]+([/?#][^ ]*)?",
  "an http or https URL without user and password; secrets belong into a Secret"
)]))

/** A key of a Secret in the Alert's namespace. */
export const SecretKey = Schema.Struct({
  name: Name.pipe(Rule.described("The Secret, in the namespace of this Alert.")),
  key: Name.pipe(Rule.described("The key of its data."))
})
export type SecretKey = typeof SecretKey.Type

/** Which transitions something is about. All given fields must fit; in a list one value is enough. */
export const Match = Schema.Struct({
  clusterSelector: Schema.optionalKey(
    ClusterSelector.pipe(Rule.described("Clusters, by the labels of their Cluster."))
  ),
  clusters: Schema.optionalKey(
    Schema.Array(Name).check(Schema.isMaxLength(MAX_NAMES)).pipe(Rule.described("Clusters, by name."))
  ),
  layers: Schema.optionalKey(
    Schema.Array(ProbeLayer).check(Schema.isMaxLength(4)).pipe(Rule.described("Layers of probes."))
  ),
  probes: Schema.optionalKey(
    Schema.Array(Name).check(Schema.isMaxLength(MAX_NAMES)).pipe(Rule.described("Probes, by name."))
  ),
  checkers: Schema.optionalKey(
    Schema.Array(Name).check(Schema.isMaxLength(MAX_NAMES)).pipe(Rule.described("Checkers, by name."))
  ),
  codes: Schema.optionalKey(
    Schema.Array(Code.check(Schema.isMaxCodePoints(128))).check(Schema.isMaxLength(MAX_NAMES)).pipe(
      Rule.described("Codes of what was noticed.")
    )
  )
})
export type Match = typeof Match.Type

const Webhook = Schema.Struct({
  url: Schema.optionalKey(PublicUrl.pipe(Rule.described("Where to POST. Either this or urlFrom."))),
  urlFrom: Schema.optionalKey(SecretKey.pipe(Rule.described(
    "The URL when it is a secret itself. Either this or url."
  ))),
  bearerTokenFrom: Schema.optionalKey(SecretKey.pipe(Rule.described("Sent as a bearer token.")))
}).pipe(Rule.enforce([{
  cel: "has(self.url) != has(self.urlFrom)",
  message: "a webhook has a url or a urlFrom, exactly one of the two",
  holds: ({ url, urlFrom }) => (url === undefined) !== (urlFrom === undefined)
}]))

const Alertmanager = Schema.Struct({
  url: PublicUrl.pipe(Rule.described("Base URL of a Prometheus Alertmanager with API v2.")),
  bearerTokenFrom: Schema.optionalKey(SecretKey.pipe(Rule.described("Sent as a bearer token.")))
})

const DingTalk = Schema.Struct({
  url: Schema.optionalKey(PublicUrl.pipe(Rule.described("https://oapi.dingtalk.com when absent."))),
  tokenFrom: SecretKey.pipe(Rule.described("The robot's access token.")),
  signFrom: Schema.optionalKey(SecretKey.pipe(Rule.described("The robot's signing secret.")))
})

const Slack = Schema.Struct({
  urlFrom: SecretKey.pipe(Rule.described("The incoming webhook's URL, which is a secret itself."))
})

/** Who is told. */
export const Route = Schema.Struct({
  name: Name.pipe(Rule.described("Names the route in counters and conditions; unique in the Alert.")),
  match: Schema.optionalKey(Match.pipe(Rule.described("What this route is for; everything when absent."))),
  webhook: Schema.optionalKey(Webhook.pipe(Rule.described("A POST of JSON to any URL."))),
  alertmanager: Schema.optionalKey(Alertmanager.pipe(Rule.described("A Prometheus Alertmanager."))),
  dingtalk: Schema.optionalKey(DingTalk.pipe(Rule.described("A DingTalk robot."))),
  slack: Schema.optionalKey(Slack.pipe(Rule.described("A Slack channel.")))
}).pipe(Rule.enforce([{
  cel:
    "[has(self.webhook), has(self.alertmanager), has(self.dingtalk), has(self.slack)].filter(given, given).size() == 1",
  message: "a route has exactly one target: webhook, alertmanager, dingtalk or slack",
  holds: ({ alertmanager, dingtalk, slack, webhook }) =>
    [webhook, alertmanager, dingtalk, slack].filter((target) => target !== undefined).length === 1
}]))
export type Route = typeof Route.Type

/** What is worth telling. */
export const Threshold = Schema.Struct({
  match: Schema.optionalKey(Match.pipe(Rule.described("What this is about; everything when absent."))),
  status: Schema.Literals(["UNKNOWN", "WARN", "ERROR"]).pipe(Rule.described("The mildest status to tell.")),
  for: Schema.optionalKey(DurationString.pipe(Rule.described(
    "How long the status must last before it is told; at once when absent."
  )))
})
export type Threshold = typeof Threshold.Type

/** What is not told for a while. */
export const Silence = Schema.Struct({
  match: Schema.optionalKey(Match.pipe(Rule.described("What to be silent about; everything when absent."))),
  from: Timestamp.pipe(Rule.described("When the silence begins.")),
  until: Timestamp.pipe(Rule.described("When it ends.")),
  comment: Schema.String.check(Schema.isMinCodePoints(1), Schema.isMaxCodePoints(1024)).pipe(
    Rule.described("Why, for those who wonder later.")
  )
}).pipe(Rule.enforce([{
  cel: "self.until > self.from",
  message: "a silence ends after it begins",
  holds: ({ from, until }) => DateTime.isGreaterThan(until, from)
}]))
export type Silence = typeof Silence.Type

const Routes = Schema.NonEmptyArray(Route).check(Schema.isMaxLength(MAX_ROUTES)).pipe(
  Rule.keyedBy("name"),
  Rule.enforce([{
    cel: "self.all(route, self.exists_one(other, other.name == route.name))",
    message: "two routes have one name; name each differently",
    holds: (routes) => new Set(routes.map(({ name }) => name)).size === routes.length
  }])
)

const Superseded = "As in the original; in new manifests use a dingtalk route, whose secrets are in a Secret."

/** Who is told what, when, and when not. */
export const AlertSpec = Schema.Struct({
  address: Schema.optionalKey(Schema.String.pipe(Rule.described("URL of DingTalk's API.", Superseded))),
  token: Schema.optionalKey(
    Schema.RedactedFromValue(Schema.String).pipe(Rule.described("The robot's access token.", Superseded))
  ),
  sign: Schema.optionalKey(
    Schema.RedactedFromValue(Schema.String).pipe(Rule.described("The robot's signing secret.", Superseded))
  ),
  blackList: Schema.optionalKey(
    Schema.Array(Schema.String).pipe(Rule.described("Messages with one of these words are not sent to address."))
  ),
  routes: Schema.optionalKey(Routes.pipe(Rule.described("Who is told. Each route is told on its own."))),
  thresholds: Schema.optionalKey(
    Schema.Array(Threshold).check(Schema.isMaxLength(MAX_THRESHOLDS)).pipe(Rule.described(
      "What is worth telling; the first that matches decides. ERROR at once when none does."
    ))
  ),
  silences: Schema.optionalKey(
    Schema.Array(Silence).check(Schema.isMaxLength(MAX_SILENCES)).pipe(
      Rule.described("What is not told for a while.")
    )
  )
}).pipe(Rule.enforce([{
  cel: "has(self.address) || has(self.routes)",
  message: "an Alert tells someone: give it routes (or the original's address, token and sign)",
  holds: ({ address, routes }) => address !== undefined || routes !== undefined
}]))
export type AlertSpec = typeof AlertSpec.Type

/** What was told. */
export const AlertState = Schema.Struct({
  alertCount: Schema.optionalKey(
    Schema.Record(Schema.String, Schema.Int).pipe(Rule.described("Messages sent, by day."))
  ),
  conditions: Schema.optionalKey(Conditions)
})
export type AlertState = typeof AlertState.Type

export const Alert = Kind.make({
  kind: "Alert",
  plural: "alerts",
  shortNames: ["kpa"],
  description: "Who is told what about the clusters, when, and when not.",
  columns: [
    { name: "ROUTES", type: "string", jsonPath: ".spec.routes[*].name" },
    { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" }
  ],
  fields: {
    spec: AlertSpec.pipe(Rule.described("Who is told what, when, and when not.")),
    status: Schema.optionalKey(AlertState.pipe(Rule.described("What was told.")))
  }
})
