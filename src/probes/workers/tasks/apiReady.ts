/** `api.ready`: the API server asked from a pod as programs in pods ask it, by its name and by its address. */
import { Config, Duration, Effect, Redacted, Result, Schema } from "effect"
import { quote } from "../../../domain/Redaction.ts"
import { Credentials } from "../../../infra/credentials/Credentials.ts"
import { HttpCall } from "../../../infra/net/HttpCall.ts"
import { percentile } from "../../Percentile.ts"
import * as Task from "../Task.ts"
import { API_CREDENTIAL } from "../Workers.ts"

/** As every cluster's certificate names its API server (kubeadm and all managed ones; pods verify it by this). */
export const API_NAME = "kubernetes.default.svc"

const Input = Schema.Struct({
  /** Requests by each of the two ways. */
  times: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 20 })),
  timeoutMillis: Schema.Finite,
  /** Between two requests of a way: an API server that is started anew refuses connections for a moment. */
  pauseMillis: Schema.optionalKey(Schema.Finite)
})

/** Why the last request that failed did; `status` for an answer that was none of 200 or 403. */
const Failure = Schema.Struct({
  kind: Schema.String,
  detail: Schema.String,
  status: Schema.optionalKey(Schema.Int)
})

const Way = Schema.Struct({
  good: Schema.Int,
  times: Schema.Int,
  /** The median of good answers, whole exchanges with a new connection each; 0 of none. */
  p50Millis: Schema.Finite,
  failure: Schema.optionalKey(Failure)
})
export type Way = typeof Way.Type

const Output = Schema.Struct({
  /** `host:port`, as the kubelet tells pods. */
  address: Schema.String,
  byAddress: Way,
  byName: Way
})
export type ApiReady = typeof Output.Type

const MAX_DETAIL = 160

/** 403 is an answer to somebody who was recognised: the right to read `/readyz` is taken away in hardened clusters. */
const ANSWERS: ReadonlySet<number> = new Set([200, 403])

export const apiReady = Task.make("api.ready", {
  input: Input,
  output: Output,
  timeout: "60 seconds",
  run: Effect.fnUntraced(function*({ pauseMillis = 0, timeoutMillis, times }: typeof Input.Type) {
    const credentials = yield* Credentials
    const http = yield* HttpCall
    const token = yield* credentials.read({ credential: API_CREDENTIAL, key: "token" })
    const ca = yield* credentials.read({ credential: API_CREDENTIAL, key: "ca.crt" })
    const host = yield* Config.NonEmptyString("KUBERNETES_SERVICE_HOST")
    const port = yield* Config.NonEmptyString("KUBERNETES_SERVICE_PORT")
    const authorization = Redacted.make(`Bearer ${Redacted.value(token)}`)

    const ask = (at: string) =>
      http.send({
        method: "GET",
        url: new URL(`https://${at}:${port}/readyz`),
        headers: { authorization },
        tls: { ca: Redacted.value(ca), serverName: API_NAME },
        redirects: 0,
        timeout: Duration.millis(timeoutMillis),
        maximumBody: 4096
      })
    const way = Effect.fnUntraced(function*(at: string): Effect.fn.Return<Way, never, HttpCall> {
      const took: Array<number> = []
      let failure: typeof Failure.Type | undefined
      for (let time = 0; time < times; time++) {
        if (time > 0) yield* Effect.sleep(pauseMillis)
        const result = yield* Effect.result(ask(at))
        if (Result.isFailure(result)) {
          failure = { kind: result.failure.kind, detail: quote(result.failure.detail, MAX_DETAIL) }
        } else if (ANSWERS.has(result.success.status)) took.push(Duration.toMillis(result.success.timings.total))
        else {
          const { body, status } = result.success
          failure = { kind: "status", status, detail: `status ${status}: ${quote(body, MAX_DETAIL)}` }
        }
      }
      return {
        good: took.length,
        times,
        p50Millis: percentile(took, 50),
        ...(failure === undefined ? {} : { failure })
      }
    })
    const [byAddress, byName] = yield* Effect.all(
      [way(host.includes(":") ? `[${host}]` : host), way(API_NAME)],
      { concurrency: 2 }
    )
    return { address: `${host}:${port}`, byAddress, byName }
  })
})
