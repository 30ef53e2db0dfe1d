/** `node.runtime`: do kubelet and kube-proxy say that they are well, and which of a node's daemons run? */
import { Effect, Option, Schema } from "effect"
import { quote } from "../../../domain/Redaction.ts"
import { HttpCall } from "../../../infra/net/HttpCall.ts"
import * as Task from "../Task.ts"
import { Process, processesNamed } from "./processes.ts"

/** The kubelet of its own, or within a program that is the whole of a distribution (k3s, MicroK8s). */
export const KUBELETS: ReadonlySet<string> = new Set(["kubelet", "k3s", "k3s-server", "k3s-agent", "kubelite"])

export const RUNTIMES: ReadonlySet<string> = new Set(["containerd", "crio", "dockerd"])

/** Replaces kube-proxy with programs in the kernel. */
export const KUBE_PROXY = "kube-proxy"
export const EBPF_AGENT = "cilium-agent"

const NAMES: ReadonlySet<string> = new Set([...KUBELETS, ...RUNTIMES, KUBE_PROXY, EBPF_AGENT])

const PORTS = { kubelet: 10_248, kubeProxy: 10_256 }

/** Tries in a run, over ten seconds: as many in a row that fail are a fault. A restart by systemd takes a second or two. */
export const TRIES = 3
const SPACED = "5 seconds"
const PATIENCE = "3 seconds"

/** `refused`: nobody listens. `silent`: someone does and does not answer. `unwell`: it says so. */
const Try = Schema.Union([
  Schema.Struct({ how: Schema.Literal("well") }),
  Schema.Struct({ how: Schema.Literals(["refused", "silent", "unwell"]), detail: Schema.String })
])
export type Try = typeof Try.Type

const Output = Schema.Struct({
  /** Ends with the first that is well. */
  kubelet: Schema.Array(Try),
  kubeProxy: Schema.Array(Try),
  /** At each look, in order; absent where processes cannot be seen. */
  processes: Schema.optionalKey(Schema.Array(Schema.Array(Process)))
})
export type NodeRuntime = typeof Output.Type

const ask = Effect.fnUntraced(function*(port: number, path: string) {
  const http = yield* HttpCall
  return yield* http.send({
    method: "GET",
    url: new URL(`http://127.0.0.1:${port}${path}`),
    redirects: 0,
    timeout: PATIENCE,
    maximumBody: 512
  }).pipe(Effect.match({
    onSuccess: ({ body, status }) =>
      status === 200 ? { status, said: { how: "well" } satisfies Try as Try } : {
        status,
        said: { how: "unwell", detail: `it answers ${status}: ${quote(body, 200)}` } satisfies Try as Try
      },
    onFailure: ({ kind, message }) => ({
      status: 0,
      said: { how: kind === "refused" ? "refused" : "silent", detail: message } satisfies Try as Try
    })
  }))
})

/** As often as it takes, or {@link TRIES} times; not again after one that says that to wait is in vain. */
const tries = <A, R, R2 = never>(
  look: Effect.Effect<A, never, R>,
  isWell: (seen: A) => boolean,
  isVain: (seen: A) => Effect.Effect<boolean, never, R2> = () => Effect.succeed(false)
) =>
  Effect.gen(function*() {
    const seen: Array<A> = []
    for (;;) {
      const now = yield* look
      seen.push(now)
      if (isWell(now) || seen.length >= TRIES || (yield* isVain(now))) return seen
      yield* Effect.sleep(SPACED)
    }
  })

const isWell = ({ how }: Try): boolean => how === "well"

export const isRuntimeUp = ({ name, inPod, state }: Process): boolean =>
  RUNTIMES.has(name) && !inPod && state !== "T" && state !== "t"

export const nodeRuntime = Task.make("node.runtime", {
  input: Schema.Struct({
    /** Whether one that refuses is tried again although no process of it is seen; true when absent. */
    expectsKubeProxy: Schema.optionalKey(Schema.Boolean)
  }),
  output: Output,
  // Three tries of 3 s each, with 5 s between them, and a look at the processes.
  timeout: "25 seconds",
  run: Effect.fnUntraced(function*({ expectsKubeProxy = true }) {
    const kubelet = Effect.map(ask(PORTS.kubelet, "/healthz"), ({ said }) => said)
    // Releases before 1.28 have /healthz alone, which also fails while the node is being removed.
    const kubeProxy = Effect.flatMap(
      ask(PORTS.kubeProxy, "/livez"),
      ({ said, status }) =>
        status === 404 ? Effect.map(ask(PORTS.kubeProxy, "/healthz"), ({ said }) => said) : Effect.succeed(said)
    )
    const processes = Effect.orElseSucceed(processesNamed(NAMES), () => Option.none<ReadonlyArray<Process>>())
    const isProxySeen = Effect.map(
      processes,
      Option.match({ onNone: () => true, onSome: (all) => all.some(({ name }) => name === KUBE_PROXY) })
    )
    /** Where nothing of it is to be seen nobody will answer five seconds later either. */
    const isVain = ({ how }: Try) =>
      expectsKubeProxy || how !== "refused" ? Effect.succeed(false) : Effect.map(isProxySeen, (isSeen) => !isSeen)
    const seen = yield* Effect.all({
      kubelet: tries(kubelet, isWell),
      kubeProxy: tries(kubeProxy, isWell, isVain),
      looks: tries(processes, Option.match({ onNone: () => true, onSome: (all) => all.some(isRuntimeUp) }))
    }, { concurrency: 3 })
    // What refused may have been started or ended meanwhile.
    const isAllWell = [seen.kubelet, seen.kubeProxy].every((all) => all.some(isWell))
    const looks = Option.all(isAllWell ? seen.looks : [...seen.looks, yield* processes])
    return {
      kubelet: seen.kubelet,
      kubeProxy: seen.kubeProxy,
      ...Option.match(looks, { onNone: () => ({}), onSome: (processes) => ({ processes }) })
    }
  })
})
