/**
 * One cluster's Kubernetes API, as the rest of the program sees it.
 *
 * Every method is typed by a {@link KubeResource}, decodes only the fields that resource names, and fails with
 * {@link KubeError}. No method retries: retry is the caller's policy. Requests of one layer share one connection pool.
 */
import { Context, type Duration, type Effect, type Stream } from "effect"
import type { KubeError } from "./KubeError.ts"
import type { KubeObject, KubeResource } from "./KubeResource.ts"

/** Which objects of a collection. All namespaces when `namespace` is absent. */
export interface Selection {
  readonly namespace?: string | undefined
  readonly labelSelector?: string | undefined
  readonly fieldSelector?: string | undefined
}

/** A collection as read: all pages, up to the asked maximum. */
export interface KubeList<A> {
  readonly items: ReadonlyArray<A>
  readonly resourceVersion: string
  /**
   * How many objects were left unread because `maximum` was reached; 0 when this is all. With a selector the server does not
   * count them: then 1 stands for one or more.
   */
  readonly remaining: number
}

/** One object. `namespace` for namespaced kinds. */
export interface ObjectRef {
  readonly name: string
  readonly namespace?: string | undefined
}

/** Any manifest to send. `apiVersion` and `kind` are added from the resource when absent. */
export interface Manifest {
  readonly metadata: {
    readonly name?: string
    readonly generateName?: string
    readonly namespace?: string
    readonly labels?: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
    readonly [key: string]: unknown
  }
  readonly [key: string]: unknown
}

/** Of a write. Every write names `kubeprober` as its field manager. */
export interface WriteOptions {
  /** `dryRun=All`: full admission, nothing stored. */
  readonly dryRun?: boolean | undefined
}

export interface DeleteOptions {
  readonly propagationPolicy?: "Background" | "Foreground" | "Orphan" | undefined
  readonly gracePeriodSeconds?: number | undefined
  /** Delete only this very object, not a successor of the same name. */
  readonly uid?: string | undefined
  readonly dryRun?: boolean | undefined
}

export interface LogOptions {
  readonly container?: string | undefined
  readonly previous?: boolean | undefined
  readonly tailLines?: number | undefined
  readonly limitBytes?: number | undefined
  readonly follow?: boolean | undefined
}

/** What a reflector tells: a whole set after each (re)list, then single changes. */
export type ReflectorEvent<A> =
  | { readonly _tag: "Synced"; readonly items: ReadonlyArray<A> }
  | { readonly _tag: "Added" | "Modified" | "Deleted"; readonly object: A }

/** What a plain watch tells, from one resource version on, until the server or the caller ends it. */
export type WatchEvent<A> = { readonly _tag: "Added" | "Modified" | "Deleted"; readonly object: A }

/** An answer of a path outside the object API (`/readyz`, `/version`, `/metrics`). */
export interface RawResponse {
  readonly status: number
  readonly body: string
  /** Warnings the server attached (RFC 9110 section 5.5 `Warning` headers), decoded. */
  readonly warnings: ReadonlyArray<string>
}

