/**
 * `npm run soak`: the standard profile on a real cluster, at ten times its normal rate, for as long as `--minutes` says:
 * nothing is broken, so whatever is not PASS or INFO is a false alarm, or a true one about this machine.
 *
 * `--faults` makes ten faults instead, one after the other, for `--fault-minutes` each: how soon each is told, how soon it
 * is gone when mended, and what else turns red that should not. The exit code is 1 when no check that should tell a fault
 * does, or when another turned red without a reason that is written down.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Clock, Console, DateTime, Duration, Effect, FileSystem, Layer, Option, Schedule } from "effect"
import { Command, Flag } from "effect/cli"
import { cpus, loadavg } from "node:os"
import * as Table from "../../src/cli/output/Table.ts"
import type { Cell } from "../../src/domain/rpc/Fleet.ts"
import * as Local from "../../src/local/Local.ts"
import { catalogue } from "../../src/probes/Catalogue.ts"
import { type Fault, faults } from "./faults.ts"
import * as Installation from "./Installation.ts"
import * as Observer from "./Observer.ts"
import { intervalOf, planOf, probesOf } from "./plan.ts"

/** A check may be late for so long (ms): at ten times its rate it is stale after seconds, in which a busy machine gives it no turn. */
const LATE = 30_000

/** How long all may take to be good, before the first and after each fault. */
const SETTLE_WITHIN = Duration.minutes(5)

const seconds = (from: number, to: number): number => Math.round((to - from) / 100) / 10

/** Checks that run more rarely are not waited for, when what they last said is good. */
const WAITED_FOR = Duration.minutes(1)

const everyOf = (checker: string, rate: number): Duration.Duration | undefined => {
  const probe = catalogue.find(({ id }) => id === checker)
  return probe === undefined ? undefined : intervalOf(probe, rate)
}

/** Every check is good, and each that runs once a minute has run since then. */
const isWell = (cells: ReadonlyArray<Cell>, since: DateTime.Utc, rate: number): boolean =>
  cells.length > 0 &&
  cells.every(({ checker, freshness, lastRun, status }) => {
    const every = everyOf(checker, rate)
    return freshness === "fresh" && Observer.isGood(status) && lastRun !== undefined &&
      (every === undefined || Duration.isGreaterThan(every, WAITED_FOR) ||
        DateTime.isGreaterThanOrEqualTo(lastRun, since))
  })

/** Commits measured before a soak, as many as `infra.disk.latency` makes. */
const COMMITS = 300

/** Limits (ms) of `infra.disk.latency` here are at least this: one disk has the etcd of each cluster of this machine. */
const DISK_SHARED = 50

/**
 * The disk is this machine's, whatever else uses it, and may well be too slow for an etcd of its own: what is told of it is
 * told against what it does before anything runs, five times over.
 */
const diskOfThisMachine = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const file = yield* fs.open(yield* fs.makeTempFileScoped(), { flag: "w" })
  const block = new Uint8Array(4096)
  const took: Array<number> = []
  for (let commit = 0; commit < COMMITS; commit++) {
    const from = performance.now()
    yield* file.write(block)
    yield* file.sync
    took.push(performance.now() - from)
  }
  const p99 = Math.ceil(took.sort((a, b) => a - b)[Math.floor(COMMITS * 0.99)] ?? 0)
  return { p99, slow: Math.max(DISK_SHARED, p99 * 5) }
}).pipe(Effect.scoped)

const printTable = (rows: ReadonlyArray<ReadonlyArray<string>>) =>
  Effect.forEach(Table.render(rows), (line) => Console.log(line), { discard: true })

/** Looks each second until `done`, or until it has been so long. */
const lookUntil = <E>(
  look: Effect.Effect<ReadonlyArray<Cell>, E>,
  done: (cells: ReadonlyArray<Cell>) => boolean,
  within: Duration.Duration
) =>
  look.pipe(
    Effect.repeat({ schedule: Schedule.spaced("1 second"), until: done }),
    Effect.timeoutOption(within)
  )

const settled = Effect.fnUntraced(
  function*(
    installation: Installation.Installation,
    observer: ReturnType<typeof Observer.make>,
    options: { readonly checks: number; readonly rate: number }
  ) {
    const since = yield* DateTime.now
    const from = DateTime.toEpochMillis(since)
    const cells = yield* lookUntil(
      observer.look,
      (cells) => cells.length >= options.checks && isWell(cells, since, options.rate),
      SETTLE_WITHIN
    )
    if (Option.isSome(cells)) return seconds(from, yield* Clock.currentTimeMillis)
    const bad = (yield* installation.cells).filter(({ freshness, status }) =>
      freshness !== "fresh" || !Observer.isGood(status)
    )
    for (const cell of bad) yield* Console.log(`  not good: ${Observer.nameOf(cell)} ${cell.status} ${cell.message}`)
    return undefined
  }
)

