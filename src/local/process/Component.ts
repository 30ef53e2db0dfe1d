import { Effect, Exit, FileSystem, Option, Ref, Schedule, Scope, Semaphore, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { ComponentExited, LocalIoError } from "../LocalError.ts"

/**
 * One long-running program of a cluster (etcd, kube-apiserver, kubelet, ...), for tests to break and mend. One that ends
 * by itself is started again, as kubelet and systemd do on real machines; one that was stopped or killed here stays
 * down until it is started here. Every method waits for its effect to be there.
 */
export interface Component {
  readonly name: string
  /** Standard output and error of every start, appended. */
  readonly logPath: string
  /** The process id on this machine, while it runs. */
  readonly pid: Effect.Effect<Option.Option<number>>
  readonly isRunning: Effect.Effect<boolean>
  /** Starts it again with the same flags. Does nothing while it runs. */
  readonly start: Effect.Effect<void, LocalIoError | ComponentExited>
  /** SIGTERM, and SIGKILL for a program that has not ended after 10 seconds. */
  readonly stop: Effect.Effect<void>
  /** SIGKILL. */
  readonly kill: Effect.Effect<void>
  /** SIGSTOP: connections stay open and nothing answers, as on a machine that hangs. */
  readonly pause: Effect.Effect<void>
  /** SIGCONT. */
  readonly resume: Effect.Effect<void>
  /** Fails when the process that runs now ends, for what only makes sense while it lives. */
  readonly ended: Effect.Effect<never, ComponentExited>
}

export interface ComponentOptions {
  readonly name: string
  readonly logPath: string
  /** The state folder of the cluster that the process is part of: what remains of it is found by this. */
  readonly cluster: string
  /**
   * Programs that run the command elsewhere and become it (nsenter, unshare), asked at every start because elsewhere
   * may be new; none by default.
   */
  readonly prefix?: Effect.Effect<ReadonlyArray<string>, ComponentExited>
  readonly command: readonly [program: string, ...args: ReadonlyArray<string>]
  /** The prefix forks, and the command is its child: `nsenter --pid`, `unshare --fork`. */
  readonly forks?: boolean
  /** Start it again when it ends by itself. */
  readonly restarts?: boolean
}

/** The environment variable that every process of a local cluster carries: the state folder of its cluster. */
export const MARKER = "KUBEPROBER_LOCAL_CLUSTER"

interface Running {
  readonly handle: ChildProcessSpawner.ChildProcessHandle
  readonly pid: number
  readonly scope: Scope.Closeable
}

/** How the kernel is told to end a process together with its owner. */
export type Leash = "setpriv" | "pipe"

/**
 * Describes a component; `start` runs it. It ends with the scope, and at once when this process dies however that
 * happens: `setpriv` arms the kernel's parent-death signal, and where there is no setpriv(1) a shell beside the
 * program waits for the end of a pipe that only this process holds.
 */
export const make = Effect.fnUntraced(function*(options: ComponentOptions, leash: Leash) {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const fs = yield* FileSystem.FileSystem
  const owner = yield* Effect.scope
  const state = yield* Ref.make(Option.none<Running>())
  const turn = Semaphore.makeUnsafe(1)

  const { cluster, command, forks = false, logPath, name, prefix = Effect.succeed([]), restarts = false } = options
  const exited = (status: string) =>
    Effect.flatMap(tail(fs, logPath), (logTail) => new ComponentExited({ component: name, status, logPath, logTail }))

  const alive = Effect.gen(function*() {
    const running = yield* Ref.get(state)
    if (Option.isNone(running)) return Option.none<Running>()
    const isRunning = yield* Effect.orElseSucceed(running.value.handle.isRunning, () => false)
    return isRunning ? running : Option.none<Running>()
  })

  const clear = Effect.gen(function*() {
    const last = yield* Ref.getAndSet(state, Option.none())
    if (Option.isSome(last)) yield* Scope.close(last.value.scope, Exit.void)
  })

  const start: Effect.Effect<void, LocalIoError | ComponentExited> = Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      if (Option.isSome(yield* alive)) return
      yield* clear
      yield* Effect.mapError(
        rotate(fs, logPath),
        (cause) => new LocalIoError({ doing: `Making room for the log of ${name}`, cause })
      )
      const arguments_ = [logPath, ...yield* prefix, ...command]
      const scope = yield* Scope.fork(owner)
      const spawn = spawner.spawn(
        ChildProcess.make(
          leash === "setpriv" ? "setpriv" : "sh",
          leash === "setpriv"
            ? ["--pdeathsig", "KILL", "sh", "-c", LOGGED, name, ...arguments_]
            : ["-c", LOGGED_AND_LEASHED, name, ...arguments_],
          {
            // A clean environment: proxies and secrets of the caller are no business of the cluster.
            env: { PATH: STANDARD_PATH, [MARKER]: cluster },
            stdin: leash === "setpriv" ? "ignore" : "pipe",
            stdout: "ignore",
            stderr: "ignore",
            killSignal: "SIGKILL"
          }
        )
      )
      yield* Effect.gen(function*() {
        const handle = yield* Effect.mapError(
          Scope.provide(spawn, scope),
          (cause) => new LocalIoError({ doing: `Starting ${name}`, cause })
        )
        const pid = forks
          ? yield* restore(childOf(fs, handle)).pipe(
            Effect.catchTags({
              PlatformError: () => exited("at once"),
              TimeoutError: () => exited(`without its command after ${CHILD_WITHIN}`)
            })
          )
          : handle.pid
        const running: Running = { handle, pid, scope }
        yield* Ref.set(state, Option.some(running))
        if (restarts) yield* Effect.forkIn(restartAfter(running), owner)
      }).pipe(Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))))
    })
  )

  /** A start that fails ends it: where the program ran is gone. */
  const restartAfter = (running: Running) =>
    Effect.gen(function*() {
      yield* Effect.exit(running.handle.exitCode)
      yield* Effect.sleep(RESTART_DELAY)
      yield* turn.withPermit(Effect.gen(function*() {
        const isLast = Option.contains(yield* Ref.get(state), running)
        if (isLast) yield* start
      }))
    }).pipe(
      Effect.catch((error) => Effect.logWarning(`${name} ended and could not be started again: ${error.message}`))
    )

  const signal = (which: NodeJS.Signals) =>
    Effect.flatMap(
      alive,
      Option.match({
        onNone: () => Effect.void,
        onSome: ({ handle, pid }) =>
          Effect.sync(() => {
            send(pid, which)
            // nsenter and unshare stop themselves when their child stops, and continue only when told to.
            if (pid !== handle.pid && which !== "SIGSTOP") send(handle.pid, "SIGCONT")
          })
      })
    )

  const gone = Effect.flatMap(
    Ref.get(state),
    Option.match({ onNone: () => Effect.void, onSome: ({ handle }) => Effect.ignore(handle.exitCode) })
  )

  const kill = Effect.andThen(signal("SIGKILL"), gone)
  const stop = Effect.andThen(signal("SIGTERM"), gone).pipe(
    Effect.timeoutOrElse({ duration: STOP_GRACE, orElse: () => kill })
  )

  const ended = Effect.gen(function*() {
    const running = yield* Ref.get(state)
    const status = Option.isNone(running) ? "not started" : yield* running.value.handle.exitCode.pipe(
      Effect.match({ onSuccess: (code) => `exit code ${code}`, onFailure: (error) => error.message })
    )
    return yield* exited(status)
  })

  const component: Component = {
    name,
    logPath,
    pid: Effect.map(alive, Option.map(({ pid }) => pid)),
    isRunning: Effect.map(alive, Option.isSome),
    start: turn.withPermit(start),
    stop: turn.withPermit(Effect.andThen(stop, clear)),
    kill: turn.withPermit(Effect.andThen(kill, clear)),
    pause: signal("SIGSTOP"),
    resume: signal("SIGCONT"),
    ended
  }
  return component
})

