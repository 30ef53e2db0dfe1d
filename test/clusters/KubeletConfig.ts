/** A kubelet that is configured otherwise, as by a mistake on one node. */
import { Effect } from "effect"
import { parse, stringify } from "yaml"
import type { LocalNode } from "../../src/local/node/LocalNode.ts"

const FILE = "/etc/kubernetes/kubelet.yaml"

/** While the kubelet of a node has these settings of `KubeletConfiguration` in place of its own. It is started anew for it. */
export const withKubeletConfig =
  ({ exec, kubelet }: Pick<LocalNode, "exec" | "kubelet">, settings: Readonly<Record<string, unknown>>) =>
  <A, E, R>(use: Effect.Effect<A, E, R>) =>
    Effect.gen(function*() {
      const own = yield* exec(["cat", FILE])
      const restart = (text: string) =>
        exec(["sh", "-c", `cat > ${FILE}`], { stdin: text }).pipe(
          Effect.andThen(kubelet.stop),
          Effect.andThen(kubelet.start)
        )
      const changed: Readonly<Record<string, unknown>> = { ...parse(own), ...settings }
      return yield* Effect.acquireUseRelease(
        restart(stringify(changed)),
        () => use,
        () => Effect.orDie(restart(own))
      )
    })
