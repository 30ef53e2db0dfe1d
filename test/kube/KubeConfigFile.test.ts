import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Exit, FileSystem, Path, Redacted } from "effect"
import { TestClock } from "effect/testing"
import * as KubeConfigFile from "../../src/infra/kube/KubeConfigFile.ts"
import type { KubeConnection } from "../../src/infra/kube/KubeConnection.ts"
import * as Certificates from "../../src/local/Certificates.ts"

const PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
const data = Buffer.from(PEM).toString("base64")

/** Writes files into a fresh folder, and answers it. */
const folderWith = Effect.fnUntraced(function*(files: Readonly<Record<string, unknown>>) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* fs.makeTempDirectoryScoped()
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(folder, name)
    yield* fs.makeDirectory(path.dirname(file), { recursive: true })
    // JSON is YAML.
    yield* fs.writeFileString(file, typeof content === "string" ? content : JSON.stringify(content))
    if (name.endsWith(".sh")) yield* fs.chmod(file, 0o700)
  }
  return folder
})

const cluster = (name: string, fields: object = {}) => ({
  name,
  cluster: { server: `https://${name}:6443`, ...fields }
})
const user = (name: string, fields: object = {}) => ({ name, user: fields })
const context = (name: string, clusterName = name, userName = name) => ({
  name,
  context: { cluster: clusterName, user: userName }
})

/** A kubeconfig with one context, cluster and user, all called `a`. */
const one = (fields: { readonly cluster?: object; readonly user?: object }) => ({
  "current-context": "a",
  "clusters": [cluster("a", fields.cluster)],
  "users": [user("a", fields.user)],
  "contexts": [context("a")]
})

const connectionOf = Effect.fnUntraced(function*(folder: string, name?: string) {
  const config = yield* KubeConfigFile.load({ path: `${folder}/config` })
  return yield* config.connection(name)
})

const authorizationOf = (connection: KubeConnection) =>
  Effect.map(
    connection.identity,
    ({ authorization }) => authorization === undefined ? undefined : Redacted.value(authorization)
  )

const withEnvironment = (env: Record<string, string>) =>
  Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env }))

