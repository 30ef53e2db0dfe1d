/**
 * `mw.redis`: does Redis take writes, hand them to its replicas, and agree with itself on who is the master?
 *
 * One key a master, under a prefix of its own, written with an expiry (`SET NX PX`), read there and on its replicas, and
 * deleted. Topology is asked for and judged here; no client follows redirections or picks a master.
 */
import calculateSlot from "cluster-key-slot"
import { Clock, Duration, Effect, Option, Schema } from "effect"
import { counted } from "../../domain/counted.ts"
import { DurationString } from "../../domain/Duration.ts"
import type { Finding, Subject } from "../../domain/Report.ts"
import type { CredentialMissing, Credentials } from "../../infra/credentials/Credentials.ts"
import { Redis, type RedisConnection, type RedisReply } from "../../infra/middleware/Redis.ts"
import type { ServiceError, ServiceServer } from "../../infra/middleware/Service.ts"
import { checkerCodes } from "../CheckerCodes.ts"
import * as Codes from "../Codes.ts"
import { CredentialRef } from "../CredentialRef.ts"
import * as Hysteresis from "../Hysteresis.ts"
import * as Outcome from "../Outcome.ts"
import * as Probe from "../Probe.ts"
import { Scratch } from "../Scratch.ts"
import { Count, optional, setting } from "../Setting.ts"
import * as Stopwatch from "../Stopwatch.ts"
import {
  Addresses,
  type Look,
  accessOf,
  addressOf,
  judgeConnections,
  judgeFailure,
  judgeTime,
  millis,
  sharedCodes,
  sharedSettings
} from "./service.ts"

export const codes = Codes.make({
  ...sharedCodes,
  WRITE_REFUSED: Codes.error(
    "A server that should take writes refuses them; the message has its reason.",
    "OOM: raise maxmemory or delete data. MISCONF: mend the disk it saves to. NOREPLICAS: mend its replicas. READONLY: " +
      "address the master."
  ),
  WRITE_LOST: Codes.error(
    "A write that the server confirmed is not what is read back from it.",
    "Look for clients that delete keys they do not know (FLUSHDB), and for two masters behind one address."
  ),
  WRITE_EVICTED: Codes.warn(
    "A new key is evicted at once: the memory limit is too small for what is written.",
    "Raise maxmemory, or look for what fills it."
  ),
  NOT_SERVING: Codes.error(
    "The server answers every command with an error: it loads its data, a script blocks it, or its master is gone.",
    "Look at the server's log; end a script with SCRIPT KILL."
  ),
  MEMORY_HIGH: Codes.warn(
    "90 % or more of maxmemory is in use and nothing is evicted (policy noeviction): writes are refused when it is full. A " +
      "cache that evicts is full when it is healthy, and is not judged.",
    "Raise maxmemory, delete data, or choose a policy that evicts."
  ),
  NO_MASTER: Codes.error(
    "None of the servers is a master: nothing can be written.",
    "Look at Sentinel or whoever should have promoted a replica; `REPLICAOF NO ONE` makes one by hand."
  ),
  SEVERAL_MASTERS: Codes.error(
    "Several of the servers are masters: what is written to one is not on the other.",
    "Find the one that holds the data, and make the others its replicas (`REPLICAOF`)."
  ),
  REPLICAS_MISSING: Codes.warn(
    "A master has fewer replicas in step than it should have: its data would be lost with it.",
    "Look at the replicas' logs; set `minimumReplicas` to what is meant to be."
  ),
  LINK_DOWN: Codes.error(
    "A replica has lost its master (master_link_status) and serves old data.",
    "Look at the replica's log: the master's address, masterauth, the network between them, the output buffer limit."
  ),
  REPLICA_SYNCING: Codes.warn(
    "A replica is being filled, or has lost its master just now: it is not in step yet.",
    "Nothing, when it has just started; else look at why it must be filled again (repl-backlog-size)."
  ),
  REPLICA_LAG: Codes.warn(
    "A replica showed a write later than the limit.",
    "Look at the replica's load and at the network between it and its master."
  ),
  REPLICA_STALE: Codes.error(
    "A replica whose link is up did not show a write at all.",
    "Compare master_repl_offset of both; look whether the replica follows another master."
  ),
  SENTINEL_DISAGREE: Codes.error(
    "Sentinels name different masters, or some know none: clients write to different servers.",
    "Look whether the Sentinels reach each other; `SENTINEL RESET` one that holds on to an old master."
  ),
  SENTINEL_NO_QUORUM: Codes.error(
    "Too few Sentinels see each other to agree on a failover.",
    "Restore the missing Sentinels; check that they are reached at the addresses they announce."
  ),
  SENTINEL_DOWN: Codes.warn(
    "A Sentinel does not answer; the others can still agree on a failover.",
    "Restore it before the next one is lost."
  ),
  REPLICA_DOWN: Codes.warn(
    "The Sentinels list a replica and all that do say that it is down. They never forget one, so it may also have been taken " +
      "away for good. Whether enough are left is judged at the master.",
    "Bring it back; or, when it was taken away, `SENTINEL RESET` the master's name on each Sentinel, one after the other."
  ),
  MASTER_DEMOTED: Codes.error(
    "The server that all Sentinels name as the master says that it is none.",
    "Wait for a failover that is under way; else look at the Sentinels' logs."
  ),
  CLUSTER_DOWN: Codes.error(
    "The cluster says that it does not serve (cluster_state).",
    "Look at CLUSTER INFO and the nodes that are marked as failed; `redis-cli --cluster check` says more."
  ),
  SLOTS_MISSING: Codes.error(
    "Some of the 16384 hash slots are served by nobody: their keys can be neither read nor written.",
    "Restore the node that had them, or give them to another one with `redis-cli --cluster fix`."
  ),
  NODE_FAILED: Codes.warn(
    "A node of the cluster is marked as failed; its slots, if it had any, are served by another one.",
    "Restore the node, or take it out with CLUSTER FORGET."
  ),
  SLOT_MOVING: Codes.info(
    "A hash slot is being moved to another node, so the key that was to be written there was not.",
    "Nothing; end the resharding if nobody is at it (`redis-cli --cluster fix`)."
  ),
  MASTER_UNKNOWN: Codes.unknown(
    "No Sentinel knows a master of that name.",
    "Correct `masterName`; `SENTINEL MASTERS` lists the names."
  )
})

