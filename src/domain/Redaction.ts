/**
 * Takes what looks like a credential out of text that others will read: messages and evidence quote servers, URLs and
 * logs, and nobody can know what these repeat.
 *
 * Found are bearer and basic credentials, user info in URLs, PEM private keys, JSON web tokens (and any other base64 of a
 * JSON object, such as a `.dockerconfigjson`), and values given to a name that ends like that of a secret. Rather a word
 * too many than a secret told: who needs the value has it elsewhere.
 */

/** What stands in a secret's place. Itself no secret by any rule here, so that redacting twice is redacting once. */
export const REDACTED = "REDACTED"

/** `-----BEGIN RSA PRIVATE KEY-----` to its end, or to the end of a text that was cut in it (RFC 7468, section 2). */
const PRIVATE_KEY =
  /-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY-----[^]*?(?:-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY-----|$)/gu

/** Base64 of what begins with `{"`: a JWT's header (RFC 7519), with whatever follows it. */
const JSON_BASE64 = /eyJ[\w+/=-]{8,}(?:\.[\w+/=-]*)*/gu

/** The header with any scheme; one word when there is none. */
const AUTHORIZATION = /(authorization["']?\s*[:=]\s*["']?(?:(?:bearer|basic|digest|token|negotiate)\s+)?)[^\s"',;]+/giu

/** A scheme's name and what follows, unless that is a plain word: "bearer authentication" tells nothing. */
const SCHEME = /([Bb]earer|BEARER|[Bb]asic|BASIC)(\s+)(?![a-z]{1,20}(?![\w.~+/=-]))[\w.~+/=-]{6,}/gu

/** `://user:password@` and `://token@` (RFC 3986, section 3.2.1). */
const USER_INFO = /(:\/\/)[^\s/?#"'<>]*@/gu

/** Words that end in an `@`. Tried only where a word begins, so that a text without any takes time by its length. */
const BEFORE_AT = /(?<![^\s@"'<>])[^\s@"'<>]+@/gu

/** The beginning of a user info with a password. `://host:443/` is none. */
const USER = /:\/\/[^/?#:]*:(?!\d{1,5}[/?#])/u

/** Passwords with a slash in it, which should have been encoded. */
const withoutUnencoded = (text: string): string =>
  text.replace(BEFORE_AT, (word) => {
    const user = USER.exec(word)
    return user === null ? word : `${word.slice(0, user.index)}://${REDACTED}@`
  })

const SECRET_NAME =
  "(?:passw(?:or)?d|passphrase|pwd|token|secret|api[_-]?key|access[_-]?key|private[_-]?key|key-data|" +
  "credentials?|signature|sig)"

/** `password=x`, as in a query, a connection string or a command line. */
const ASSIGNED = new RegExp(`(${SECRET_NAME}\\s*=\\s*)[^\\s&;,"'<>)}\\]]+`, "giu")

/** `password="x y"`, and `"password": "x"` as in JSON, also where that is escaped inside of a text. */
const QUOTED = new RegExp(
  `(${SECRET_NAME}(?:\\s*=|\\\\?["']\\s*:)\\s*\\\\?)(?:"[^"]*(?:"|$)|'[^']*(?:'|$))`,
  "giu"
)

/** `password: x`, as in YAML: only at the start of a line, because sentences have colons too. */
const YAML = new RegExp(`(^[\\t ]*(?:- )?[\\w.-]*${SECRET_NAME}:[\\t ]+)[^\\s"'].*$`, "gimu")

/** Names of facts whose value is a secret whatever it looks like. */
const SECRET_FACT = /(?:passw(?:or)?d|passphrase|pwd|token|api[_-]?key|access[_-]?key|private[_-]?key)$/iu

/** Longer texts are cut before they are looked at; what is shown of a text is far shorter. */
const MAX_LENGTH = 16_384

const once = (text: string): string =>
  withoutUnencoded(text.replace(PRIVATE_KEY, REDACTED).replace(JSON_BASE64, REDACTED))
    .replace(USER_INFO, `$1${REDACTED}@`)
    .replace(AUTHORIZATION, `$1${REDACTED}`)
    .replace(SCHEME, `$1$2${REDACTED}`)
    .replace(QUOTED, `$1"${REDACTED}"`)
    .replace(ASSIGNED, `$1${REDACTED}`)
    .replace(YAML, `$1${REDACTED}`)

/** What one replacement leaves may read as another secret; after a few there is nothing left to replace. */
const PASSES = 4

/** `text` without secrets; of a text of more than 16,384 UTF-16 code units no more than that. */
export const redact = (text: string): string => {
  let redacted = text.length <= MAX_LENGTH ? text : text.slice(0, MAX_LENGTH)
  for (let pass = 0; pass < PASSES; pass++) {
    const before = redacted
    redacted = once(before)
    if (redacted === before) break
  }
  return redacted
}

/**
 * The beginning of what somebody else wrote, at most `maximum` UTF-16 code units, for a message or a fact. Whoever cuts a
 * text uses this: what is left of a secret that was cut (`postgres://user:pass`, without its `@`) looks like none.
 */
export const quote = (text: string, maximum: number): string => {
  const whole = redact(text.trim())
  return whole.length <= maximum ? whole : `${whole.slice(0, maximum - 1).replace(/[\uD800-\uDBFF]$/u, "")}…`
}

/** A fact of this name. */
export const redactFact = (name: string, text: string): string => SECRET_FACT.test(name) ? REDACTED : redact(text)