/** How busy this machine's processors are, in percent, since it was last asked. Late checks are seen beside it. */
const busy = () => {
  const times = () =>
    cpus().reduce(
      ({ all, idle }, { times: { idle: own, irq, nice, sys, user } }) => ({
        all: all + own + irq + nice + sys + user,
        idle: idle + own
      }),
      { all: 0, idle: 0 }
    )
  let before = times()
  return Effect.sync(() => {
    const after = times()
    const share = 1 - (after.idle - before.idle) / Math.max(1, after.all - before.all)
    before = after
    return Math.round(share * 100)
  })
}

const soak = Effect.fnUntraced(
  function*(installation: Installation.Installation, observer: ReturnType<typeof Observer.make>, minutes: number) {
    const from = yield* DateTime.now
    const busyPercent = busy()
    for (let minute = 1; minute <= minutes; minute++) {
      yield* lookUntil(observer.look, () => false, Duration.minutes(1))
      const cells = yield* observer.look
      const bad = cells.filter(({ status }) => !Observer.isGood(status))
      yield* Console.log(
        `minute ${minute} of ${minutes}, processors ${yield* busyPercent} % busy: ` +
          `${cells.length - bad.length} of ${cells.length} good` +
          bad.map((cell) => `; ${Observer.nameOf(cell)} ${cell.status} ${cell.code ?? ""}`).join("")
      )
    }
    const checkers = yield* observer.summary(from)
    const since = DateTime.toEpochMillis(from)
    const audited = (yield* installation.audited).filter(({ at }) => at >= since)
    const elapsed = (yield* Clock.currentTimeMillis) - since
    return {
      minutes,
      checkers,
      requestsPerMinute: Math.round(audited.filter(({ agent }) => agent).length / elapsed * 60_000),
      podsPerHour: Math.round(audited.filter(({ pod }) => pod).length / elapsed * 3_600_000)
    }
  }
)

/** How one fault went. Times are in seconds; nothing where it did not happen. */
interface FaultResult {
  readonly fault: string
  /** Checks that told it, soonest first, with how often they run by themselves. */
  readonly told: ReadonlyArray<{
    readonly checker: string
    readonly code: string
    readonly after: number
    readonly interval: number
  }>
  readonly cleared: number | undefined
  readonly allowed: Readonly<Record<string, string>>
  readonly unexpected: ReadonlyArray<string>
}

const tells = ({ detectedBy }: Fault, { checker, code }: Cell): boolean => {
  const codes = detectedBy[checker]
  return codes !== undefined && code !== undefined && codes.includes(code)
}

const runFault = Effect.fnUntraced(function*(
  installation: Installation.Installation,
  observer: ReturnType<typeof Observer.make>,
  fault: Fault,
  options: { readonly minutes: number; readonly checks: number; readonly rate: number }
) {
  const { minutes, rate } = options
  const injectedAt = yield* Clock.currentTimeMillis
  const told = new Map<string, { readonly code: string; readonly after: number }>()
  const red = new Map<string, string>()
  const lateSince = new Map<string, number>()
  yield* fault.inject(installation)
  yield* Effect.flatMap(observer.look, (cells) =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      for (const cell of cells) {
        if (tells(fault, cell)) {
          told.set(cell.checker, told.get(cell.checker) ?? { code: cell.code ?? "", after: seconds(injectedAt, now) })
        } else if (cell.freshness !== "fresh") {
          const since = lateSince.get(cell.checker) ?? now
          lateSince.set(cell.checker, since)
          if (now - since > LATE) red.set(cell.checker, `${cell.checker} ${cell.status} ${cell.freshness}`)
          continue
        } else if (!Observer.isGood(cell.status)) {
          red.set(cell.checker, `${cell.checker} ${cell.status} ${cell.code ?? ""}`)
        }
        lateSince.delete(cell.checker)
      }
    })).pipe(
      Effect.repeat(Schedule.spaced("1 second")),
      Effect.timeoutOption(Duration.minutes(minutes)),
      Effect.ensuring(Effect.orDie(fault.heal(installation)))
    )
  const cleared = yield* settled(installation, observer, options)
  const others = [...red].filter(([checker]) => fault.detectedBy[checker] === undefined)
  return {
    fault: fault.name,
    told: [...told].map(([checker, { after, code }]) => ({
      checker,
      code,
      after,
      interval: Duration.toSeconds(everyOf(checker, rate) ?? 0)
    })).sort((a, b) => a.after - b.after),
    cleared,
    allowed: Object.fromEntries(others.flatMap(([checker, text]) => {
      const reason = fault.mayRedden[checker]
      return reason === undefined ? [] : [[text, reason]]
    })),
    unexpected: others.filter(([checker]) => fault.mayRedden[checker] === undefined).map(([, text]) => text)
  } satisfies FaultResult
})

const faultRow = (result: FaultResult): ReadonlyArray<string> => [
  result.fault,
  result.told.map(({ after, checker, code, interval }) => `${after} s, ${checker} ${code} (each ${interval} s)`)
    .join("; ") || "NOT DETECTED",
  result.cleared === undefined ? `not within ${Duration.format(SETTLE_WITHIN)}` : `${result.cleared} s`,
  [
    ...Object.entries(result.allowed).map(([checker, reason]) => `${checker} (${reason})`),
    ...result.unexpected.map((checker) => `UNEXPECTED ${checker}`)
  ].join("; ") || "nothing"
]