const Config = Schema.Struct({
  mode: setting(Schema.Literals(["standalone", "replica", "sentinel", "cluster"]), {
    default: "standalone",
    description:
      "standalone: each server by itself; replica: one master and its replicas; sentinel, cluster: as Redis " +
      "calls them."
  }),
  servers: setting(Addresses, {
    default: [],
    description:
      "Addresses, as host:port: all servers (standalone, replica), all Sentinels (sentinel), or some nodes " +
      "(cluster); at most 50."
  }),
  masterName: setting(Schema.String, {
    default: "mymaster",
    description: "With Sentinel: the name of the master they watch."
  }),
  username: setting(Schema.String, { default: "", description: "The ACL user; the default one when empty." }),
  ...sharedSettings,
  sentinelUsername: setting(Schema.String, { default: "", description: "As `username`, for the Sentinels." }),
  sentinelPassword: optional(CredentialRef, { description: "As `password`, for the Sentinels; none when absent." }),
  prefix: setting(Schema.String.check(Schema.isNonEmpty(), Schema.isMaxLength(100)), {
    default: "kubeprober:",
    description: "What the names of the probe's keys begin with."
  }),
  expiry: setting(DurationString, {
    default: "60s",
    description: "After this Redis removes a key of the probe that was not deleted."
  }),
  minimumReplicas: setting(Count, {
    default: 1,
    description: "How many replicas in step a master should have (replica, sentinel, cluster); 0 judges none."
  }),
  replicaLag: setting(DurationString, {
    default: "1s",
    description: "A replica that shows a write later is a warning."
  }),
  linkGrace: setting(DurationString, {
    default: "10s",
    description: "How long a replica may be without its master before that is an error."
  })
})
type Config = typeof Config.Type

/** The fields of INFO (https://redis.io/docs/latest/commands/info/). */
export type Info = ReadonlyMap<string, string>

/** `name:value` a line; headings begin with `#`. CLUSTER INFO is written alike. */
export const parseInfo = (text: string): Info =>
  new Map(
    text.split(/\r?\n/u).flatMap((line) => {
      const at = line.indexOf(":")
      return at <= 0 || line.startsWith("#") ? [] : [[line.slice(0, at), line.slice(at + 1)] as const]
    })
  )

const numberOf = (info: Info, field: string): number => {
  const value = Number(info.get(field))
  return Number.isFinite(value) ? value : 0
}

const server = (address: string): Subject => ({ kind: "Redis", name: address })

/** From here on a server that evicts nothing is close to refusing writes. */
const MEMORY_SHARE = 0.9

