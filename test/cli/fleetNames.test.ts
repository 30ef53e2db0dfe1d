import { assert, describe, it } from "@effect/vitest"
import * as FleetNames from "../../src/cli/FleetNames.ts"

const known = {
  clusters: ["local-1", "local-2"],
  probes: ["kubernetes", "infrastructure"],
  checkers: [{ checker: "k8s.node.readiness", probe: "kubernetes" }]
}

const unknown = (clusters: ReadonlyArray<string>, probes: ReadonlyArray<string>) =>
  FleetNames.unknown({ clusters, probes }, known)

describe("names that a call gives", () => {
  it("pass when they exist", () => {
    assert.deepStrictEqual(unknown(["local-1"], ["kubernetes"]), [])
  })

  it("of no cluster are told, with those there are and what is near", () => {
    assert.deepStrictEqual(unknown(["nope", "local-1"], []), ["there is no cluster nope (there are local-1, local-2)"])
    assert.include(unknown(["local-3"], [])[0], "did you mean local-1 or local-2?")
    assert.include(
      FleetNames.unknown({ clusters: ["a"], probes: [] }, { ...known, clusters: [] })[0],
      "cluster add NAME"
    )
  })

  it("of a checker are told from those of Probes", () => {
    assert.deepStrictEqual(unknown([], ["k8s.node.readiness"]), [
      "there is no Probe k8s.node.readiness; did you mean the checker k8s.node.readiness of the Probe kubernetes? " +
      "--probe kubernetes shows it (there are kubernetes, infrastructure)"
    ])
    assert.include(unknown([], ["kubernets"])[0], "did you mean kubernetes?")
  })
})
