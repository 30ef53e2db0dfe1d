/** What runs in a worker pod: one task, whose result is the pod's last word. */
import { Data, Effect, FileSystem, type Redacted, Result, Schema } from "effect"
import type { AnyTask } from "../../probes/workers/tasks.ts"
import * as LocalWorld from "../LocalWorld.ts"
import { Envelope } from "./envelope.ts"
import { type TaskResult, seal } from "./seal.ts"

/** The pod was not made by an agent, or by one of another version. */
export class WorkerMisused extends Data.TaggedError("WorkerMisused")<{ readonly detail: string }> {
  override get message(): string {
    return `${this.detail}; worker pods are made by an agent`
  }
}

const decodeEnvelope = Schema.decodeUnknownResult(Envelope)

const failed = (error: string): TaskResult => ({ ok: false, error })

const textOf = (failure: unknown): string => failure instanceof Error ? failure.message : String(failure)

/** Runs the task within its time. Every end is a result, also a crash of the task. */
export const perform = Effect.fnUntraced(
  function*(task: AnyTask, input: unknown): Effect.fn.Return<TaskResult> {
    return yield* Schema.decodeUnknownEffect(task.input)(input).pipe(
      Effect.flatMap((decoded) => task.run(decoded)),
      Effect.timeout(task.timeout),
      Effect.flatMap((output) => Schema.encodeUnknownEffect(task.output)(output)),
      Effect.match({
        onFailure: (error): TaskResult => failed(`${task.id}: ${textOf(error)}`),
        onSuccess: (output): TaskResult => ({ ok: true, output })
      }),
      Effect.catchDefect((defect) => Effect.succeed(failed(`${task.id} crashed: ${textOf(defect)}`))),
      Effect.provideContext(LocalWorld.context)
    )
  }
)

/** Does what the environment says, and writes the result to `output`. */
export const run = Effect.fn("WorkerProcess.run")(function*(options: {
  /** An {@link Envelope}. */
  readonly envelope: string
  readonly token: Redacted.Redacted
  /** The pod's name, which the result is sealed for. */
  readonly pod: string
  readonly output: string
  readonly tasks: ReadonlyArray<AnyTask>
}) {
  const fs = yield* FileSystem.FileSystem
  const envelope = decodeEnvelope(options.envelope)
  if (Result.isFailure(envelope)) return yield* new WorkerMisused({ detail: "what this pod should do cannot be read" })
  const { input, task: id } = envelope.success
  const task = options.tasks.find((task) => task.id === id)
  const result = task === undefined
    ? failed(`this image does not know the task ${id}; agent and workers must be of one version`)
    : yield* perform(task, input)
  yield* fs.writeFileString(options.output, seal(options.token, options.pod, result))
})
