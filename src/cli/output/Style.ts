/** Colour for people: only on a terminal, and never when NO_COLOR is set (https://no-color.org). */
import type { Status } from "../../domain/Status.ts"

export interface Style {
  readonly status: (status: Status, text?: string) => string
  readonly dim: (text: string) => string
  readonly bold: (text: string) => string
}

const paint = (code: number) => (text: string): string => `\u001B[${code}m${text}\u001B[0m`

const statusCodes: Record<Status, number> = { PASS: 32, INFO: 36, UNKNOWN: 35, WARN: 33, ERROR: 31 }

export const coloured: Style = {
  status: (status, text = status) => paint(statusCodes[status])(text),
  dim: paint(2),
  bold: paint(1)
}

export const plain: Style = { status: (status, text = status) => text, dim: (text) => text, bold: (text) => text }

/** Choose by where the text goes. */
export const forStream = (
  stream: { readonly isTTY?: boolean | undefined },
  environment: Readonly<Record<string, string | undefined>>
): Style =>
  stream.isTTY === true && (environment["NO_COLOR"] ?? "") === "" && environment["TERM"] !== "dumb" ? coloured : plain