const positive = (name: string, fallback: number, description: string) =>
  Flag.Int(name).pipe(Flag.withDefault(fallback), Flag.withDescription(description))

const command = Command.make(
  "soak",
  {
    minutes: positive("minutes", 60, "How long nothing is broken"),
    nodes: positive("nodes", 2, "Nodes of the cluster"),
    rate: positive("rate", 10, "How many times more often than normally checks run"),
    faults: Flag.Boolean("faults").pipe(
      Flag.withDefault(false),
      Flag.withDescription("Make ten faults, one after the other, instead")
    ),
    from: Flag.String("from").pipe(
      Flag.filter(
        (text) => faults.some(({ name }) => name.includes(text)),
        () => `a part of one of these names: ${faults.map(({ name }) => name).join(", ")}`
      ),
      Flag.withDescription("Only the first fault whose name has this in it, and those after it"),
      Flag.optional
    ),
    faultMinutes: positive("fault-minutes", 5, "How long each fault lasts"),
    json: Flag.String("json").pipe(Flag.withDescription("Also write the result to this file"), Flag.optional)
  },
  Effect.fn("soak")(function*(options) {
    const fs = yield* FileSystem.FileSystem
    const probes = probesOf("standard")
    const disk = yield* diskOfThisMachine
    yield* Console.log(
      `commits to this machine's disk take ${disk.p99} ms (99th percentile); infra.disk.latency warns above ${disk.slow} ms\n`
    )
    const plan = planOf(probes, options.rate, {
      "infra.disk.latency": { slow: `${disk.slow}ms`, tooSlow: `${disk.slow * 10}ms` }
    })
    const checks = plan.reduce((sum, { spec }) => sum + (spec.checks?.length ?? 0), 0)
    yield* Console.log(`${probes.length} checks at ${options.rate} times their normal rate on ${options.nodes} nodes:`)
    yield* printTable(
      probes.map((probe) => [`  ${probe.id}`, `every ${Duration.format(intervalOf(probe, options.rate))}`])
    )
    const installation = yield* Installation.make({ nodes: options.nodes, rate: options.rate })
    yield* installation.give(plan)
    const observer = Observer.make(installation)
    const good = yield* settled(installation, observer, { checks, rate: options.rate })
    yield* Console.log(good === undefined ? "not all is good; going on" : `all good after ${good} s`)

    const result = options.faults
      ? {
        faults: yield* Effect.forEach(
          faults.slice(faults.findIndex(({ name }) => name.includes(Option.getOrElse(options.from, () => "")))),
          (fault) =>
            Effect.tap(
              runFault(installation, observer, fault, { minutes: options.faultMinutes, checks, rate: options.rate }),
              (done) => Console.log(faultRow(done).join(" | "))
            )
        )
      }
      : yield* soak(installation, observer, options.minutes)

    yield* Console.log(`\nload of this machine ${loadavg().map((load) => load.toFixed(1)).join(" ")}\n`)
    if ("faults" in result) {
      yield* printTable([["FAULT", "DETECTED AFTER", "CLEARED AFTER", "ALSO RED"], ...result.faults.map(faultRow)])
    } else {
      yield* printTable([
        ["CHECK", "RUNS", "NOT GOOD", "WHY"],
        ...result.checkers.flatMap(({ checker, probe, runs, troubles }) => {
          const times = troubles.reduce((sum, each) => sum + each.times, 0)
          const why = (trouble: Observer.Trouble) =>
            `${trouble.times} x ${trouble.status} ${trouble.code}, first at ${trouble.first}: ${trouble.message}`
          return [
            [`${probe}/${checker}`, String(runs), String(times), troubles[0] === undefined ? "" : why(troubles[0])],
            ...troubles.slice(1).map((trouble) => ["", "", "", why(trouble)])
          ]
        })
      ])
      yield* Console.log(`\nAPI requests of the agent per minute: ${result.requestsPerMinute}`)
      yield* Console.log(`pods created per hour: ${result.podsPerHour}`)
    }
    if (Option.isSome(options.json)) {
      yield* fs.writeFileString(options.json.value, `${JSON.stringify(result, null, 2)}\n`)
    }

    const failed = "faults" in result
      ? result.faults.some(({ cleared, told, unexpected }) =>
        told.length === 0 || cleared === undefined || unexpected.length > 0
      )
      : result.checkers.some(({ runs, troubles }) => runs === 0 || troubles.length > 0)
    if (failed) yield* Effect.sync(() => process.exitCode = 1)
  }, Effect.scoped)
).pipe(Command.withDescription("Run the standard profile on a real cluster for long, or through ten faults"))

command.pipe(
  Command.run({ version: "0" }),
  Effect.provide(Layer.provideMerge(Local.layer, NodeServices.layer)),
  NodeRuntime.runMain
)
