/** Runs the program in this process. See `launcher.ts` for who calls this. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Cause, Effect, Exit, Runtime } from "effect"
import * as Net from "node:net"
import { ADDRESS_ATTEMPT } from "../infra/net/addressAttempt.ts"
import * as Kubeprober from "./Kubeprober.ts"

/** Commands that run until they are told to end: that they were is no failure of theirs. */
const SERVING: ReadonlySet<string> = new Set(["master", "agent", "worker", "node"])

const teardownOf = (command: string | undefined): Runtime.Teardown => (exit, onExit) =>
  SERVING.has(command ?? "") && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
    ? onExit(0)
    : Runtime.defaultTeardown(exit, onExit)

/** Start with arguments (without node and script); sets the exit code when done. */
export const run = (argv: ReadonlyArray<string>): void => {
  // Also for sockets that drivers make.
  Net.setDefaultAutoSelectFamilyAttemptTimeout(ADDRESS_ATTEMPT)
  NodeRuntime.runMain(Kubeprober.run(argv).pipe(Effect.provide(NodeServices.layer)), {
    disableErrorReporting: true,
    teardown: teardownOf(argv[0])
  })
}
