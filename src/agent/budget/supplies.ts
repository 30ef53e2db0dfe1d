/** What there is of requests and of pods, as pure bookkeeping. Times are milliseconds. */
import type { Supply } from "./fairShare.ts"

/**
 * A token bucket, of which some may be set aside. What is set aside counts as if it were still in the bucket: in no window,
 * however short, is more spent than the bucket holds and what flows in meanwhile.
 */
export class Bucket implements Supply {
  readonly capacity: number
  /** Tokens a millisecond. */
  readonly rate: number
  #tokens: number
  #at: number
  #aside = 0

  constructor(options: { readonly capacity: number; readonly rate: number; readonly now: number }) {
    this.capacity = options.capacity
    this.rate = options.rate
    this.#tokens = options.capacity
    this.#at = options.now
  }

  #refill(now: number): void {
    const room = this.capacity - this.#aside
    if (this.#tokens < room) this.#tokens = Math.min(room, this.#tokens + Math.max(0, now - this.#at) * this.rate)
    this.#at = now
  }

  available(now: number): number {
    this.#refill(now)
    return this.#tokens
  }

  /** Sets aside; {@link spend} it or {@link giveBack}. */
  take(amount: number, now: number): void {
    this.#refill(now)
    this.#tokens -= amount
    this.#aside += amount
  }

  /** What was set aside is used. */
  spend(amount: number, now: number): void {
    this.#refill(now)
    this.#aside -= amount
  }

  /** What was set aside is not needed. */
  giveBack(amount: number, now: number): void {
    this.#refill(now)
    this.#aside -= amount
    this.#tokens += amount
  }

  /** Spends at once, on credit where there is nothing. */
  owe(amount: number, now: number): void {
    this.#refill(now)
    this.#tokens -= amount
  }

  wait(amount: number, now: number): number | undefined {
    const missing = amount - this.available(now)
    if (missing <= 0) return 0
    // Beyond that only a return makes room.
    return amount > this.capacity - this.#aside ? undefined : Math.ceil(missing / this.rate)
  }
}

/** So many at once, and so many new ones over time. */
export class Places implements Supply {
  readonly atOnce: number
  readonly #births: Bucket
  #held = 0

  constructor(options: { readonly atOnce: number; readonly births: Bucket }) {
    this.atOnce = options.atOnce
    this.#births = options.births
  }

  get held(): number {
    return this.#held
  }

  available(now: number): number {
    return Math.min(this.atOnce - this.#held, Math.floor(this.#births.available(now)))
  }

  /** Takes places, for what is born at {@link bear}. */
  take(amount: number, now: number): void {
    this.#held += amount
    this.#births.take(amount, now)
  }

  bear(amount: number, now: number): void {
    this.#births.spend(amount, now)
  }

  /** Leaves places of what was born. */
  leave(amount: number): void {
    this.#held -= amount
  }

  /** Gives back places in which nothing was born. */
  giveBack(amount: number, now: number): void {
    this.#held -= amount
    this.#births.giveBack(amount, now)
  }

  wait(amount: number, now: number): number | undefined {
    return this.atOnce - this.#held < amount ? undefined : this.#births.wait(amount, now)
  }
}
