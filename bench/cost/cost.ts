/**
 * `npm run bench:cost`: what the profiles cost a cluster, written to `docs/cost.md`.
 *
 * The API server counts the agent's requests in its audit log, and the pods that are created in the agent's namespace.
 * Checks run at ten times their normal rate for some minutes, and what they cause is divided by that; what an agent asks
 * for without any check is measured beforehand and not divided.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, DateTime, Duration, Effect, FileSystem, Layer, Path, Schedule } from "effect"
import { Command, Flag } from "effect/cli"
import { availableParallelism, totalmem } from "node:os"
import { root } from "../../scripts/bundle.ts"
import { table } from "../../scripts/probeDocs.ts"
import type { Profile } from "../../src/domain/Profile.ts"
import * as Local from "../../src/local/Local.ts"
import * as Preflight from "../../src/probes/Preflight.ts"
import type { AnyProbe } from "../../src/probes/Probe.ts"
import * as ServerTime from "../../src/probes/ServerTime.ts"
import * as Installation from "../soak/Installation.ts"
import { planOf, probesOf } from "../soak/plan.ts"

const RATE = 10

const PROFILES: ReadonlyArray<Profile> = ["observe", "standard"]

/** What was counted in so many minutes. */
interface Counted {
  readonly requests: number
  readonly pods: number
  readonly byKind: ReadonlyMap<string, number>
}

const count = Effect.fnUntraced(function*(installation: Installation.Installation, minutes: number) {
  const from = DateTime.toEpochMillis(yield* DateTime.now)
  // The time that is measured.
  yield* Effect.sleep(Duration.minutes(minutes))
  const to = DateTime.toEpochMillis(yield* DateTime.now)
  const audited = (yield* installation.audited).filter(({ at }) => at >= from && at < to)
  const own = audited.filter(({ agent }) => agent)
  const byKind = new Map<string, number>()
  for (const { resource, verb } of own) {
    const kind = `${verb} ${resource}`
    byKind.set(kind, (byKind.get(kind) ?? 0) + 1)
  }
  const hours = (to - from) / 3_600_000
  return {
    requests: own.length / hours,
    pods: audited.filter(({ pod }) => pod).length / hours,
    byKind: new Map([...byKind].map(([kind, times]) => [kind, times / hours]))
  } satisfies Counted
})

const normal = (compressed: number, idle: number): number => idle + Math.max(0, compressed - idle) / RATE

const perHour = (every: Duration.Duration): number => 1 / Duration.toHours(every)

/**
 * Requests an hour for what an agent remembers for minutes, whatever the rate of its checks: its rights in each namespace
 * that the probes name, and the time of the API servers. At most so many were measured, and divided wrongly.
 */
const rememberedOf = (probes: ReadonlyArray<AnyProbe>): number => {
  const namespaces = new Set(
    probes.flatMap(({ needs }) => needs.map((need) => "namespace" in need ? need.namespace : undefined))
  )
  return namespaces.size * perHour(Preflight.REMEMBERED) + perHour(ServerTime.BELIEVED)
}

const measure = Effect.fnUntraced(function*(minutes: number, nodes: number) {
  const installation = yield* Installation.make({ nodes, rate: RATE })
  const idle = yield* count(installation, minutes)
  yield* Console.log(`without checks: ${Math.round(idle.requests)} requests an hour`)
  const profiles = yield* Effect.forEach(PROFILES, (profile) =>
    Effect.gen(function*() {
      const probes = probesOf(profile)
      const plan = planOf(probes, RATE)
      yield* installation.give(plan)
      yield* installation.cells.pipe(
        Effect.repeat({
          schedule: Schedule.spaced("1 second"),
          until: (cells) => probes.every(({ id }) => cells.some((cell) => cell.checker === id))
        }),
        Effect.timeout("3 minutes")
      )
      const compressed = yield* count(installation, minutes)
      yield* Effect.forEach(plan, ({ name }) => installation.fleet.deleteProbe({ name }), { discard: true })
      const remembered = rememberedOf(probes) * (1 - 1 / RATE)
      const requests = Math.round(normal(compressed.requests, idle.requests) + remembered)
      const pods = Math.round(normal(compressed.pods, idle.pods))
      yield* Console.log(`${profile}: ${requests} requests and ${pods} pods an hour`)
      const kinds = [...compressed.byKind].map(([kind, times]) =>
        [kind, Math.round(normal(times, idle.byKind.get(kind) ?? 0))] as const
      ).sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
      return { profile, checks: probes.length, requests, remembered: Math.round(remembered), pods, kinds }
    }))
  return { idle: Math.round(idle.requests), profiles }
})

