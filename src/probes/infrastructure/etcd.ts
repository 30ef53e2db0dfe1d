/** infra.etcd: the store behind the API server commits what is written, in time, and has room for more. */
import { DateTime, Duration, Effect, Option, Redacted, Result, Schema } from "effect"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding } from "../../domain/Report.ts"
import { CREDENTIAL_KEY, CREDENTIAL_NAME, Credentials } from "../../infra/credentials/Credentials.ts"
import * as EtcdApi from "../../infra/etcd/EtcdApi.ts"
import { EtcdGateway, type EtcdTarget, EtcdUnanswered, endpointOf } from "../../infra/etcd/EtcdGateway.ts"
import { type Sample, Samples } from "../../infra/samples/Samples.ts"
import { TlsPeer } from "../../infra/tls/TlsPeer.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { RunContext } from "../RunContext.ts"
import { Count, Percent, setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"

/** Members of the largest cluster that etcd recommends are seven; learners and old addresses come on top. */
const MAX_ENDPOINTS = 16

/** How long writing goes on at one endpoint, so that a slow one is told as slow and not as timed out. */
const WRITING = Duration.seconds(15)

/** An election takes one to two seconds at etcd's defaults; this often is looked again meanwhile. */
const LOOK_AGAIN = Duration.millis(500)

const Endpoint = Schema.String.check(
  Schema.isPattern(/^https?:\/\/[^/?#@\s]+\/?$/u, { message: "an endpoint is written like https://10.0.0.1:2379" })
)

const Ref = Schema.Struct({
  credential: Schema.String.check(Schema.isPattern(CREDENTIAL_NAME)),
  key: Schema.String.check(Schema.isPattern(CREDENTIAL_KEY))
})

export const EtcdConfig = Schema.Struct({
  endpoints: setting(Schema.Array(Endpoint).check(Schema.isMaxLength(MAX_ENDPOINTS)), {
    default: [],
    description:
      "The client address of every member, such as `https://10.0.0.1:2379`. Leave it out where etcd is the " +
      "provider's: then there is nothing to look at."
  }),
  ca: setting(Schema.NullOr(Ref), {
    default: null,
    description: "Credential with the PEM of the authority that signed the members' certificates; those that Node " +
      "trusts when absent."
  }),
  certificate: setting(Schema.NullOr(Ref), {
    default: null,
    description: "Credential with our client certificate, PEM. kube-apiserver's `apiserver-etcd-client.crt` is one."
  }),
  key: setting(Schema.NullOr(Ref), { default: null, description: "Credential with the key of `certificate`, PEM." }),
  serverName: setting(Schema.String, {
    default: "",
    description: "The name in the members' certificates, when it is not that of the endpoint."
  }),
  prefix: setting(Schema.String.check(Schema.isPattern(/^\/[!-~]+\/$/u), Schema.isMaxLength(200)), {
    default: "/kubeprober/",
    description: "What the keys begin with that are written and deleted. kube-apiserver's are under `/registry/`."
  }),
  rounds: setting(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100 })), {
    default: 5,
    description: "Keys written, read and deleted at each endpoint."
  }),
  leaseTtl: setting(DurationString, {
    default: "60s",
    description: "Keys end with a lease of this length, should the run die. etcd grants 2 s at least."
  }),
  stepTimeout: setting(DurationString, { default: "5s", description: "For each request." }),
  electionTime: setting(DurationString, {
    default: "5s",
    description: "How long members may be without a leader; the default is five times etcd's election timeout."
  }),
  putWarnAfter: setting(DurationString, {
    default: "100ms",
    description:
      "The median of the puts at an endpoint may take this long. etcd itself warns of requests that take longer."
  }),
  dbWarnAt: setting(Percent, { default: 80, description: "Percentage of the quota that the database may fill." }),
  dbErrorAt: setting(Percent, {
    default: 95,
    description: "Percentage of the quota from which on it is an ERROR, as in etcd's own alerts."
  }),
  fsyncWarnAfter: setting(DurationString, {
    default: "500ms",
    description: "99 of 100 commits to a member's disk may take this long, as in etcd's own alerts."
  }),
  fsyncErrorAfter: setting(DurationString, { default: "1s", description: "From here on it is an ERROR." }),
  leaderChanges: setting(Count, {
    default: 4,
    description: "So many changes of leader within `leaderWindow` are too many, as in etcd's own alerts."
  }),
  leaderWindow: setting(DurationString, { default: "15m", description: "See `leaderChanges`. An hour at most." })
})
export type EtcdConfig = typeof EtcdConfig.Type