/** What a data server says of its own room. */
export const judgeRoom = (
  address: string,
  info: Info,
  limits: Hysteresis.Limits = Hysteresis.strict
): ReadonlyArray<Finding> => {
  const limit = numberOf(info, "maxmemory")
  // What replicas and the append-only file buffer is not counted against the limit.
  const used = numberOf(info, "used_memory") - numberOf(info, "mem_not_counted_for_evict")
  const full = limit > 0 && info.get("maxmemory_policy") === "noeviction" &&
    limits.reaches(used / limit, MEMORY_SHARE, { code: codes.MEMORY_HIGH, subject: server(address) })
  return [
    ...(full
      ? [codes.MEMORY_HIGH({
        message: `${address}: ${Math.floor(100 * used / limit)} % of maxmemory is in use, and its policy is noeviction`,
        subject: server(address),
        evidence: { usedBytes: used, maxmemory: limit }
      })]
      : []),
    ...judgeConnections(
      codes,
      server(address),
      numberOf(info, "connected_clients"),
      numberOf(info, "maxclients"),
      limits
    )
  ]
}

/** Whether a replica hears of its master. Empty when it does. */
export const judgeLink = (
  address: string,
  info: Info,
  grace: Duration.Duration
): ReadonlyArray<Finding> => {
  if (info.get("master_link_status") === "up") return []
  const master = addressOf(info.get("master_host") ?? "", info.get("master_port") ?? "")
  const since = numberOf(info, "master_link_down_since_seconds")
  // One that never had a link since it started says -1.
  const down = Duration.seconds(
    since >= 0 && info.has("master_link_down_since_seconds")
      ? since
      : numberOf(info, "uptime_in_seconds")
  )
  const syncing = info.get("master_sync_in_progress") === "1"
  const evidence = { master, downSeconds: Duration.toSeconds(down), syncing }
  return syncing || Duration.isLessThan(down, grace)
    ? [codes.REPLICA_SYNCING({
      message: `${address} is ${syncing ? "being filled by" : "without"} its master ${master} since ${
        Duration.format(down)
      }`,
      subject: server(address),
      evidence
    })]
    : [codes.LINK_DOWN({
      message: `${address} has no link to its master ${master} for ${Duration.format(down)}`,
      subject: server(address),
      evidence
    })]
}

/** How many replicas a master has that are in step, as it says itself. */
export const inStep = (info: Info): number =>
  [...info].filter(([field, value]) => /^slave\d+$/u.test(field) && /(^|,)state=online(,|$)/u.test(value)).length

const judgeReplicas = (address: string, info: Info, { minimumReplicas }: Config): ReadonlyArray<Finding> => {
  const found = inStep(info)
  return found >= minimumReplicas ? [] : [codes.REPLICAS_MISSING({
    message: `${address} has ${found} of ${minimumReplicas} replicas in step`,
    subject: server(address),
    evidence: { inStep: found, connected: numberOf(info, "connected_slaves"), minimum: minimumReplicas }
  })]
}

/** A line of CLUSTER NODES (https://redis.io/docs/latest/commands/cluster-nodes/). */
export interface ClusterNode {
  readonly id: string
  /** Empty when the cluster does not know it. */
  readonly address: string
  readonly master: boolean
  readonly masterId: string
  readonly failed: boolean
  readonly slots: ReadonlyArray<readonly [first: number, last: number]>
}

export const parseNodes = (text: string): ReadonlyArray<ClusterNode> =>
  text.split("\n").flatMap((line) => {
    const [id, endpoint = "", flags = "", masterId = "", , , , , ...slots] = line.trim().split(" ")
    if (id === undefined || id === "") return []
    const [, host = "", port = ""] = /^(.*):(\d+)@/u.exec(endpoint) ?? []
    const marks = flags.split(",")
    return [{
      id,
      address: host === "" || marks.includes("noaddr") ? "" : addressOf(host, port),
      master: marks.includes("master"),
      masterId,
      failed: marks.includes("fail"),
      // Those in brackets are on their way to or from another node, and counted there too.
      slots: slots.flatMap((range) => {
        const [, first, last] = /^(\d+)(?:-(\d+))?$/u.exec(range) ?? []
        return first === undefined ? [] : [[Number(first), Number(last ?? first)] as const]
      })
    }]
  })

/** Of every cluster (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/). */
const SLOTS = 16_384