/** The kernel's way where this machine offers it. */
export const leash = Effect.gen(function*() {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const works = yield* spawner.exitCode(ChildProcess.make("setpriv", ["--pdeathsig", "KILL", "true"])).pipe(
    Effect.map((code) => code === 0),
    Effect.orElseSucceed(() => false)
  )
  return works ? "setpriv" as const : "pipe" as const
})

/** Between the end of a program and its next start, so that one which cannot run does not spin. */
const RESTART_DELAY = "1 second"

/** How long a component may take to end by itself. */
const STOP_GRACE = "10 seconds"

const STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/** The shell becomes the program, so the process id stays. */
const LOGGED = `log=$1; shift; exec "$@" >>"$log" 2>&1 </dev/null`

/** As above, with a child that ends the program when the pipe on standard input does. */
const LOGGED_AND_LEASHED =
  `log=$1; shift; exec 3<&0 >>"$log" 2>&1 </dev/null; (read -r _ <&3; kill -9 $$) & exec "$@" 3<&-`

const send = (pid: number, which: NodeJS.Signals): void => {
  try {
    process.kill(pid, which)
  } catch {
    // It has just ended, which is for the caller to see.
  }
}

const childOf = (fs: FileSystem.FileSystem, handle: ChildProcessSpawner.ChildProcessHandle) =>
  fs.readFileString(`/proc/${handle.pid}/task/${handle.pid}/children`).pipe(
    Effect.map((children) => Number.parseInt(children, 10)),
    Effect.repeat({ until: (pid) => pid > 0, schedule: Schedule.spaced("10 millis") }),
    Effect.timeout(CHILD_WITHIN)
  )

/** How long nsenter or unshare may take to start the command. */
const CHILD_WITHIN = "5 seconds"

/** A log that is larger than this at a start of its program is put aside, in place of the one that was before. */
const LOG_BYTES = 16 * 1024 * 1024

const rotate = Effect.fnUntraced(function*(fs: FileSystem.FileSystem, log: string) {
  if (!(yield* fs.exists(log))) return
  const { size } = yield* fs.stat(log)
  if (size > LOG_BYTES) yield* fs.rename(log, `${log}.1`)
})

/** As much of a log as its last lines can take. */
const TAIL_BYTES = 64 * 1024

const tail = (fs: FileSystem.FileSystem, path: string) =>
  Effect.gen(function*() {
    const { size } = yield* fs.stat(path)
    const end = fs.stream(path, { offset: Math.max(0, Number(size) - TAIL_BYTES), bytesToRead: TAIL_BYTES })
    const log = yield* Stream.mkString(Stream.decodeText(end))
    return log.trimEnd().split("\n").slice(-12).map((line) => line.slice(0, 500)).join("\n")
  }).pipe(Effect.orElseSucceed(() => "(no log)"))
