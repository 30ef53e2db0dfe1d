/** A master that is killed again and again, and agents too, lose no result and count none twice. */
import { assert, layer } from "@effect/vitest"
import { Clock, Effect, Random, Schema } from "effect"
import { mkdtempSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { RunRecord } from "../../src/domain/Run.ts"
import { LocalCluster } from "../../src/local/LocalCluster.ts"
import { temporaryFolder } from "../cli/Kubeprober.ts"
import { TestCluster, eventually } from "../clusters/TestCluster.ts"
import { masterHost, said, startAgent } from "./fleetProcesses.ts"

const folders = temporaryFolder()
const KILLS = 20
const CLUSTERS = ["edge-1", "edge-2", "edge-3"]

const query = <S extends Schema.Codec<unknown, unknown>>(
  file: string,
  sql: string,
  row: S
): ReadonlyArray<S["Type"]> => {
  const database = new DatabaseSync(file)
  try {
    return Schema.decodeUnknownSync(Schema.Array(row))(database.prepare(sql).all())
  } finally {
    database.close()
  }
}

/** From now on the database itself notes each result that its agent makes, in the transaction that keeps it. */
const noteResults = (state: string) =>
  Effect.sync(() => {
    const database = new DatabaseSync(join(state, "agent.db"))
    database.exec("CREATE TABLE test_made (record TEXT NOT NULL)")
    database.exec(
      "CREATE TRIGGER test_make AFTER INSERT ON outbox BEGIN INSERT INTO test_made VALUES (NEW.record); END"
    )
    database.close()
  })

const decodeRecord = Schema.decodeSync(Schema.fromJsonString(RunRecord))

/** The results that an agent made, which is not running. */
const madeBy = (cluster: string, state: string): ReadonlyArray<string> =>
  query(join(state, "agent.db"), "SELECT record FROM test_made", Schema.Struct({ record: Schema.String }))
    .map(({ record }) => decodeRecord(record))
    .map(({ probe, report, run }) => `${cluster} ${run} ${probe.namespace}/${probe.name} ${report.checker}`)

const undelivered = (state: string): number =>
  query(
    join(state, "agent.db"),
    "SELECT count(*) AS count FROM outbox",
    Schema.Struct({ count: Schema.Int })
  )
    .reduce((total, { count }) => total + count, 0)

const Kept = Schema.Struct({ key: Schema.String, received: Schema.Int })

layer(TestCluster.layer({ name: "kills" }), { excludeTestServices: true, timeout: "120 seconds" })(
  "on a real cluster",
  (it) => {
    it.effect(`${KILLS} deaths of the master: every result is kept, and counted once`, () =>
      Effect.gen(function*() {
        const { kubeconfigPath: kubeconfig } = yield* LocalCluster
        const folder = mkdtempSync(join(folders, "try-"))
        const stateOf = (cluster: string) => join(folder, "agents", cluster)
        const master = yield* masterHost(folder)
        const agentOf = (cluster: string, tokenFile?: string) =>
          startAgent(master, { state: stateOf(cluster), kubeconfig, tokenFile })
        const checks = [{ name: "health", use: "k8s.api.health" }, { name: "access", use: "k8s.self.access" }] as const
        const every = (interval: string) => master.apply("fast", { clusterSelector: {}, checks, policy: { interval } })

        let serving = yield* master.start
        for (const cluster of CLUSTERS) {
          const agent = yield* agentOf(cluster, yield* master.add(cluster))
          yield* said(agent, /registered/u)
          yield* agent.stop
          yield* noteResults(stateOf(cluster))
        }
        yield* every("1s")
        const agents = new Map(
          yield* Effect.forEach(
            CLUSTERS,
            (cluster) => Effect.map(agentOf(cluster), (agent) => [cluster, agent] as const)
          )
        )

        /** When the master was killed. */
        const deaths: Array<number> = []
        for (let kill = 0; kill < KILLS; kill++) {
          // One agent a time dies as well and comes back at once; the others wait longer for a master that keeps dying.
          const cluster = CLUSTERS[kill % CLUSTERS.length] ?? ""
          yield* agents.get(cluster)?.kill ?? Effect.void
          const agent = yield* agentOf(cluster)
          agents.set(cluster, agent)
          // Every second life of the master is long enough for a delivery, however busy the machine is.
          if (kill % 2 === 0) yield* said(agent, /registered/u)
          yield* Effect.sleep(yield* Random.nextIntBetween(100, 1_500))
          yield* serving.kill
          deaths.push(yield* Clock.currentTimeMillis)
          serving = yield* master.start
        }

        // Nothing new for an hour, and what is there is delivered.
        yield* every("1h")
        yield* Effect.forEach(CLUSTERS, (cluster) =>
          eventually(
            Effect.gen(function*() {
              yield* agents.get(cluster)?.stop ?? Effect.void
              const left = undelivered(stateOf(cluster))
              if (left === 0) {
                return 0
              }
              const agent = yield* agentOf(cluster)
              agents.set(cluster, agent)
              yield* said(agent, /registered/u)
              yield* Effect.sleep("1 second")
              return left
            }),
            (left) => left === 0
          ), { concurrency: "unbounded" })
        yield* serving.stop

        const history = join(master.state, "history.db")
        const kept = query(
          history,
          `SELECT cluster || ' ' || run || ' ' || namespace || '/' || probe || ' ' || checker AS key, received
         FROM ledger JOIN cells ON cells.id = ledger.cell`,
          Kept
        )
        const made = CLUSTERS.flatMap((cluster) => madeBy(cluster, stateOf(cluster)))
        assert.isAbove(made.length, 3 * KILLS)
        assert.strictEqual(new Set(made).size, made.length, "no run has the name of another")
        assert.deepStrictEqual(kept.map(({ key }) => key).toSorted(), made.toSorted())
        // Those that were counted are as many: a delivery that came twice was counted once.
        const [counted] = query(
          history,
          "SELECT sum(pass + info + \"unknown\" + warn + error) AS runs FROM rollups",
          Schema.Struct({ runs: Schema.Int })
        )
        assert.strictEqual(counted?.runs, made.length)
        // The deaths did come between deliveries, not all before or after them.
        const lives = new Set(kept.map(({ received }) => deaths.filter((death) => death < received).length))
        assert.isAbove(lives.size, 3)
      }), 240_000)
  }
)
