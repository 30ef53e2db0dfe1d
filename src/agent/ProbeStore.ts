/**
 * The Probes this cluster is to run, and where they are kept: as resources in the cluster (operator, standalone), or in
 * memory, where nothing of ours may be installed.
 */
import {
  Context,
  Data,
  Effect,
  Layer,
  Option,
  Ref,
  Result,
  Schedule,
  Schema,
  Semaphore,
  Stream,
  SubscriptionRef
} from "effect"
import { createHash } from "node:crypto"
import {
  type ContentHash,
  ContentHash as ContentHashSchema,
  type DesiredProbe,
  type DesiredSet,
  canonical
} from "../domain/DesiredSet.ts"
import { ProbeSpec } from "../domain/kinds/Probe.ts"
import * as Policy from "../domain/Policy.ts"
import { HashMismatch, type RefusedProbe } from "../domain/rpc/Control.ts"
import { Kube } from "../infra/kube/Kube.ts"
import type { KubeError } from "../infra/kube/KubeError.ts"
import { ConfigMap } from "../infra/kube/resources/core.ts"
import { UnreadProbe } from "../infra/kube/resources/kubeprober.ts"
import type { AnyProbe } from "../probes/Probe.ts"

/** The set could not be kept. */
export class ProbeStoreError extends Data.TaggedError("ProbeStoreError")<{ readonly detail: string }> {
  override get message(): string {
    return `the desired Probes could not be kept: ${this.detail}`
  }
}

/** A Probe that is here. */
export interface StoredProbe {
  readonly namespace: string
  readonly name: string
  readonly spec: ProbeSpec
  /** Of the resource, for its ProbeStatus and Jobs to be owned by it. */
  readonly uid?: string
  readonly generation?: number
  /** Why the spec cannot be followed at all; `spec` is empty then. */
  readonly fault?: string
}

/** Names a Probe in its cluster. */
export const keyOf = ({ name, namespace }: { readonly namespace: string; readonly name: string }): string =>
  `${namespace}/${name}`

/** Tells two specs apart, over restarts and whatever the order of their fields. */
export const digestOf = ({ name, namespace, spec }: Pick<StoredProbe, "name" | "namespace" | "spec">): string =>
  sha256(canonical({ probes: [{ namespace, name, spec }], extraInfo: {} }))

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex")

/** On Probes that came from the master. Others are people's own, and are left alone. */
export const DESIRED_LABELS = { "app.kubernetes.io/managed-by": "kubeprober", "kubeprober.io/desired": "true" } as const
const isDesired = ({ metadata: { labels } }: UnreadProbe): boolean =>
  Object.entries(DESIRED_LABELS).every(([name, value]) => labels?.[name] === value)

/** Where the hash of the applied set is written down, for the agent that comes after this one. */
export const APPLIED_CONFIG_MAP = "kubeprober-agent"
export const APPLIED_ANNOTATION = "kubeprober.io/applied"

/** The original's ConfigMap that probers take their environment from. */
export const EXTRA_CONFIG = "extra-config"

/** Requests at a time while converging. */
const CONCURRENCY = 4

/** After the API server refused to show Probes at all: its kind may be installed, or a right granted. */
const refusedRetries = Schedule.min([Schedule.exponential("1 second"), Schedule.spaced("30 seconds")]).pipe(
  Schedule.jittered
)

/** Why a Probe cannot run here at all, or nothing. Checks of it that are not known are told by its runs. */
const refusal = (
  { spec }: DesiredProbe,
  available: ReadonlyArray<AnyProbe>
): string | undefined => {
  const policy = Policy.schedule(spec.policy ?? {})
  if (Result.isFailure(policy)) return policy.failure.message
  const uses = (spec.checks ?? []).map(({ use }) => use)
  const unknown = uses.filter((use) => !available.some(({ id }) => id === use))
  return uses.length > 0 && unknown.length === uses.length
    ? `not in the agent's catalogue: ${
      [...new Set(unknown)].join(", ")
    }; update the agent or load the module that has them`
    : undefined
}

const refuse = ({ name, namespace }: DesiredProbe, reason: string): RefusedProbe => ({
  probe: { namespace, name },
  reason
})

const verify = (hash: ContentHash, desired: DesiredSet) =>
  Effect.suspend(() => {
    const computed = sha256(canonical(desired))
    return computed === hash ? Effect.void : Effect.fail(new HashMismatch({ announced: hash, computed }))
  })

