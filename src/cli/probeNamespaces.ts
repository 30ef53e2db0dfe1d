/** Where probes create things, when nobody says where. */

/** Dry-run creates are sent here when nothing may be stored: it exists in every cluster. */
export const DRY_RUN_NAMESPACE = "default"

/** The probe namespace of clusters in which one is set up to stay. */
export const STANDING_NAMESPACE = "kubeprober-probes"
