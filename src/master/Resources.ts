/**
 * Desired state and status of the fleet: Clusters, Probes and ProbeRuns, as resources of one namespace.
 *
 * Two layers of one meaning: the Kubernetes API of the managing cluster, and an SQLite file for a master without one.
 * Both validate by the schemas of `src/domain/kinds`, number generations and resource versions, and tell every change.
 */
import { Context, Data, type Effect, type Option, type Stream } from "effect"
import type { ReflectorEvent } from "../infra/kube/Kube.ts"
import type { KubeObject, KubeResource } from "../infra/kube/KubeResource.ts"

/** The store refused or could not be asked. */
export class ResourcesError extends Data.TaggedError("ResourcesError")<{
  readonly operation: string
  readonly kind: string
  readonly name?: string | undefined
  /** `Invalid` is the caller's fault, `Conflict` asks to read again, `Unavailable` may pass. */
  readonly reason: "Invalid" | "Conflict" | "Unavailable"
  readonly detail: string
}> {
  override get message(): string {
    return `${this.operation} ${this.kind}${this.name === undefined ? "" : ` ${this.name}`}: ${this.detail}`
  }
}

/** What is written of an object; the rest is the store's. */
export interface ResourceManifest {
  readonly metadata: {
    readonly name: string
    readonly labels?: Readonly<Record<string, string>> | undefined
    readonly annotations?: Readonly<Record<string, string>> | undefined
  }
  /** Encoded, as in JSON. */
  readonly spec?: unknown
}

export class Resources extends Context.Service<Resources, {
  /** The namespace all objects are in. */
  readonly namespace: string
  readonly get: <A extends KubeObject>(
    resource: KubeResource<A>,
    name: string
  ) => Effect.Effect<Option.Option<A>, ResourcesError>
  readonly list: <A extends KubeObject>(resource: KubeResource<A>) => Effect.Effect<ReadonlyArray<A>, ResourcesError>
  /** Create or change: what we said before and no longer say goes; fields and labels of others stay (KEP-555). */
  readonly apply: <A extends KubeObject>(
    resource: KubeResource<A>,
    manifest: ResourceManifest
  ) => Effect.Effect<A, ResourcesError>
  /** Replace our part of the status. None when the object is gone. */
  readonly applyStatus: <A extends KubeObject>(
    resource: KubeResource<A>,
    name: string,
    status: unknown
  ) => Effect.Effect<Option.Option<A>, ResourcesError>
  /** False when there was none. */
  readonly remove: (resource: KubeResource<KubeObject>, name: string) => Effect.Effect<boolean, ResourcesError>
  /** All objects now (`Synced`), then every change. Survives what may pass; fails with what may not. */
  readonly reflect: <A extends KubeObject>(
    resource: KubeResource<A>
  ) => Stream.Stream<ReflectorEvent<A>, ResourcesError>
}>()("kubeprober/master/Resources") {}
