/**
 * The calls of etcd's API that are used here, over {@link EtcdConnection}. Field names are those of etcd 3.4 to 3.6; 64-bit
 * numbers arrive as strings (https://protobuf.dev/programming-guides/json/), and fields of value zero not at all.
 */
import { Data, type Duration, Effect, Option, Result, Schema } from "effect"
import { Base64 } from "effect/encoding"
import { quote } from "../../domain/Redaction.ts"
import type { EtcdAnswer, EtcdConnection, EtcdUnanswered } from "./EtcdGateway.ts"

/** Answers are small, and a member list of the most members there can be is too. */
const MAXIMUM_ANSWER = 256 * 1024

/** etcd 3.6 writes 180 KB; twenty times that is not etcd. */
const MAXIMUM_METRICS = 4 * 1024 * 1024

/** A member answered, and not what was asked for. */
export class EtcdRefused extends Data.TaggedError("EtcdRefused")<{
  /** `host:port`. */
  readonly endpoint: string
  readonly call: string
  /** Of HTTP. */
  readonly status: number
  /** Of gRPC (https://grpc.io/docs/guides/status-codes/); none when the answer is not etcd's. */
  readonly code: number | undefined
  readonly detail: string
}> {
  override get message(): string {
    return `${this.call} at ${this.endpoint} was answered ${this.status}: ${this.detail}`
  }
}

export type EtcdError = EtcdUnanswered | EtcdRefused

const Id = Schema.String.pipe(Schema.withDecodingDefaultKey(Effect.succeed("0")))
const Size = Schema.FiniteFromString.pipe(Schema.withDecodingDefaultKey(Effect.succeed("0")))

const Header = Schema.Struct({ cluster_id: Id, member_id: Id })

/** What a member says of itself, without asking others. */
export const EtcdStatus = Schema.Struct({
  header: Header,
  version: Schema.optionalKey(Schema.String),
  dbSize: Size,
  dbSizeInUse: Size,
  /** Since etcd 3.6; 0 before. */
  dbSizeQuota: Size,
  /** Member id; "0" when it knows of none. */
  leader: Id,
  raftTerm: Size,
  isLearner: Schema.optionalKey(Schema.Boolean)
})
export type EtcdStatus = typeof EtcdStatus.Type

export const EtcdMember = Schema.Struct({
  ID: Id,
  name: Schema.optionalKey(Schema.String),
  clientURLs: Schema.optionalKey(Schema.Array(Schema.String)),
  isLearner: Schema.optionalKey(Schema.Boolean)
})
export type EtcdMember = typeof EtcdMember.Type

export const EtcdAlarm = Schema.Struct({ memberID: Id, alarm: Schema.optionalKey(Schema.String) })
export type EtcdAlarm = typeof EtcdAlarm.Type

const Members = Schema.Struct({ members: Schema.optionalKey(Schema.Array(EtcdMember)) })
const Alarms = Schema.Struct({ alarms: Schema.optionalKey(Schema.Array(EtcdAlarm)) })
const Grant = Schema.Struct({ ID: Id })
const Txn = Schema.Struct({ succeeded: Schema.optionalKey(Schema.Boolean) })
const Range = Schema.Struct({ kvs: Schema.optionalKey(Schema.Array(Schema.Struct({ value: Schema.String }))) })
const Deleted = Schema.Struct({ deleted: Size })
const Failure = Schema.fromJsonString(Schema.Struct({
  code: Schema.optionalKey(Schema.Finite),
  message: Schema.optionalKey(Schema.String),
  error: Schema.optionalKey(Schema.String)
}))

const encode = Base64.encode

export interface EtcdApi {
  /** `host:port`. */
  readonly endpoint: string
  readonly status: Effect.Effect<EtcdStatus, EtcdError>
  /** As this member knows them, without a quorum. */
  readonly members: Effect.Effect<ReadonlyArray<EtcdMember>, EtcdError>
  readonly alarms: Effect.Effect<ReadonlyArray<EtcdAlarm>, EtcdError>
  /** A new lease of this many seconds; its id. */
  readonly grant: (seconds: number) => Effect.Effect<string, EtcdError>
  /** Ends a lease and deletes the keys that hang on it. */
  readonly revoke: (lease: string) => Effect.Effect<void, EtcdError>
  /** In one transaction: put the key, bound to the lease, if there is none. False when there is one. */
  readonly create: (key: string, value: string, lease: string) => Effect.Effect<boolean, EtcdError>
  /** Linearizable: as the quorum has it. */
  readonly read: (key: string) => Effect.Effect<Option.Option<string>, EtcdError>
  /** How many there were: one or none. */
  readonly remove: (key: string) => Effect.Effect<number, EtcdError>
  readonly metrics: Effect.Effect<string, EtcdError>
}