export const codes = Codes.make({
  NO_SPACE: Codes.error(
    "etcd has used up its quota and takes no writes, so nothing in the cluster can change.",
    "Compact and defragment every member, then disarm the alarm (`etcdctl alarm disarm`); raise --quota-backend-bytes if " +
      "the data is wanted."
  ),
  CORRUPT: Codes.error(
    "Members found that their data differ, and etcd takes no writes.",
    "Find the member in the message, remove it and add it anew; restore a snapshot when it is the majority."
  ),
  DB_FULL: Codes.error(
    "The database of a member has all but used up its quota; once it has, etcd takes no writes.",
    "Compact, then defragment that member; look for what fills it (events, leases, a controller that writes in a loop)."
  ),
  DB_NEARLY_FULL: Codes.warn(
    "The database of a member comes near its quota.",
    "Compact and defragment in time, or raise --quota-backend-bytes (8 GiB at most is recommended)."
  ),
  QUORUM_LOST: Codes.error(
    "Fewer than half of the members can be reached, and the others have no leader: nothing can be written or read.",
    "Bring a stopped member back; if a majority is lost for good, restore a snapshot as a new cluster."
  ),
  NO_LEADER: Codes.error(
    "The members can be reached and have no leader, so nothing can be written or read.",
    "Look at the peer connections (port 2380) between them, their clocks and their disks."
  ),
  MEMBER_DOWN: Codes.warn(
    "A member does not answer; the others have a leader, and one more loss may stop the cluster.",
    "Start it again, or look at its machine; if it is gone for good, remove it from the cluster and add another."
  ),
  MEMBER_APART: Codes.warn(
    "A member knows of no leader while others have one: it is cut off from them.",
    "Look at its peer connections (port 2380) and its log."
  ),
  LEADERS_DIFFER: Codes.error(
    "Members name different leaders, and go on to do so.",
    "Look which of them are cut off from the others; that they disagree for longer than an election is a fault of etcd."
  ),
  CLUSTERS_DIFFER: Codes.error(
    "The endpoints are members of different clusters, each with data of its own.",
    "Correct `endpoints`; if an API server is given the same, it reads from both: stop one of them at once."
  ),
  COMMIT_FAILED: Codes.error(
    "A key could not be written, read or deleted, although there is a leader.",
    "Read that member's log; look at its disk, and at the peers' when it says that a request timed out."
  ),
  WRITE_LOST: Codes.error(
    "A key that etcd said it had written was not there, was another, or was there before.",
    "Stop writing to this cluster, compare its members (`etcdutl hashkv`) and restore a snapshot."
  ),
  PUT_SLOW: Codes.warn(
    "Writes are acknowledged late, which slows down everything in the cluster.",
    "Look at the disks of the members (fsync), the network between them, and their CPU."
  ),
  FSYNC_VERY_SLOW: Codes.error(
    "A member's disk takes so long to commit that heartbeats are missed and leaders lost.",
    "Give etcd a disk of its own, of low latency; look for what else writes to it."
  ),
  FSYNC_SLOW: Codes.warn(
    "A member's disk commits slowly.",
    "Give etcd a disk of its own, of low latency; look for what else writes to it."
  ),
  LEADER_UNSTABLE: Codes.warn(
    "The leader changes often; each change stops writes for a second or two.",
    "Look at the disks of the members, the network between them, and their CPU."
  ),
  CERTIFICATE_EXPIRED: Codes.error(
    "A member's certificate has expired, so no API server that checks it can connect.",
    "Renew the member's server certificate (`kubeadm certs renew etcd-server`) and restart it."
  ),
  ENDPOINT_UNRESOLVED: Codes.unknown(
    "The name of an endpoint has no address here.",
    "Correct `endpoints`, or the name server that the prober asks."
  ),
  ENDPOINT_UNREACHABLE: Codes.unknown(
    "An endpoint does not answer, and no other does either: that may be etcd, or the way there.",
    "Check that the prober may reach the port (network policies, firewalls); k8s.api.crud tells whether etcd works."
  ),
  TLS_FAILED: Codes.unknown(
    "No trusted TLS session with an endpoint came about: one side does not accept the other's certificate.",
    "Check `ca`, `certificate`, `key` and `serverName` against the member's --trusted-ca-file and --cert-file."
  ),
  NOT_ALLOWED: Codes.unknown(
    "etcd does not let the prober do what it needs to.",
    "Where etcd's own roles are in force, the gateway does not take a user from a certificate; leave this probe out there."
  ),
  GATEWAY_MISSING: Codes.unknown(
    "What answers is not etcd's JSON gateway.",
    "Check the port; start etcd without --enable-grpc-gateway=false."
  ),
  METRICS_UNREADABLE: Codes.unknown(
    "The metrics of a member cannot be read, so its disk and the changes of its leader are not judged.",
    "Check that its client address serves /metrics, which it does unless a proxy stands in between."
  )
})