/** The API of one cluster. Provided by `src/infra/kube/http`, in memory by nobody: tests use real API servers. */
export class Kube extends Context.Service<Kube, {
  /** The name people know this cluster by (a context name, a Cluster resource's name). */
  readonly cluster: string
  /** The server's URL, without credentials. */
  readonly server: string
  readonly get: <A extends KubeObject>(resource: KubeResource<A>, ref: ObjectRef) => Effect.Effect<A, KubeError>
  /**
   * Reads pages of 500 until done or until `maximum` items (default 100,000) are read. When the server forgets where a
   * page ended (410) it starts again, twice at most.
   */
  readonly list: <A extends KubeObject>(
    resource: KubeResource<A>,
    selection?: Selection & { readonly maximum?: number | undefined }
  ) => Effect.Effect<KubeList<A>, KubeError>
  readonly create: <A extends KubeObject>(
    resource: KubeResource<A>,
    manifest: Manifest,
    /** `subresource` posts to `metadata.name`'s subresource, such as `eviction` of a pod. */
    options?: WriteOptions & { readonly subresource?: string | undefined }
  ) => Effect.Effect<A, KubeError>
  /** Server-side apply with field manager `kubeprober` (KEP-555). `force` takes fields over from other managers. */
  readonly apply: <A extends KubeObject>(
    resource: KubeResource<A>,
    manifest: Manifest,
    options?: WriteOptions & { readonly force?: boolean | undefined }
  ) => Effect.Effect<A, KubeError>
  /** Server-side apply to the status subresource. */
  readonly applyStatus: <A extends KubeObject>(
    resource: KubeResource<A>,
    manifest: Manifest,
    options?: WriteOptions & { readonly force?: boolean | undefined }
  ) => Effect.Effect<A, KubeError>
  /** JSON merge patch (RFC 7396). */
  readonly patch: <A extends KubeObject>(
    resource: KubeResource<A>,
    ref: ObjectRef,
    patch: Readonly<Record<string, unknown>>,
    options?: WriteOptions & { readonly subresource?: string | undefined }
  ) => Effect.Effect<A, KubeError>
  /** Replace as read: fails with `Conflict` when `metadata.resourceVersion` is old. */
  readonly replace: <A extends KubeObject>(
    resource: KubeResource<A>,
    manifest: Manifest,
    options?: WriteOptions
  ) => Effect.Effect<A, KubeError>
  /** Succeeds when the deletion is accepted; finalizers may keep the object a while. */
  readonly delete: <A extends KubeObject>(
    resource: KubeResource<A>,
    ref: ObjectRef,
    options?: DeleteOptions
  ) => Effect.Effect<void, KubeError>
  /** One watch from `resourceVersion`; ends when the server ends it. `Expired` when the version is too old. */
  readonly watch: <A extends KubeObject>(
    resource: KubeResource<A>,
    selection: Selection & { readonly resourceVersion: string; readonly timeout?: Duration.Input | undefined }
  ) => Stream.Stream<WatchEvent<A>, KubeError>
  /**
   * List, then watch for ever: resumes from bookmarks, relists on 410, backs off with jitter on everything transient,
   * and treats silence beyond the server's own timeout as a cut. Fails only with what waiting cannot mend
   * (Forbidden, Unauthorized, NotFound of the kind, Undecodable, also for more than 100,000 objects): at once before the
   * first `Synced`, later only when it goes on for a minute, because a starting API server also answers 403 and 404 for a
   * while. Credentials that cannot be had fail it before the first `Synced` alone.
   */
  readonly reflect: <A extends KubeObject>(
    resource: KubeResource<A>,
    selection?: Selection
  ) => Stream.Stream<ReflectorEvent<A>, KubeError>
  /** Lines, without their ends; a line beyond 256 KiB comes in parts. With `follow`, until the container ends. */
  readonly logs: (pod: ObjectRef, options?: LogOptions) => Stream.Stream<string, KubeError>
  /**
   * GET of any path; any HTTP status is an answer, only no answer is an error. `server` asks another replica
   * (`https://10.0.0.2:6443`) with the same credentials, verified by the same name; a cluster whose certificates are not
   * verified (`insecure-skip-tls-verify`) refuses that as `Unreachable` (`tls`). Bodies beyond `maximumBytes`
   * (default 16 MiB) are `Undecodable`. `atOnce` waits for no other request of ours: for few and small ones that tell how
   * the server is. `alone` also takes a connection of its own, as a client does that is new: one that stands knows nothing of
   * a certificate that has run out since, or of a server that takes no more connections.
   */
  readonly raw: (
    path: string,
    options?: {
      readonly server?: string | undefined
      readonly maximumBytes?: number | undefined
      readonly atOnce?: boolean | undefined
      readonly alone?: boolean | undefined
    }
  ) => Effect.Effect<RawResponse, KubeError>
  /** PEM of the client certificate that requests are made with now; none when they carry a token. */
  readonly clientCertificate: Effect.Effect<string | undefined>
  /** HTTP requests sent so far by this layer, retries and watch connections included. */
  readonly requests: Effect.Effect<number>
}>()("kubeprober/infra/kube/Kube") {}
