/**
 * How much of a cluster its probes may use together: API requests and pods, which no set of Probes can exceed.
 *
 * A run waits for its turn before it begins, with as many requests set aside for it as it took the last time: one that waits
 * in the middle would take its own waiting for slowness of the cluster. Turns go round among Probes, whatever each asks for.
 */
import { Clock, Context, Deferred, Effect, Layer, Queue, type Scope, Struct } from "effect"
import { type ClusterBudget, DEFAULT_BUDGET } from "../domain/ClusterBudget.ts"
import { Kube } from "../infra/kube/Kube.ts"
import { BudgetExhausted } from "../infra/kube/KubeError.ts"
import type { Gate, GatedRequest } from "../infra/kube/KubeGate.ts"
import { FairShare, type Ticket } from "./budget/fairShare.ts"
import { podKeyOf, podsOf } from "./budget/podsOf.ts"
import { Bucket, Places } from "./budget/supplies.ts"

/** So many minutes' requests may come in one burst: a round of every check at the start. */
const BURST_MINUTES = 0.5

/** New pods an hour, for each that may be there at once: each may live two and a half minutes. */
const PODS_AN_HOUR = 24

/** What a check is thought to take before it has run. */
const FIRST_GUESS = 10

/** A run that takes more than was set aside waits so long (ms) in the middle, and then gives up: others wait for its place. */
const MIDWAY = 5_000

/** Over so long (ms) it is counted who uses how much. */
const WINDOW = 60_000

/** Runs whose size is remembered. */
const REMEMBERED = 5_000

/** Between two words about waiting in the log (ms). */
const SILENCE = 300_000

/**
 * Who waits apart from the others, and how many of them may have begun. More would set aside what those that run need, and
 * wait for a place with it.
 *
 * Runs that create objects and wait for what becomes of them are slow where something is broken, up to their timeouts. Those
 * that look must tell meanwhile what it is, so neither of both waits for the other.
 */
export const LANES = {
  schedule: 8,
  manual: 8,
  watch: 8,
  "slow-schedule": 8,
  "slow-manual": 8,
  "slow-watch": 8,
  job: 2
} as const
export type Lane = keyof typeof LANES

export const lanes: ReadonlyArray<Lane> = Struct.keys(LANES)

/** What a run is admitted with. */
export interface SessionOptions {
  readonly lane: Lane
  /** Who pays: a Probe. Turns go round among these. */
  readonly account: string
  /** Which part of it runs, for the size to be known the next time. */
  readonly part: string
  readonly checks: number
  /** How long (ms) to wait before it begins. */
  readonly patience: number
}

/** Who used how much in the last minute, and what there is. */
export interface Usage {
  readonly requests: {
    readonly limit: number
    readonly used: number
    /** Requests of the whole agent so far: its own, such as statuses, are counted and not limited. */
    readonly sent: number
  }
  readonly pods: { readonly limit: number; readonly used: number }
  readonly waiting: boolean
  /** The most first. */
  readonly accounts: ReadonlyArray<readonly [account: string, requests: number]>
}

export class Budget extends Context.Service<Budget, {
  /** Waits for the turn of a run; its requests go through the gate until the scope closes. */
  readonly session: (options: SessionOptions) => Effect.Effect<Gate, BudgetExhausted, Scope.Scope>
  /** For what runs for ever, such as watches: each request waits for its turn as long as it takes. */
  readonly standing: (account: string) => Gate
  readonly usage: Effect.Effect<Usage>
}>()("kubeprober/agent/Budget") {
  static readonly layer = (options: ClusterBudget = DEFAULT_BUDGET): Layer.Layer<Budget, never, Kube> =>
    Layer.effect(Budget, make(options))
}

/** Requests by account, in this minute and the one before. */
class Counts {
  #now = new Map<string, number>()
  #before = new Map<string, number>()
  #from: number

  constructor(now: number) {
    this.#from = now
  }

  #turn(now: number): void {
    if (now - this.#from < WINDOW) return
    this.#before = now - this.#from < 2 * WINDOW ? this.#now : new Map()
    this.#now = new Map()
    this.#from = now
  }

  add(account: string, now: number): void {
    this.#turn(now)
    this.#now.set(account, (this.#now.get(account) ?? 0) + 1)
  }

