/**
 * A probe run in a process of its own, for tests to kill: what dies by SIGKILL cleans nothing up.
 */
import { Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import type { LocalCluster } from "../../src/local/LocalCluster.ts"
import type { AnyProbe } from "../../src/probes/Probe.ts"
import { bundled } from "../bundled.ts"

export interface ProbeProcess {
  /** SIGKILL; returns when the process is gone. True when it was still running. */
  readonly kill: Effect.Effect<boolean>
  /** Waits for its end; whether it was by SIGKILL. */
  readonly wasKilled: Effect.Effect<boolean>
}

const main = await bundled("probe-process")

/** Start one run of a probe of the catalogue, as the administrator. Killed with the scope at the latest. */
export const start = (
  cluster: Pick<LocalCluster["Service"], "name" | "server" | "caCertPem" | "adminCertPem" | "adminKeyPem">,
  probe: Pick<AnyProbe, "id">,
  options: {
    readonly config?: Readonly<Record<string, unknown>>
    readonly runId: string
    readonly namespace: string
    /** From the start of the run; what it creates may be swept after that. */
    readonly expiresInMillis: number
    /** For worker pods. */
    readonly workerImage?: string
    /** It kills itself right after the `at`th object that it has made, or right before the `at`th that it would delete. */
    readonly die?: { readonly boundary: "create" | "delete"; readonly at: number }
  }
): Effect.Effect<ProbeProcess, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync((): ProbeProcess => {
      const child = spawn(process.execPath, [main], { stdio: ["pipe", "inherit", "inherit"] })
      const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()))
      child.stdin.end(JSON.stringify({
        cluster: cluster.name,
        server: cluster.server,
        ca: cluster.caCertPem,
        cert: cluster.adminCertPem,
        key: cluster.adminKeyPem,
        probe: probe.id,
        config: options.config ?? {},
        runId: options.runId,
        namespace: options.namespace,
        expiresInMillis: options.expiresInMillis,
        ...(options.workerImage === undefined ? {} : { workerImage: options.workerImage }),
        ...(options.die === undefined ? {} : { die: options.die })
      }))
      return {
        wasKilled: Effect.map(Effect.promise(() => exited), () => child.signalCode === "SIGKILL"),
        kill: Effect.suspend(() => {
          const running = child.exitCode === null && child.signalCode === null
          child.kill("SIGKILL")
          return Effect.as(Effect.promise(() => exited), running)
        })
      }
    }),
    (child) => child.kill
  )
