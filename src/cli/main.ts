/** Runs the program in this process. See `launcher.ts` for who calls this. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Effect } from "effect"
import * as Kubeprober from "./Kubeprober.ts"

/** Start with arguments (without node and script); sets the exit code when done. */
export const run = (argv: ReadonlyArray<string>): void =>
  NodeRuntime.runMain(Kubeprober.run(argv).pipe(Effect.provide(NodeServices.layer)), { disableErrorReporting: true })
