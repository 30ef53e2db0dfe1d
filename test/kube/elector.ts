/** A candidate in a process of its own, so that it can be killed: prints `candidate`, then `leading`. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect } from "effect"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import * as KubeConfigFile from "../../src/infra/kube/KubeConfigFile.ts"
import { whileLeading } from "../../src/infra/kube/LeaderElection.ts"

const [kubeconfig = "", identity = ""] = process.argv.slice(2)

NodeRuntime.runMain(
  Effect.gen(function*() {
    const config = yield* KubeConfigFile.load({ path: kubeconfig })
    const connection = yield* config.connection()
    yield* Console.log("candidate")
    return yield* whileLeading(
      {
        lease: { name: "elected", namespace: "default" },
        identity,
        leaseDuration: "3 seconds",
        renewDeadline: "2 seconds",
        retryPeriod: "500 millis"
      },
      Effect.andThen(Console.log("leading"), Effect.never)
    ).pipe(Effect.provide(KubeHttp.layer(connection)))
  }).pipe(Effect.provide(NodeServices.layer))
)
