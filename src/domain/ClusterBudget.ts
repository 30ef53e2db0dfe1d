/** How much of a cluster its probes may use together. */

export interface ClusterBudget {
  /** API requests a minute, in the long run; half of them in one burst. */
  readonly requests: number
  /** Pods at once; twelve times as many may be made in an hour. */
  readonly pods: number
}

/**
 * Ten requests a second: the catalogue once a minute with room for changes, and half of what one controller may send by
 * default (controller-runtime pkg/client/config: 20). Ten pods: one worker on each node of a small cluster.
 */
export const DEFAULT_BUDGET: ClusterBudget = { requests: 600, pods: 10 }