/** What a cluster says of itself. */
export const judgeCluster = (
  address: string,
  info: Info,
  nodes: ReadonlyArray<ClusterNode>
): ReadonlyArray<Finding> => {
  const subject = { kind: "RedisCluster", name: address }
  const state = info.get("cluster_state") ?? "unknown"
  const served = numberOf(info, "cluster_slots_ok")
  const evidence = { state, slotsOk: served, slotsAssigned: numberOf(info, "cluster_slots_assigned") }
  return [
    ...(served < SLOTS
      ? [codes.SLOTS_MISSING({
        message: `${SLOTS - served} of ${SLOTS} hash slots are served by nobody (asked ${address})`,
        subject,
        evidence
      })]
      : []),
    ...(state === "ok" ? [] : [codes.CLUSTER_DOWN({
      message: `the cluster does not serve: cluster_state is ${state} (asked ${address})`,
      subject,
      evidence
    })]),
    ...nodes.filter(({ failed }) => failed).map((node) =>
      codes.NODE_FAILED({
        message: `${node.master ? "master" : "replica"} ${node.address || node.id} is marked as failed`,
        subject: server(node.address || node.id),
        evidence: { node: node.id, master: node.master }
      })
    )
  ]
}

/** What one Sentinel says. */
export interface SentinelAnswer {
  readonly sentinel: string
  /** Empty when it knows no master of that name. */
  readonly master: string
  /** Its words when it cannot reach a quorum. */
  readonly noQuorum: string | undefined
}

/** A replica as a Sentinel lists it. */
export interface ListedReplica {
  readonly address: string
  readonly down: boolean
}

/**
 * Replicas by the flags of SENTINEL REPLICAS. `disconnected` alone is also what a Sentinel says of one that it has just
 * learnt of.
 */
export const parseReplicas = (listed: ReadonlyArray<ReadonlyMap<string, string>>): ReadonlyArray<ListedReplica> =>
  listed.flatMap((fields) => {
    const host = fields.get("ip") ?? ""
    const flags = (fields.get("flags") ?? "").split(",")
    return host === "" ? [] : [{
      address: addressOf(host, fields.get("port") ?? "6379"),
      down: flags.includes("s_down") || flags.includes("o_down")
    }]
  })

/** Who is to be asked: whom any Sentinel has not down. The others are told. */
export const judgeListed = (
  masterName: string,
  listed: ReadonlyArray<ListedReplica>
): { readonly replicas: ReadonlyArray<string>; readonly findings: ReadonlyArray<Finding> } => {
  const up = new Set(listed.filter(({ down }) => !down).map(({ address }) => address))
  const down = new Set(listed.map(({ address }) => address).filter((address) => !up.has(address)))
  return {
    replicas: [...up].slice(0, MAXIMUM_NODES),
    findings: [...down].slice(0, MAXIMUM_NODES).map((address) =>
      codes.REPLICA_DOWN({
        message:
          `the Sentinels of ${masterName} list the replica ${address} as down; bring it back, or have them forget ` +
          `it (SENTINEL RESET ${masterName})`,
        subject: server(address),
        evidence: { master: masterName }
      })
    )
  }
}

/** Whether Sentinels agree. `master` is the one they all name. */
export const judgeSentinels = (
  masterName: string,
  answers: ReadonlyArray<SentinelAnswer>
): { readonly master: string | undefined; readonly findings: ReadonlyArray<Finding> } => {
  const named = new Set(answers.map(({ master }) => master))
  const subject = { kind: "RedisMaster", name: masterName }
  const quorum = answers.flatMap(({ noQuorum, sentinel }) =>
    noQuorum === undefined ? [] : [codes.SENTINEL_NO_QUORUM({
      message: `Sentinel ${sentinel} could not have ${masterName} replaced: ${noQuorum}`,
      subject,
      evidence: { sentinel }
    })]
  ).slice(0, 1)
  if (named.size > 1) {
    const words = answers.map(({ master, sentinel }) => `${sentinel} says ${master === "" ? "none" : master}`).join(
      ", "
    )
    return {
      master: undefined,
      findings: [
        codes.SENTINEL_DISAGREE({
          message: `Sentinels do not agree on the master ${masterName}: ${words}`,
          subject,
          evidence: { masters: [...named].map((master) => master === "" ? "none" : master).join(", ").slice(0, 500) }
        }),
        ...quorum
      ]
    }
  }
  const [master] = named
  return master === undefined || master === ""
    ? {
      master: undefined,
      findings: answers.length === 0 ? [] : [codes.MASTER_UNKNOWN({
        message: `no Sentinel knows a master ${JSON.stringify(masterName)}`,
        subject
      })]
    }
    : { master, findings: quorum }
}

/** A key of the probe in one of these slots. Names are tried in turn, so it is the same one for the same slots. */
export const keyIn = (base: string, slots: ClusterNode["slots"]): Option.Option<string> => {
  for (let number = 0; number < MAXIMUM_NAMES; number++) {
    const key = `${base}:${number}`
    const slot = calculateSlot(key)
    if (slots.some(([first, last]) => slot >= first && slot <= last)) return Option.some(key)
  }
  return Option.none()
}

