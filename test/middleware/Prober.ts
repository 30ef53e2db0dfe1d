/** Runs probes of middleware as an agent does; they ask no cluster, so there is none. */
import { NodeServices } from "@effect/platform-node"
import { DateTime, Effect, FileSystem, Path } from "effect"
import * as ProbeWorld from "../../src/agent/ProbeWorld.ts"
import * as Runner from "../../src/agent/Runner.ts"
import type { Report } from "../../src/domain/Report.ts"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import type { AnyProbe } from "../../src/probes/Probe.ts"

/** A folder as the kubelet mounts Secrets: `{ "shop-db": { password: "..." } }`. Removed with the scope. */
export const credentials = Effect.fnUntraced(
  function*(secrets: Readonly<Record<string, Readonly<Record<string, string>>>>) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const folder = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-credentials-" })
    for (const [name, data] of Object.entries(secrets)) {
      // The kubelet's layout: keys are links into a folder that is replaced as a whole.
      const version = path.join(folder, name, "..2026_01_01")
      yield* fs.makeDirectory(version, { recursive: true })
      yield* fs.symlink("..2026_01_01", path.join(folder, name, "..data"))
      for (const [key, value] of Object.entries(data)) {
        yield* fs.writeFileString(path.join(version, key), value)
        yield* fs.symlink(path.join("..data", key), path.join(folder, name, key))
      }
    }
    return folder
  },
  Effect.orDie,
  Effect.provide(NodeServices.layer)
)

export interface ProbeRun {
  readonly probe: AnyProbe
  readonly config: Readonly<Record<string, unknown>>
  /** Where credentials are. */
  readonly folder: string
}

/** One run, to its end. */
export const probe = Effect.fnUntraced(
  function*({ config, folder, probe }: ProbeRun) {
    const kube = yield* KubeHttp.make(
      KubeConnection.make({ cluster: "test", server: "https://127.0.0.1:1", identity: { tls: {} } })
    )
    const { report } = yield* Runner.run({ _tag: "Check", name: probe.id, probe, with: config }, {
      context: {
        runId: "test",
        probeNamespace: "default",
        expiresAt: DateTime.add(yield* DateTime.now, { minutes: 10 })
      },
      missing: [],
      world: ProbeWorld.make({ credentials: folder })
    }).pipe(Effect.provideService(Kube, kube))
    return report
  },
  Effect.scoped,
  Effect.orDie
)

/** As in `ERROR LINK_DOWN`, or `PASS`. */
export const verdict = (report: Report): string =>
  report.code === undefined ? report.status : `${report.status} ${report.code}`

/** Codes with the objects they are about. */
export const said = (report: Report): ReadonlyArray<string> =>
  report.findings.map(({ code, subject }) => `${code} ${subject?.name ?? ""}`)
