/** Probes made for tests of what runs them. */
import { Effect, Redacted } from "effect"
import * as KubeHttp from "../../src/infra/kube/http/KubeHttp.ts"
import { Kube } from "../../src/infra/kube/Kube.ts"
import * as KubeConnection from "../../src/infra/kube/KubeConnection.ts"
import * as Codes from "../../src/probes/Codes.ts"
import * as Probe from "../../src/probes/Probe.ts"

export const codes = Codes.make({
  BROKEN: Codes.error("It is broken.", "Mend it."),
  TIRED: Codes.warn("It is tired.", "Let it rest.")
})

/** A check that reads, needs nothing and takes ten seconds at most, unless told otherwise. */
export const check = <E>(
  id: string,
  run: Probe.ProbeOptions<{}, {}, E>["run"],
  options: Partial<Omit<Probe.ProbeOptions<{}, {}, E>, "run" | "config" | "codes">> = {}
): Probe.Check =>
  Probe.toCheck(Probe.make(id, {
    layer: "kubernetes",
    proves: "a test",
    writes: "nothing",
    needs: [],
    timeout: "10 seconds",
    ...options,
    codes,
    config: Probe.NoConfig,
    run
  }))

/** The real client of a server that is not there: port 1 refuses. */
export const withoutServer = Effect.provideServiceEffect(
  Kube,
  KubeHttp.make(KubeConnection.make({
    cluster: "nowhere",
    server: "https://127.0.0.1:1",
    identity: { tls: {}, authorization: Redacted.make("Bearer none") }
  }))
)