/** Enough for a node with a single slot, with a chance of one in 400 to miss it. */
const MAXIMUM_NAMES = 6 * SLOTS

/** What an error that a server answers with says of it. */
export const judgeAnswer = (error: ServiceError, address: string): Finding => {
  const subject = server(address)
  const occurrence = { message: error.message, subject, evidence: { cause: error.kind, code: error.code } }
  if (error.kind !== "rejected") return judgeFailure(codes, error, subject)
  switch (error.code) {
    case "NOAUTH":
    case "WRONGPASS":
      return codes.LOGIN_REFUSED(occurrence)
    case "NOPERM":
      return checkerCodes.ACCESS_MISSING({
        ...occurrence,
        message: `${error.message}; let the user: +info +set +get +del +cluster +readonly +sentinel ~<prefix>*`
      })
    case "OOM":
    case "MISCONF":
    case "NOREPLICAS":
    case "READONLY":
      return codes.WRITE_REFUSED(occurrence)
    case "CLUSTERDOWN":
      return codes.CLUSTER_DOWN(occurrence)
    case "ASK":
    case "MOVED":
    case "TRYAGAIN":
      return codes.SLOT_MOVING(occurrence)
    case "LOADING":
    case "BUSY":
    case "MASTERDOWN":
      return codes.NOT_SERVING(occurrence)
  }
  if (/max number of clients/u.test(error.detail)) return codes.CONNECTIONS_EXHAUSTED(occurrence)
  // Redis before 6: "invalid password", and a password where none is set.
  if (/invalid password|without any password configured/u.test(error.detail)) return codes.LOGIN_REFUSED(occurrence)
  return checkerCodes.UNEXPECTED_ANSWER(occurrence)
}

/** Findings of one server; what it fails with is one of them. */
const judged = <R>(address: string, look: Effect.Effect<ReadonlyArray<Finding>, ServiceError, R>) =>
  Effect.catchTag(look, "ServiceError", (error) => Effect.succeed([judgeAnswer(error, address)]))

const textOf = (reply: RedisReply): string => typeof reply === "string" ? reply : ""

const infoOf = (connection: RedisConnection) => Effect.map(connection.send("INFO"), (text) => parseInfo(textOf(text)))

/** The same with `maxclients`, which INFO does not have before Redis 6.2; without where CONFIG is forbidden. */
const roomOf = Effect.fnUntraced(function*(task: Task, address: string, connection: RedisConnection) {
  const info = yield* infoOf(connection)
  if (info.has("maxclients")) return info
  const reply = yield* connection.send("CONFIG", "GET", "maxclients").pipe(
    Effect.catchIf((error) => error.kind === "rejected", () => Effect.succeed([]))
  )
  const limit = fieldsOf(reply).get("maxclients")
  if (limit !== undefined) return new Map([...info, ["maxclients", limit]])
  task.unlimited.add(address)
  return info
})

/** Servers that are asked together. */
const AT_ONCE = 16

/** Between two looks of a replica for a write. */
const POLL = Duration.millis(20)

/** What a run works with. */
interface Task {
  readonly config: Config
  readonly limits: Hysteresis.Limits
  readonly access: (address: string) => ServiceServer
  readonly redis: Redis["Service"]
  /** The name of keys, without a number. */
  readonly base: string
  readonly token: string
  /** Servers that do not tell how many connections they take; gathered by the run. */
  readonly unlimited: Set<string>
}

/** Reads the token until it is there. */
const readReplica = Effect.fnUntraced(function*(
  task: Task,
  address: string,
  key: string,
  options: { readonly cluster: boolean }
) {
  const { access, config, limits, redis, token } = task
  const connection = yield* redis.connect(access(address))
  const info = yield* roomOf(task, address, connection)
  const room = judgeRoom(address, info, limits)
  const link = judgeLink(address, info, config.linkGrace)
  if (link.length > 0) return [...room, ...link]
  if (options.cluster) yield* connection.send("READONLY")
  const started = yield* Clock.currentTimeMillis
  const seen = yield* connection.send("GET", key).pipe(
    Effect.flatMap((value) => value === token ? Effect.succeed(true) : Effect.as(Effect.sleep(POLL), false)),
    Effect.repeat({ until: (found) => found }),
    Effect.timeoutOption(config.stepTimeout)
  )
  const took = Duration.millis((yield* Clock.currentTimeMillis) - started)
  const evidence = { tookMillis: millis(took) }
  const subject = server(address)
  if (Option.isNone(seen)) {
    return [
      ...room,
      codes.REPLICA_STALE({
        message: `${address} did not show within ${Duration.format(config.stepTimeout)} what its master had confirmed`,
        subject,
        evidence
      })
    ]
  }
  return limits.takesLonger(took, config.replicaLag, { code: codes.REPLICA_LAG, subject })
    ? [
      ...room,
      codes.REPLICA_LAG({
        message: `${address} showed a write after ${millis(took)} ms (${
          Hysteresis.text(Duration.format(config.replicaLag), Duration.isGreaterThan(took, config.replicaLag))
        })`,
        subject,
        evidence
      })
    ]
    : room
}, Effect.scoped)

