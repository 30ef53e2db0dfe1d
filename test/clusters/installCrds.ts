/** The kinds of this project in a test's cluster. */
import { Effect } from "effect"
import { readFileSync, readdirSync } from "node:fs"
import { TestCluster } from "./TestCluster.ts"

const crds = new URL("../../crds/", import.meta.url)

/** Applies every definition of `crds/` and waits until the API server serves them; the same again changes nothing. */
export const installCrds = Effect.gen(function*() {
  const { apply, kubectl } = yield* TestCluster
  yield* apply(...readdirSync(crds).map((file) => readFileSync(new URL(file, crds), "utf8")))
  yield* kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
})