describe("a kubeconfig", () => {
  it.effect("is merged from several files, the first to say something wins", () =>
    Effect.gen(function*() {
      const folder = yield* folderWith({
        "one": {
          clusters: [cluster("a"), cluster("both", { "tls-server-name": "first" })],
          users: [user("a", { token: "1" })],
          contexts: [context("a"), { name: "both", context: { cluster: "both", namespace: "team" } }]
        },
        "two": {
          "current-context": "b",
          "clusters": [cluster("b"), cluster("both", { "tls-server-name": "second" })],
          "users": [user("b", { token: "2" })],
          "contexts": [context("b"), context("both")]
        }
      })
      const config = yield* KubeConfigFile.load().pipe(
        withEnvironment({ KUBECONFIG: `${folder}/one:${folder}/absent:${folder}/two` })
      )
      assert.deepStrictEqual(config.paths, [`${folder}/one`, `${folder}/two`])
      assert.deepStrictEqual(config.contexts, ["a", "both", "b"])
      assert.strictEqual(config.currentContext, "b")
      assert.strictEqual((yield* config.context("both")).namespace, "team")
      assert.strictEqual((yield* config.context()).namespace, "default")
      assert.strictEqual(yield* authorizationOf(yield* config.connection("a")), "Bearer 1")
      const current = yield* config.connection()
      assert.strictEqual(current.cluster, "b")
      assert.strictEqual(current.server, "https://b:6443")
      const both = yield* (yield* config.connection("both")).identity
      assert.deepStrictEqual(both, {
        tls: { ca: undefined, serverName: "first", insecure: false },
        authorization: undefined
      })
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("finds files beside itself and secrets inside itself", () =>
    Effect.gen(function*() {
      const folder = yield* folderWith({
        "config": one({
          cluster: { "certificate-authority": "pki/ca.crt", "insecure-skip-tls-verify": true },
          user: { "client-certificate-data": data, "client-key": "./pki/key" }
        }),
        "pki/ca.crt": "CA",
        "pki/key": "KEY"
      })
      const { authorization, tls } = yield* (yield* connectionOf(folder)).identity
      assert.strictEqual(tls.ca, "CA")
      assert.strictEqual(tls.cert, PEM)
      assert.strictEqual(tls.key && Redacted.value(tls.key), "KEY")
      assert.isTrue(tls.insecure)
      assert.isUndefined(authorization)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("sees changed files: tokens after a minute, certificates after ten seconds, all after a refusal", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const authority = yield* Certificates.makeAuthority("ca")
      const first = yield* authority.issue({ commonName: "first" })
      const second = yield* authority.issue({ commonName: "second" })
      const folder = yield* folderWith({
        "config": one({ user: { "tokenFile": "token", "client-certificate": "crt", "client-key": "key" } }),
        "token": "first\n",
        "crt": first.cert,
        "key": first.key
      })
      const connection = yield* connectionOf(folder)
      const certificate = Effect.map(connection.identity, ({ tls }) => tls.cert)
      assert.strictEqual(yield* authorizationOf(connection), "Bearer first")
      assert.strictEqual(yield* certificate, first.cert)
      yield* fs.writeFileString(`${folder}/token`, "second")
      yield* fs.writeFileString(`${folder}/crt`, second.cert)
      assert.strictEqual(yield* authorizationOf(connection), "Bearer first")
      yield* TestClock.adjust("11 seconds")
      assert.strictEqual(yield* certificate, first.cert, "kept until the key has followed")
      yield* fs.writeFileString(`${folder}/key`, second.key)
      yield* TestClock.adjust("11 seconds")
      assert.strictEqual(yield* certificate, second.cert)
      const { key } = (yield* connection.identity).tls
      assert.strictEqual(key && Redacted.value(key), second.key)
      assert.strictEqual(yield* authorizationOf(connection), "Bearer first")
      yield* TestClock.adjust("50 seconds")
      assert.strictEqual(yield* authorizationOf(connection), "Bearer second")
      yield* fs.writeFileString(`${folder}/token`, "third")
      yield* connection.refresh
      assert.strictEqual(yield* authorizationOf(connection), "Bearer third")
      yield* fs.remove(`${folder}/token`)
      yield* connection.refresh
      const gone = yield* Effect.flip(connection.identity)
      assert.strictEqual(gone.message, `no credentials for cluster a from ${folder}/token: there is no such file`)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("carries impersonation, a proxy and basic credentials", () =>
    Effect.gen(function*() {
      const folder = yield* folderWith({
        config: one({
          cluster: { "proxy-url": "http://proxy:3128" },
          user: {
            "username": "u",
            "password": "open-sesame",
            "as": "alice",
            "as-groups": ["one", "two"],
            "as-user-extra": { "Scope/A": ["x"] }
          }
        })
      })
      const connection = yield* connectionOf(folder)
      assert.deepStrictEqual(connection.headers, {
        "impersonate-user": "alice",
        "impersonate-group": ["one", "two"],
        "impersonate-extra-scope%2fa": ["x"]
      })
      assert.strictEqual(connection.proxy && Redacted.value(connection.proxy), "http://proxy:3128")
      assert.strictEqual(yield* authorizationOf(connection), `Basic ${btoa("u:open-sesame")}`)
      assert.notInclude(JSON.stringify([connection, yield* connection.identity]), "sesame")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("with a malformed proxy URL is refused without showing it", () =>
    Effect.gen(function*() {
      for (
        const url of [
          "http://u:open-sesame@proxy:99999",
          "http://u:open-sesame@[proxy:1",
          "http://u:open-sesame%@proxy:1",
          "ftp://u:open-sesame@proxy"
        ]
      ) {
        const folder = yield* folderWith({ config: one({ cluster: { "proxy-url": url } }) })
        const exit = yield* Effect.exit(connectionOf(folder))
        assert.notInclude(JSON.stringify(exit) + String(exit), "sesame")
        const error = yield* Effect.flip(exit)
        assert.strictEqual(error._tag, "KubeConfigInvalid")
        assert.include(error.message, "the proxy of the cluster a is no http, https or socks5 URL")
      }
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("takes its proxy from the environment as kubectl does", () =>
    Effect.gen(function*() {
      const proxyOf = Effect.fnUntraced(function*(server: string, env: Record<string, string>) {
        const folder = yield* folderWith({ config: one({ cluster: { server } }) })
        const { proxy } = yield* withEnvironment(env)(connectionOf(folder))
        return proxy && Redacted.value(proxy)
      })
      const HTTPS_PROXY = "http://proxy:1"
      assert.strictEqual(yield* proxyOf("https://k8s.example.org", { HTTPS_PROXY }), HTTPS_PROXY)
      assert.strictEqual(yield* proxyOf("https://k8s.example.org", { https_proxy: "proxy:1" }), HTTPS_PROXY)
      assert.isUndefined(yield* proxyOf("http://k8s.example.org", { HTTPS_PROXY }))
      assert.isUndefined(yield* proxyOf("https://127.0.0.1:6443", { HTTPS_PROXY }))
      assert.isUndefined(yield* proxyOf("https://localhost", { HTTPS_PROXY }))
      const exempt: ReadonlyArray<readonly [server: string, entry: string, isExempt: boolean]> = [
        ["https://k8s.example.org", "example.org", true],
        ["https://k8s.example.org", ".example.org", true],
        ["https://example.org", ".example.org", false],
        ["https://badexample.org", "example.org", false],
        ["https://10.1.2.3:6443", "10.0.0.0/8", true],
        ["https://11.1.2.3:6443", "10.0.0.0/8", false],
        ["https://[fd00::1]:6443", "fd00::/8", true],
        ["https://10.1.2.3:6443", "10.1.2.3:6443", true],
        ["https://10.1.2.3:6443", "10.1.2.3:443", false],
        ["https://k8s.example.org", "other, *", true]
      ]
      for (const [server, NO_PROXY, isExempt] of exempt) {
        assert.strictEqual(
          (yield* proxyOf(server, { HTTPS_PROXY, NO_PROXY })) === undefined,
          isExempt,
          `${server} ${NO_PROXY}`
        )
      }
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("that cannot be used says where and why", () =>
    Effect.gen(function*() {
      const folder = yield* folderWith({
        "broken": "clusters:\n  - name: a\n   cluster: {token: open-sesame\n",
        "shape": { clusters: "none" },
        "config": {
          "current-context": "gone",
          "clusters": [
            cluster("a"),
            cluster("no-url", { server: "a:6443" }),
            cluster("bad-ca", { "certificate-authority-data": "eA==" })
          ],
          "users": [
            user("a"),
            user("old", { exec: { apiVersion: "client.authentication.k8s.io/v1alpha1", command: "x" } })
          ],
          "contexts": [
            context("prod-eu-1", "a", "a"),
            context("prod-eu-2", "a", "a"),
            context("staging", "a", "a"),
            context("no-cluster", "b", "a"),
            context("no-user", "a", "b"),
            context("no-url", "no-url", "a"),
            context("bad-ca", "bad-ca", "a"),
            context("old", "a", "old")
          ]
        }
      })
      const loaded = (name: string) =>
        Effect.map(Effect.flip(KubeConfigFile.load({ path: `${folder}/${name}` })), (error) => error.message)
      assert.match(
        yield* loaded("absent"),
        /^there is no kubeconfig at .*\/absent; name one with --kubeconfig or KUBECONFIG$/
      )
      const broken = yield* loaded("broken")
      assert.match(broken, /\/broken:\d+:\d+ cannot be used: it is not YAML/)
      assert.notInclude(broken, "sesame")
      assert.include(yield* loaded("shape"), `["clusters"]`)

      const connected = (name?: string) => Effect.map(Effect.flip(connectionOf(folder, name)), (error) => error.message)
      assert.match(yield* connected(), /^there is no context gone; known are /)
      assert.match(
        yield* connected("prod-eu-3"),
        /^there is no context prod-eu-3; known are prod-eu-[12], prod-eu-[12], /
      )
      assert.include(yield* connected("no-cluster"), `names the cluster "b", which is not there`)
      assert.include(yield* connected("no-user"), `names the user "b", which is not there`)
      assert.include(yield* connected("no-url"), "has no http(s) URL as its server")
      assert.include(yield* connected("bad-ca"), "certificate-authority-data is not PEM in base64")
      assert.include(yield* connected("old"), `the user old: `)
      // One bad entry does not spoil the others.
      yield* connectionOf(folder, "staging")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("that is empty has no contexts", () =>
    Effect.gen(function*() {
      const folder = yield* folderWith({ config: "" })
      const error = yield* Effect.flip(connectionOf(folder))
      assert.strictEqual(
        error.message,
        "no context is current; name one with --context, the kubeconfig has none"
      )
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("an exec plugin", () => {
  const exec = (command: string, more: object = {}) =>
    one({
      cluster: {
        "certificate-authority-data": data,
        "extensions": [{ name: "client.authentication.k8s.io/exec", extension: { audience: "x" } }]
      },
      user: { exec: { apiVersion: "client.authentication.k8s.io/v1", command, interactiveMode: "Never", ...more } }
    })

  /** Answers the number of its runs as its token, and keeps what it was told. */
  const counting = `#!/bin/sh
cd "$(dirname "$0")"
echo x >> runs
printf %s "$KUBERNETES_EXEC_INFO" > info
printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s-%s-%s"%s}}' "$1" "$EXTRA" "$(wc -l < runs)" "$STATUS"
`

  it.live("is run once for as long as its credential lasts, or until it is refused", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* folderWith({
        "config": exec("./bin/plugin.sh", {
          args: ["token"],
          env: [{ name: "EXTRA", value: "extra" }],
          provideClusterInfo: true
        }),
        "bin/plugin.sh": counting
      })
      const connection = yield* connectionOf(folder)
      assert.isFalse(yield* fs.exists(`${folder}/bin/runs`), "not run before it is needed")
      const all = yield* Effect.all(
        Array.from({ length: 10 }, () => authorizationOf(connection)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(new Set(all), new Set(["Bearer token-extra-1"]))
      yield* connection.refresh
      assert.strictEqual(yield* authorizationOf(connection), "Bearer token-extra-2")
      assert.deepStrictEqual(JSON.parse(yield* fs.readFileString(`${folder}/bin/info`)), {
        apiVersion: "client.authentication.k8s.io/v1",
        kind: "ExecCredential",
        spec: {
          interactive: false,
          cluster: {
            "server": "https://a:6443",
            "certificate-authority-data": data,
            "config": { audience: "x" }
          }
        }
      })
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("is told the CA of the cluster also when a file has it", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* folderWith({
        "config": one({
          cluster: { "certificate-authority": "ca.crt" },
          user: {
            exec: {
              apiVersion: "client.authentication.k8s.io/v1",
              command: "./plugin.sh",
              interactiveMode: "Never",
              provideClusterInfo: true
            }
          }
        }),
        "ca.crt": PEM,
        "plugin.sh": counting
      })
      yield* authorizationOf(yield* connectionOf(folder))
      assert.strictEqual(
        JSON.parse(yield* fs.readFileString(`${folder}/info`)).spec.cluster["certificate-authority-data"],
        data
      )
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("is run again when its credential ends", () =>
    Effect.gen(function*() {
      const folder = yield* folderWith({
        "config": exec("./plugin.sh", {
          args: ["t"],
          env: [{ name: "STATUS", value: `,"expirationTimestamp":"1970-01-01T01:00:00Z"` }]
        }),
        "plugin.sh": counting
      })
      const connection = yield* connectionOf(folder)
      assert.strictEqual(yield* authorizationOf(connection), "Bearer t--1")
      yield* TestClock.adjust("59 minutes")
      assert.strictEqual(yield* authorizationOf(connection), "Bearer t--1")
      yield* TestClock.adjust("55 seconds")
      assert.strictEqual(yield* authorizationOf(connection), "Bearer t--2")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("may give a client certificate", () =>
    Effect.gen(function*() {
      const credential = {
        apiVersion: "client.authentication.k8s.io/v1",
        kind: "ExecCredential",
        status: { clientCertificateData: "CRT", clientKeyData: "KEY" }
      }
      const folder = yield* folderWith({
        "config": exec("./plugin.sh"),
        "plugin.sh": `#!/bin/sh\necho '${JSON.stringify(credential)}'\n`
      })
      const { authorization, tls } = yield* (yield* connectionOf(folder)).identity
      assert.isUndefined(authorization)
      assert.strictEqual(tls.cert, "CRT")
      assert.strictEqual(tls.ca, PEM)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("that fails says why, and never what it gave", () =>
    Effect.gen(function*() {
      const token = `eyJhbGciOiJSUzI1NiJ9.${"a".repeat(40)}.sig`
      const folder = yield* folderWith({
        "absent": exec("kubeprober-no-such-plugin", { installHint: "install it with care" }),
        "always": exec("./ok.sh", { interactiveMode: "Always" }),
        "failing": exec("./failing.sh"),
        "garbled": exec("./garbled.sh"),
        "empty": exec("./empty.sh"),
        "other": exec("./other.sh"),
        "ok.sh": "#!/bin/sh\necho '{}'\n",
        "failing.sh":
          `#!/bin/sh\necho 'your session has ended, sign in: ${token}' >&2\nyes | head -c 100000 >&2\nexit 3\n`,
        "garbled.sh": `#!/bin/sh\necho '{"token": ${token}'\n`,
        "empty.sh":
          `#!/bin/sh\necho '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{}}'\n`,
        "other.sh":
          `#!/bin/sh\necho '{"apiVersion":"client.authentication.k8s.io/v1beta1","kind":"ExecCredential","status":{"token":"x"}}'\n`
      })
      const failure = Effect.fnUntraced(function*(name: string) {
        const config = yield* KubeConfigFile.load({ path: `${folder}/${name}` })
        const exit = yield* Effect.exit((yield* config.connection()).identity)
        assert.isTrue(Exit.isFailure(exit))
        assert.notInclude(JSON.stringify(exit) + String(exit), "eyJ")
        return yield* Effect.map(Effect.flip(exit), (error) => error.message)
      })
      assert.strictEqual(
        yield* failure("absent"),
        "no credentials for cluster a from exec plugin kubeprober-no-such-plugin: it is not installed; install it with care"
      )
      assert.include(yield* failure("always"), "it needs a terminal")
      const failed = yield* failure("failing")
      assert.include(failed, "it ended with exit code 3: your session has ended, sign in: <redacted>")
      assert.isBelow(failed.length, 2_500)
      assert.include(yield* failure("garbled"), "it did not print an ExecCredential")
      assert.include(yield* failure("empty"), "neither a token nor a client certificate")
      assert.include(yield* failure("other"), "it speaks client.authentication.k8s.io/v1beta1")
    }).pipe(Effect.provide(NodeServices.layer)))
})
