import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, FileSystem, Option, Path, Redacted } from "effect"
import * as Connection from "../../../src/client/Connection.ts"

interface Home {
  readonly path: string
  readonly write: (name: string, content: string) => Effect.Effect<string>
}

/** With an empty home, and nothing in the environment but it and `env`. */
const atHome = <A, E>(
  use: (home: Home) => Effect.Effect<A, E, FileSystem.FileSystem | Path.Path>,
  env: (home: string) => Record<string, string> = () => ({})
) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const home = yield* fs.makeTempDirectoryScoped({ prefix: "kubeprober-test-" })
    const write = (name: string, content: string) => {
      const file = path.join(home, name)
      return Effect.orDie(Effect.as(fs.writeFileString(file, content), file))
    }
    return yield* use({ path: home, write }).pipe(
      Effect.provideService(
        ConfigProvider.ConfigProvider,
        ConfigProvider.fromEnv({ env: { HOME: home, ...env(home) } })
      )
    )
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

const none = { server: Option.none<string>(), tokenFile: Option.none<string>(), caFile: Option.none<string>() }

const refusal = (options: Partial<Connection.ConnectionOptions>) =>
  Effect.map(Effect.flip(Connection.resolve({ ...none, ...options })), ({ message }) => message)

describe("where a command finds its master", () => {
  it.effect("is the file that a master on this machine left, closed to others", () =>
    atHome(({ write }) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        assert.include(yield* refusal({}), "no master")
        const tokenFile = yield* write("token", "secret\n")
        const file = yield* Connection.localFile
        yield* Connection.write(file, { server: "https://127.0.0.1:9443", tokenFile, ca: "PEM" })
        assert.strictEqual(Number((yield* fs.stat(file)).mode) & 0o777, 0o600)
        assert.notInclude(yield* fs.readFileString(file), "secret")
        const connection = yield* Connection.resolve(none)
        assert.strictEqual(connection.server, "https://127.0.0.1:9443")
        assert.strictEqual(connection.ca, "PEM")
        assert.strictEqual(Redacted.value(yield* connection.token), "secret")
        // Renewed tokens are read as they are.
        yield* write("token", "renewed")
        assert.strictEqual(Redacted.value(yield* connection.token), "renewed")
        yield* write("token", "two\nlines")
        assert.notInclude((yield* Effect.flip(connection.token)).message, "lines")
        yield* fs.writeFileString(file, "{}")
        assert.include(yield* refusal({}), "is no connection")
      })
    ))

  it.effect("is the environment's, and options come first", () =>
    atHome(({ write }) =>
      Effect.gen(function*() {
        const mine = yield* write("mine", "of the option")
        yield* write("theirs", "of-the-environment")
        yield* write("ca.pem", "PEM")
        const connection = yield* Connection.resolve(none)
        assert.strictEqual(connection.server, "https://master.example:9443")
        assert.strictEqual(connection.ca, "PEM")
        assert.strictEqual(Redacted.value(yield* connection.token), "of-the-environment")
        const other = yield* Connection.resolve({ ...none, server: Option.some("https://other.example") })
        assert.strictEqual(other.server, "https://other.example")
        assert.include(yield* refusal({ tokenFile: Option.some(mine) }), "does not hold a token")
        assert.include(yield* refusal({ tokenFile: Option.some(`${mine}-missing`) }), "cannot be read")
      }), (home) => ({
        KUBEPROBER_SERVER: "https://master.example:9443/",
        KUBEPROBER_TOKEN_FILE: `${home}/theirs`,
        KUBEPROBER_CA_FILE: `${home}/ca.pem`
      })))

  it.effect("never shows the local master's token to another, nor any token without TLS", () =>
    atHome(({ write }) =>
      Effect.gen(function*() {
        const tokenFile = yield* write("token", "secret")
        yield* Connection.write(yield* Connection.localFile, { server: "https://127.0.0.1:9443", tokenFile })
        assert.include(yield* refusal({ server: Option.some("https://other.example") }), "no token for")
        for (const server of ["http://127.0.0.1:9443", "127.0.0.1:9443", "https://me:you@host", ""]) {
          assert.include(
            yield* refusal({ server: Option.some(server), tokenFile: Option.some(tokenFile) }),
            "is no master"
          )
        }
      })
    ))
})
