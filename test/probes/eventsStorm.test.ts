import { assert, describe, it, layer } from "@effect/vitest"
import { DateTime, Duration, Effect, Schema } from "effect"
import { formatMicroTime } from "../../src/infra/kube/KubeResource.ts"
import { Event } from "../../src/infra/kube/resources/events.ts"
import { EventsStormConfig, eventsStorm, judge, occurrences } from "../../src/probes/kubernetes/eventsStorm.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { blind, fault, healthy } from "../proofs/proof.ts"

const NOW = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
const ago = (duration: Duration.Input) =>
  DateTime.formatIso(DateTime.subtractDuration(NOW, Duration.fromInputUnsafe(duration)))

const event = (fields: object, name = "web-0") =>
  Schema.decodeSync(Event.object)({
    metadata: { name: "e" },
    type: "Warning",
    reason: "FailedMount",
    regarding: { kind: "Pod", namespace: "shop", name },
    ...fields
  })

const counted = (count: number, first: Duration.Input, last: Duration.Input, reason = "FailedMount", name = "web-0") =>
  event({
    reason,
    deprecatedCount: count,
    deprecatedFirstTimestamp: ago(first),
    deprecatedLastTimestamp: ago(last)
  }, name)

describe("judging events", () => {
  it("counts what happened within the window, of series and of counted events", () => {
    const from = DateTime.subtract(NOW, { minutes: 10 })
    const times = (each: Event) => occurrences(each, from)
    assert.strictEqual(times(counted(30, "5 minutes", "1 minute")), 30)
    assert.strictEqual(times(counted(30, "5 hours", "11 minutes")), 0)
    // Half of its 20 minutes lie in the window.
    assert.strictEqual(times(counted(30, "20 minutes", "0 seconds")), 15)
    // Rare, but it happened.
    assert.strictEqual(times(counted(3, "3 days", "1 minute")), 1)
    const series = { eventTime: ago("5 minutes"), series: { count: 40, lastObservedTime: ago("1 minute") } }
    assert.strictEqual(times(event(series)), 40)
    assert.strictEqual(times(event({ eventTime: ago("5 minutes") })), 1)
    assert.strictEqual(times(event({ metadata: { name: "e", creationTimestamp: ago("5 minutes") } })), 1)
  })

  it("counts serious warnings alone, names the top reason and object, and knows when it saw too little", () => {
    const config = Schema.decodeSync(EventsStormConfig)({})
    const says = (events: ReadonlyArray<Event>, remaining = 0) => judge(config, NOW)(events, remaining)
    const codes = (events: ReadonlyArray<Event>, remaining = 0) =>
      says(events, remaining).findings.map(({ code }) => code)
    const many = counted(150, "5 minutes", "1 minute")
    assert.deepStrictEqual(codes([]), [])
    assert.deepStrictEqual(codes([many]), [])
    assert.deepStrictEqual(codes([many], 1), ["EVENTS_NOT_ALL_READ"])
    assert.deepStrictEqual(codes([counted(5_000, "5 minutes", "1 minute", "BackOff")]), [])
    assert.deepStrictEqual(codes([many, counted(50, "5 minutes", "1 minute", "SystemOOM")]), ["EVENTS_BURST"])
    const more = counted(900, "5 minutes", "1 minute", "FailedMount", "web-1")
    const [storm] = says([many, more], 1).findings
    assert.strictEqual(storm?.code, "EVENTS_STORM")
    assert.strictEqual(
      storm?.message,
      "at least 1050 serious events in the last 10m (limit 1000): FailedMount 1050 times; most of FailedMount at " +
        "Pod shop/web-1 (900)"
    )
    assert.deepStrictEqual(storm?.subject, { kind: "Pod", name: "web-1", namespace: "shop" })
  })
})

const verdict = ({ code, status }: { readonly code?: string; readonly status: string }) =>
  code === undefined ? status : `${status} ${code}`

const until = (wanted: string, config: typeof EventsStormConfig.Encoded = {}) =>
  TestCluster.use(({ run }) =>
    eventually(run(Probe.configure(eventsStorm, config)), (report) => verdict(report) === wanted, {
      every: "300 millis"
    })
  )

const namespace = (name: string) => ({ apiVersion: "v1", kind: "Namespace", metadata: { name } })

