/** What comes of a run, however it goes. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Exit, Fiber, Option, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as Runner from "../../src/agent/Runner.ts"
import { Report } from "../../src/domain/Report.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import {
  AdmissionDenied,
  Conflict,
  Forbidden,
  KubeError,
  type KubeErrorReason,
  NotFound,
  ServerFault,
  TooManyRequests,
  Unauthorized,
  Undecodable,
  Unreachable
} from "../../src/infra/kube/KubeError.ts"
import { Node } from "../../src/infra/kube/resources/core.ts"
import { TargetFault } from "../../src/probes/Codes.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import * as Probe from "../../src/probes/Probe.ts"
import * as Retry from "../../src/probes/Retry.ts"
import { check, codes, withoutServer } from "./Checks.ts"

const context = { runId: "test", probeNamespace: "probes", expiresAt: DateTime.makeUnsafe("2026-01-01T00:15:00Z") }
const run = (what: Probe.Check, missing: ReadonlyArray<Needs.Need> = []) =>
  Runner.run(what, { context, missing }).pipe(withoutServer, Effect.scoped)
const verdict = (what: Probe.Check, missing?: ReadonlyArray<Needs.Need>) =>
  Effect.map(run(what, missing), ({ report: { blame, code, status } }) => [status, code, blame])

const failingWith = (reason: KubeErrorReason) =>
  check("test.fails", () => new KubeError({ cluster: "c", call: { verb: "list", resource: "nodes" }, reason }), {
    retry: Retry.none
  })

describe("the verdict of a run", () => {
  it.effect("is what the probe found, or PASS with its summary", () =>
    Effect.gen(function*() {
      const { cleanup, report } = yield* run(check("test.fine", () => Effect.succeed(Outcome.make("3 of 3"))))
      assert.strictEqual(report.status, "PASS")
      assert.strictEqual(report.message, "3 of 3")
      assert.isTrue(Option.isNone(cleanup))
      const found = yield* verdict(check("test.found", () =>
        Effect.succeed(Outcome.make("", [codes.TIRED({ message: "a" }), codes.BROKEN({ message: "b" })]))))
      assert.deepStrictEqual(found, ["ERROR", "BROKEN", "target"])
    }))

  it.effect("blames the target only for what the probe says of it", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* verdict(check("test.fault", () => codes.BROKEN.fail({ message: "gone" }))), [
        "ERROR",
        "BROKEN",
        "target"
      ])
      const unreachable = new Unreachable({ kind: "timeout", detail: "" })
      const reasons: ReadonlyArray<readonly [KubeErrorReason, string]> = [
        [unreachable, "API_UNREACHABLE"],
        [new Unauthorized({ detail: "" }), "UNAUTHENTICATED"],
        [new Forbidden({ detail: "" }), "ACCESS_MISSING"],
        [new Undecodable({ issue: "" }), "UNEXPECTED_ANSWER"],
        [new NotFound({ what: "resource", detail: "" }), "KIND_NOT_SERVED"],
        [new NotFound({ what: "object", detail: "" }), "CHECKER_FAILED"],
        [new ServerFault({ status: 500, detail: "" }), "API_FAULT"],
        [new TooManyRequests({ detail: "" }), "API_FAULT"],
        [new AdmissionDenied({ kind: "quota", detail: "" }), "ADMISSION_REFUSED"],
        [new Conflict({ kind: "conflict", detail: "" }), "CHECKER_FAILED"]
      ]
      for (const [reason, code] of reasons) {
        assert.deepStrictEqual(yield* verdict(failingWith(reason)), ["UNKNOWN", code, "checker"], reason._tag)
      }
    }))

  it.effect("is UNKNOWN when the probe crashes or fails with anything else, and says with what", () =>
    Effect.gen(function*() {
      const crash = yield* run(check("test.crash", () => Effect.die(new TypeError("x is undefined"))))
      assert.strictEqual(`${crash.report.status} ${crash.report.code}`, "UNKNOWN CHECKER_FAILED")
      assert.include(crash.report.message, "x is undefined")
      const thrown = yield* run(check("test.throw", () => {
        throw new Error("before it began")
      }))
      assert.strictEqual(`${thrown.report.status} ${thrown.report.code}`, "UNKNOWN CHECKER_FAILED")
      const failed = yield* run(check("test.string", () => Effect.fail("no reason")))
      assert.include(failed.report.message, "no reason")
    }))

  it.effect("is UNKNOWN when the probe interrupts itself, which does not interrupt the round", () =>
    Effect.gen(function*() {
      for (const ends of [Effect.interrupt, Effect.andThen(Effect.sleep(0), Effect.interrupt)]) {
        const running = yield* Effect.forkChild(run(check("test.interrupt", () => ends)))
        yield* TestClock.adjust("1 seconds")
        const { report } = yield* Fiber.join(running)
        assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN CHECKER_FAILED")
        assert.include(report.message, "interrupted itself")
      }
    }))

  it.effect("is UNKNOWN when the probe ends with what is no result, and can be sent", () =>
    Effect.gen(function*() {
      const bad = codes.BROKEN({ message: "b", evidence: { share: Number.NaN } })
      const garbage: ReadonlyArray<unknown> = [
        undefined,
        null,
        "fine",
        { summary: "no findings" },
        { summary: 3, findings: [] },
        Outcome.make("", [bad]),
        Outcome.make("", [{ ...codes.BROKEN({ message: "b" }), code: "not a code" }]),
        Outcome.make("", [{ ...codes.BROKEN({ message: "b" }), evidence: { nested: {} } } as never]),
        {
          get summary(): string {
            throw new Error("unreadable")
          },
          findings: []
        }
      ]
      for (const value of garbage) {
        const { report } = yield* run(check("test.garbage", () => Effect.succeed(value as Outcome.Outcome)))
        assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN CHECKER_FAILED", String(report.message))
        yield* Schema.encodeEffect(Schema.fromJsonString(Schema.toCodecJson(Report)))(report)
      }
      const faults: ReadonlyArray<Effect.Effect<never, unknown>> = [
        new TargetFault({ finding: bad }),
        Effect.fail(Object.create(null)),
        Effect.die(Object.create(null))
      ]
      for (const fault of faults) {
        assert.deepStrictEqual(yield* verdict(check("test.fault", () => fault)), [
          "UNKNOWN",
          "CHECKER_FAILED",
          "checker"
        ])
      }
    }))

  it.effect("is UNKNOWN when the configuration is not valid, and names the field", () =>
    Effect.gen(function*() {
      const probe = Probe.make("test.config", {
        layer: "kubernetes",
        proves: "a test",
        writes: "nothing",
        needs: [],
        codes,
        config: Schema.Struct({ limit: Schema.Int }),
        timeout: "1 seconds",
        run: () => Effect.succeed(Outcome.make("ran"))
      })
      const { report } = yield* run({ _tag: "Check", name: "test.config", probe, with: { limit: "many" } })
      assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN INVALID_CONFIG")
      assert.include(report.message, "limit")
      const typo = yield* run({ _tag: "Check", name: "test.config", probe, with: { limit: 1, limmit: 2 } })
      assert.strictEqual(`${typo.report.status} ${typo.report.code}`, "UNKNOWN INVALID_CONFIG")
      assert.strictEqual(typo.report.message, "unknown field `limmit`; did you mean `limit`?")
    }))

  it.effect("is UNKNOWN, without a run, when a required need is known to be missing", () =>
    Effect.gen(function*() {
      let ran = 0
      const what = check("test.needs", () => {
        ran++
        return Effect.succeed(Outcome.make("ran"))
      }, { needs: [Needs.list("nodes"), Needs.list("pods", { optional: true })] })
      assert.deepStrictEqual(yield* verdict(what, Needs.list("nodes")), ["UNKNOWN", "ACCESS_MISSING", "checker"])
      assert.strictEqual(ran, 0)
      // Others' missing needs and one's own optional ones are no reason not to run.
      assert.deepStrictEqual(yield* verdict(what, [...Needs.list("pods"), ...Needs.list("secrets")]), [
        "PASS",
        undefined,
        undefined
      ])
    }))

  it.live("is UNKNOWN when there is no server", () =>
    Effect.gen(function*() {
      const what = check("test.list", () =>
        Effect.as(Effect.flatMap(Kube, (kube) => kube.list(Node)), Outcome.make("")), {
        needs: [Needs.list("nodes")],
        retry: Retry.none
      })
      assert.deepStrictEqual(yield* verdict(what), ["UNKNOWN", "API_UNREACHABLE", "checker"])
    }))
})

describe("the time of a run", () => {
  it.effect("ends at the probe's timeout, however the probe waits", () =>
    Effect.gen(function*() {
      const waiting = yield* Effect.forkChild(run(check("test.waits", () => Effect.never)))
      yield* TestClock.adjust("9 seconds")
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust("1 seconds")
      const { report } = yield* Fiber.join(waiting)
      assert.strictEqual(`${report.status} ${report.code}`, "UNKNOWN TIMED_OUT")
      assert.strictEqual(report.duration, 10_000)
    }))

  it.effect("holds retries of what may pass, three tries in all, and none of anything else", () =>
    Effect.gen(function*() {
      const tries = Effect.fnUntraced(function*(reason: KubeErrorReason | "fault") {
        let count = 0
        const fails = check("test.retries", (): Effect.Effect<Outcome.Outcome, KubeError | TargetFault> => {
          count++
          return reason === "fault"
            ? codes.BROKEN.fail({ message: "" })
            : Effect.fail(new KubeError({ cluster: "c", call: { verb: "list", resource: "nodes" }, reason }))
        })
        const running = yield* Effect.forkChild(run(fails))
        yield* TestClock.adjust(Duration.seconds(5))
        yield* Fiber.join(running)
        return count
      })
      assert.strictEqual(yield* tries(new ServerFault({ status: 503, detail: "" })), 3)
      assert.strictEqual(yield* tries(new Unreachable({ kind: "reset", detail: "" })), 3)
      assert.strictEqual(yield* tries(new Forbidden({ detail: "" })), 1)
      assert.strictEqual(yield* tries("fault"), 1)
    }))

  it.effect("holds one try of a probe that writes, unless it says otherwise", () =>
    Effect.gen(function*() {
      for (
        const [writes, expected] of [
          ["nothing", 3],
          ["dry-run", 3],
          ["namespace", 1],
          ["cluster", 1],
          ["middleware", 1]
        ] as const
      ) {
        let count = 0
        const fails = check("test.writes", () => {
          count++
          return Effect.fail(
            new KubeError({
              cluster: "c",
              call: { verb: "create", resource: "configmaps" },
              reason: new ServerFault({ status: 503, detail: "" })
            })
          )
        }, { writes })
        const running = yield* Effect.forkChild(run(fails))
        yield* TestClock.adjust(Duration.seconds(5))
        yield* Fiber.join(running)
        assert.strictEqual(count, expected, writes)
      }
    }))

  it.effect("ends with an interruption as an interruption, not as a verdict", () =>
    Effect.gen(function*() {
      const running = yield* Effect.forkChild(run(check("test.interrupted", () => Effect.never)))
      yield* TestClock.adjust("1 seconds")
      yield* Fiber.interrupt(running)
      const exit = yield* Fiber.await(running)
      assert.isTrue(Exit.isFailure(exit) && Exit.hasInterrupts(exit))
    }))
})