/** Tries of a key that a server with an eviction policy has dropped. */
const TRIES = 3

/** One key on a server that takes writes: there, on its replicas, and gone again. */
const roundTrip = Effect.fnUntraced(function*(
  task: Task,
  address: string,
  connection: RedisConnection,
  info: Info,
  key: string,
  replicas: ReadonlyArray<string>,
  options: { readonly cluster: boolean }
) {
  const { config, token } = task
  const subject = server(address)
  const evicts = info.get("maxmemory_policy") !== "noeviction" && numberOf(info, "maxmemory") > 0
  const write = Effect.gen(function*() {
    // NX: a key that is there already is somebody else's.
    const set = yield* connection.send("SET", key, token, "NX", "PX", String(Duration.toMillis(config.expiry)))
    return { set, value: yield* connection.send("GET", key) }
  })
  const remove = connection.send("DEL", key)
  // A run that is interrupted takes its key along; one that is killed leaves it to expire.
  return yield* Effect.gen(function*() {
    const [took, { set, value }] = yield* Stopwatch.timed(
      Effect.repeat(write, { until: ({ value }) => value === token || !evicts, times: TRIES - 1 })
    )
    if (value !== token) {
      return value === null && evicts
        ? [codes.WRITE_EVICTED({
          message: `${address} evicted a key it had confirmed, ${TRIES} times in a row`,
          subject,
          evidence: { policy: info.get("maxmemory_policy") ?? "" }
        })]
        : [codes.WRITE_LOST({
          message: `${address} answered ${set === null ? "nothing" : "OK"} to a write, and ${
            value === null ? "has no such key" : "has another value"
          }`,
          subject
        })]
    }
    const read = yield* Effect.forEach(
      replicas,
      (replica) => judged(replica, readReplica(task, replica, key, options)),
      { concurrency: AT_ONCE }
    )
    return [...judgeTime(codes, subject, took, config.slow, task.limits), ...read.flat()]
  }).pipe(
    Effect.onExit((exit) => exit._tag === "Success" ? Effect.void : Effect.ignore(remove)),
    Effect.tap(remove)
  )
})

/** A master and its replicas, or a server alone. */
const lookAtMaster = (
  task: Task,
  address: string,
  options: {
    readonly key: string
    readonly replicas: ReadonlyArray<string>
    readonly cluster: boolean
    /** Whether the number of replicas is judged. */
    readonly replicated: boolean
    /** What to say when it is none. */
    readonly demoted?: ((role: string) => Finding) | undefined
  }
) =>
  judged(
    address,
    Effect.scoped(Effect.gen(function*() {
      const connection = yield* task.redis.connect(task.access(address))
      const info = yield* roomOf(task, address, connection)
      const role = info.get("role") ?? "unknown"
      if (role !== "master" && options.demoted !== undefined) return [options.demoted(role)]
      return [
        ...judgeRoom(address, info, task.limits),
        ...(options.replicated ? judgeReplicas(address, info, task.config) : []),
        ...(yield* judged(
          address,
          roundTrip(task, address, connection, info, options.key, options.replicas, options)
        ))
      ]
    }))
  )

const lookAtServers = Effect.fnUntraced(function*(task: Task) {
  const { servers } = task.config
  const findings = yield* Effect.forEach(
    servers,
    (address, index) =>
      lookAtMaster(task, address, { key: `${task.base}:${index}`, replicas: [], cluster: false, replicated: false }),
    {
      concurrency: AT_ONCE
    }
  )
  return { summary: `wrote, read and deleted a key on ${servers.length} servers`, findings: findings.flat() }
})

