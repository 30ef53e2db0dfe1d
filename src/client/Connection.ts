/**
 * Where a master is and how to show it who asks: from options, the environment, or the file that a master on this machine
 * left. The file holds no secret; it names the one that does.
 */
import { Config, Data, Effect, FileSystem, Option, Path, Redacted, Schema } from "effect"
import type { FleetClientOptions } from "./FleetClient.ts"

/** There is no connection, or a part of it cannot be read. */
export class ConnectionError extends Data.TaggedError("ConnectionError")<{ readonly detail: string }> {
  override get message(): string {
    return this.detail
  }
}

/** How a master is reached. */
export interface Connection extends FleetClientOptions {
  readonly token: Effect.Effect<Redacted.Redacted<string>, ConnectionError>
  /** `https://host:port` that agents link to, where a master on this machine tells it. */
  readonly link?: string | undefined
}

/** What a master leaves for the commands of its user. */
export const ConnectionFile = Schema.Struct({
  /** `https://host:port`. */
  server: Schema.String,
  /** The file with the bearer token. */
  tokenFile: Schema.String,
  /** PEM. */
  ca: Schema.optionalKey(Schema.String),
  /** Where agents link to: `https://host:port`. */
  link: Schema.optionalKey(Schema.String)
})
export type ConnectionFile = typeof ConnectionFile.Type

const Encoded = Schema.fromJsonString(ConnectionFile)
const decode = Schema.decodeUnknownEffect(Encoded)
const encode = Schema.encodeSync(Encoded)

/** The file of the master that the user runs on this machine, whatever its state folder. */
export const localFile = Effect.gen(function*() {
  const path = yield* Path.Path
  const state = yield* Config.String("XDG_STATE_HOME").pipe(
    Config.orElse(() => Config.map(Config.String("HOME"), (home) => path.join(home, ".local", "state"))),
    Effect.mapError(() => new ConnectionError({ detail: "there is neither $XDG_STATE_HOME nor $HOME" }))
  )
  return path.join(state, "kubeprober", "connection.json")
})

/** Leaves the file, readable by its owner alone, at once or not at all. */
export const write = Effect.fn("Connection.write")(function*(file: string, connection: ConnectionFile) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  yield* Effect.gen(function*() {
    yield* fs.makeDirectory(path.dirname(file), { recursive: true, mode: 0o700 })
    const drafts = yield* fs.makeTempDirectoryScoped({ directory: path.dirname(file), prefix: ".draft-" })
    const draft = path.join(drafts, "connection.json")
    yield* fs.writeFileString(draft, `${encode(connection)}\n`, { mode: 0o600 })
    yield* fs.rename(draft, file)
  }).pipe(
    Effect.scoped,
    Effect.mapError((error) => new ConnectionError({ detail: `${file} was not written: ${error.message}` }))
  )
})

export interface ConnectionOptions {
  /** Else `$KUBEPROBER_SERVER`, else the local file's. */
  readonly server: Option.Option<string>
  /** Else `$KUBEPROBER_TOKEN_FILE`, else the local file's. */
  readonly tokenFile: Option.Option<string>
  /** Else `$KUBEPROBER_CA_FILE`, else the local file's, else the system's authorities. */
  readonly caFile: Option.Option<string>
}

/** The connection to use. A server that is named is never shown the local master's token. */
export const resolve = Effect.fn("Connection.resolve")(function*(
  options: ConnectionOptions
): Effect.fn.Return<Connection, ConnectionError, FileSystem.FileSystem | Path.Path> {
  const fs = yield* FileSystem.FileSystem
  const server = yield* orEnvironment(options.server, "KUBEPROBER_SERVER")
  const tokenFile = yield* orEnvironment(options.tokenFile, "KUBEPROBER_TOKEN_FILE")
  const caFile = yield* orEnvironment(options.caFile, "KUBEPROBER_CA_FILE")
  const local = Option.isSome(server) ? undefined : yield* readLocal

  const url = yield* parseServer(Option.getOrElse(server, () => local?.server ?? ""))
  const secret = Option.getOrElse(tokenFile, () => local?.tokenFile)
  if (secret === undefined) {
    return yield* new ConnectionError({
      detail: `no token for ${url}; give --token-file or set $KUBEPROBER_TOKEN_FILE`
    })
  }
  const token = Effect.gen(function*() {
    const text = (yield* Effect.mapError(fs.readFileString(secret), (error) =>
      new ConnectionError({ detail: `the token file ${secret} cannot be read: ${error.message}` }))).trim()
    // What else a wrong file holds must not go into a header.
    if (!/^[\x21-\x7e]{1,16384}$/u.test(text)) {
      return yield* new ConnectionError({ detail: `the file ${secret} does not hold a token` })
    }
    return Redacted.make(text)
  })
  yield* token
  const ca = Option.isSome(caFile)
    ? yield* Effect.mapError(
      fs.readFileString(caFile.value),
      (error) => new ConnectionError({ detail: `the authority ${caFile.value} cannot be read: ${error.message}` })
    )
    : local?.ca
  return { server: url, token, ca, link: local?.link }
})

const orEnvironment = (option: Option.Option<string>, name: string) =>
  Option.isSome(option)
    ? Effect.succeed(option)
    : Config.String(name).pipe(
      Config.option,
      Effect.orElseSucceed(() => Option.none<string>()),
      Effect.map(Option.filter((text) => text !== ""))
    )

const readLocal = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const file = yield* localFile
  const text = yield* Effect.mapError(fs.readFileString(file), (error) =>
    new ConnectionError({
      detail: error.reason._tag === "NotFound"
        ? "no master: none runs on this machine; give --server or set $KUBEPROBER_SERVER"
        : `${file} cannot be read: ${error.message}`
    }))
  return yield* Effect.mapError(
    decode(text),
    (error) => new ConnectionError({ detail: `${file} is no connection to a master: ${error.message}` })
  )
})

/** Never over plain HTTP: the token would be anybody's. */
const parseServer = Effect.fnUntraced(function*(text: string) {
  const url = URL.parse(text)
  if (url === null || url.protocol !== "https:" || url.username !== "" || url.password !== "") {
    return yield* new ConnectionError({ detail: `${JSON.stringify(text)} is no master; write it https://host:port` })
  }
  return url.origin
})