  /** Of the last full minute as far as it is not over, by its share. */
  all(now: number): ReadonlyArray<readonly [account: string, requests: number]> {
    this.#turn(now)
    const left = Math.max(0, 1 - (now - this.#from) / WINDOW)
    const counts = new Map(this.#now)
    for (const [account, count] of this.#before) {
      counts.set(account, (counts.get(account) ?? 0) + count * left)
    }
    return [...counts].map(([account, count]) => [account, Math.round(count)] as const).toSorted(([, a], [, b]) =>
      b - a
    )
  }
}

/** Gives an effect the interruptibility it came with. */
type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const make = Effect.fnUntraced(function*({ pods: atOnce, requests: perMinute }: ClusterBudget) {
  const kube = yield* Kube
  const start = yield* Clock.currentTimeMillis
  const bucket = new Bucket({ capacity: Math.max(1, perMinute * BURST_MINUTES), rate: perMinute / 60_000, now: start })
  const births = atOnce * PODS_AN_HOUR
  const places = new Places({
    atOnce,
    births: new Bucket({ capacity: births, rate: births / 3_600_000, now: start })
  })
  /** A queue for each kind of run, and one for single requests. */
  const queues = [...lanes, "single" as const].map((lane) => ({
    lane,
    share: new FairShare(bucket),
    begun: 0,
    limit: lane === "single" ? Infinity : LANES[lane]
  }))
  type Queued = (typeof queues)[number]
  const queueOf = new Map<string, Queued>(queues.map((queue) => [queue.lane, queue]))
  /** Whose turn among the queues it is. */
  let at = 0
  const pods = new FairShare(places)
  const counts = new Counts(start)
  /** Of the last run of each part: requests, and pods at once. */
  const sizes = new Map<string, { readonly requests: number; readonly pods: number }>()
  const wake = yield* Queue.sliding<void>(1)
  let toldAt = -Infinity

  /** The next queue with somebody who may begin. */
  const next = (): Queued | undefined => {
    for (let step = 0; step < queues.length; step++) {
      const queue = queues[(at + step) % queues.length]
      if (queue === undefined || queue.share.isIdle || queue.begun >= queue.limit) continue
      at = (at + step) % queues.length
      return queue
    }
    return undefined
  }

  const pump = (now: number) => {
    // One whose turn it is waits until there is enough for it: passed over by smaller ones, it would wait for ever.
    for (let queue = next(); queue?.share.grantOne(now) === true; queue = next()) {
      queue.begun++
      at++
    }
    pods.pump(now)
  }

  const isIdle = () => pods.isIdle && queues.every(({ share }) => share.isIdle)

  yield* Effect.gen(function*() {
    while (true) {
      const now = yield* Clock.currentTimeMillis
      pump(now)
      const waits = [next()?.share.wait(now), pods.wait(now)].filter((wait) => wait !== undefined)
      yield* waits.length === 0
        ? Queue.take(wake)
        : Effect.raceFirst(Queue.take(wake), Effect.sleep(Math.max(1, Math.min(...waits))))
    }
  }).pipe(Effect.forkScoped)

  const changed = Effect.asVoid(Queue.offer(wake, undefined))

  const mostOf = (now: number): string => {
    const [most] = counts.all(now)
    return most === undefined ? "" : `; ${most[0]} uses most of it, ${most[1]} API requests in the last minute`
  }

  const limits = {
    requests: `the budget of ${perMinute} API requests a minute (--budget-requests)`,
    pods: `the budget of ${atOnce} pods at once and ${births} an hour (--budget-pods)`
  }

  /** Waits in turn for so much of it, and so long (ms) at most. What it is granted is the caller's, to use or give back. */
  const turn = Effect.fnUntraced(function*(
    of: Lane | "single" | "pods",
    account: string,
    amount: number,
    patience: number,
    restore: Restore
  ) {
    const share = queueOf.get(of)?.share ?? pods
    const limit = of === "pods" ? limits.pods : limits.requests
    const granted = Deferred.makeUnsafe<void>()
    let held = false
    const ticket: Ticket = {
      account,
      amount,
      grant: () => {
        held = true
        Deferred.doneUnsafe(granted, Effect.void)
      }
    }
    const now = yield* Clock.currentTimeMillis
    share.enqueue(ticket)
    pump(now)
    if (held) return
    if (now - toldAt >= SILENCE) {
      toldAt = now
      yield* Effect.logInfo(`${limit} is used up, and runs wait for their turn${mostOf(now)}`)
    }
    yield* changed
    const waiting = Deferred.await(granted)
    yield* restore(Number.isFinite(patience) ? Effect.timeoutOption(waiting, Math.max(0, patience)) : waiting).pipe(
      Effect.onInterrupt(() =>
        Effect.suspend(() => {
          share.remove(ticket)
          if (held) {
            giveBack(of, amount, now)
            end(of)
          }
          return changed
        })
      )
    )
    if (held) return
    share.remove(ticket)
    yield* changed
    return yield* Effect.fail(
      new BudgetExhausted({
        detail: `${limit} had no room for it within ${Math.round(patience / 100) / 10} s${
          mostOf(yield* Clock.currentTimeMillis)
        }`
      })
    )
  })

  const giveBack = (of: string, amount: number, now: number) =>
    of === "pods" ? places.giveBack(amount, now) : bucket.giveBack(amount, now)

  /** One that had begun is over. */
  const end = (of: string) => {
    const queue = queueOf.get(of)
    if (queue !== undefined) queue.begun--
  }

  /** One of what was set aside is sent. */
  const sent = (account: string, now: number) => {
    bucket.spend(1, now)
    counts.add(account, now)
  }

  const standing = (account: string): Gate => ({
    admit: () =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
        yield* turn("single", account, 1, Infinity, restore)
        sent(account, yield* Clock.currentTimeMillis)
      }))
  })

  const begin = Effect.fnUntraced(function*(options: SessionOptions, restore: Restore) {
    const { account, checks, lane, part, patience } = options
    const unhurried = lane === "job"
    const key = `${account} ${part}`
    const size = sizes.get(key) ?? { requests: FIRST_GUESS * Math.max(1, checks), pods: 0 }
    let midway = unhurried ? Infinity : MIDWAY
    const began = yield* Clock.currentTimeMillis
    let begun = false
    let granted = 0
    /** Set aside and not used yet. */
    let aside = 0
    let asidePods = 0
    let used = 0
    /** Pods of this run, now and at most. */
    let alive = 0
    let most = 0
    const named = new Map<string, number>()

    yield* Effect.addFinalizer(() =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        if (begun) {
          end(lane)
          queueOf.get(lane)?.share.charge(account, used - granted)
        }
        if (aside > 0) bucket.giveBack(aside, now)
        if (asidePods > 0) places.giveBack(asidePods, now)
        if (alive > 0) places.leave(alive)
        if (used > 0) {
          if (sizes.size >= REMEMBERED) sizes.clear()
          sizes.set(key, { requests: used, pods: most })
        }
        return changed
      })
    )

    const wantedPods = Math.min(size.pods, atOnce)
    if (wantedPods > 0) {
      yield* turn("pods", account, wantedPods, patience, restore)
      asidePods = wantedPods
    }
    // Half of a burst for one run at most: the other half is for the others.
    const largest = unhurried ? FIRST_GUESS : Math.floor(bucket.capacity / 2)
    const wanted = Math.max(1, Math.min(size.requests, largest))
    const left = patience - ((yield* Clock.currentTimeMillis) - began)
    yield* turn(lane, account, wanted, left, restore)
    begun = true
    granted = wanted
    aside = wanted

    const admitPods = Effect.fnUntraced(function*(request: GatedRequest, amount: number, restore: Restore) {
      if (amount > atOnce) {
        return yield* Effect.fail(
          new BudgetExhausted({ detail: `it asks for ${amount} pods, more than ${limits.pods}` })
        )
      }
      if (asidePods < amount) {
        const more = amount - asidePods
        yield* turn("pods", account, more, patience, restore)
        asidePods += more
      }
      asidePods -= amount
      alive += amount
      most = Math.max(most, alive)
      places.bear(amount, yield* Clock.currentTimeMillis)
      const name = podKeyOf(request)
      if (name !== undefined) named.set(name, amount)
    })

    const freePods = Effect.fnUntraced(function*(request: GatedRequest) {
      const name = podKeyOf(request)
      const amount = name === undefined ? undefined : named.get(name)
      if (name === undefined || amount === undefined) return
      named.delete(name)
      alive -= amount
      places.leave(amount)
      yield* changed
    })

    const admit = Effect.fnUntraced(function*(request: GatedRequest, restore: Restore) {
      const amount = podsOf(request)
      if (amount > 0) yield* admitPods(request, amount, restore)
      const now = yield* Clock.currentTimeMillis
      used++
      if (request.call.verb === "delete") {
        // What was created must go, whoever waits; it is paid for afterwards.
        yield* freePods(request)
        counts.add(account, now)
        if (aside > 0) {
          aside--
          bucket.spend(1, now)
        } else bucket.owe(1, now)
        return
      }
      if (aside > 0) {
        aside--
        return sent(account, now)
      }
      yield* turn("single", account, 1, midway, restore)
      const later = yield* Clock.currentTimeMillis
      midway -= later - now
      sent(account, later)
    })
    return {
      admit: (request) => Effect.uninterruptibleMask((restore) => admit(request, restore))
    } satisfies Gate
  })

  const session = Effect.fn("Budget.session")((options: SessionOptions) =>
    Effect.uninterruptibleMask((restore) => begin(options, restore))
  )

  return Budget.of({
    session,
    standing,
    usage: Effect.gen(function*() {
      const now = yield* Clock.currentTimeMillis
      const accounts = counts.all(now)
      return {
        requests: {
          limit: perMinute,
          used: accounts.reduce((sum, [, count]) => sum + count, 0),
          sent: yield* kube.requests
        },
        pods: { limit: atOnce, used: places.held },
        waiting: !isIdle(),
        accounts
      }
    })
  })
})