/** A master and its replicas, told apart by what they say themselves: a failover changes who is who. */
const lookAtReplication = Effect.fnUntraced(function*(task: Task): Effect.fn.Return<Look> {
  const { servers } = task.config
  const roles = yield* Effect.forEach(servers, (address) =>
    Effect.scoped(Effect.gen(function*() {
      const connection = yield* task.redis.connect(task.access(address))
      return { address, role: (yield* infoOf(connection)).get("role") ?? "unknown", findings: [] }
    })).pipe(
      Effect.catchTag(
        "ServiceError",
        (error) => Effect.succeed({ address, role: "", findings: [judgeAnswer(error, address)] })
      )
    ), { concurrency: AT_ONCE })
  const silent = roles.flatMap(({ findings }) => findings)
  const [master, ...others] = roles.filter(({ role }) => role === "master").map(({ address }) => address)
  const replicas = roles.filter(({ role }) => role === "slave").map(({ address }) => address)
  if (master === undefined) {
    // The master may be among those that could not be asked.
    const none = silent.length > 0 ? [] : [codes.NO_MASTER({
      message: `none of ${servers.length} servers is a master: ${servers.join(", ")}`,
      subject: { kind: "RedisReplication", name: servers[0] ?? "" },
      evidence: { servers: servers.length }
    })]
    return { summary: "", findings: [...silent, ...none] }
  }
  if (others.length > 0) {
    return {
      summary: "",
      findings: [
        ...silent,
        codes.SEVERAL_MASTERS({
          message: `${[master, ...others].join(" and ")} are masters`,
          subject: server(master),
          evidence: { masters: [master, ...others].join(", ").slice(0, 500) }
        })
      ]
    }
  }
  const findings = yield* lookAtMaster(task, master, {
    key: `${task.base}:0`,
    replicas,
    cluster: false,
    replicated: true
  })
  return {
    summary: `wrote, read and deleted a key on master ${master}, read it on ${counted(replicas.length, "replica")}`,
    findings: [...silent, ...findings]
  }
})

const stringsOf = (reply: RedisReply): ReadonlyArray<string> =>
  Array.isArray(reply) ? reply.map((item: RedisReply) => textOf(item)) : []

/** Replies of Sentinel list names and values in turn. */
const fieldsOf = (reply: RedisReply): ReadonlyMap<string, string> => {
  const words = stringsOf(reply)
  return new Map(words.flatMap((word, index) => index % 2 === 0 ? [[word, words[index + 1] ?? ""] as const] : []))
}

