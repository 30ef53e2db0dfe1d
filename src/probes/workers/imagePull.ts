/** How long a pod's image took to be pulled, as its kubelet's events tell: what a registry costs is not the cluster's doing. */
import { Duration, Effect } from "effect"
import { Kube } from "../../infra/kube/Kube.ts"
import { Event } from "../../infra/kube/resources/events.ts"

export interface ImagePull {
  /** Zero where the image was there, or where the events are not. */
  readonly took: Duration.Duration
  /** It began and has neither ended nor failed. */
  readonly goesOn: boolean
}

/** Of Go's `Duration.String`, such as `1m2.5s` and `430ms`. */
const UNITS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1, "µs": 0.001, us: 0.001 }

const goDuration = (text: string): Duration.Duration =>
  Duration.millis(
    [...text.matchAll(/(\d+(?:\.\d+)?)(h|ms|m|s|µs|us)/gu)].reduce(
      (sum, [, amount, unit = ""]) => sum + Number(amount) * (UNITS[unit] ?? 0),
      0
    )
  )

/** Events of one pod, in any order (kubelet pkg/kubelet/images/image_manager.go, pkg/kubelet/events/event.go). */
export const imagePullOf = (events: ReadonlyArray<Pick<Event, "reason" | "note">>): ImagePull => {
  const of = (reason: string) => events.filter((event) => event.reason === reason)
  const notes = of("Pulled").map(({ note = "" }) =>
    /\(([^ ]+) including waiting\)/u.exec(note)?.[1] ?? /^Successfully pulled image .* in ([^ ]+)/u.exec(note)?.[1]
  )
  const longest = notes.map((note) => note === undefined ? Duration.zero : goDuration(note))
    .reduce((a, b) => Duration.max(a, b), Duration.zero)
  return { took: longest, goesOn: of("Pulling").length > 0 && of("Pulled").length === 0 && of("Failed").length === 0 }
}

/** Asks for the events of a pod. Events are a courtesy: where they cannot be read, nothing is known. */
export const imagePull = Effect.fnUntraced(function*(pod: { readonly name: string; readonly namespace: string }) {
  const kube = yield* Kube
  return yield* kube.list(Event, {
    namespace: pod.namespace,
    fieldSelector: `regarding.name=${pod.name}`,
    maximum: 100
  }).pipe(
    Effect.map(({ items }) => imagePullOf(items)),
    Effect.orElseSucceed((): ImagePull => ({ took: Duration.zero, goesOn: false }))
  )
})
