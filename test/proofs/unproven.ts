/** What no test on a real component proves, and why: told in `docs/proofs.md` beside what is proven. */

/** Of one probe: by code, or `healthy`, `blind` or `killed` for a whole proof. */
export type Reasons = Readonly<Record<string, string>>

/** By probe id, sorted. A reason for something that is proven is refused: it would be wrong. */
export const unproven: Readonly<Record<string, Reasons>> = {
  "k8s.namespace.lifecycle": {
    NAMESPACE_DEFAULTS_SLOW:
      "controllers cannot be made late by a known time; judged on a healthy cluster with a limit of 1 ms",
    NAMESPACE_DELETE_SLOW:
      "controllers cannot be made late by a known time; judged on a healthy cluster with a limit of 1 ms"
  },
  "k8s.node.readiness": {
    NODE_PRESSURE:
      "kubelets of local nodes see the memory, disk and processes of the whole machine, which no test may use " +
      "up; judged on written conditions alone"
  }
}