/** What one endpoint said when it was asked for its status. */
export interface Looked {
  /** `host:port`. */
  readonly endpoint: string
  readonly status: Result.Result<EtcdApi.EtcdStatus, EtcdApi.EtcdError>
  /** When its certificate ended, if that is why it did not answer. */
  readonly expired?: DateTime.Utc | undefined
}

/** What the members said together. */
export interface Seen {
  readonly looked: ReadonlyArray<Looked>
  /** As one of them knows them; empty when none does. */
  readonly members: ReadonlyArray<EtcdApi.EtcdMember>
}

/** What came of writing at one endpoint. */
export interface Written {
  readonly endpoint: string
  readonly puts: ReadonlyArray<Duration.Duration>
  /** What ended it early. */
  readonly fault?: { readonly what: string; readonly error: EtcdApi.EtcdError | "lost" } | undefined
}

/** How much a member's counters have grown, and since when. */
export interface Grown {
  readonly endpoint: string
  readonly member: string
  /** Commits by bound in seconds, cumulative, within `commitsWithin`. */
  readonly commits: ReadonlyArray<readonly [bound: number, count: number]>
  readonly commitsWithin: Duration.Duration
  /** None when nobody knows what it was before. */
  readonly leaderChanges?: { readonly count: number; readonly within: Duration.Duration } | undefined
}

const NO_MEMBER = "0"

const subjectOf = (name: string) => ({ kind: "EtcdMember", name })

/** A member by its name, else by where it was asked. */
const nameOf = ({ members }: Pick<Seen, "members">, id: string, endpoint: string): string =>
  members.find(({ ID }) => ID === id)?.name || endpoint

const isAt = (endpoint: string) => (text: string): boolean => {
  const url = URL.parse(text)
  return url !== null && endpointOf(url) === endpoint
}

const nameOfEndpoint = ({ members }: Pick<Seen, "members">, endpoint: string): string =>
  members.find(({ clientURLs = [] }) => clientURLs.some(isAt(endpoint)))?.name || endpoint

/** gRPC's PERMISSION_DENIED and UNAUTHENTICATED, and what etcd answers where its own roles are in force. */
const isNotAllowed = (error: EtcdApi.EtcdError): boolean =>
  error._tag === "EtcdRefused" &&
  (error.code === 7 || error.code === 16 || error.status === 401 || error.status === 403 ||
    error.detail.includes("user name is empty"))

const isNoSpace = (error: EtcdApi.EtcdError | "lost"): boolean =>
  error !== "lost" && error._tag === "EtcdRefused" && error.detail.includes("database space exceeded")

/** What an endpoint that did not tell its status says of us, or of itself. `others`: whether some other did. */
const judgeUnanswered = (seen: Seen, { endpoint, expired, status }: Looked, others: boolean): Finding | undefined => {
  if (Result.isSuccess(status)) return undefined
  const error = status.failure
  const name = nameOfEndpoint(seen, endpoint)
  const about = { subject: subjectOf(name), evidence: { endpoint } }
  const { message } = error
  if (error._tag === "EtcdRefused") {
    return isNotAllowed(error)
      ? codes.NOT_ALLOWED({ ...about, message })
      : error.code === undefined
      ? codes.GATEWAY_MISSING({ ...about, message })
      : others
      ? codes.MEMBER_DOWN({ ...about, message: `member ${name} does not tell its status: ${message}` })
      : codes.ENDPOINT_UNREACHABLE({ ...about, message })
  }
  switch (error.kind) {
    case "dns":
      return codes.ENDPOINT_UNRESOLVED({ ...about, message })
    case "expired":
      return expired === undefined
        ? codes.TLS_FAILED({ ...about, message })
        : codes.CERTIFICATE_EXPIRED({
          ...about,
          message: `the certificate of member ${name} expired at ${DateTime.formatIso(expired)}`,
          evidence: { endpoint, notAfter: DateTime.formatIso(expired) }
        })
    case "tls":
      return codes.TLS_FAILED({ ...about, message })
    case "protocol":
      return codes.GATEWAY_MISSING({ ...about, message })
    // Neither says anything of the member.
    case "unknown":
    case "unreachable":
      return codes.ENDPOINT_UNREACHABLE({ ...about, message })
    default:
      return others
        ? codes.MEMBER_DOWN({ ...about, message: `member ${name} does not answer: ${message}` })
        : codes.ENDPOINT_UNREACHABLE({ ...about, message })
  }
}

