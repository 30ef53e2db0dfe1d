/**
 * What a fleet says, asked by a program: who is in it, one run on all of it, and the changes of what it shows.
 *
 * `node report.ts [CHECK] [CHANGES]`: the check of the catalogue to run (`k8s.api.health` when absent), and after how many
 * changes to end (one).
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Duration, Effect, Fiber, Layer, Option, Stream } from "effect"
import { Connection, FleetClient } from "kubeprober/client"

const [check = "k8s.api.health", changes = "1"] = process.argv.slice(2)

/** Every page of the clusters, as one stream. */
const clusters = (fleet: FleetClient["Service"]) =>
  Stream.paginate(
    Option.none<string>(),
    (after) =>
      fleet.clusters({ filter: {}, ...Option.match(after, { onNone: () => ({}), onSome: (after) => ({ after }) }) })
        .pipe(
          Effect.map(({ clusters, next }) => [clusters, Option.map(Option.fromUndefinedOr(next), Option.some)] as const)
        )
  )

const report = Effect.gen(function*() {
  const fleet = yield* FleetClient

  yield* Stream.runForEach(clusters(fleet), ({ name, status }) => Console.log(`cluster ${name} ${status}`))

  // Changes are told from the moment of asking, so ask before the run that may make some.
  const watching = yield* fleet.transitions({ filter: {} }).pipe(
    Stream.take(Number(changes)),
    Stream.runForEach(({ checker, cluster, from, to }) =>
      Console.log(`change ${cluster} ${checker}: ${from ?? "nothing"} -> ${to}`)
    ),
    Effect.forkChild
  )

  yield* Stream.runForEach(
    fleet.run({
      filter: {},
      // A Probe of the fleet is run by { _tag: "Probe", probe: { namespace, name } }.
      target: { _tag: "Checks", checks: [{ name: check, use: check }] },
      timeout: Duration.seconds(30)
    }),
    (event) => {
      switch (event._tag) {
        case "Started":
          return Console.log(`run of ${check} on ${event.clusters.join(", ")}`)
        case "Reported":
          return Console.log(`result ${event.cluster} ${event.record.report.checker} ${event.record.report.status}`)
        case "Ended":
          // A cluster that did not answer has said nothing, which is never good news.
          return Console.log(`end ${event.cluster} ${event.outcome} ${event.message ?? ""}`.trimEnd())
      }
    }
  )
  yield* Fiber.join(watching)
})

/** From $KUBEPROBER_SERVER, $KUBEPROBER_TOKEN_FILE and $KUBEPROBER_CA_FILE, or of the master on this machine. */
const client = Layer.unwrap(
  Effect.map(
    Connection.resolve({ server: Option.none(), tokenFile: Option.none(), caFile: Option.none() }),
    FleetClient.layer
  )
)

report.pipe(Effect.provide(client), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