/** Those that can run, and why the others cannot. */
const sort = (probes: ReadonlyArray<DesiredProbe>, why: (probe: DesiredProbe) => string | undefined) => {
  const refused: Array<RefusedProbe> = []
  const runnable: Array<DesiredProbe> = []
  for (const probe of probes) {
    const reason = why(probe)
    if (reason === undefined) runnable.push(probe)
    else refused.push(refuse(probe, reason))
  }
  return { refused, runnable }
}

export interface ProbeStoreOptions {
  /** The catalogue and the user's own modules: what checks may use. */
  readonly available: ReadonlyArray<AnyProbe>
}

export class ProbeStore extends Context.Service<ProbeStore, {
  /** Hash of the desired set that is here; none before the first. */
  readonly applied: Effect.Effect<Option.Option<ContentHash>>
  /** Converges to the set; Probes a person made here stay. */
  readonly apply: (
    hash: ContentHash,
    desired: DesiredSet
  ) => Effect.Effect<ReadonlyArray<RefusedProbe>, HashMismatch | ProbeStoreError>
  /** The Probes now, and after every change. Says nothing until they are known. */
  readonly probes: Stream.Stream<ReadonlyArray<StoredProbe>>
}>()("kubeprober/agent/ProbeStore") {
  /**
   * Probes as resources of one namespace. Those of the desired set carry {@link DESIRED_LABELS}. Needs every verb on Probes
   * and ConfigMaps there.
   */
  static readonly layerKubernetes = (
    options: ProbeStoreOptions & { readonly namespace: string }
  ): Layer.Layer<ProbeStore, never, Kube> => Layer.effect(ProbeStore, makeKubernetes(options))

  /** Nothing is written to the cluster; the set is gone with the process, and not known before the master gives it again. */
  static readonly layerMemory = (options: ProbeStoreOptions): Layer.Layer<ProbeStore> =>
    Layer.effect(ProbeStore, makeMemory(options))
}

const known = (ref: SubscriptionRef.SubscriptionRef<ReadonlyArray<StoredProbe> | undefined>) =>
  SubscriptionRef.changes(ref).pipe(
    Stream.filter((probes): probes is ReadonlyArray<StoredProbe> => probes !== undefined)
  )

const makeMemory = Effect.fnUntraced(function*({ available }: ProbeStoreOptions) {
  const applied = yield* Ref.make(Option.none<ContentHash>())
  const probes = yield* SubscriptionRef.make<ReadonlyArray<StoredProbe> | undefined>(undefined)
  return ProbeStore.of({
    applied: Ref.get(applied),
    apply: Effect.fn("ProbeStore.apply")(function*(hash, desired) {
      yield* verify(hash, desired)
      const { refused, runnable } = sort(desired.probes, (probe) => refusal(probe, available))
      yield* SubscriptionRef.set(probes, runnable)
      yield* Ref.set(applied, Option.some(hash))
      return refused
    }),
    probes: known(probes)
  })
})

const decodeSpec = Schema.decodeUnknownResult(ProbeSpec)
const encodeSpec = Schema.encodeSync(ProbeSpec)

const storedOf = ({ metadata, spec }: UnreadProbe): StoredProbe => {
  const decoded = decodeSpec(spec)
  return {
    namespace: metadata.namespace ?? "",
    name: metadata.name ?? "",
    ...(Result.isSuccess(decoded)
      ? { spec: decoded.success }
      : { spec: {}, fault: `its spec is not valid: ${decoded.failure.message}` }),
    ...(metadata.uid === undefined ? {} : { uid: metadata.uid }),
    ...(metadata.generation === undefined ? {} : { generation: metadata.generation })
  }
}

const readHash = Schema.decodeUnknownOption(ContentHashSchema)