interface Answered {
  readonly endpoint: string
  readonly status: EtcdApi.EtcdStatus
}

const answersOf = ({ looked }: Pick<Seen, "looked">): ReadonlyArray<Answered> =>
  looked.flatMap(({ endpoint, status }) => Result.isSuccess(status) ? [{ endpoint, status: status.success }] : [])

/** Whether all that answered agree, so that there is no reason to look again. */
export const isSettled = (looked: ReadonlyArray<Looked>): boolean => {
  const leaders = new Set(answersOf({ looked }).map(({ status }) => status.leader))
  return leaders.size === 1 && !leaders.has(NO_MEMBER)
}

/** The verdict on who is there and who leads. */
export const judgeMembers = (seen: Seen): ReadonlyArray<Finding> => {
  const answers = answersOf(seen)
  const leading = answers.filter(({ status }) => status.leader !== NO_MEMBER)
  const unanswered = seen.looked.flatMap((looked) => {
    const finding = judgeUnanswered(seen, looked, leading.length > 0)
    return finding === undefined ? [] : [finding]
  })
  if (answers.length === 0) return unanswered
  const clusters = new Map(answers.map(({ endpoint, status }) => [status.header.cluster_id, endpoint]))
  if (clusters.size > 1) {
    return [
      ...unanswered,
      codes.CLUSTERS_DIFFER({
        message: `the endpoints are members of ${clusters.size} clusters: ` +
          [...clusters].map(([id, endpoint]) => `${endpoint} of ${id}`).join(", "),
        evidence: { clusters: clusters.size }
      })
    ]
  }
  if (leading.length === 0) {
    const voters = seen.members.filter(({ isLearner }) => isLearner !== true).length
    const reached = new Set(
      answers.filter(({ status }) => status.isLearner !== true).map(({ status }) => status.header.member_id)
    ).size
    const quorum = Math.floor(voters / 2) + 1
    const evidence = { members: voters, reached, quorum }
    const silent = seen.looked.filter(({ status }) => Result.isFailure(status)).map(({ endpoint }) =>
      nameOfEndpoint(seen, endpoint)
    )
    // Whether those that do not answer are down or out of our reach, the ones that do have no leader.
    return [
      ...unanswered.filter(({ code }) => code !== codes.ENDPOINT_UNREACHABLE.code),
      voters > 0 && reached < quorum && silent.length > 0
        ? codes.QUORUM_LOST({
          message: `${reached} of ${voters} members answer (${quorum} are needed) and have no leader; ` +
            `silent: ${silent.join(", ")}`,
          subject: subjectOf(silent[0] ?? ""),
          evidence
        })
        : codes.NO_LEADER({
          message: `${reached} of ${voters} members answer, and none knows of a leader`,
          subject: subjectOf(nameOf(seen, answers[0]?.status.header.member_id ?? "", answers[0]?.endpoint ?? "")),
          evidence
        })
    ]
  }
  const leaders = new Set(leading.map(({ status }) => status.leader))
  return [
    ...unanswered,
    ...answers.filter(({ status }) => status.leader === NO_MEMBER).map(({ endpoint, status }) => {
      const name = nameOf(seen, status.header.member_id, endpoint)
      return codes.MEMBER_APART({
        message: `member ${name} knows of no leader, while ${leading.length} of ${answers.length} do`,
        subject: subjectOf(name),
        evidence: { endpoint }
      })
    }),
    ...leaders.size > 1
      ? [codes.LEADERS_DIFFER({
        message: "members name different leaders: " +
          leading.map(({ endpoint, status }) =>
            `${nameOf(seen, status.header.member_id, endpoint)} says ${nameOf(seen, status.leader, status.leader)}`
          ).join(", "),
        evidence: { leaders: leaders.size }
      })]
      : []
  ]
}

const bytes = (size: number): string => `${(size / 1024 / 1024).toFixed(1)} MiB`

