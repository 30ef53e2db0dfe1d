/**
 * Shares what there is little of among many, so that who asks for much waits for its own and not the others for it: fair
 * queuing by virtual finish times (Demers, Keshav and Shenker, SIGCOMM 1989). Each account has a queue of its own and a
 * virtual time that advances by what it is granted; next is who would be done the earliest. One that asks for little is so
 * served soon, however many ask for much, and one that asks for much is overtaken only until its turn would have come.
 *
 * No clock and no fibers: whoever owns it says what time it is, in milliseconds of any clock that does not go backwards.
 */

/** What is shared. */
export interface Supply {
  /** How much may be taken at `now`. */
  readonly available: (now: number) => number
  readonly take: (amount: number, now: number) => void
  /** How long (ms) until so much is there, if time alone brings it; it may need a return. */
  readonly wait: (amount: number, now: number) => number | undefined
}

/** A place in a queue. */
export interface Ticket {
  readonly account: string
  readonly amount: number
  readonly grant: () => void
}

interface Account {
  readonly queue: Array<Ticket>
  /** The virtual time at which its first in the queue begins. */
  start: number
}

/** Accounts whose virtual time is remembered although nothing of theirs waits. */
const REMEMBERED = 5_000

export class FairShare {
  readonly #supply: Supply
  readonly #accounts = new Map<string, Account>()
  /** Where those that do not wait have come to: who leaves and returns gains nothing by it. */
  readonly #reached = new Map<string, number>()
  /** The virtual time: where the last that was granted began. */
  #now = 0

  constructor(supply: Supply) {
    this.#supply = supply
  }

  /** Nobody waits. */
  get isIdle(): boolean {
    return this.#accounts.size === 0
  }

  enqueue(ticket: Ticket): void {
    const known = this.#accounts.get(ticket.account)
    if (known !== undefined) {
      known.queue.push(ticket)
      return
    }
    const start = Math.max(this.#now, this.#reached.get(ticket.account) ?? 0)
    this.#reached.delete(ticket.account)
    this.#accounts.set(ticket.account, { queue: [ticket], start })
  }

  /** Gives up a place; nothing when it was granted. */
  remove(ticket: Ticket): void {
    const account = this.#accounts.get(ticket.account)
    const index = account?.queue.indexOf(ticket) ?? -1
    if (account === undefined || index < 0) return
    account.queue.splice(index, 1)
    this.#leave(ticket.account, account)
  }

  /** So much more was used than granted, or less when negative: the account's next turn comes later, or sooner. */
  charge(name: string, amount: number): void {
    const account = this.#accounts.get(name)
    if (account !== undefined) {
      account.start = Math.max(this.#now, account.start + amount)
      return
    }
    this.#reach(name, (this.#reached.get(name) ?? this.#now) + amount)
  }

  /** Grants what can be granted now, in turn. */
  pump(now: number): void {
    while (this.grantOne(now));
  }

  /** Grants the next; whether it could. */
  grantOne(now: number): boolean {
    const head = this.#head()
    if (head === undefined || this.#supply.available(now) < head.ticket.amount) return false
    this.#supply.take(head.ticket.amount, now)
    const { account, ticket } = head
    this.#now = Math.max(this.#now, account.start)
    account.start += ticket.amount
    account.queue.shift()
    this.#leave(ticket.account, account)
    ticket.grant()
    return true
  }

  /** How long (ms) until {@link pump} can grant the next, if time alone brings that. */
  wait(now: number): number | undefined {
    const head = this.#head()
    return head === undefined ? undefined : this.#supply.wait(head.ticket.amount, now)
  }

  /** Of an account that no longer waits, only its time is kept, and only while that lies ahead. */
  #leave(name: string, account: Account): void {
    if (account.queue.length > 0) return
    this.#accounts.delete(name)
    this.#reach(name, account.start)
  }

  #reach(name: string, time: number): void {
    this.#reached.delete(name)
    if (time <= this.#now) return
    this.#reached.set(name, time)
    if (this.#reached.size <= REMEMBERED) return
    for (const [other, reached] of this.#reached) if (reached <= this.#now) this.#reached.delete(other)
    const oldest = this.#reached.keys().next().value
    if (this.#reached.size > REMEMBERED && oldest !== undefined) this.#reached.delete(oldest)
  }

  /** Whose turn it is: the earliest to be done, and of two the one that waits longer. */
  #head(): { readonly account: Account; readonly ticket: Ticket } | undefined {
    let head: { readonly account: Account; readonly ticket: Ticket } | undefined
    let earliest = Infinity
    for (const account of this.#accounts.values()) {
      const [ticket] = account.queue
      if (ticket === undefined || account.start + ticket.amount >= earliest) continue
      earliest = account.start + ticket.amount
      head = { account, ticket }
    }
    return head
  }
}
