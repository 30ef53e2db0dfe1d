/** A probe run once against an HTTP client, with nothing else around it: for answers no real API server gives on demand. */
import { DateTime, Effect, Layer, Schema } from "effect"
import type { HttpClient } from "effect/http"
import * as LocalWorld from "../../src/agent/LocalWorld.ts"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import * as KubeTransport from "../../src/infra/kube/http/KubeTransport.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import type { AnyProbe } from "../../src/probes/Probe.ts"
import { RunContext } from "../../src/probes/RunContext.ts"
import { Scratch } from "../../src/probes/Scratch.ts"
import { Nodes } from "../../src/probes/workers/Nodes.ts"
import { Workers } from "../../src/probes/workers/Workers.ts"

export const againstClient = Effect.fnUntraced(function*(
  probe: AnyProbe,
  client: HttpClient.HttpClient,
  options: { readonly server?: string; readonly with?: object } = {}
) {
  const transport = yield* KubeTransport.fromHttpClient(client)
  const server = options.server ?? "https://test.invalid"
  const kube = yield* KubeHttp.fromTransport({ cluster: "test", server, transport })
  const config = yield* Schema.decodeUnknownEffect(probe.config)(options.with ?? {})
  const expiresAt = DateTime.makeUnsafe("2026-01-01T12:00:00Z")
  return yield* probe.run(config).pipe(
    Effect.provide([
      Layer.succeed(Kube, kube),
      Layer.succeed(RunContext, { runId: "test", probeNamespace: "default", expiresAt }),
      Layer.mock(Scratch)({}),
      Layer.mock(Workers)({}),
      Layer.mock(Nodes)({})
    ]),
    Effect.provideContext(LocalWorld.context)
  )
})