/** Every call takes `timeout` at most. */
export const make = (
  connection: EtcdConnection,
  options: { readonly timeout: Duration.Input }
): EtcdApi => {
  const { endpoint } = connection
  const { timeout } = options

  const refused = (call: string, { body, status }: EtcdAnswer) => {
    const failure = Option.getOrUndefined(Schema.decodeOption(Failure)(body))
    return new EtcdRefused({
      endpoint,
      call,
      status,
      code: failure?.code,
      detail: failure?.message ?? failure?.error ?? quote(body, 200)
    })
  }

  const post = Effect.fnUntraced(function*<A>(call: string, request: object, schema: Schema.Codec<A, unknown>) {
    const answer = yield* connection.ask({
      method: "POST",
      path: `/v3/${call}`,
      body: JSON.stringify(request),
      timeout,
      maximumBody: MAXIMUM_ANSWER
    })
    if (answer.status !== 200) return yield* refused(call, answer)
    const decoded = Schema.decodeResult(Schema.fromJsonString(schema))(answer.body)
    if (Result.isSuccess(decoded)) return decoded.success
    return yield* new EtcdRefused({
      endpoint,
      call,
      status: answer.status,
      code: undefined,
      detail: `the answer is not etcd's: ${decoded.failure.message}`
    })
  })

  return {
    endpoint,
    status: post("maintenance/status", {}, EtcdStatus),
    members: Effect.map(post("cluster/member/list", { linearizable: false }, Members), ({ members = [] }) => members),
    alarms: Effect.map(post("maintenance/alarm", { action: "GET" }, Alarms), ({ alarms = [] }) => alarms),
    grant: (seconds) => Effect.map(post("lease/grant", { TTL: String(seconds) }, Grant), ({ ID }) => ID),
    revoke: (lease) => Effect.asVoid(post("lease/revoke", { ID: lease }, Schema.Struct({}))),
    create: (key, value, lease) =>
      Effect.map(
        post("kv/txn", {
          compare: [{ key: encode(key), target: "CREATE", result: "EQUAL", createRevision: "0" }],
          success: [{ requestPut: { key: encode(key), value: encode(value), lease } }]
        }, Txn),
        ({ succeeded = false }) => succeeded
      ),
    read: (key) =>
      Effect.map(post("kv/range", { key: encode(key) }, Range), ({ kvs = [] }) =>
        Option.flatMap(
          Option.fromUndefinedOr(kvs[0]),
          ({ value }) => Option.getSuccess(Base64.decodeString(value))
        )),
    remove: (key) => Effect.map(post("kv/deleterange", { key: encode(key) }, Deleted), ({ deleted }) => deleted),
    metrics: connection.ask({ method: "GET", path: "/metrics", timeout, maximumBody: MAXIMUM_METRICS }).pipe(
      Effect.filterOrFail(
        ({ status, truncated }) => status === 200 && !truncated,
        (answer) =>
          refused("/metrics", answer.truncated ? { ...answer, body: `longer than ${MAXIMUM_METRICS} bytes` } : answer)
      ),
      Effect.map(({ body }) => body)
    )
  }
}

/** What of a member's metrics is judged. Counters are since the member's start. */
export interface EtcdMetrics {
  /** Seconds since the epoch: which life of the member the counters are of. */
  readonly startedAt: number
  readonly leaderChanges: number
  readonly quota: number
  /** Commits to the write-ahead log that took as long as the bound or less, by bound in seconds; the last is infinite. */
  readonly commits: ReadonlyArray<readonly [bound: number, count: number]>
}

const FSYNC = /^etcd_disk_wal_fsync_duration_seconds_bucket\{[^}]*le="([^"]+)"[^}]*\} (\S+)/

/** Reads Prometheus' text format as far as needed. None when a figure lacks. */
export const parseMetrics = (text: string): Option.Option<EtcdMetrics> => {
  const values = new Map<string, number>()
  const commits: Array<readonly [number, number]> = []
  for (const line of text.split("\n")) {
    const [, bound, below] = FSYNC.exec(line) ?? []
    if (bound !== undefined) {
      commits.push([bound === "+Inf" ? Infinity : Number(bound), Number(below)])
      continue
    }
    const [, name, value] = /^(process_start_time_seconds|etcd_server_\w+) (\S+)/.exec(line) ?? []
    if (name !== undefined) values.set(name, Number(value))
  }
  const startedAt = values.get("process_start_time_seconds")
  const leaderChanges = values.get("etcd_server_leader_changes_seen_total")
  return startedAt === undefined || leaderChanges === undefined || commits.length === 0 ? Option.none() : Option.some({
    startedAt,
    leaderChanges,
    quota: values.get("etcd_server_quota_backend_bytes") ?? 0,
    commits
  })
}
