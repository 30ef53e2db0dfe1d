/**
 * The codes any checker may end with. When it could not look, that is never the target's fault, so it is UNKNOWN (INFO
 * where the question does not arise). FLAPPING alone is the target's: it is said of many runs, never by one.
 */
import * as Codes from "./Codes.ts"

export const checkerCodes = Codes.make({
  ACCESS_MISSING: Codes.unknown(
    "The prober lacks a permission that this probe needs.",
    "Grant the rule in the message to the prober's user or ServiceAccount."
  ),
  UNAUTHENTICATED: Codes.unknown(
    "The API server does not accept the prober's credentials.",
    "Renew the token or certificate in the kubeconfig, or restore the agent's ServiceAccount."
  ),
  API_UNREACHABLE: Codes.unknown(
    "The API server did not answer this probe.",
    "See k8s.api.health of the same cluster; then the network path from the prober."
  ),
  API_FAULT: Codes.unknown(
    "The API server answered a request of this probe with an error, so the probe saw too little to judge.",
    "Read the API server's log at the time of the run; k8s.api.health and k8s.api.crud judge the API itself."
  ),
  ADMISSION_REFUSED: Codes.unknown(
    "Something the probe makes for its work was not admitted, by a webhook, a policy or a quota, so it saw too little to judge.",
    "Mend or remove what the message names; k8s.admission.webhooks judges webhooks. A policy or a quota must leave room for probes."
  ),
  KIND_NOT_SERVED: Codes.unknown(
    "The cluster does not serve a kind this probe reads.",
    "Install the API or upgrade the cluster, or leave this probe out there."
  ),
  UNEXPECTED_ANSWER: Codes.unknown(
    "An answer did not have the fields this probe reads.",
    "Check that the cluster's version is supported; report it as a fault of the probe."
  ),
  CREDENTIAL_MISSING: Codes.unknown(
    "A credential that the configuration names is not there, or cannot be read.",
    "Mount the Secret of that name into the agent (deploy/agent/components/credentials), or name its folder with " +
      "--credentials; then check the key."
  ),
  UNDECLARED_CALL: Codes.unknown(
    "The probe made a call that its needs do not declare; it was not sent.",
    "Add the rule in the message to the probe's needs."
  ),
  INVALID_CONFIG: Codes.unknown(
    "The probe's configuration is not valid.",
    "Correct the field named in the message; `kubeprober probe describe` lists all fields."
  ),
  PARENT_FAILED: Codes.unknown(
    "A probe this one depends on failed, so this one would only repeat it.",
    "Mend what the parent reports."
  ),
  TIMED_OUT: Codes.unknown(
    "The probe did not finish within its timeout.",
    "Look for a slow API server or raise the probe's timeout."
  ),
  BUDGET_EXHAUSTED: Codes.unknown(
    "The prober's own budget of API requests or pods in this cluster had no room for the probe in time.",
    "Run the Probes named in the message less often, or raise --budget-requests or --budget-pods of the agent."
  ),
  CHECKER_FAILED: Codes.unknown(
    "The probe failed for a reason of its own.",
    "Read the message; if it names nothing in the cluster, report it as a fault of the probe."
  ),
  WORKER_UNAVAILABLE: Codes.unknown(
    "The probe works in pods of KubeProber's image, and none is known here.",
    "Run it in an installed agent, or name an image that the cluster can pull with --worker-image."
  ),
  WORKER_FAILED: Codes.unknown(
    "A pod that should have done the probe's work did not; the message says at which stage.",
    "Look at the pod's events; k8s.node.sweep and k8s.workload.lifecycle judge whether pods run at all."
  ),
  NODE_SILENT: Codes.unknown(
    "A node's own agent is missing or does not answer, so nothing is known of the node.",
    "Look at the DaemonSet kubeprober-node on that node."
  ),
  NODE_AGENT_STARTING: Codes.info(
    "A node joined a moment ago and its node agent does not answer yet, so nothing is known of the node.",
    "Nothing to do, unless it stays so."
  ),
  CLEANUP_FAILED: Codes.unknown(
    "Something the probe created could not be deleted; the sweeper removes it after it expires.",
    "Check the permission to delete, and finalizers or webhooks on the object named."
  ),
  NOT_CONFIRMED: Codes.info(
    "A fault was seen, and a second look a moment later did not find it.",
    "Nothing, when it was once; when it comes back, look at what the message quotes."
  ),
  CONFIRMATION_FAILED: Codes.unknown(
    "A fault was seen once, and the second look that should confirm it could not look.",
    "See why the second look failed; the next run confirms what the message quotes, or clears it."
  ),
  FLAPPING: Codes.warn(
    "The verdict goes between good and bad again and again: a fault that comes and goes.",
    "Look for what the worst verdict names, and for what restarts, retries or fails over at these times."
  ),
  NOT_APPLICABLE: Codes.info(
    "The question this probe asks does not arise in this cluster.",
    "Nothing to do."
  )
})
