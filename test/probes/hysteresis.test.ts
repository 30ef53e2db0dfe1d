import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Schema } from "effect"
import { type Finding, keyOf } from "../../src/domain/Report.ts"
import { Node } from "../../src/infra/kube/resources/core.ts"
import { PodRequests } from "../../src/infra/kube/resources/pods.ts"
import { TcpConfig, judge as tcp } from "../../src/probes/application/tcp.ts"
import * as Hysteresis from "../../src/probes/Hysteresis.ts"
import { EtcdConfig, judgeWrites } from "../../src/probes/infrastructure/etcd.ts"
import { NodeResourcesConfig, judge as nodeResources } from "../../src/probes/infrastructure/nodeResources.ts"
import { CapacityQuotaConfig, judge as capacityQuota } from "../../src/probes/kubernetes/capacityQuota.ts"
import { judgeReplica } from "../../src/probes/middleware/mysql.ts"
import { judgeDelay } from "../../src/probes/middleware/postgres.ts"
import { codes as redisCodes } from "../../src/probes/middleware/redis.ts"
import { judgeConnections, judgeTime } from "../../src/probes/middleware/service.ts"
import { RunContext } from "../../src/probes/RunContext.ts"

const code = { code: "FULL" }
const subject = { kind: "Node", name: "a" }
const said = { code, subject }
const standing = new Set([keyOf({ code: "FULL", subject })])

const Positive = Schema.Finite.check(Schema.isBetween({ minimum: 0.001, maximum: 1_000_000 }))
const Values = Schema.Array(Positive).check(Schema.isMaxLength(20))

/** As run after run would say it. */
const follow = (values: ReadonlyArray<number>, beyond: (limits: Hysteresis.Limits, value: number) => boolean) => {
  let red = false
  return values.map((value) => red = beyond(Hysteresis.make(red ? standing : undefined), value))
}

describe("a limit", () => {
  it("is where it is said to be until something stands, and a tenth away from then on", () => {
    const values = [85, 86, 85, 77, 76, 76.5, 84, 85, 85.1]
    assert.deepStrictEqual(
      follow(values, (limits, value) => limits.exceeds(value, 85, said)),
      [false, true, true, true, false, false, false, false, true]
    )
    assert.deepStrictEqual(
      follow([15, 14, 15, 16, 17, 15], (limits, value) => limits.fallsBelow(value, 15, said)),
      [false, true, true, true, false, false]
    )
  })

  it("stands for one code and one object alone", () => {
    const limits = Hysteresis.make(standing)
    assert.isTrue(limits.exceeds(80, 85, said))
    assert.isFalse(limits.exceeds(80, 85, { code }))
    assert.isFalse(limits.exceeds(80, 85, { code, subject: { ...subject, name: "b" } }))
    assert.isFalse(limits.exceeds(80, 85, { code: { code: "OTHER" }, subject }))
  })

  it("of nothing is exceeded by something, and by nothing else", () => {
    assert.isTrue(Hysteresis.make(standing).exceeds(1, 0, said))
    assert.isFalse(Hysteresis.make(standing).exceeds(0, 0, said))
    assert.isFalse(Hysteresis.make(standing).exceeds(Number.NaN, 1, said))
    assert.isFalse(Hysteresis.make(standing).fallsBelow(0, 0, said))
  })

  it.effect("comes from the run", () =>
    Effect.gen(function*() {
      const limits = yield* Hysteresis.limits
      assert.isTrue(limits.takesLonger(Duration.millis(950), Duration.seconds(1), said))
      assert.isFalse(limits.takesLonger(Duration.millis(850), Duration.seconds(1), said))
    }).pipe(Effect.provideService(RunContext, {
      runId: "r",
      probeNamespace: "p",
      expiresAt: DateTime.makeUnsafe(0),
      standing
    })))

  it.effect.prop(
    "never says less than the plain comparison, and more only within a tenth of what stands",
    { values: Values, limit: Positive },
    ({ limit, values }) =>
      Effect.sync(() => {
        follow(values, (limits, value) => limits.exceeds(value, limit, said)).forEach((red, index) => {
          const value = values[index] ?? 0
          if (value > limit) assert.isTrue(red)
          if (value < limit * Hysteresis.MARGIN) assert.isFalse(red)
        })
        follow(values, (limits, value) => limits.fallsBelow(value, limit, said)).forEach((red, index) => {
          const value = values[index] ?? 0
          if (value < limit) assert.isTrue(red)
          if (value > limit / Hysteresis.MARGIN) assert.isFalse(red)
        })
      })
  )

  it.effect.prop(
    "is crossed once by a value that wavers within the tenth",
    { values: Values, limit: Positive },
    ({ limit, values }) =>
      Effect.sync(() => {
        const wavering = values.map((value) => limit * (0.9 + 0.1 * (value / 1_000_000)))
        const reds = follow([limit * 2, ...wavering], (limits, value) => limits.exceeds(value, limit, said))
        assert.isTrue(reds.every((red) => red))
      })
  )
})

