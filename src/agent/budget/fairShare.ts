/**
 * Shares what there is little of among many, so that who asks for much waits for its own and not the others for it:
 * deficit round robin (Shreedhar and Varghese, SIGCOMM 1995). Each account has a queue of its own, and in each round may take
 * so much, saved up over rounds for what is larger.
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
  deficit: number
}

export class FairShare {
  readonly #supply: Supply
  readonly #quantum: number
  /** In the order of their turns: the first is at its turn. */
  readonly #accounts = new Map<string, Account>()

  constructor(supply: Supply, quantum: number) {
    this.#supply = supply
    this.#quantum = quantum
  }

  /** Nobody waits. */
  get isIdle(): boolean {
    return this.#accounts.size === 0
  }

  enqueue(ticket: Ticket): void {
    const known = this.#accounts.get(ticket.account)
    if (known === undefined) this.#accounts.set(ticket.account, { queue: [ticket], deficit: 0 })
    else known.queue.push(ticket)
  }

  /** Gives up a place; nothing when it was granted. */
  remove(ticket: Ticket): void {
    const account = this.#accounts.get(ticket.account)
    const index = account?.queue.indexOf(ticket) ?? -1
    if (account === undefined || index < 0) return
    account.queue.splice(index, 1)
    if (account.queue.length === 0) this.#accounts.delete(ticket.account)
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
    head.account.deficit -= head.ticket.amount
    head.account.queue.shift()
    // What is saved up is for what waits.
    if (head.account.queue.length === 0) this.#accounts.delete(head.ticket.account)
    head.ticket.grant()
    return true
  }

  /** How long (ms) until {@link pump} can grant the next, if time alone brings that. */
  wait(now: number): number | undefined {
    const head = this.#head()
    return head === undefined ? undefined : this.#supply.wait(head.ticket.amount, now)
  }

  /** Whose turn it is. What is too much for this round goes to the end of it, with more saved up. */
  #head(): { readonly account: Account; readonly ticket: Ticket } | undefined {
    while (true) {
      const first = this.#accounts.entries().next().value
      const ticket = first?.[1].queue[0]
      if (first === undefined || ticket === undefined) return undefined
      const [name, account] = first
      if (account.deficit >= ticket.amount) return { account, ticket }
      account.deficit += this.#quantum
      this.#accounts.delete(name)
      this.#accounts.set(name, account)
    }
  }
}
