/**
 * Telling people what happened to an object, where they look: `kubectl describe` and `kubectl events`.
 *
 * Written as events.k8s.io/v1 rather than core v1: both are the same stored objects, but only this one has `series`, so that
 * a repetition is one small patch of a known object, and names what was done (`action`) and by which instance.
 */
import { Clock, Context, DateTime, Effect, Layer, Random } from "effect"
import { Kube } from "./Kube.ts"
import { type KubeObject, type KubeResource, apiVersion, formatMicroTime } from "./KubeResource.ts"
import { Event } from "./resources/events.ts"

export interface Happening<A extends KubeObject = KubeObject> {
  readonly regarding: { readonly resource: KubeResource<A>; readonly object: A }
  readonly type: "Normal" | "Warning"
  /** Why, in upper camel case: `ProbeFailed`. */
  readonly reason: string
  /** What was done, in upper camel case: `Probe`. */
  readonly action: string
  /** For people; cut at 1,024 bytes, the server's limit. */
  readonly note: string
}

/** The series of an event ends when it did not recur for this long (client-go tools/events, refreshTime is 6 min). */
const SERIES_WINDOW = 6 * 60_000
/** Repetitions of one event in a series are written at most this often. */
const SERIES_INTERVAL = 60_000
/** How many different events are remembered for recognizing repetitions. */
const REMEMBERED = 256
/** pkg/apis/core/validation/events.go: NoteLengthLimit, ReasonLengthLimit and ActionLengthLimit. */
const NOTE_LENGTH = 1_024

interface Remembered {
  readonly name: string
  readonly namespace: string
  readonly lastSeen: number
  readonly lastWritten: number
  readonly count: number
}

/** Records events; best effort, as everywhere in Kubernetes: a failure is logged and nothing else. */
export class KubeEvents extends Context.Service<KubeEvents, {
  readonly record: <A extends KubeObject>(happening: Happening<A>) => Effect.Effect<void>
}>()("kubeprober/infra/kube/KubeEvents") {
  /** `controller` is a qualified name (`kubeprober.io/agent`), `instance` this process (a pod's name). */
  static readonly layer = (options: { readonly controller: string; readonly instance: string }) =>
    Layer.effect(
      KubeEvents,
      Effect.gen(function*() {
        const kube = yield* Kube
        const remembered = new Map<string, Remembered>()

        const record = Effect.fn("KubeEvents.record")(function*<A extends KubeObject>(happening: Happening<A>) {
          const { object, resource } = happening.regarding
          const namespace = object.metadata.namespace ?? "default"
          const note = cut(happening.note)
          const key = [
            resource.kind,
            object.metadata.uid,
            namespace,
            object.metadata.name,
            happening.type,
            happening.reason,
            happening.action,
            note
          ].join("\0")
          const now = yield* Clock.currentTimeMillis
          const time = formatMicroTime(DateTime.makeUnsafe(now))
          const known = remembered.get(key)
          if (known !== undefined && now - known.lastSeen < SERIES_WINDOW) {
            const writes = now - known.lastWritten >= SERIES_INTERVAL || known.count === 1
            const count = known.count + 1
            remembered.set(key, { ...known, count, lastSeen: now, lastWritten: writes ? now : known.lastWritten })
            if (writes) {
              yield* kube.patch(Event, known, { series: { count, lastObservedTime: time } })
            }
            return
          }
          const created = yield* kube.create(Event, {
            metadata: {
              name: `${(object.metadata.name ?? resource.plural).slice(0, 200)}.${yield* suffix}`,
              namespace
            },
            type: happening.type,
            reason: happening.reason,
            action: happening.action,
            note,
            eventTime: time,
            reportingController: options.controller,
            reportingInstance: options.instance,
            regarding: {
              apiVersion: apiVersion(resource),
              kind: resource.kind,
              name: object.metadata.name,
              namespace: object.metadata.namespace,
              uid: object.metadata.uid
            }
          })
          remembered.delete(key)
          remembered.set(key, {
            name: created.metadata.name ?? "",
            namespace,
            lastSeen: now,
            lastWritten: now,
            count: 1
          })
          const oldest = remembered.keys().next()
          if (remembered.size > REMEMBERED && oldest.done !== true) remembered.delete(oldest.value)
        })

        return KubeEvents.of({
          record: (happening) =>
            Effect.catch(record(happening), (error) => Effect.logWarning("an event was not recorded", error.message))
        })
      })
    )
}

/** As client-go makes names of events unique, by 16 hexadecimal digits. */
const suffix = Effect.map(
  Effect.all([Random.nextIntBetween(0, 2 ** 32), Random.nextIntBetween(0, 2 ** 32)]),
  (parts) => parts.map((part) => part.toString(16).padStart(8, "0")).join("")
)

const cut = (note: string): string => {
  const bytes = Buffer.from(note, "utf8")
  return bytes.length <= NOTE_LENGTH
    ? note
    : `${bytes.subarray(0, NOTE_LENGTH - 6).toString("utf8").replace(/\uFFFD$/, "")}…`
}