/** The verdict on the room in each member's database. `quotas` by member id, where the status does not tell it. */
export const judgeRoom = (
  config: Pick<EtcdConfig, "dbWarnAt" | "dbErrorAt">,
  seen: Seen,
  quotas: ReadonlyMap<string, number>,
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> =>
  answersOf(seen).flatMap(({ endpoint, status }) => {
    const { dbSize, dbSizeInUse, header } = status
    const quota = status.dbSizeQuota || (quotas.get(header.member_id) ?? 0)
    if (quota <= 0) return []
    const percent = Math.floor(dbSize * 100 / quota)
    const name = nameOf(seen, header.member_id, endpoint)
    const subject = subjectOf(name)
    const [code] = ([[codes.DB_FULL, config.dbErrorAt], [codes.DB_NEARLY_FULL, config.dbWarnAt]] as const).find((
      [code, limit]
    ) => limits.reaches(percent, limit, { code, subject })) ?? []
    return code === undefined ? [] : [code({
      message: `the database of member ${name} fills ${percent} % of its quota (${bytes(dbSize)} of ${bytes(quota)}, ` +
        `${bytes(dbSizeInUse)} of it in use; limits ${config.dbWarnAt} % and ${config.dbErrorAt} %)`,
      subject,
      evidence: { endpoint, percent, bytes: dbSize, inUse: dbSizeInUse, quota }
    })]
  })

/** The verdict on alarms. Those of kinds unknown here are told as corruption: any alarm stops writes. */
export const judgeAlarms = (
  seen: Pick<Seen, "members">,
  alarms: ReadonlyArray<EtcdApi.EtcdAlarm>
): ReadonlyArray<Finding> =>
  alarms.filter(({ alarm }) => alarm !== undefined && alarm !== "NONE").map(({ alarm = "", memberID }) => {
    const name = memberID === NO_MEMBER ? "(all)" : nameOf(seen, memberID, memberID)
    const code = alarm === "NOSPACE" ? codes.NO_SPACE : codes.CORRUPT
    return code({
      message: `alarm ${alarm} of member ${name} is raised: etcd takes no writes`,
      subject: subjectOf(name),
      evidence: { alarm }
    })
  })

const median = (values: ReadonlyArray<Duration.Duration>): Duration.Duration =>
  values.toSorted(Duration.Order)[Math.floor((values.length - 1) / 2)] ?? Duration.zero

const millis = (duration: Duration.Duration): number => Math.round(Duration.toMillis(duration))

/** The verdict on writing. `isAlarmed`: that there is no space has been said. */
export const judgeWrites = (
  config: Pick<EtcdConfig, "putWarnAfter">,
  seen: Seen,
  written: ReadonlyArray<Written>,
  isAlarmed: boolean,
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> => {
  const findings = written.flatMap(({ endpoint, fault, puts }): ReadonlyArray<Finding> => {
    const name = nameOfEndpoint(seen, endpoint)
    const about = { subject: subjectOf(name), evidence: { endpoint } }
    if (fault !== undefined) {
      const { error, what } = fault
      if (error === "lost") return [codes.WRITE_LOST({ ...about, message: `at member ${name}: ${what}` })]
      if (isNoSpace(error)) {
        return isAlarmed
          ? []
          : [codes.NO_SPACE({ ...about, message: `member ${name} takes no writes: ${error.message}` })]
      }
      const code = isNotAllowed(error) ? codes.NOT_ALLOWED : codes.COMMIT_FAILED
      return [code({ ...about, message: `at member ${name} a key could not be ${what}: ${error.message}` })]
    }
    const took = median(puts)
    const { subject } = about
    return limits.takesLonger(took, config.putWarnAfter, { code: codes.PUT_SLOW, subject })
      ? [codes.PUT_SLOW({
        message: `the median of ${puts.length} puts at member ${name} took ${millis(took)} ms (${
          Hysteresis.text(`${millis(config.putWarnAfter)} ms`, Duration.isGreaterThan(took, config.putWarnAfter))
        })`,
        subject,
        evidence: { endpoint, medianMillis: millis(took), puts: puts.length }
      })]
      : []
  })
  return findings
}

/**
 * The bounds, in seconds, between which the 99th percentile lies; none without commits. One slow commit alone is an
 * accident and not a percentile of anything.
 */
export const percentile99 = (
  commits: Grown["commits"]
): { readonly above: number; readonly below: number; readonly count: number } | undefined => {
  const sorted = commits.toSorted(([a], [b]) => a - b)
  const count = sorted.at(-1)?.[1] ?? 0
  if (count === 0) return undefined
  const rank = Math.min(Math.ceil(count * 0.99), Math.max(1, count - 1))
  const at = sorted.findIndex(([, below]) => below >= rank)
  return { above: sorted[at - 1]?.[0] ?? 0, below: sorted[at]?.[0] ?? Infinity, count }
}

const seconds = (bound: number): string => Number.isFinite(bound) ? `${bound} s` : "more"

/** The verdict on what members counted: how long their disks take, and how often their leader changed. */
export const judgeGrowth = (config: EtcdConfig, grown: ReadonlyArray<Grown>): ReadonlyArray<Finding> => {
  const commits = grown.flatMap(({ commits, commitsWithin, endpoint, member }) => {
    const p99 = percentile99(commits)
    if (p99 === undefined || p99.above < Duration.toSeconds(config.fsyncWarnAfter)) return []
    const code = p99.above >= Duration.toSeconds(config.fsyncErrorAfter) ? codes.FSYNC_VERY_SLOW : codes.FSYNC_SLOW
    return [code({
      message: `the disk of member ${member} took ${seconds(p99.above)} to ${seconds(p99.below)} for a commit at the ` +
        `99th percentile of ${p99.count} in the last ${Elapsed.text(commitsWithin)} ` +
        `(limits ${millis(config.fsyncWarnAfter)} and ${millis(config.fsyncErrorAfter)} ms)`,
      subject: subjectOf(member),
      evidence: { endpoint, p99AtLeastMillis: Math.round(p99.above * 1000), commits: p99.count }
    })]
  })
  const changes = grown.flatMap((each) => each.leaderChanges === undefined ? [] : [{ ...each, ...each.leaderChanges }])
    .toSorted((a, b) => b.count - a.count)
  const [most] = changes
  return most === undefined || most.count < Math.max(1, config.leaderChanges) ? commits : [
    ...commits,
    codes.LEADER_UNSTABLE({
      message: `the leader changed ${most.count} times in the last ${Elapsed.text(most.within)}, as member ` +
        `${most.member} saw it (limit ${config.leaderChanges} in ${Elapsed.text(config.leaderWindow)})`,
      subject: subjectOf(most.member),
      evidence: { changes: most.count, withinSeconds: Math.round(Duration.toSeconds(most.within)) }
    })
  ]
}

const countersOf = ({ commits, leaderChanges }: EtcdApi.EtcdMetrics): Readonly<Record<string, number>> => ({
  leaderChanges,
  ...Object.fromEntries(commits.map(([bound, count]) => [`le=${bound}`, count]))
})

/**
 * What a member's counters say since they were last seen: by the run before, or at the beginning of this one. Changes of
 * the leader are counted within their window; a member younger than that has told all of them, the first leader aside.
 */
export const growthOf = (options: {
  readonly endpoint: string
  readonly member: string
  readonly first: Sample
  readonly last: Sample & { readonly metrics: EtcdApi.EtcdMetrics }
  /** Of earlier runs, oldest first. */
  readonly earlier: ReadonlyArray<Sample>
  readonly window: Duration.Duration
}): Grown => {
  const { earlier, endpoint, first, last, member, window } = options
  const before = earlier.at(-1) ?? first
  const since = (sample: Sample) => Elapsed.between(sample.at, last.at)
  const oldest = earlier[0]
  const up = Duration.seconds(Math.max(0, DateTime.toEpochMillis(last.at) / 1000 - last.metrics.startedAt))
  return {
    endpoint,
    member,
    commits: last.metrics.commits.map(([bound, count]) =>
      [bound, Math.max(0, count - (before.counters[`le=${bound}`] ?? 0))] as const
    ),
    commitsWithin: since(before),
    ...(Duration.isLessThan(up, window)
      ? { leaderChanges: { count: Math.max(0, last.metrics.leaderChanges - 1), within: up } }
      : oldest === undefined
      ? {}
      : {
        leaderChanges: {
          count: Math.max(0, last.metrics.leaderChanges - (oldest.counters["leaderChanges"] ?? 0)),
          within: since(oldest)
        }
      })
  }
}

/** The credentials, as they are now. */
const tlsOf = Effect.fnUntraced(function*({ ca, certificate, key, serverName }: EtcdConfig) {
  const credentials = yield* Credentials
  const read = (ref: typeof Ref.Type | null) => ref === null ? Effect.succeed(undefined) : credentials.read(ref)
  const [authority, own, secret] = yield* Effect.all([read(ca), read(certificate), read(key)])
  return {
    ca: authority === undefined ? undefined : Redacted.value(authority),
    certificate: own === undefined ? undefined : Redacted.value(own),
    key: secret,
    serverName: serverName === "" ? undefined : serverName
  } satisfies EtcdTarget["tls"]
})

/** When a member's own certificate ended, if it has. That of its issuer is not its fault, and may be one of ours. */
const expiryOf = Effect.fnUntraced(function*(url: URL, { serverName, stepTimeout }: EtcdConfig) {
  const peer = yield* TlsPeer
  const shown = yield* Effect.option(peer.certificates({
    host: url.hostname.replace(/^\[|\]$/gu, ""),
    port: url.port === "" ? 443 : Number(url.port),
    serverName: serverName === "" ? undefined : serverName,
    timeout: stepTimeout
  }))
  const now = yield* DateTime.now
  const [own] = Option.getOrElse(shown, () => [])
  return own !== undefined && DateTime.isLessThan(own.notAfter, now) ? own.notAfter : undefined
})

interface Member {
  readonly url: URL
  readonly api: EtcdApi.EtcdApi
}

const look = Effect.fnUntraced(function*(config: EtcdConfig, { api, url }: Member) {
  const status = yield* Effect.result(api.status)
  const isExpired = Result.isFailure(status) && status.failure instanceof EtcdUnanswered &&
    status.failure.kind === "expired"
  return { endpoint: api.endpoint, status, expired: isExpired ? yield* expiryOf(url, config) : undefined }
})

/** Looks until all agree on a leader, or an election would long be over. */
const lookAll = Effect.fnUntraced(function*(config: EtcdConfig, members: ReadonlyArray<Member>) {
  const once = Effect.forEach(members, (member) => look(config, member), { concurrency: members.length })
  const end = DateTime.addDuration(yield* DateTime.now, config.electionTime)
  let looked = yield* once
  while (
    answersOf({ looked }).length > 0 && !isSettled(looked) && DateTime.isLessThan(yield* DateTime.now, end)
  ) {
    yield* Effect.sleep(LOOK_AGAIN)
    looked = yield* once
  }
  return looked
})

/** What is done with one key, in the order in which it is done. */
const round = Effect.fnUntraced(function*(api: EtcdApi.EtcdApi, key: string, value: string, lease: string) {
  const failed = (what: string) => (error: EtcdApi.EtcdError) => ({ what, error })
  const lost = (what: string) => Effect.fail({ what, error: "lost" as const })
  const [took, created] = yield* Stopwatch.timed(api.create(key, value, lease)).pipe(Effect.mapError(failed("written")))
  if (!created) return yield* lost(`key ${key} was there before it was written`)
  const found = yield* Effect.mapError(api.read(key), failed("read"))
  if (Option.getOrUndefined(found) !== value) {
    return yield* lost(
      Option.isNone(found)
        ? `key ${key} is not there although it was written`
        : `key ${key} has another value than was written`
    )
  }
  const deleted = yield* Effect.mapError(api.remove(key), failed("deleted"))
  if (deleted !== 1) return yield* lost(`key ${key} was not there any more when it was to be deleted`)
  return took
})

/** Writes, reads and deletes. Keys hang on a lease, which is revoked in any case and ends by itself if we do not. */
const write = Effect.fnUntraced(function*(config: EtcdConfig, { api }: Member, index: number) {
  const { runId } = yield* RunContext
  const seconds = Math.max(1, Math.ceil(Duration.toSeconds(config.leaseTtl)))
  const puts: Array<Duration.Duration> = []
  const end = DateTime.addDuration(yield* DateTime.now, WRITING)
  const fault = yield* Effect.scoped(Effect.gen(function*() {
    const lease = yield* Effect.acquireRelease(
      Effect.mapError(api.grant(seconds), (error) => ({ what: "leased", error })),
      (lease) => Effect.ignore(api.revoke(lease))
    )
    for (let turn = 1; turn <= config.rounds; turn++) {
      if (turn > 1 && !DateTime.isLessThan(yield* DateTime.now, end)) break
      puts.push(yield* round(api, `${config.prefix}${runId}/${index}/${turn}`, `${runId} ${turn}`, lease))
    }
  })).pipe(Effect.match({ onSuccess: () => undefined, onFailure: (fault) => fault }))
  return { endpoint: api.endpoint, puts, fault } satisfies Written
})

const sample = Effect.fnUntraced(function*({ api }: Member) {
  const text = yield* api.metrics
  const metrics = EtcdApi.parseMetrics(text)
  if (Option.isNone(metrics)) return undefined
  return { at: yield* DateTime.now, counters: countersOf(metrics.value), metrics: metrics.value }
}, (effect) => Effect.orElseSucceed(effect, () => undefined))

const run = Effect.fnUntraced(function*(config: EtcdConfig) {
  if (config.endpoints.length === 0) {
    return Outcome.make("", [checkerCodes.NOT_APPLICABLE({
      message:
        "no endpoints of etcd are configured; on a managed control plane etcd is the provider's. Where it is yours, " +
        "name its members in `endpoints`, and the client certificate in `certificate` and `key`"
    })])
  }
  const limits = yield* Hysteresis.limits
  const gateway = yield* EtcdGateway
  const samples = yield* Samples
  const tls = yield* tlsOf(config)
  const members: ReadonlyArray<Member> = yield* Effect.forEach(config.endpoints, (endpoint) => {
    const url = new URL(endpoint)
    return Effect.map(gateway.connect({ url, tls }), (connection) => ({
      url,
      api: EtcdApi.make(connection, { timeout: config.stepTimeout })
    }))
  })

  const looked = yield* lookAll(config, members)
  const answered = members.filter(({ api }) =>
    looked.some(({ endpoint, status }) => endpoint === api.endpoint && Result.isSuccess(status))
  )
  const known = answered.length === 0
    ? []
    : yield* Effect.orElseSucceed(Effect.firstSuccessOf(answered.map(({ api }) => api.members)), () => [])
  const seen: Seen = { looked, members: known }
  const membership = judgeMembers(seen)
  const led = answersOf(seen).filter(({ status }) => status.leader !== NO_MEMBER)
  if (led.length === 0 || membership.some(({ code }) => code === codes.CLUSTERS_DIFFER.code)) {
    return Outcome.make("", [...membership, ...judgeRoom(config, seen, new Map(), limits)])
  }

  /** Members once each, however many addresses they have; learners take no requests but those for their status. */
  const writers = members.filter(({ api }) => {
    const own = led.find(({ endpoint }) => endpoint === api.endpoint)
    return own !== undefined && own.status.isLearner !== true &&
      led.find(({ status }) => status.header.member_id === own.status.header.member_id) === own
  })
  const firsts = yield* Effect.forEach(writers, sample, { concurrency: 4 })
  const alarms = yield* Effect.result(
    Effect.firstSuccessOf(writers.map(({ api }) => api.alarms))
  )
  const written = yield* Effect.forEach(writers, (member, index) => write(config, member, index), { concurrency: 4 })
  const lasts = yield* Effect.forEach(writers, sample, { concurrency: 4 })

  const grown: Array<Grown> = []
  const unread: Array<Finding> = []
  const quotas = new Map<string, number>()
  for (const [index, { api }] of writers.entries()) {
    const id = led.find(({ endpoint }) => endpoint === api.endpoint)?.status.header.member_id ?? ""
    const member = nameOf(seen, id, api.endpoint)
    const [first, last] = [firsts[index], lasts[index]]
    if (first === undefined || last === undefined) {
      unread.push(codes.METRICS_UNREADABLE({
        message: `the metrics of member ${member} cannot be read at ${api.endpoint}`,
        subject: subjectOf(member)
      }))
      continue
    }
    quotas.set(id, last.metrics.quota)
    // A member that was started again begins to count anew.
    const key = `etcd ${id} ${last.metrics.startedAt}`
    const earlier = yield* samples.take(key, last.counters, { within: config.leaderWindow })
    grown.push(growthOf({ endpoint: api.endpoint, member, first, last, earlier, window: config.leaderWindow }))
  }
  const alarmed = Result.isSuccess(alarms)
    ? judgeAlarms(seen, alarms.success)
    : [codes.COMMIT_FAILED({ message: `the alarms could not be listed: ${alarms.failure.message}` })]
  const puts = written.flatMap(({ puts }) => puts)
  return Outcome.make(
    `${led.length} ${led.length === 1 ? "member has" : "members have"} a leader and commit; ${puts.length} keys were ` +
      `written, read and deleted, in ${millis(median(puts))} ms a put at the median`,
    [
      ...membership,
      ...alarmed,
      ...judgeWrites(config, seen, written, alarmed.some(({ code }) => code === codes.NO_SPACE.code), limits),
      ...judgeRoom(config, seen, quotas, limits),
      ...judgeGrowth(config, grown),
      ...unread
    ]
  )
}, Effect.scoped)

export const etcd = Probe.make("infra.etcd", {
  asks: "configured",
  layer: "infrastructure",
  proves:
    "Every member of etcd answers and follows one leader, commits what is written in time, and has room for more.",
  writes: "middleware",
  costs: "No API request. At each member some 25 small requests, its metrics twice, and five keys for a moment.",
  needs: [],
  codes,
  config: EtcdConfig,
  timeout: "60 seconds",
  run
})
