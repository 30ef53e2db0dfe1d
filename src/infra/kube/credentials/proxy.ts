/** Which proxy, if any, an address is reached through, by the environment variables Go programs know. */
import { Config, Effect, Option } from "effect"
import { BlockList, isIP, isIPv6 } from "node:net"

/**
 * The proxy for `server` from `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (or their lower-case forms), by the rules of Go's
 * golang.org/x/net/http/httpproxy, which kubectl follows: loopback never, then `NO_PROXY` by `*`, address, CIDR, and domain
 * with its subdomains, each with an optional port.
 */
export const fromEnvironment = Effect.fnUntraced(function*(server: URL): Effect.fn.Return<string | undefined> {
  const name = server.protocol === "https:" ? "HTTPS_PROXY" : "HTTP_PROXY"
  const proxy = yield* variable(name)
  if (proxy === undefined) return undefined
  const host = server.hostname.replace(/^\[(.*)\]$/, "$1").toLowerCase()
  const port = server.port === "" ? (server.protocol === "https:" ? "443" : "80") : server.port
  const exceptions = ((yield* variable("NO_PROXY")) ?? "").split(",").map((entry) => entry.trim().toLowerCase())
  if (isLoopback(host) || exceptions.some((entry) => isException(entry, host, port))) return undefined
  return proxy.includes("://") ? proxy : `http://${proxy}`
})

const variable = (name: string) =>
  Config.option(Config.NonEmptyString(name)).pipe(
    Effect.flatMap(Option.match({
      onSome: Effect.succeedSome,
      onNone: () => Config.option(Config.NonEmptyString(name.toLowerCase()))
    })),
    Effect.map(Option.getOrUndefined),
    Effect.orElseSucceed(() => undefined)
  )

const isLoopback = (host: string): boolean => host === "localhost" || host === "::1" || /^127(\.\d+){3}$/.test(host)

const family = (address: string) => isIPv6(address) ? "ipv6" : "ipv4"

const isException = (entry: string, host: string, port: string): boolean => {
  if (entry === "") return false
  if (entry === "*") return true
  const range = /^([0-9a-f.:]+)\/(\d{1,3})$/.exec(entry)
  if (range !== null) {
    const [, network = "", bits = ""] = range
    if (isIP(network) === 0 || isIP(host) === 0 || Number(bits) > (isIPv6(network) ? 128 : 32)) return false
    const block = new BlockList()
    block.addSubnet(network, Number(bits), family(network))
    return block.check(host, family(host))
  }
  const [, name = "", only] = isIP(entry) !== 0 ? [entry, entry] : /^\[?(.+?)\]?(?::(\d+))?$/.exec(entry) ?? []
  if (only !== undefined && only !== port) return false
  const domain = name.replace(/^\*?\./, "")
  // With a leading dot only subdomains are meant, without one the domain as well.
  return host.endsWith(`.${domain}`) || (host === domain && domain === name)
}
