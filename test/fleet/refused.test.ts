/** Who may not join is told why, in the agent's own log, and never shows up in the fleet. */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { temporaryFolder } from "../cli/Kubeprober.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { type MasterHost, masterHost, said, startAgent } from "./fleetProcesses.ts"

const folder = temporaryFolder()

class Host extends Context.Service<Host, MasterHost>()("kubeprober/test/Host") {}

const host = Layer.effect(Host, Effect.tap(masterHost(folder), (master) => master.start))

/** A token as it is kept in a file. */
const fileOf = (name: string, token: string): string => {
  const file = join(folder, `${name}.changed`)
  writeFileSync(file, token)
  return file
}

layer(Layer.provideMerge(host, TestCluster.layer({ name: "refused" })), {
  excludeTestServices: true,
  timeout: "120 seconds"
})("refused", (it) => {
  const agentWith = Effect.fnUntraced(function*(name: string, tokenFile?: string) {
    const { kubeconfigPath: kubeconfig } = yield* LocalCluster
    return yield* startAgent(yield* Host, { state: join(folder, name), kubeconfig, tokenFile })
  })

  const linked = Effect.fnUntraced(function*(cluster: string) {
    return (yield* (yield* Host).rows()).some((row) => row.cluster === cluster && row.linked)
  })

  it.effect("what is no token ends the agent, which does not print it", () =>
    Effect.gen(function*() {
      const agent = yield* agentWith("malformed", fileOf("malformed", "hunter2hunter2"))
      yield* said(agent, /this is not a join token/u)
      assert.notStrictEqual(yield* agent.stop, 0)
      assert.notInclude(agent.output(), "hunter2")
    }))

  it.effect("an agent without a token or a certificate says how to get one", () =>
    Effect.gen(function*() {
      const agent = yield* agentWith("nobody")
      yield* said(agent, /join token/u)
      assert.match(agent.output(), /not enrolled|needs a join token|no certificate/u)
    }))

  it.effect("a wrong secret, and another cluster's name, are refused", () =>
    Effect.gen(function*() {
      const master = yield* Host
      const [prefix, cluster, id, secret = "", pin] = readFileSync(yield* master.add("wrong"), "utf8").trim().split(".")
      const other = `${secret.startsWith("A") ? "B" : "A"}${secret.slice(1)}`
      const wrong = yield* agentWith("wrong", fileOf("wrong", [prefix, cluster, id, other, pin].join(".")))
      yield* said(wrong, /the join token for cluster wrong was refused: .*kubeprober cluster add wrong/u)
      assert.notInclude(wrong.output(), other)

      yield* master.add("victim")
      const foreign = yield* agentWith("foreign", fileOf("foreign", [prefix, "victim", id, secret, pin].join(".")))
      yield* said(foreign, /the join token for cluster victim was refused/u)
      assert.isFalse(yield* linked("wrong"))
      assert.isFalse(yield* linked("victim"))
    }))

  it.effect("a token is good once", () =>
    Effect.gen(function*() {
      const master = yield* Host
      const tokenFile = yield* master.add("single")
      yield* said(yield* agentWith("single", tokenFile), /registered/u)
      const again = yield* agentWith("single-again", tokenFile)
      yield* said(again, /the join token for cluster single was refused: .*used/u)
      assert.isTrue(yield* linked("single"))
      const added = yield* master.run("cluster", "add", "single")
      assert.strictEqual(added.code, 2)
      assert.match(added.stderr, /single is enrolled; revoke it first/u)
    }))

  it.effect("a token is good for its time alone", () =>
    Effect.gen(function*() {
      const late = yield* masterHost(join(folder, "late"))
      const master = yield* late.start
      const tokenFile = yield* late.add("slow")
      yield* master.stop
      // Instead of ten minutes of waiting.
      const database = new DatabaseSync(join(late.state, "master.db"))
      database.exec("UPDATE join_tokens SET expires = 1")
      database.close()
      yield* late.start
      const { kubeconfigPath: kubeconfig } = yield* LocalCluster
      const agent = yield* startAgent(late, { state: join(folder, "slow"), kubeconfig, tokenFile })
      yield* said(agent, /the join token for cluster slow was refused: it has expired/u)
    }))

  it.effect("an agent tells a master that is not its token's from the one that is", () =>
    Effect.gen(function*() {
      const master = yield* Host
      const stranger = yield* masterHost(join(folder, "stranger"))
      yield* stranger.start
      const { kubeconfigPath: kubeconfig } = yield* LocalCluster
      const agent = yield* startAgent({ home: master.home, url: stranger.url }, {
        state: join(folder, "astray"),
        kubeconfig,
        tokenFile: yield* master.add("astray")
      })
      yield* said(agent, /does not present the authority/u)
      assert.isFalse(yield* linked("astray"))
    }))

  it.effect("a revoked cluster is cut off at once, cannot come back, and can be added anew", () =>
    Effect.gen(function*() {
      const master = yield* Host
      const agent = yield* agentWith("banned", yield* master.add("banned"))
      yield* said(agent, /registered/u)
      yield* master.must("cluster", "revoke", "banned")
      yield* said(agent, /cluster banned was revoked; enrol it again with kubeprober cluster add banned/u)
      yield* eventually(linked("banned"), (is) => !is, { within: "5 seconds" })
      yield* agent.kill

      const back = yield* agentWith("banned")
      yield* said(back, /cluster banned was revoked/u)
      assert.isFalse(yield* linked("banned"))
      yield* back.kill

      const token = join(folder, "banned-anew.token")
      yield* master.must("cluster", "add", "banned", "--token-out", token)
      yield* said(yield* agentWith("banned", token), /registered/u)
      yield* eventually(linked("banned"), (is) => is, { within: "10 seconds" })
    }))
})
