/**
 * The Job of one run, in the original's form: its labels, environment and ServiceAccount, so that probers made for the
 * original run unmodified.
 */
import { Duration } from "effect"
import type { ProbeSpec } from "../../domain/kinds/Probe.ts"
import type { Manifest } from "../../infra/kube/Kube.ts"

/** As the original labels Jobs and pods of its probes. */
export const APP_LABEL = "app"
export const APP = "kubeprober.erda.cloud"
export const PROBE_NAMESPACE_LABEL = "kubeprober.erda.cloud/probe-namespace"
export const PROBE_NAME_LABEL = "kubeprober.erda.cloud/probe-name"

/** The ServiceAccount of probers whose template names none, as in the original. */
export const WORKER_SERVICE_ACCOUNT = "kubeprober-worker"

/** The original's ConfigMap that probers take their environment from. Theirs is required, ours may be missing. */
const EXTRA_CONFIG = "extra-config"

/** The key of the run's token in its Secret. */
export const TOKEN_KEY = "token"

/** A label value has at most 63 characters; so has the name of a Job, which its pods carry as a label. */
const MAX_LABEL = 63

/** Room for the random suffix that makes a Job's name its run's own: a dash and 10 characters. */
const MAX_PREFIX = MAX_LABEL - 11

/**
 * How long after the run's own deadline the cluster ends the Job by itself: only a run whose agent died gets there. Both
 * at once, the pod would at times be seen to be deleted rather than to be late.
 */
export const DEADLINE_GRACE = Duration.seconds(10)

/** How long a Job that ended may stay, should nobody be left to delete it. */
const TTL_SECONDS = 300

/** What a value of a label may be: `text`, cut and without what labels do not hold. */
export const labelValue = (text: string): string =>
  text.replace(/[^A-Za-z0-9._-]/gu, "-").slice(0, MAX_LABEL).replace(/^[^A-Za-z0-9]+|[^A-Za-z0-9]+$/gu, "")

/** What the names of a Probe's Jobs begin with: a DNS label that leaves room for a suffix. */
export const namePrefix = (probe: string): string => {
  const prefix = probe.toLowerCase().replace(/[^a-z0-9-]/gu, "-").slice(0, MAX_PREFIX).replace(/^-+|-+$/gu, "")
  return prefix === "" ? "probe" : prefix
}

/** What a Job is made of. */
export interface JobOptions {
  /** Unique: of {@link namePrefix} and a random suffix. The run's Secret is called the same. */
  readonly name: string
  readonly probe: { readonly namespace: string; readonly name: string; readonly uid?: string }
  readonly template: NonNullable<ProbeSpec["template"]>
  readonly configs: NonNullable<ProbeSpec["configs"]>
  readonly runId: string
  readonly timeout: Duration.Duration
  /** Where probers post their reports. */
  readonly reportUrl: string
}

type EnvVar = NonNullable<NonNullable<ProbeSpec["configs"]>[number]["env"]>[number]
type Container = JobOptions["template"]["containers"][number]

/** A list of the template, whose shape nobody has checked; what is none is as if absent, for the API server to judge. */
const listIn = (holder: Readonly<Record<string, unknown>>, field: string): ReadonlyArray<unknown> => {
  const found = holder[field]
  return Array.isArray(found) ? found : []
}

const nameOf = (item: unknown): unknown =>
  typeof item === "object" && item !== null && "name" in item ? item.name : undefined

/**
 * Configs are for the container they name. The original gives every config to every container; so does this with one that
 * names none, or none of the template's.
 */
const configured = (container: string, { configs, template }: JobOptions): ReadonlyArray<EnvVar> => {
  const names = new Set(template.containers.map(({ name }) => name))
  return configs.flatMap(({ env = [], name }) =>
    name === undefined || name === container || !names.has(name) ? env : []
  )
}

/** Each name once, the last of it: the API server takes two of a name and warns. */
const lastOfEach = (variables: ReadonlyArray<unknown>): ReadonlyArray<unknown> =>
  variables.filter((variable, index) => !variables.slice(index + 1).some((later) => nameOf(later) === nameOf(variable)))

const containerOf = (container: Container, options: JobOptions) => {
  const { name, probe, reportUrl, runId } = options
  const own: ReadonlyArray<EnvVar> = [
    { name: "KUBEPROBER_PROBE_NAMESPACE", value: probe.namespace },
    { name: "KUBEPROBER_PROBE_NAME", value: probe.name },
    { name: "KUBEPROBER_STATUS_REPORT_URL", value: reportUrl },
    { name: "KUBEPROBER_RUN_ID", value: runId },
    { name: "KUBEPROBER_REPORT_TOKEN", valueFrom: { secretKeyRef: { name, key: TOKEN_KEY } } }
  ]
  const reserved = new Set<unknown>(own.map(({ name }) => name))
  const theirs = [...listIn(container, "env"), ...configured(container.name, options)]
  return {
    ...container,
    imagePullPolicy: container["imagePullPolicy"] ?? "Always",
    // Ours first: variables may refer to those before them.
    env: [...own, ...lastOfEach(theirs.filter((variable) => !reserved.has(nameOf(variable))))],
    envFrom: [...listIn(container, "envFrom"), { configMapRef: { name: EXTRA_CONFIG, optional: true } }]
  }
}

/**
 * The manifest of a Job. It is created suspended, because its Secret is owned by it and its pod needs the Secret: resume
 * it once that is there.
 *
 * The template's own ServiceAccount, pull policy and restart policy win, but for restart policy Always, which Jobs do not
 * know. A prober is not tried again within a run.
 */
export const jobManifest = (
  options: JobOptions
): Manifest & { readonly metadata: { readonly name: string } } => {
  const { name, probe, template, timeout } = options
  const labels = {
    [APP_LABEL]: APP,
    [PROBE_NAMESPACE_LABEL]: labelValue(probe.namespace),
    [PROBE_NAME_LABEL]: labelValue(probe.name)
  }
  const restartPolicy = template["restartPolicy"]
  return {
    metadata: {
      name,
      namespace: probe.namespace,
      labels,
      ...(probe.uid !== undefined && {
        ownerReferences: [{
          apiVersion: "kubeprober.erda.cloud/v1",
          kind: "Probe",
          name: probe.name,
          uid: probe.uid,
          controller: true
        }]
      })
    },
    spec: {
      suspend: true,
      backoffLimit: 0,
      activeDeadlineSeconds: Math.max(1, Math.ceil(Duration.toSeconds(Duration.sum(timeout, DEADLINE_GRACE)))),
      ttlSecondsAfterFinished: TTL_SECONDS,
      template: {
        metadata: { labels },
        spec: {
          ...template,
          serviceAccountName: template["serviceAccountName"] ?? template["serviceAccount"] ?? WORKER_SERVICE_ACCOUNT,
          restartPolicy: restartPolicy === undefined || restartPolicy === "" || restartPolicy === "Always"
            ? "Never"
            : restartPolicy,
          containers: template.containers.map((container) => containerOf(container, options))
        }
      }
    }
  }
}
