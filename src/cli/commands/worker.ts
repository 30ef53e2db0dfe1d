/** `kubeprober worker`: what worker pods run. Not for people; agents make the pods. */
import { Config, Effect, Schema } from "effect"
import { Command, Flag } from "effect/cli"

const Port = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 65_535 }))

const port = (name: string, description: string) =>
  Flag.Int(name).pipe(Flag.withDescription(description), Flag.withSchema(Port))

/** Loaded when a pod runs it. */
const run = Command.make(
  "run",
  {},
  Effect.fn("worker.run")(function*() {
    const [WorkerProcess, { tasks }, Envelope] = yield* Effect.promise(() =>
      Promise.all([
        import("../../agent/workers/WorkerProcess.ts"),
        import("../../probes/workers/tasks.ts"),
        import("../../agent/workers/envelope.ts")
      ])
    )
    const given = yield* Config.all({
      envelope: Config.String(Envelope.TASK_ENV),
      token: Config.Redacted(Envelope.TOKEN_ENV),
      pod: Config.String(Envelope.POD_ENV)
    }).pipe(
      Effect.mapError((error) => new WorkerProcess.WorkerMisused({ detail: error.message }))
    )
    yield* WorkerProcess.run({ ...given, output: Envelope.TERMINATION_LOG, tasks })
  })
).pipe(Command.withDescription("Do the one task of this pod"))

const respond = Command.make(
  "respond",
  {
    httpPort: port("http-port", "Answers GET / with the pod's name"),
    echoPort: port("echo-port", "Sends back what comes in by TCP and UDP")
  },
  Effect.fn("worker.respond")(function*({ echoPort, httpPort }) {
    const [Responder, Envelope] = yield* Effect.promise(() =>
      Promise.all([import("../../agent/workers/Responder.ts"), import("../../agent/workers/envelope.ts")])
    )
    const pod = yield* Config.String(Envelope.POD_ENV).pipe(Config.withDefault(""))
    const node = yield* Config.String(Envelope.NODE_ENV).pipe(Config.withDefault(""))
    yield* Responder.serve({ httpPort, echoPort, identity: { pod, node } })
    return yield* Effect.never
  }, Effect.scoped)
).pipe(Command.withDescription("Answer until ended"))

export const worker = Command.make("worker").pipe(
  Command.withDescription("What worker pods run; agents make them"),
  Command.withSubcommands([run, respond])
)
