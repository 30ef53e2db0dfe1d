/** Who may not join is told why, in the agent's own log, and never shows up in the fleet. */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { MatrixRow } from "../../src/domain/rpc/Fleet.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { temporaryFolder } from "../cli/Kubeprober.ts"
import { freshName } from "../clusters/freshName.ts"
import { TestCluster } from "../clusters/TestCluster.ts"
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

  const isLinked = (cluster: string) => (rows: ReadonlyArray<MatrixRow>) =>
    rows.some((row) => row.cluster === cluster && row.linked)

  const linked = Effect.fnUntraced(function*(cluster: string) {
    return isLinked(cluster)(yield* (yield* Host).until(() => true))
  })

  const refusal = (cluster: string, why = "") =>
    new RegExp(`the join token for cluster ${cluster} was refused${why}`, "u")

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
      const name = yield* freshName("wrong")
      const [prefix, cluster, id, secret = "", pin] = readFileSync(yield* master.add(name), "utf8").trim().split(".")
      const other = `${secret.startsWith("A") ? "B" : "A"}${secret.slice(1)}`
      const wrong = yield* agentWith(name, fileOf(name, [prefix, cluster, id, other, pin].join(".")))
      yield* said(wrong, refusal(name, `: .*kubeprober cluster add ${name}`))
      assert.notInclude(wrong.output(), other)

      const victim = yield* freshName("victim")
      yield* master.add(victim)
      const foreign = yield* agentWith("foreign", fileOf("foreign", [prefix, victim, id, secret, pin].join(".")))
      yield* said(foreign, refusal(victim))
      assert.isFalse(yield* linked(name))
      assert.isFalse(yield* linked(victim))
    }))

  it.effect("a token is good once", () =>
    Effect.gen(function*() {
      const master = yield* Host
      const single = yield* freshName("single")
      const tokenFile = yield* master.add(single)
      yield* said(yield* agentWith(single, tokenFile), /registered/u)
      const again = yield* agentWith(`${single}-again`, tokenFile)
      yield* said(again, refusal(single, ": .*used"))
      assert.isTrue(yield* linked(single))
      const added = yield* master.run("cluster", "add", single)
      assert.strictEqual(added.code, 2)
      assert.include(added.stderr, `${single} is enrolled; revoke it first`)
    }))

  it.effect("a token is good for its time alone", () =>
    Effect.gen(function*() {
      const own = join(folder, yield* freshName("late"))
      const late = yield* masterHost(own)
      const master = yield* late.start
      const tokenFile = yield* late.add("slow")
      yield* master.stop
      // Instead of ten minutes of waiting.
      const database = new DatabaseSync(join(late.state, "master.db"))
      database.exec("UPDATE join_tokens SET expires = 1")
      database.close()
      yield* late.start
      const { kubeconfigPath: kubeconfig } = yield* LocalCluster
      const agent = yield* startAgent(late, { state: join(own, "slow"), kubeconfig, tokenFile })
      yield* said(agent, refusal("slow", ": it has expired"))
    }))

  it.effect("an agent tells a master that is not its token's from the one that is", () =>
    Effect.gen(function*() {
      const master = yield* Host
      const stranger = yield* masterHost(join(folder, yield* freshName("stranger")))
      yield* stranger.start
      const { kubeconfigPath: kubeconfig } = yield* LocalCluster
      const astray = yield* freshName("astray")
      const agent = yield* startAgent({ home: master.home, url: stranger.url }, {
        state: join(folder, astray),
        kubeconfig,
        tokenFile: yield* master.add(astray)
      })
      yield* said(agent, /does not present the authority/u)
      assert.isFalse(yield* linked(astray))
    }))

  it.effect("a revoked cluster is cut off at once, cannot come back, and can be added anew", () =>
    Effect.gen(function*() {
      const master = yield* Host
      const banned = yield* freshName("banned")
      const agent = yield* agentWith(banned, yield* master.add(banned))
      yield* said(agent, /registered/u)
      yield* master.must("cluster", "revoke", banned)
      yield* said(
        agent,
        new RegExp(`cluster ${banned} was revoked; enrol it again with kubeprober cluster add ${banned}`, "u")
      )
      yield* master.until((rows) => !isLinked(banned)(rows), { within: "30 seconds" })
      yield* agent.kill

      const back = yield* agentWith(banned)
      yield* said(back, new RegExp(`cluster ${banned} was revoked`, "u"))
      assert.isFalse(yield* linked(banned))
      yield* back.kill

      const token = join(folder, `${banned}-anew.token`)
      yield* master.must("cluster", "add", banned, "--token-out", token)
      yield* said(yield* agentWith(banned, token), /registered/u)
      yield* master.until(isLinked(banned), { within: "30 seconds" })
    }))
})
