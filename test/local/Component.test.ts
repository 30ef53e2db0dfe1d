import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, FileSystem, Logger, Option, Schedule } from "effect"
import { ComponentExited } from "../../src/local/LocalError.ts"
import * as Component from "../../src/local/process/Component.ts"
import * as Process from "./Process.ts"

const exists = (pid: number) => Effect.flatMap(FileSystem.FileSystem, (fs) => fs.exists(`/proc/${pid}/environ`))

/** Zombies have a folder in /proc until somebody waits for them, and no memory map. */
const isGone = Effect.fnUntraced(function*(pid: number) {
  const fs = yield* FileSystem.FileSystem
  const status = yield* Effect.orElseSucceed(fs.readFileString(`/proc/${pid}/status`), () => "")
  return status === "" || status.includes("State:\tZ")
})

const untilGone = (pid: number) =>
  Effect.repeat(isGone(pid), { until: (gone) => gone, schedule: Schedule.spaced("20 millis"), times: 1_000 })

const make = Effect.fnUntraced(function*(script: string, options: Partial<Component.ComponentOptions> = {}) {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped()
  return yield* Component.make({
    name: "program",
    cluster: folder,
    logPath: `${folder}/log`,
    command: ["sh", "-c", script],
    ...options
  }, yield* Component.leash)
})

/** Empty before the program has written anything. */
const logOf = Effect.fnUntraced(function*(component: Component.Component) {
  const fs = yield* FileSystem.FileSystem
  return yield* Effect.orElseSucceed(fs.readFileString(component.logPath), () => "")
})

describe("a component", () => {
  for (const leash of ["setpriv", "pipe"]) {
    it.live(`ends with its owner, however that ends (${leash})`, () =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const owner = yield* Process.start("componentOwner", [leash, yield* fs.makeTempDirectoryScoped()])
        const pid = Number(yield* owner.line((line) => /^\d+$/.test(line)))
        assert.isTrue(yield* exists(pid))
        yield* owner.end("SIGKILL")
        assert.isTrue(yield* untilGone(pid))
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
  }

  it.live("ends with its scope", () =>
    Effect.gen(function*() {
      const pid = yield* Effect.scoped(Effect.gen(function*() {
        const component = yield* make("sleep 600")
        yield* component.start
        return Option.getOrThrow(yield* component.pid)
      }))
      assert.isTrue(yield* isGone(pid))
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("ends at the SIGTERM that stops it, having cleaned up", () =>
    Effect.gen(function*() {
      const component = yield* make("trap 'echo cleaned up; exit 0' TERM; echo up; while :; do sleep 0.05; done")
      yield* component.start
      yield* Effect.repeat(logOf(component), {
        until: (log) => log.includes("up"),
        schedule: Schedule.spaced("20 millis")
      })
      yield* component.stop
      assert.isFalse(yield* component.isRunning)
      assert.strictEqual(yield* logOf(component), "up\ncleaned up\n")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("runs once, however often it is started at a time", () =>
    Effect.gen(function*() {
      const component = yield* make("echo up; exec sleep 600")
      yield* Effect.all([component.start, component.start, component.start], { concurrency: "unbounded" })
      const log = yield* Effect.repeat(logOf(component), {
        until: (log) => log !== "",
        schedule: Schedule.spaced("20 millis")
      })
      assert.strictEqual(log, "up\n")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("stands still between pause and resume", () =>
    Effect.gen(function*() {
      const component = yield* make("while :; do echo tick; sleep 0.02; done")
      yield* component.start
      yield* component.pause
      const stateOf = Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const status = yield* fs.readFileString(`/proc/${Option.getOrThrow(yield* component.pid)}/status`)
        return /^State:\t(\w)/m.exec(status)?.[1]
      })
      yield* Effect.repeat(stateOf, { until: (state) => state === "T", schedule: Schedule.spaced("10 millis") })
      yield* component.resume
      yield* Effect.repeat(stateOf, { until: (state) => state !== "T", schedule: Schedule.spaced("10 millis") })
      yield* component.pause
      yield* component.kill
      assert.isFalse(yield* component.isRunning)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("tells how it ended, with the end of its log", () =>
    Effect.gen(function*() {
      const component = yield* make("echo cannot read the stars >&2; exit 3")
      yield* component.start
      const error = yield* Effect.flip(component.ended)
      assert.include(error.message, "program ended (exit code 3)")
      assert.include(error.message, "cannot read the stars")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("that never starts its command fails in seconds, and can be given up before", () =>
    Effect.gen(function*() {
      const component = yield* make("sleep 600", {
        prefix: Effect.succeed(["sleep", "600"]),
        forks: true,
        command: ["1"]
      })
      const [patient, hasty] = yield* Effect.all([
        Effect.timed(Effect.flip(component.start)),
        Effect.timeoutOption(
          (yield* make("exec sleep 600", { forks: true, command: ["sleep", "600"] })).start,
          "200 millis"
        )
      ], { concurrency: 2 })
      const [took, error] = patient
      assert.strictEqual(error._tag, "ComponentExited")
      assert.include(error.message, "without its command after 5 seconds")
      assert.isBelow(Duration.toSeconds(took), 20)
      assert.isTrue(Option.isNone(hasty))
      assert.isFalse(yield* component.isRunning)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("that cannot be started again says so in the log of its owner", () =>
    Effect.gen(function*() {
      const warnings: Array<string> = []
      const logger = Logger.make(({ message }) => {
        warnings.push(String(message))
      })
      const places = [["env"]]
      const component = yield* make("exit 0", {
        restarts: true,
        prefix: Effect.suspend(() => {
          const place = places.pop()
          return place === undefined
            ? Effect.fail(
              new ComponentExited({ component: "node", status: "powered off", logPath: "nowhere", logTail: "" })
            )
            : Effect.succeed(place)
        })
      })
      yield* component.start.pipe(Effect.provide(Logger.layer([logger])))
      yield* Effect.repeat(Effect.sync(() => warnings.length), {
        until: (count) => count > 0,
        schedule: Schedule.spaced("50 millis"),
        times: 200
      })
      assert.strictEqual(warnings.length, 1)
      assert.include(warnings[0], "program ended and could not be started again: node ended (powered off)")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("puts a large log aside when it starts, and tells the end of one without reading it all", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const component = yield* make("echo; echo the last words; exit 3")
      yield* fs.writeFileString(component.logPath, "old\n")
      yield* fs.truncate(component.logPath, 16 * 1024 * 1024)
      yield* component.start
      const error = yield* Effect.flip(component.ended)
      assert.match(error.logTail, /the last words$/)
      assert.isAtMost(error.logTail.length, 12 * 501)
      assert.isFalse(yield* fs.exists(`${component.logPath}.1`))
      yield* component.stop
      yield* component.start
      yield* Effect.exit(component.ended)
      assert.strictEqual(yield* logOf(component), "\nthe last words\n")
      assert.isAbove(Number((yield* fs.stat(`${component.logPath}.1`)).size), 16 * 1024 * 1024)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("has nothing of the environment of its owner", () =>
    Effect.gen(function*() {
      const component = yield* make("env")
      yield* component.start
      yield* Effect.exit(component.ended)
      const names = (yield* logOf(component)).split("\n").map((line) => line.split("=")[0])
      assert.sameMembers(names.filter((name) => name !== "" && name !== "PWD" && name !== "_"), [
        "PATH",
        Component.MARKER
      ])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
