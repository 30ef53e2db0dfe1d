/** How much of a cluster its probes may use together. */

export interface ClusterBudget {
  /** API requests a minute, in the long run; half of them in one burst. */
  readonly requests: number
  /** Pods at once; twenty-four times as many may be made in an hour. */
  readonly pods: number
}

/**
 * Ten requests a second: the catalogue once a minute with room for changes, and half of what one controller may send by
 * default (controller-runtime pkg/client/config: 20). Sixteen pods: the largest probe of the catalogue takes twelve at once
 * (infra.net.mesh on six nodes) and leaves two to others however many nodes there are, so a smaller one has its turn beside it.
 */
export const DEFAULT_BUDGET: ClusterBudget = { requests: 600, pods: 16 }
