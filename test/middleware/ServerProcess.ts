/**
 * Servers of middleware as programs of this machine: unprivileged, on the loopback interface, with data folders of their
 * own. Debian's packages redis-server, redis-sentinel, mariadb-server and postgresql have them.
 */
import { NodeServices } from "@effect/platform-node"
import { Effect, FileSystem, type Scope } from "effect"
import { type ChildProcess, execFile, spawn } from "node:child_process"
import { chown } from "node:fs/promises"
import { userInfo } from "node:os"
import { promisify } from "node:util"

const execute = promisify(execFile)

/** Servers refuse to run as root, or should. */
const asUser = (user: string, command: ReadonlyArray<string>): ReadonlyArray<string> => [
  "setpriv",
  ...(userInfo().uid === 0 ? [`--reuid=${user}`, `--regid=${user}`, "--clear-groups"] : []),
  // Also when this process is killed.
  "--pdeathsig=KILL",
  ...command
]

/** Gives what was made by us to the user who works with it. */
export const hand = Effect.fnUntraced(function*(user: string, ...paths: ReadonlyArray<string>) {
  if (userInfo().uid !== 0) return
  const id = async (flag: string) => Number((await execute("id", [flag, user])).stdout)
  yield* Effect.promise(async () => {
    const [uid, gid] = await Promise.all([id("-u"), id("-g")])
    await Promise.all(paths.map((path) => chown(path, uid, gid)))
  })
})

/** A folder of the user's, removed with the scope. */
export const folder = Effect.fnUntraced(
  function*(user: string) {
    const fs = yield* FileSystem.FileSystem
    const made = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-test-" })
    yield* hand(user, made)
    return made
  },
  Effect.orDie,
  Effect.provide(NodeServices.layer)
)

/** A file in a folder, for the user alone. */
export const file = Effect.fnUntraced(
  function*(user: string, path: string, content: string) {
    const fs = yield* FileSystem.FileSystem
    yield* fs.writeFileString(path, content, { mode: 0o600 })
    yield* hand(user, path)
    return path
  },
  Effect.orDie,
  Effect.provide(NodeServices.layer)
)

/** Runs a command to its end, as the user; dies with what it said when it fails. */
export const command = (user: string, ...line: ReadonlyArray<string>): Effect.Effect<string> => {
  const [program = "", ...rest] = asUser(user, line)
  return Effect.promise(async () => (await execute(program, rest, { cwd: "/", maxBuffer: 1 << 24 })).stdout)
}

export interface ServerProcess {
  /** Returns when it is gone. */
  readonly kill: (signal?: NodeJS.Signals) => Effect.Effect<void>
  /** As it hangs for its clients; the scope ends it all the same. */
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
}

const gone = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) resume(Effect.void)
    else child.once("exit", () => resume(Effect.void))
  })

/** Runs until the scope ends. What it says last is shown when it ends by itself. */
export const start = (user: string, ...line: ReadonlyArray<string>): Effect.Effect<ServerProcess, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const [program = "", ...rest] = asUser(user, line)
        const child = spawn(program, rest, { cwd: "/", stdio: ["ignore", "pipe", "pipe"] })
        let said = ""
        const listen = (chunk: Buffer) => {
          said = (said + chunk.toString()).slice(-2000)
        }
        child.stdout.on("data", listen)
        child.stderr.on("data", listen)
        child.once("exit", (code) => {
          if (code !== null && code !== 0) console.error(`${line[0]} ended with ${code}:\n${said}`)
        })
        return child
      }),
      (child) => Effect.andThen(Effect.sync(() => child.kill("SIGKILL")), gone(child))
    ),
    (child) => ({
      kill: (signal = "SIGTERM") => Effect.andThen(Effect.sync(() => child.kill(signal)), gone(child)),
      signal: (signal) => Effect.asVoid(Effect.sync(() => child.kill(signal)))
    })
  )
