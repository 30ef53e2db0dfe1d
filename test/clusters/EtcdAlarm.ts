/** etcd's own alarms, raised and disarmed in a local cluster through etcd's JSON gateway. */
import { NodeServices } from "@effect/platform-node"
import { Effect, FileSystem, Option, Path } from "effect"
import * as Https from "node:https"
import type { LocalCluster } from "../../src/local/LocalCluster.ts"

/**
 * Raises NOSPACE, as etcd does when its quota is used up, until the scope ends. From then on etcd refuses every write.
 */
export const noSpace = (cluster: LocalCluster["Service"]) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const folder = path.join(path.dirname(cluster.kubeconfigPath), "control-plane")
    const [ca, cert, key] = yield* Effect.forEach(
      ["ca.crt", "etcd.crt", "etcd.key"],
      (file) => fs.readFileString(path.join(folder, file))
    )
    const pid = Option.getOrThrow(yield* cluster.components.etcd.pid)
    const flags = (yield* fs.readFileString(`/proc/${pid}/cmdline`)).split("\0")
    const url = flags.find((flag) => flag.startsWith("--listen-client-urls="))?.split("=")[1]
    const alarm = (action: "ACTIVATE" | "DEACTIVATE") =>
      Effect.callback<void>((resume) => {
        const request = Https.request(
          `${url}/v3/maintenance/alarm`,
          { method: "POST", ca, cert, key, agent: false },
          (response) => {
            response.resume()
            resume(
              response.statusCode === 200 ? Effect.void : Effect.die(`etcd answered ${response.statusCode}`)
            )
          }
        )
        request.on("error", (error) => resume(Effect.die(error)))
        request.end(JSON.stringify({ action, memberID: "0", alarm: "NOSPACE" }))
      })
    yield* Effect.acquireRelease(alarm("ACTIVATE"), () => alarm("DEACTIVATE"))
  }).pipe(Effect.provide(NodeServices.layer), Effect.orDie)
