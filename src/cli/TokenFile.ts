/** The file that `cluster add --token-out` writes: its place is taken before a token is made, which is good only once. */
import { Effect, FileSystem } from "effect"
import { Failure } from "./Failure.ts"

/**
 * Runs `make` with the file made new and closed to others from the start, and writes the token into it. A file that is
 * there is left as it is, for it keeps its mode. When `make` fails the file is gone again.
 */
export const write = Effect.fn("TokenFile.write")(function*<A, E, R>(
  file: string,
  make: Effect.Effect<A, E, R>,
  tokenOf: (made: A) => string
) {
  const fs = yield* FileSystem.FileSystem
  yield* fs.writeFileString(file, "", { mode: 0o600, flag: "wx" }).pipe(
    Effect.mapError((error) =>
      new Failure({
        reason: error.reason._tag === "AlreadyExists"
          ? `--token-out ${file}: there is such a file already; remove it or name another (no token was made)`
          : `--token-out ${file}: ${error.message} (no token was made)`
      })
    )
  )
  const made = yield* make.pipe(Effect.onError(() => Effect.ignore(fs.remove(file))))
  yield* fs.writeFileString(file, `${tokenOf(made)}\n`).pipe(
    Effect.mapError((error) =>
      new Failure({ reason: `--token-out ${file}: ${error.message}; the token was made and expires unused` })
    )
  )
  return made
})