const makeKubernetes = Effect.fnUntraced(
  function*({ available, namespace }: ProbeStoreOptions & { readonly namespace: string }) {
    const kube = yield* Kube
    const converging = yield* Semaphore.make(1)
    const probes = yield* SubscriptionRef.make<ReadonlyArray<StoredProbe> | undefined>(undefined)

    const recorded = kube.get(ConfigMap, { name: APPLIED_CONFIG_MAP, namespace }).pipe(
      Effect.map(({ metadata }) => readHash(metadata.annotations?.[APPLIED_ANNOTATION])),
      Effect.timeout("5 seconds"),
      // Then the master gives the set once more.
      Effect.orElseSucceed(() => Option.none<ContentHash>())
    )
    const applied = yield* Ref.make(yield* recorded)

    const failed = (error: KubeError) => new ProbeStoreError({ detail: error.message })

    /** `isThere`: in another form, which goes on when this one is not let in. */
    const applyProbe = (probe: DesiredProbe, isThere: boolean) =>
      kube.apply(UnreadProbe, {
        metadata: { name: probe.name, namespace, labels: DESIRED_LABELS },
        spec: encodeSpec(probe.spec)
      }, { force: true }).pipe(
        Effect.as(Option.none<RefusedProbe>()),
        Effect.catchIf(
          ({ reason }) => reason._tag === "Invalid" || reason._tag === "AdmissionDenied",
          (error) =>
            Effect.succeedSome(refuse(probe, isThere ? `${error.message}; its earlier form goes on` : error.message))
        )
      )

    const converge = Effect.fnUntraced(function*(hash: ContentHash, desired: DesiredSet) {
      const { items } = yield* kube.list(UnreadProbe, { namespace })
      const ours = items.filter(isDesired)
      const foreign = items.filter((item) => !isDesired(item))
      const theirs = new Set(foreign.map(({ metadata }) => metadata.name))
      const here = new Map(ours.map((item) => [item.metadata.name, storedOf(item)]))
      const isHere = (probe: DesiredProbe) => {
        const found = here.get(probe.name)
        return found !== undefined && found.fault === undefined && digestOf(found) === digestOf(probe)
      }
      const { refused, runnable } = sort(desired.probes, (probe) =>
        probe.namespace !== namespace
          ? `this agent keeps Probes in namespace ${namespace} alone; name that one in the Cluster's probeNamespaces`
          : theirs.has(probe.name)
          ? `a Probe ${namespace}/${probe.name} was made here by someone else; rename one of the two`
          : refusal(probe, available))
      yield* kube.apply(ConfigMap, { metadata: { name: EXTRA_CONFIG, namespace }, data: desired.extraInfo }, {
        force: true
      })
      const denied = yield* Effect.forEach(
        runnable.filter((probe) => !isHere(probe)),
        (probe) => applyProbe(probe, here.has(probe.name)),
        { concurrency: CONCURRENCY }
      )
      const staying = new Set(runnable.map(({ name }) => name))
      yield* Effect.forEach(
        ours.filter(({ metadata }) => !staying.has(metadata.name ?? "")),
        ({ metadata }) =>
          kube.delete(UnreadProbe, { name: metadata.name ?? "", namespace }, {
            propagationPolicy: "Background",
            ...(metadata.uid === undefined ? {} : { uid: metadata.uid })
          }).pipe(
            Effect.catchIf(({ reason }) => reason._tag === "NotFound" || reason._tag === "Conflict", () => Effect.void)
          ),
        { concurrency: CONCURRENCY, discard: true }
      )
      yield* kube.apply(ConfigMap, {
        metadata: { name: APPLIED_CONFIG_MAP, namespace, annotations: { [APPLIED_ANNOTATION]: hash } }
      }, { force: true })
      yield* Ref.set(applied, Option.some(hash))
      return [...refused, ...denied.flatMap(Option.toArray)]
    })

    const follow = Effect.suspend(() => {
      const objects = new Map<string, StoredProbe>()
      return kube.reflect(UnreadProbe, { namespace }).pipe(
        Stream.runForEach((event) => {
          if (event._tag === "Synced") {
            objects.clear()
            for (const item of event.items) objects.set(item.metadata.name ?? "", storedOf(item))
          } else if (event._tag === "Deleted" || event.object.metadata.deletionTimestamp !== undefined) {
            objects.delete(event.object.metadata.name ?? "")
          } else {
            objects.set(event.object.metadata.name ?? "", storedOf(event.object))
          }
          return SubscriptionRef.set(probes, [...objects.values()])
        })
      )
    })
    yield* follow.pipe(
      Effect.tapError((error) => Effect.logWarning(`Probes cannot be read: ${error.message}`)),
      Effect.retry(refusedRetries),
      Effect.ignore,
      Effect.forkScoped
    )

    return ProbeStore.of({
      applied: Ref.get(applied),
      apply: Effect.fn("ProbeStore.apply")(function*(hash, desired) {
        yield* verify(hash, desired)
        return yield* converging.withPermits(1)(Effect.mapError(converge(hash, desired), failed))
      }),
      probes: known(probes)
    })
  }
)
