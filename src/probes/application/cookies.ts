/** The cookies of one scenario (RFC 6265), gone with it: no need for the list of public suffixes, or for a store. */
import type { Cookies } from "../../infra/net/HttpCall.ts"

interface Cookie {
  readonly name: string
  readonly value: string
  readonly domain: string
  /** Only of `domain` itself. */
  readonly hostOnly: boolean
  readonly path: string
  readonly secure: boolean
}

/** As many as browsers keep of one site. */
const MAXIMUM = 180

const defaultPath = (pathname: string): string => pathname.slice(0, Math.max(1, pathname.lastIndexOf("/")))

const inDomain = (host: string, domain: string): boolean => host === domain || host.endsWith(`.${domain}`)

const inPath = (pathname: string, path: string): boolean =>
  pathname === path || (pathname.startsWith(path) && (path.endsWith("/") || pathname.charAt(path.length) === "/"))

const isPast = (expires: string | undefined, maxAge: string | undefined, now: number): boolean => {
  if (maxAge !== undefined && /^-?\d+$/u.test(maxAge)) return Number(maxAge) <= 0
  return expires !== undefined && new Date(expires).getTime() <= now
}

export interface Jar extends Cookies {
  /** The value of a cookie, whoever set it last. */
  readonly value: (name: string) => string | undefined
  readonly values: () => ReadonlyArray<string>
}

/** `now` in milliseconds since 1970: a server deletes a cookie by letting it expire. */
export const make = (now: () => number): Jar => {
  let kept: ReadonlyArray<Cookie> = []
  return {
    of: (url) =>
      kept.filter((cookie) =>
        (cookie.hostOnly ? url.hostname === cookie.domain : inDomain(url.hostname, cookie.domain)) &&
        inPath(url.pathname, cookie.path) && (!cookie.secure || url.protocol === "https:")
      ).map(({ name, value }) => `${name}=${value}`).join("; "),
    keep: (url, headers) => {
      for (const header of headers) {
        const [pair = "", ...rest] = header.split(";")
        const at = pair.indexOf("=")
        const name = pair.slice(0, Math.max(0, at)).trim()
        if (name === "") continue
        const attributes = new Map(rest.map((attribute) => {
          const [key = "", ...value] = attribute.split("=")
          return [key.trim().toLowerCase(), value.join("=").trim()] as const
        }))
        const domain = (attributes.get("domain") ?? "").replace(/^\./u, "").toLowerCase()
        // Nobody sets cookies for others, or for a whole top-level domain.
        if (domain !== "" && domain !== url.hostname && !(domain.includes(".") && inDomain(url.hostname, domain))) {
          continue
        }
        const path = attributes.get("path") ?? ""
        const cookie: Cookie = {
          name,
          value: pair.slice(at + 1).trim(),
          domain: domain === "" ? url.hostname : domain,
          hostOnly: domain === "",
          path: path.startsWith("/") ? path : defaultPath(url.pathname),
          secure: attributes.has("secure")
        }
        kept = kept.filter(({ domain, name, path }) =>
          !(name === cookie.name && domain === cookie.domain && path === cookie.path)
        )
        if (!isPast(attributes.get("expires"), attributes.get("max-age"), now())) {
          kept = [...kept, cookie].slice(-MAXIMUM)
        }
      }
    },
    value: (name) => kept.findLast((cookie) => cookie.name === name)?.value,
    values: () => kept.map(({ value }) => value)
  }
}
