/**
 * `example.deployment.policy`: does every Deployment survive the loss of a pod, and come from where images may come from?
 *
 * Two rules that a team sets itself, which is why they are not in KubeProber's catalogue.
 */
import { Effect, Schema } from "effect"
import { Codes, Kube, Needs, Outcome, Probe, Resources, Watch, setting } from "kubeprober/probes"

const { Deployment } = Resources.apps

const codes = Codes.make({
  REPLICAS_TOO_FEW: Codes.warn(
    "A Deployment asks for fewer replicas than the policy wants, so one lost pod takes all or most of it away.",
    "Raise spec.replicas, or list the namespace in `exempt`."
  ),
  IMAGE_NOT_ALLOWED: Codes.error(
    "A Deployment runs an image from a registry that is not on the list.",
    "Copy the image to an allowed registry and use it from there."
  )
})

const Config = Schema.Struct({
  minimumReplicas: setting(Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)), {
    default: 2,
    description: "The fewest replicas a Deployment may ask for. Those scaled to zero are left alone."
  }),
  registries: setting(Schema.Array(Schema.NonEmptyString), {
    default: [],
    description: "Registries, with or without a path, that images may come from; any when empty."
  }),
  exempt: setting(Schema.Array(Schema.NonEmptyString), {
    default: ["kube-system"],
    description: "Namespaces in which neither rule holds."
  })
})
type Config = typeof Config.Type

/**
 * An image's registry and path as container runtimes complete them: `nginx:1.29` is `docker.io/library/nginx:1.29`
 * (https://github.com/distribution/reference).
 */
export const fullName = (image: string): string => {
  const [first = "", ...rest] = image.split("/")
  if (rest.length === 0) return `docker.io/library/${image}`
  return first.includes(".") || first.includes(":") || first === "localhost" ? image : `docker.io/${image}`
}

const isFrom = (image: string, registry: string): boolean =>
  fullName(image).startsWith(registry.endsWith("/") ? registry : `${registry}/`)

/** What is wrong with one Deployment. Pure, so that it is tested without a cluster. */
export const judge = ({ minimumReplicas, registries }: Config, deployment: Resources.apps.Deployment) => {
  const { metadata: { name = "", namespace = "" }, spec } = deployment
  const subject = { kind: "Deployment", name, namespace }
  const replicas = spec.replicas ?? 1
  const tooFew = replicas > 0 && replicas < minimumReplicas
    ? [codes.REPLICAS_TOO_FEW({
      message: `Deployment ${namespace}/${name} asks for ${replicas} of at least ${minimumReplicas} replicas`,
      subject,
      evidence: { replicas, minimumReplicas }
    })]
    : []
  const { containers, initContainers } = spec.template.spec
  const notAllowed = [...initContainers, ...containers].flatMap(({ image, name: container }) =>
    image === undefined || registries.length === 0 || registries.some((registry) => isFrom(image, registry))
      ? []
      : [codes.IMAGE_NOT_ALLOWED({
        message: `Deployment ${namespace}/${name}: container ${container} runs ${image}, which is not from ` +
          registries.join(" or "),
        subject,
        evidence: { container, image }
      })]
  )
  return [...tooFew, ...notAllowed]
}

export const deploymentPolicy = Probe.make("example.deployment.policy", {
  layer: "application",
  proves: "Every Deployment has enough replicas, and images from allowed registries only.",
  writes: "nothing",
  needs: [Needs.list("deployments", { group: "apps" })],
  codes,
  config: Config,
  timeout: "20 seconds",
  onChange: [Watch.of(Deployment)],
  run: Effect.fnUntraced(function*(config: Config) {
    const kube = yield* Kube
    const { items } = yield* kube.list(Deployment)
    const judged = items.filter(({ metadata }) => !config.exempt.includes(metadata.namespace ?? ""))
    return Outcome.make(
      `${judged.length} Deployments follow the policy`,
      judged.flatMap((deployment) => judge(config, deployment))
    )
  })
})

export default Probe.configure(deploymentPolicy, { registries: ["docker.io/library", "registry.k8s.io"] })