type Measured = Effect.Success<ReturnType<typeof measure>>

const TOP = 12

const page = ({ idle, profiles }: Measured, options: {
  readonly date: string
  readonly minutes: number
  readonly nodes: number
}): string => {
  const span = options.minutes === 1 ? "a minute" : `${options.minutes} minutes`
  return [
    "<!-- Written by `npm run bench:cost`. Do not edit. -->",
    "# What KubeProber costs a cluster",
    `Measured on ${options.date}, on a Linux machine with ${availableParallelism()} processors and ` +
    `${Math.round(totalmem() / 2 ** 30)} GiB of memory that did other work besides, in a cluster of ${options.nodes} ` +
    "nodes with nothing in it but itself. Counts depend little on the machine; more objects make longer lists, and every " +
    "500 of a kind one more request.",
    "At the normal rate of each probe (see [the reference](probes/README.md)):",
    table(
      ["Profile", "Checks", "API requests an hour", "a minute", "Pods an hour"],
      [
        ["none: a linked agent alone", "0", String(idle), String(Math.round(idle / 60)), "0"],
        ...profiles.map(({ checks, pods, profile, requests }) => [
          profile,
          String(checks),
          String(requests),
          String(Math.round(requests / 60)),
          String(pods)
        ])
      ]
    ),
    `How: the API server wrote down each request of the agent's ServiceAccount in its audit log, watches once, and each pod ` +
    `created in the agent's namespace by anyone. First for ${span} without any check; then, for each ` +
    `profile, for ${span} with all checks that need no target of their own at ${RATE} times their ` +
    `normal rate. What was more than without checks was divided by ${RATE}. What is asked for every minute or five whatever ` +
    "the rate, because the agent remembers it (its rights, the time of the API servers), is added: " +
    `${profiles.map(({ profile, remembered }) => `${remembered} for ${profile}`).join(", ")} at most.`,
    ...profiles.flatMap(({ kinds, profile }) => [
      `## Most frequent requests of ${profile}`,
      table(
        ["Request", "An hour"],
        kinds.slice(0, TOP).map(([kind, times]) => [`\`${kind}\``, String(times)])
      )
    ])
  ].join("\n\n") + "\n"
}

const command = Command.make(
  "cost",
  {
    minutes: Flag.Int("minutes").pipe(Flag.withDefault(3), Flag.withDescription("How long each part is measured")),
    nodes: Flag.Int("nodes").pipe(Flag.withDefault(2), Flag.withDescription("Nodes of the cluster"))
  },
  Effect.fn("cost")(function*({ minutes, nodes }) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const measured = yield* measure(minutes, nodes)
    const date = DateTime.formatIsoDateUtc(yield* DateTime.now)
    yield* fs.writeFileString(path.join(root, "docs", "cost.md"), page(measured, { date, minutes, nodes }))
    yield* Console.log("docs/cost.md is written")
  }, Effect.scoped)
).pipe(Command.withDescription("Measure what the profiles cost a cluster"))

command.pipe(
  Command.run({ version: "0" }),
  Effect.provide(Layer.provideMerge(Local.layer, NodeServices.layer)),
  NodeRuntime.runMain
)
