/**
 * TLS by a key that both ends hold (TLS-PSK, RFC 4279, with the forward secrecy of RFC 5489): no certificates, so nothing
 * to issue, renew or verify, and whoever has not got the key cannot even shake hands.
 */
import type { ConnectionOptions, TlsOptions } from "node:tls"

/** ChaCha20-Poly1305 with ephemeral Diffie-Hellman (RFC 7905). TLS 1.3 has no such suites by name in Node. */
const SUITE = "ECDHE-PSK-CHACHA20-POLY1305"

const common = { ciphers: SUITE, minVersion: "TLSv1.2", maxVersion: "TLSv1.2" } as const

/** The shortest key, in bytes: 256 bits. */
export const KEY_BYTES = 32

/** For a server. `key` is asked for at each handshake, so that it may change; without one nobody gets in. */
export const server = (identity: string, key: () => Uint8Array | undefined): TlsOptions => ({
  ...common,
  pskIdentityHint: identity,
  pskCallback: (_socket, name) => name === identity ? key() ?? null : null
})

/** For a client. */
export const client = (identity: string, key: Uint8Array): ConnectionOptions => ({
  ...common,
  pskCallback: () => ({ psk: key, identity }),
  // There is no certificate; that the server holds the key is its identity.
  checkServerIdentity: () => undefined
})
