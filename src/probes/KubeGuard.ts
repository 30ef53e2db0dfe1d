/**
 * A {@link Kube} that sends only what a probe declares: calls that its needs cover, writes that its level allows.
 *
 * Least privilege is held twice: by the Role generated from the needs, and here, so that a probe that outgrows its
 * declaration is caught on the first run by any user, not by the one whose Role is minimal.
 */
import { Effect, Stream } from "effect"
import type { WriteLevel } from "../domain/Profile.ts"
import type { Kube } from "../infra/kube/Kube.ts"
import { type KubeCall, KubeError, Undeclared } from "../infra/kube/KubeError.ts"
import type { KubeObject, KubeResource } from "../infra/kube/KubeResource.ts"
import { type Call, type Need, PathNeed, ResourceNeed, covers, coversPath, describe } from "./Needs.ts"

/** Server-side apply creates what is not there, so it takes both permissions. */
const APPLY = ["patch", "create"] as const

/** Questions about oneself: created, answered, never stored. */
const QUESTIONS: ReadonlySet<string> = new Set(["selfsubjectaccessreviews", "selfsubjectrulesreviews"])

const READS: ReadonlySet<string> = new Set(["get", "list", "watch"])

/** Whether a URL parser and the server both leave `path` as it is, so that what is compared is what is asked for. */
const isPlain = (path: string): boolean =>
  URL.parse(path, "https://server")?.pathname === path && !/%(?:2e|2f|5c)/iu.test(path)

/**
 * Restrict `kube` to `needs` and to the write level `writes`. `probeNamespace` is what the probe namespace is called in
 * this run.
 */
export const guard = (
  kube: Kube["Service"],
  needs: ReadonlyArray<Need>,
  probeNamespace: string,
  writes: WriteLevel
): Kube["Service"] => {
  const refuse = (call: KubeCall, rule: string) =>
    new KubeError({ cluster: kube.cluster, call, reason: new Undeclared({ rule }) })

  /** The write level that `call` takes, when the probe's own is lower. */
  const lacking = (call: Call): WriteLevel | undefined => {
    if (READS.has(call.verb) || (call.group === "authorization.k8s.io" && QUESTIONS.has(call.resource))) {
      return undefined
    }
    if (writes === "nothing" || writes === "dry-run") return call.namespace === probeNamespace ? "namespace" : "cluster"
    return writes === "namespace" && call.namespace !== probeNamespace ? "cluster" : undefined
  }

  const refusal = (call: Call, dryRun: boolean): KubeError | undefined => {
    const level = dryRun ? undefined : lacking(call)
    const covered = needs.some((need) => covers(need, call, probeNamespace))
    if (covered && level === undefined) return undefined
    return refuse(
      {
        verb: call.verb,
        group: call.group,
        resource: call.resource,
        ...(call.namespace === undefined ? {} : { namespace: call.namespace }),
        ...(call.name === undefined ? {} : { name: call.name })
      },
      covered
        ? `the write level \`${level}\`, where it declares \`${writes}\``
        : describe(
          new ResourceNeed({
            verb: call.verb,
            group: call.group,
            resource: call.resource,
            namespace: call.namespace,
            optional: false
          })
        )
    )
  }

  const firstRefusal = (
    verbs: ReadonlyArray<string>,
    resource: Pick<KubeResource<KubeObject>, "group" | "plural" | "scope">,
    where: { readonly namespace?: string | undefined; readonly name?: string | undefined },
    { dryRun = false, subresource }: {
      readonly dryRun?: boolean | undefined
      readonly subresource?: string | undefined
    } = {}
  ): KubeError | undefined => {
    for (const verb of verbs) {
      const refused = refusal({
        verb,
        group: resource.group,
        resource: subresource === undefined ? resource.plural : `${resource.plural}/${subresource}`,
        // The URL of a cluster-scoped object has no namespace, whatever is written here.
        namespace: resource.scope === "Cluster" ? undefined : where.namespace,
        name: where.name
      }, dryRun)
      if (refused !== undefined) return refused
    }
    return undefined
  }

  const effect = <A>(refused: KubeError | undefined, allowed: () => Effect.Effect<A, KubeError>) =>
    refused === undefined ? allowed() : Effect.fail(refused)

  const stream = <A>(refused: KubeError | undefined, allowed: () => Stream.Stream<A, KubeError>) =>
    refused === undefined ? allowed() : Stream.fail(refused)

  return {
    cluster: kube.cluster,
    server: kube.server,
    requests: kube.requests,
    clientCertificate: kube.clientCertificate,
    get: (resource, ref) => effect(firstRefusal(["get"], resource, ref), () => kube.get(resource, ref)),
    list: (resource, selection) =>
      effect(firstRefusal(["list"], resource, selection ?? {}), () => kube.list(resource, selection)),
    create: (resource, manifest, options) =>
      // RBAC cannot limit `create` by name, because the name is not yet known when it is authorized; a subresource's is.
      effect(
        firstRefusal(["create"], resource, {
          namespace: manifest.metadata.namespace,
          name: options?.subresource === undefined ? undefined : manifest.metadata.name
        }, options),
        () => kube.create(resource, manifest, options)
      ),
    apply: (resource, manifest, options) =>
      effect(firstRefusal(APPLY, resource, manifest.metadata, options), () => kube.apply(resource, manifest, options)),
    applyStatus: (resource, manifest, options) =>
      effect(
        firstRefusal(["patch"], resource, manifest.metadata, { ...options, subresource: "status" }),
        () => kube.applyStatus(resource, manifest, options)
      ),
    patch: (resource, ref, patch, options) =>
      effect(
        firstRefusal(["patch"], resource, ref, options),
        () => kube.patch(resource, ref, patch, options)
      ),
    replace: (resource, manifest, options) =>
      effect(
        firstRefusal(["update"], resource, manifest.metadata, options),
        () => kube.replace(resource, manifest, options)
      ),
    delete: (resource, ref, options) =>
      effect(firstRefusal(["delete"], resource, ref, options), () => kube.delete(resource, ref, options)),
    watch: (resource, selection) =>
      stream(firstRefusal(["watch"], resource, selection), () => kube.watch(resource, selection)),
    reflect: (resource, selection) =>
      stream(firstRefusal(["list", "watch"], resource, selection ?? {}), () => kube.reflect(resource, selection)),
    logs: (pod, options) =>
      stream(
        firstRefusal(["get"], { group: "", plural: "pods", scope: "Namespaced" }, pod, { subresource: "log" }),
        () => kube.logs(pod, options)
      ),
    raw: (path, options) => {
      const plain = path.split("?")[0] ?? path
      const call = { verb: "get", resource: plain }
      if (!isPlain(plain)) {
        return Effect.fail(
          refuse(call, "a path without `.` and `..` segments, backslashes and encoded dots or slashes")
        )
      }
      return needs.some((need) => coversPath(need, plain))
        ? kube.raw(path, options)
        : Effect.fail(refuse(call, describe(new PathNeed({ path: plain, optional: false }))))
    }
  }
}
