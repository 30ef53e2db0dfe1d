/** HTTP exchanges, each over a connection of its own, timed by stage. */
import { Context, type Duration, type Effect, type Redacted } from "effect"
import type { ShownCertificate } from "../tls/TlsPeer.ts"
import type { AddressRules, NetError } from "./NetError.ts"

/** How long each stage took. Those of the last exchange when redirects were followed, except for `total`. */
export interface HttpTimings {
  /** The look-up of the name; nothing for an address. */
  readonly name: Duration.Duration
  readonly connect: Duration.Duration
  /** The TLS handshake; nothing without TLS. */
  readonly handshake: Duration.Duration
  /** From sending the request to the first byte of the answer. */
  readonly firstByte: Duration.Duration
  /** From the look-up to the last byte read, all redirects included. */
  readonly total: Duration.Duration
}

/** Keeps cookies from one exchange to the next. */
export interface Cookies {
  /** The value of the `Cookie` header for a URL; none when empty. */
  readonly of: (url: URL) => string
  /** `Set-Cookie` headers of an answer. */
  readonly keep: (url: URL, headers: ReadonlyArray<string>) => void
}

export interface HttpRequest extends AddressRules {
  readonly method: string
  /** `http:` or `https:`. Credentials in it are not sent. */
  readonly url: URL
  /** A redacted value is never sent to another origin, whatever redirects there. */
  readonly headers?: Readonly<Record<string, string | Redacted.Redacted<string>>> | undefined
  readonly body?: string | Redacted.Redacted<string> | undefined
  readonly tls?: {
    /** PEM of the authorities to trust instead of the runtime's own (those of Mozilla and `NODE_EXTRA_CA_CERTS`). */
    readonly ca?: string | undefined
    /** Whether to trust the runtime's own besides `ca`; default false, and true where a redirect leads to another origin. */
    readonly publicToo?: boolean | undefined
    /** The name to ask for and to find in the certificate, when it is not the URL's. */
    readonly serverName?: string | undefined
    /** Whether a server that nobody can trust is asked all the same; default false. */
    readonly insecure?: boolean | undefined
  } | undefined
  /** Redirects followed at most; the next one is the answer. */
  readonly redirects: number
  readonly cookies?: Cookies | undefined
  /** For everything, redirects included. */
  readonly timeout: Duration.Input
  /** Bytes of the answer's body that are read at most. */
  readonly maximumBody: number
}

export interface HttpAnswer {
  /** Who answered at last. */
  readonly url: URL
  /** The IP address that answered. */
  readonly address: string
  readonly status: number
  /** Names in lower case; several values of one name joined by `, `. */
  readonly headers: Readonly<Record<string, string>>
  /** As UTF-8, cut at `maximumBody`. */
  readonly body: string
  readonly truncated: boolean
  readonly redirects: number
  readonly timings: HttpTimings
  /** The certificates shown, the server's own first; none without TLS. */
  readonly certificates: ReadonlyArray<ShownCertificate>
}

/** Provided by `HttpCallNode`. */
export class HttpCall extends Context.Service<HttpCall, {
  /**
   * Ask once. Any status is an answer. Over TLS, nothing is sent before the server is trusted: an expired certificate,
   * another name or an unknown issuer fail with kind `tls` and the certificate shown.
   */
  readonly send: (request: HttpRequest) => Effect.Effect<HttpAnswer, NetError>
}>()("kubeprober/infra/net/HttpCall") {}