const askSentinel = Effect.fnUntraced(function*(
  redis: Redis["Service"],
  target: ServiceServer,
  sentinel: string,
  masterName: string
) {
  const connection = yield* redis.connect(target)
  const [host, port] = stringsOf(yield* connection.send("SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName))
  if (host === undefined || port === undefined) {
    return { sentinel, master: "", noQuorum: undefined, replicas: [] }
  }
  const noQuorum = yield* connection.send("SENTINEL", "CKQUORUM", masterName).pipe(
    Effect.as(undefined),
    Effect.catchIf(
      (error) => error.kind === "rejected" && /NOQUORUM|NOGOODSLAVE/u.test(error.detail),
      (error) => Effect.succeed(error.detail)
    )
  )
  const listed = yield* connection.send("SENTINEL", "REPLICAS", masterName)
  const replicas = parseReplicas((Array.isArray(listed) ? listed : []).map(fieldsOf))
  return { sentinel, master: addressOf(host, port), noQuorum, replicas }
}, Effect.scoped)

const lookAtSentinels = Effect.fnUntraced(
  function*(task: Task): Effect.fn.Return<Look, CredentialMissing, Credentials> {
    const { config, redis } = task
    const access = yield* accessOf(config, { username: config.sentinelUsername, password: config.sentinelPassword })
    const asked = yield* Effect.forEach(
      config.servers,
      (sentinel) =>
        askSentinel(redis, access(sentinel), sentinel, config.masterName).pipe(
          Effect.map((answer) => ({ answer, fault: undefined })),
          Effect.catchTag(
            "ServiceError",
            (error) => Effect.succeed({ answer: undefined, fault: judgeAnswer(error, sentinel) })
          )
        ),
      { concurrency: AT_ONCE }
    )
    const answers = asked.flatMap(({ answer }) => answer === undefined ? [] : [answer])
    const faults = asked.flatMap(({ fault }) => fault === undefined ? [] : [fault])
    // As long as others answer, one that does not is no outage: they say whether they are enough.
    const down = answers.length === 0 ? faults : faults.map((fault) =>
      fault.status === "ERROR"
        ? codes.SENTINEL_DOWN({
          message: fault.message,
          ...(fault.subject === undefined ? {} : { subject: fault.subject }),
          ...(fault.evidence === undefined ? {} : { evidence: fault.evidence })
        })
        : fault
    )
    const { findings, master } = judgeSentinels(config.masterName, answers)
    if (master === undefined) return { summary: "", findings: [...down, ...findings] }
    const { findings: gone, replicas } = judgeListed(
      config.masterName,
      answers.flatMap((answer) => answer.replicas).filter(({ address }) => address !== master)
    )
    const data = yield* lookAtMaster(task, master, {
      key: `${task.base}:0`,
      replicas,
      cluster: false,
      replicated: true,
      demoted: (role) =>
        codes.MASTER_DEMOTED({
          message: `all Sentinels name ${master} as ${config.masterName}, and it says that it is ${
            role === "slave" ? "a replica" : role
          }`,
          subject: server(master),
          evidence: { role }
        })
    })
    return {
      summary: `${answers.length} Sentinels agree on ${master}; wrote, read and deleted a key there, read it on ` +
        counted(replicas.length, "replica"),
      findings: [...down, ...findings, ...gone, ...data]
    }
  }
)

/** Nodes of a cluster, and replicas of a master, that are asked; Redis recommends no more than 1000 in a cluster. */
const MAXIMUM_NODES = 200

const lookAtCluster = Effect.fnUntraced(function*(task: Task): Effect.fn.Return<Look> {
  const { base, config } = task
  const asked: Array<Finding> = []
  for (const seed of config.servers) {
    const view = yield* Effect.scoped(Effect.gen(function*() {
      const connection = yield* task.redis.connect(task.access(seed))
      return Option.some({
        info: parseInfo(textOf(yield* connection.send("CLUSTER", "INFO"))),
        nodes: parseNodes(textOf(yield* connection.send("CLUSTER", "NODES")))
      })
    })).pipe(
      Effect.catchTag("ServiceError", (error) => {
        asked.push(judgeAnswer(error, seed))
        return Effect.succeedNone
      })
    )
    if (Option.isNone(view)) continue
    const { info, nodes } = view.value
    const living = nodes.filter(({ address, failed }) => !failed && address !== "").slice(0, MAXIMUM_NODES)
    const masters = living.filter(({ master, slots }) => master && slots.length > 0)
    const replicasOf = (id: string) =>
      living.filter(({ master, masterId }) => !master && masterId === id).map(({ address }) => address)
    const findings = yield* Effect.forEach(masters, (node) =>
      Option.match(keyIn(base, node.slots), {
        onNone: () => Effect.succeed([]),
        onSome: (key) =>
          lookAtMaster(task, node.address, { key, replicas: replicasOf(node.id), cluster: true, replicated: true })
      }), { concurrency: AT_ONCE })
    return {
      summary: `all ${SLOTS} slots are served; wrote, read and deleted a key on ${masters.length} masters, read it on ${
        living.filter(({ master }) => !master).length
      } replicas`,
      // A seed that is down is told by the others, if it still belongs to the cluster.
      findings: [...judgeCluster(seed, info, nodes), ...findings.flat()]
    }
  }
  return { summary: "", findings: asked }
})

const run = Effect.fnUntraced(function*(config: Config) {
  if (config.servers.length === 0) {
    return Outcome.make("", [checkerCodes.NOT_APPLICABLE({ message: "no servers are configured" })])
  }
  const limits = yield* Hysteresis.limits
  const scratch = yield* Scratch
  const redis = yield* Redis
  const access = yield* accessOf(config, config)
  const unlimited = new Set<string>()
  const look = Effect.gen(function*() {
    const token = yield* scratch.name("redis")
    const task: Task = { config, limits, access, redis, token, base: `${config.prefix}${token}`, unlimited }
    switch (config.mode) {
      case "standalone":
        return yield* lookAtServers(task)
      case "replica":
        return yield* lookAtReplication(task)
      case "sentinel":
        return yield* lookAtSentinels(task)
      case "cluster":
        return yield* lookAtCluster(task)
    }
  })
  const { findings, summary } = yield* look
  return Outcome.make(
    unlimited.size === 0
      ? summary
      : `${summary}; how many connections ${
        counted(unlimited.size, "server")
      } can take is not known (before Redis 6.2, allow the user +config|get)`,
    findings
  )
})

export const redis = Probe.make("mw.redis", {
  asks: "configured",
  layer: "middleware",
  proves:
    "Redis takes writes and has room, its replicas follow, and its Sentinels or cluster agree on who serves what.",
  writes: "middleware",
  costs:
    "No API requests; a key of some 50 bytes on each master, gone after at most a minute, and about five commands a server.",
  needs: [],
  codes,
  config: Config,
  timeout: "60 seconds",
  run
})
