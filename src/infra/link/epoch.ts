/**
 * Which of a cluster's links counts: the one with the highest epoch, from the moment it is authenticated. An older one
 * may be half-open for as long as its peer's TCP retries; waiting for it would leave the cluster without a link.
 */

export interface Numbered {
  readonly epoch: number
}

/** Who holds the cluster once `candidate` has come, and who has to go. */
export const takeOver = <L extends Numbered>(
  holder: L | undefined,
  candidate: L
): { readonly holder: L; readonly superseded: L | undefined } =>
  holder === undefined || holder.epoch < candidate.epoch
    ? { holder: candidate, superseded: holder }
    : { holder, superseded: candidate }

/** Who holds it once `gone` has ended: nobody, unless `gone` was superseded before. */
export const release = <L extends Numbered>(holder: L | undefined, gone: L): L | undefined =>
  holder?.epoch === gone.epoch ? undefined : holder
