/** `http.gets`: a URL asked several times from a pod, and who answered. */
import { Duration, Effect, Option, Result, Schedule, Schema } from "effect"
import { quote } from "../../../domain/Redaction.ts"
import { type HttpAnswer, HttpCall } from "../../../infra/net/HttpCall.ts"
import type { NetError } from "../../../infra/net/NetError.ts"
import { percentile } from "../../Percentile.ts"
import * as Task from "../Task.ts"

const Input = Schema.Struct({
  url: Schema.String,
  /** Sent as the `Host` header instead of the URL's. */
  host: Schema.optionalKey(Schema.String),
  times: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100 })),
  timeoutMillis: Schema.Finite,
  /**
   * Before what counts, it is asked until it answers, or until it does not, for this long at most: routes are made and
   * removed some time after the objects they follow, and one pod's after another's. Answered it has when so many pods have
   * (1 when absent).
   */
  first: Schema.optionalKey(Schema.Struct({
    until: Schema.Literals(["answered", "silent"]),
    pods: Schema.optionalKey(Schema.Int),
    withinMillis: Schema.Finite
  }))
})

const Output = Schema.Struct({
  /** Answers of status 200. */
  good: Schema.Int,
  times: Schema.Int,
  /** How often each pod answered, by what it says of itself. */
  pods: Schema.Record(Schema.String, Schema.Int),
  p95Millis: Schema.Finite,
  /** Of the last that was no answer of status 200. */
  why: Schema.optionalKey(Schema.String)
})
export type HttpGets = typeof Output.Type

const Body = Schema.fromJsonString(Schema.Struct({ pod: Schema.String }))
const decodeBody = Schema.decodeUnknownOption(Body)

type Answered = Result.Result<HttpAnswer, NetError>

const isGood = (result: Answered): boolean => Result.isSuccess(result) && result.success.status === 200

/** Who says to have answered. */
const podOf = (result: Answered): string | undefined =>
  Result.isSuccess(result) && isGood(result)
    ? Option.getOrUndefined(decodeBody(result.success.body))?.pod
    : undefined

const MAX_WHY = 120

const AGAIN_AFTER = "200 millis"

export const httpGets = Task.make("http.gets", {
  input: Input,
  output: Output,
  timeout: "60 seconds",
  run: Effect.fnUntraced(function*({ first, host, times, timeoutMillis, url }: typeof Input.Type) {
    const http = yield* HttpCall
    const once = Effect.result(http.send({
      method: "GET",
      url: new URL(url),
      ...(host === undefined ? {} : { headers: { host } }),
      redirects: 0,
      timeout: Duration.millis(timeoutMillis),
      maximumBody: 4096
    }))
    if (first !== undefined) {
      const { pods: enough = 1, until } = first
      const heard = new Set<string>()
      yield* once.pipe(
        Effect.map((result) => {
          if (until === "silent") return !isGood(result)
          const pod = podOf(result)
          if (pod !== undefined) heard.add(pod)
          return heard.size >= enough
        }),
        Effect.repeat({ until: (done) => done, schedule: Schedule.spaced(AGAIN_AFTER) }),
        Effect.timeoutOption(first.withinMillis)
      )
    }
    const results = yield* Effect.forEach(Array.from({ length: times }), () => once, { concurrency: 4 })
    const pods: Record<string, number> = {}
    const took: Array<number> = []
    let why: string | undefined
    for (const result of results) {
      if (Result.isFailure(result)) why = `${result.failure.kind}: ${result.failure.detail}`
      else if (result.success.status !== 200) why = `status ${result.success.status}`
      else {
        took.push(Duration.toMillis(result.success.timings.total))
        const pod = podOf(result)
        if (pod !== undefined) pods[pod] = (pods[pod] ?? 0) + 1
      }
    }
    return {
      good: took.length,
      times,
      pods,
      p95Millis: percentile(took, 95),
      ...(why === undefined ? {} : { why: quote(why, MAX_WHY) })
    }
  })
})
