/** {@link Links} of Linux. */
import { Effect, Option } from "effect"
import { readFile } from "node:fs/promises"
import { networkInterfaces } from "node:os"
import { Links } from "./Links.ts"

const mtuOf = (name: string) =>
  Effect.tryPromise(() => readFile(`/sys/class/net/${name}/mtu`, "utf8")).pipe(
    Effect.map(Number),
    Effect.filterOrFail((mtu) => Number.isInteger(mtu) && mtu > 0)
  )

/** Stateless. */
export const service = Links.of({
  mtu: Effect.suspend(() => {
    const names = Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
      addresses.some(({ internal }) => !internal) ? [name] : []
    )
    return Effect.option(Effect.forEach(names, mtuOf)).pipe(
      Effect.map(Option.filter((found) => found.length > 0)),
      Effect.map(Option.map((found) => Math.min(...found)))
    )
  })
})