describe("k8s.events.storm", () => {
  layer(TestCluster.layer({ name: "events" }), { excludeTestServices: true, timeout: "120 seconds" })(
    "on a real cluster",
    (it) => {
      it.effect(healthy(eventsStorm, "passes with no rights but to list events"), () =>
        Effect.gen(function*() {
          const { run, userWith } = yield* TestCluster
          for (const optional of [true, false]) {
            const report = yield* run(eventsStorm, { as: yield* userWith(eventsStorm.needs, { optional }) })
            assert.strictEqual(verdict(report), "PASS", report.message)
          }
        }))

      it.effect(
        blind(eventsStorm, "ACCESS_MISSING", "the right to list events taken away"),
        () =>
          Effect.gen(function*() {
            const { run, userWith } = yield* TestCluster
            const as = yield* userWith(eventsStorm.needs.filter(({ optional }) => optional))
            const report = yield* run(eventsStorm, { as })
            assert.strictEqual(verdict(report), "UNKNOWN ACCESS_MISSING")
            assert.include(
              report.message,
              Needs.list("events", { group: "events.k8s.io" }).map((need) => Needs.describe(need)).join()
            )
          })
      )

      it.effect(
        fault(
          eventsStorm,
          "EVENTS_BURST",
          "a quota that lets a ReplicaSet create no pod, seen with limits of a small cluster"
        ),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl } = yield* TestCluster
            const small = { warn: 5, error: 1_000 }
            yield* until("PASS", small)
            yield* apply(
              namespace("storm"),
              {
                apiVersion: "v1",
                kind: "ResourceQuota",
                metadata: { name: "none", namespace: "storm" },
                spec: { hard: { pods: "0" } }
              },
              {
                apiVersion: "apps/v1",
                kind: "ReplicaSet",
                metadata: { name: "web", namespace: "storm" },
                spec: {
                  replicas: 3,
                  selector: { matchLabels: { app: "web" } },
                  template: {
                    metadata: { labels: { app: "web" } },
                    spec: { containers: [{ name: "main", image: "web" }] }
                  }
                }
              }
            )
            const burst = yield* until("WARN EVENTS_BURST", small)
            assert.match(burst.message, /FailedCreate \d+ times; most of FailedCreate at ReplicaSet storm\/web/)
            assert.deepStrictEqual(burst.findings[0]?.subject, { kind: "ReplicaSet", name: "web", namespace: "storm" })
            yield* kubectl("delete", "namespace", "storm")
            yield* until("PASS", small)
          })
      )

      it.effect(
        fault(
          eventsStorm,
          "EVENTS_STORM",
          "a thousand failed mounts, written as kubelets write them, in both forms of events"
        ),
        () =>
          Effect.gen(function*() {
            const { apply, kubectl } = yield* TestCluster
            const now = yield* DateTime.now
            const minutesAgo = (minutes: number) => DateTime.subtract(now, { minutes })
            const seconds = (time: DateTime.Utc) => `${DateTime.formatIso(time).slice(0, 19)}Z`
            const regarding = { kind: "Pod", namespace: "default", name: "db-0" }
            yield* apply({
              apiVersion: "v1",
              kind: "Event",
              metadata: { name: "db-0.counted", namespace: "default" },
              type: "Warning",
              reason: "FailedMount",
              message: "Unable to attach or mount volumes",
              involvedObject: regarding,
              count: 700,
              firstTimestamp: seconds(minutesAgo(8)),
              lastTimestamp: seconds(minutesAgo(1)),
              source: { component: "kubelet" }
            })
            const burst = yield* until("WARN EVENTS_BURST")
            assert.include(burst.message, "700 serious events in the last 10m (limit 200)")
            yield* apply({
              apiVersion: "events.k8s.io/v1",
              kind: "Event",
              metadata: { name: "db-0.series", namespace: "default" },
              type: "Warning",
              reason: "FailedAttachVolume",
              action: "Attach",
              note: "Multi-Attach error",
              regarding,
              eventTime: formatMicroTime(minutesAgo(8)),
              series: { count: 400, lastObservedTime: formatMicroTime(minutesAgo(1)) },
              reportingController: "attachdetach-controller",
              reportingInstance: "controller-0"
            })
            const storm = yield* until("ERROR EVENTS_STORM")
            assert.include(storm.message, "1100 serious events")
            assert.include(storm.message, "FailedMount 700 times, FailedAttachVolume 400 times")
            assert.deepStrictEqual(storm.findings[0]?.subject, regarding)
            yield* kubectl("delete", "events", "--namespace=default", "--all")
            yield* until("PASS")
          })
      )
    }
  )
})
