/** How several agents of one cluster agree on the one that works: by a Lease, and by who is linked where that is of no help. */
import { Effect, Stream } from "effect"
import { type LinkClient, LinkStatus, isSuperseded } from "../infra/link/LinkClient.ts"

/** The Lease by which one of several agents of a cluster works. */
export const LEASE = "kubeprober-agent"

/**
 * Longer than client-go's: these renewals are most of what an idle agent costs its API server (300 an hour instead of
 * 1800), and a successor of one that crashed may well wait for as long as checks are apart.
 */
export const LEASE_TIMES = {
  leaseDuration: "45 seconds",
  renewDeadline: "30 seconds",
  retryPeriod: "12 seconds",
  // There is a candidate beside the leader only while one replaces the other, or where several are wanted.
  acquirePeriod: "4 seconds"
} as const

/**
 * Ends when nobody is told any more what an agent without a Lease finds: the cluster has linked another, or there was no
 * link for as long as the Lease lasts, so that another may work.
 */
export const untilOfNoUse = (changes: LinkClient["Service"]["changes"]): Effect.Effect<void> =>
  Effect.raceFirst(
    Stream.runHead(Stream.filter(changes, isSuperseded)),
    changes.pipe(
      Stream.map(LinkStatus.$is("Linked")),
      Stream.changes,
      Stream.switchMap((isLinked) =>
        isLinked ? Stream.never : Stream.fromEffect(Effect.sleep(LEASE_TIMES.leaseDuration))
      ),
      Stream.runHead
    )
  ).pipe(Effect.asVoid)
