/** Probes for agents in tests: one that is always well, and one that says what it is told to. */
import { Effect, Schema } from "effect"
import { Kube } from "../../src/infra/kube/Kube.ts"
import { Deployment } from "../../src/infra/kube/resources/apps.ts"
import * as Needs from "../../src/probes/Needs.ts"
import * as Outcome from "../../src/probes/Outcome.ts"
import * as Probe from "../../src/probes/Probe.ts"
import { codes } from "./Checks.ts"

const common = {
  layer: "kubernetes",
  proves: "a test",
  writes: "nothing",
  needs: [],
  timeout: "10 seconds",
  codes
} as const

export const steady = Probe.make("test.steady", {
  ...common,
  config: Probe.NoConfig,
  run: () => Effect.succeed(Outcome.make("it is well"))
})

export const brittle = Probe.make("test.brittle", {
  ...common,
  config: Schema.Struct({ status: Schema.Literals(["PASS", "WARN", "ERROR"]) }),
  run: ({ status }) =>
    status === "PASS"
      ? Effect.succeed(Outcome.make("it is well"))
      : status === "WARN"
      ? codes.TIRED.fail({ message: "it is tired" })
      : codes.BROKEN.fail({ message: "it is broken" })
})

/** Says whether Deployment shaky has the pods it wants, which no kubelet gives it here: broken while it wants any. */
export const shaky = Probe.make("test.shaky", {
  ...common,
  needs: [Needs.get("deployments", { group: "apps" })],
  config: Probe.NoConfig,
  run: Effect.fnUntraced(function*() {
    const kube = yield* Kube
    const { spec, status } = yield* kube.get(Deployment, { name: "shaky", namespace: "kubeprober" })
    return status.availableReplicas < (spec.replicas ?? 1)
      ? yield* codes.BROKEN.fail({ message: `${status.availableReplicas} of ${spec.replicas ?? 1} pods are there` })
      : Outcome.make("it has its pods")
  })
})
