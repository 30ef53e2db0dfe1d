/**
 * A piece of a probe that must run somewhere else than in the agent: in a pod on some node, or on every node.
 *
 * Input and output travel as JSON, so both are schemas. Output must be small: a pod hands it over in its termination
 * message, which holds 4,096 bytes
 * (https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
 */
import type { Duration, Effect, Schema } from "effect"
import type { World } from "../World.ts"

/** What a task may use: the world around the pod it runs in, and nothing of the Kubernetes API. */
export type TaskServices = World

export interface Task<out Input, out Output> {
  /** Dotted and stable: agent and node may be of different versions for a while. */
  readonly id: string
  readonly input: Schema.Codec<Input, Schema.Json>
  readonly output: Schema.Codec<Output, Schema.Json>
  /** For the whole task, once its process has started. */
  readonly timeout: Duration.Input
  // A method, so that tasks of any input fit one list. A failure is told as the task's own, with its message.
  run(input: Input): Effect.Effect<Output, { readonly message: string }, TaskServices>
}

/** Define a task. Add it to `tasks.ts`, or no pod will know it. */
export const make = <Input, Output>(id: string, options: Omit<Task<Input, Output>, "id">): Task<Input, Output> => ({
  id,
  ...options
})
