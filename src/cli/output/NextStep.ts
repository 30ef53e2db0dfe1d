/** What to do about what a check said. */
import { checkerCodes } from "../../probes/CheckerCodes.ts"

/** The fix of a checker's code, where it is known. */
export type FixOf = (checker: string, code: string) => string | undefined

/** What the kubeconfig's reader says of a program that prints credentials and is not there. */
const PLUGIN_MISSING = /exec plugin (.+?): it is not installed/u

/** The code's fix, unless the message tells a cause with a fix of its own. */
export const of = (
  { checker, code, message }: {
    readonly checker: string
    readonly code: string | undefined
    readonly message: string
  },
  fixOf: FixOf
): string | undefined => {
  const plugin = code === checkerCodes.UNAUTHENTICATED.code ? PLUGIN_MISSING.exec(message)?.[1] : undefined
  if (plugin !== undefined) {
    return `Install ${plugin} where its command finds it (PATH), or use a kubeconfig that needs no such program.`
  }
  return code === undefined ? undefined : fixOf(checker, code)
}
