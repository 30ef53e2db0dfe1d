/** How deep JSON is nested, found without recursion: what is asked may be deep enough to exhaust a stack. */

/** Whether lists and objects are nested in each other more than `maximum` deep; `[]` is 1 deep, a text 0. */
export const isDeeperThan = (json: unknown, maximum: number): boolean => {
  let level: ReadonlyArray<unknown> = [json]
  for (let depth = 0; level.length > 0; depth++) {
    const nested = level.filter((each): each is object => typeof each === "object" && each !== null)
    if (nested.length > 0 && depth >= maximum) return true
    level = nested.flatMap((each): ReadonlyArray<unknown> => Object.values(each))
  }
  return false
}