/** What a probe says of a value, given what stands. */
type Say = (value: number, limits: Hysteresis.Limits) => ReadonlyArray<Pick<Finding, "code" | "subject">>

const seconds = (value: number) => Duration.seconds(value)

const node = Schema.decodeUnknownSync(Node.object)({
  metadata: { name: "a" },
  spec: {},
  status: { allocatable: { pods: "100" }, conditions: [{ type: "Ready", status: "True" }] }
})

const pods = (count: number) =>
  Array.from(
    { length: count },
    (_, index) =>
      Schema.decodeUnknownSync(PodRequests.object)({
        metadata: { name: `${index}` },
        spec: { nodeName: "a" },
        status: { phase: "Running" }
      })
  )

const etcd: Parameters<typeof judgeWrites>[1] = {
  looked: [],
  members: []
}

/** By probe and code: what is measured, the limit, and what is clear of it. */
const JUDGES: ReadonlyArray<readonly [title: string, code: string, limit: number, say: Say]> = [
  ["infra.node.resources", "TASKS_ALMOST_USED", 75, (value, limits) =>
    nodeResources(
      Schema.decodeSync(NodeResourcesConfig)({}),
      "a",
      { fileSystems: [], leftOut: 0, tasks: { used: value * 10, limit: 1000 } },
      limits
    )],
  [
    "k8s.capacity.quota",
    "NODE_PODS_NEAR",
    90,
    (value, limits) =>
      capacityQuota(Schema.decodeSync(CapacityQuotaConfig)({ podsWarn: 90 }), limits)({
        quotas: [],
        nodes: [node],
        pods: pods(Math.round(value)),
        now: DateTime.makeUnsafe(0)
      }).findings
  ],
  ["infra.etcd", "PUT_SLOW", 100, (value, limits) =>
    judgeWrites(
      Schema.decodeSync(EtcdConfig)({ putWarnAfter: "100ms" }),
      etcd,
      [{ endpoint: "https://etcd:2379", puts: [Duration.millis(value)] }],
      false,
      limits
    )],
  [
    "app.tcp",
    "PORT_SLOW",
    500,
    (value, limits) =>
      tcp(Schema.decodeSync(TcpConfig)({}), limits)({ address: "db:5432" }, undefined, {
        _tag: "Heard",
        heard: { address: "192.0.2.1", took: Duration.millis(value), received: new Uint8Array() }
      })
  ],
  [
    "mw.*, connections",
    "CONNECTIONS_HIGH",
    85,
    (value, limits) => judgeConnections(redisCodes, { kind: "Redis", name: "a" }, value, 100, limits)
  ],
  [
    "mw.*, time",
    "SLOW",
    50,
    (value, limits) =>
      judgeTime(redisCodes, { kind: "Redis", name: "a" }, Duration.millis(value), Duration.millis(50), limits)
  ],
  ["mw.mysql", "REPLICA_BEHIND", 30, (value, limits) =>
    judgeReplica(
      "a",
      { source: "b", io: "Yes", sql: "Yes", behind: value, delay: 0, error: "" },
      { replicaDelay: seconds(30), replicaDelayError: seconds(300) },
      limits
    )],
  [
    "mw.postgres",
    "STANDBY_BEHIND",
    30,
    (value, limits) =>
      judgeDelay("a", seconds(value), { standbyDelay: seconds(30), standbyDelayError: seconds(300) }, limits)
  ]
]

describe("a probe that said that a number is beyond its limit", () => {
  for (const [title, code, limit, say] of JUDGES) {
    it(`keeps to it until the number is clear of it: ${title} ${code}`, () => {
      const found = say(limit * 1.04, Hysteresis.strict).find((each) => each.code === code)
      if (found === undefined) throw new Error(`${title} does not say ${code} of ${limit * 1.04}`)
      const says = (value: number, limits: Hysteresis.Limits) => say(value, limits).some((each) => each.code === code)
      const standing = Hysteresis.make(new Set([keyOf(found)]))
      const [near, clear] = [Math.ceil(limit * 0.92), Math.floor(limit * 0.88)]
      assert.deepStrictEqual([says(near, Hysteresis.strict), says(near, standing), says(clear, standing)], [
        false,
        true,
        false
      ])
    })
  }
})
