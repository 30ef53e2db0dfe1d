/** The scenario of `probe.yaml` as a program: typed captures, and whatever TypeScript can do between the steps. */
import { Effect, Schema } from "effect"
import { Scenario, setting } from "kubeprober/probes"

const Config = Schema.Struct({
  url: setting(Schema.String, { default: "http://127.0.0.1:8080", description: "Where the shop is." }),
  credential: setting(Schema.String, {
    default: "shop-prober",
    description: "The credential whose keys `user` and `password` are those of the synthetic customer."
  })
})

export const shopOrder = Scenario.make("shop.order", {
  proves: "A customer can log in, order, see the order, cancel it and log out.",
  config: Config,
  baseUrl: ({ url }) => url,
  run: Effect.fnUntraced(function*(session: Scenario.Session, { credential }: typeof Config.Type) {
    const user = yield* session.credential({ credential, key: "user" })
    const password = yield* session.credential({ credential, key: "password" })
    const { token } = yield* session.step("log in", {
      method: "POST",
      url: "/login",
      json: { user, password },
      capture: { token: Scenario.json("$.token") }
    })
    const headers = { authorization: `Bearer ${token}` }
    // From here on the session is ended, whatever happens.
    yield* session.finally("log out", { method: "POST", url: "/logout", headers })

    const { order } = yield* session.step("order", {
      method: "POST",
      url: "/orders",
      headers,
      form: { item: `kubeprober ${session.run}` },
      expect: { status: [201] },
      capture: { order: Scenario.json("$.id") }
    })
    yield* session.finally("cancel the order", { method: "DELETE", url: `/orders/${order}`, headers })

    yield* session.step("see the order", {
      url: `/orders/${order}`,
      headers,
      expect: { json: [{ path: "$.state", equals: "accepted" }, { path: "$.item", matches: "^kubeprober " }] }
    })
  })
})

export default shopOrder
