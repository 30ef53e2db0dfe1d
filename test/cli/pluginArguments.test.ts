/** `kubectl probe`, as its users know it, in the words of our commands. */
import { assert, describe, it } from "@effect/vitest"
import { translate } from "../../src/cli/pluginArguments.ts"

describe("kubectl probe", () => {
  for (
    const [asked, argv] of [
      ["status", ["status"]],
      ["status -c edge-1 -o json", ["status", "--cluster", "edge-1", "-o", "json"]],
      ["status --cluster=edge-1,edge-2", ["status", "--cluster", "edge-1", "--cluster", "edge-2"]],
      ["once -c edge-1 -p k8s", ["once", "k8s", "--cluster", "edge-1"]],
      ["once -c edge-1 --use k8s.api.health", ["once", "--cluster", "edge-1", "--use", "k8s.api.health"]],
      ["once --help", ["once", "--help"]],
      ["version", ["--version"]],
      ["", ["--help"]]
    ] as const
  ) {
    it(`${asked} is kubeprober ${argv.join(" ")}`, () => {
      const words = asked === "" ? [] : asked.split(" ")
      assert.deepStrictEqual(translate(words), { _tag: "Run", argv })
    })
  }

  for (
    const [asked, told] of [
      ["once -c edge-1", "-p"],
      ["once -c edge-1 -p k8s,host", "one Probe"],
      ["oncestatus -c edge-1 -l", "kubeprober once"],
      ["ops edge-1", "kubectl --server"],
      ["terminal", "kubectl --server"],
      ["sttaus", "no verb sttaus"]
    ] as const
  ) {
    it(`${asked} says what there is in its place`, () => {
      const translation = translate(asked.split(" "))
      assert(translation._tag === "Refuse")
      assert.include(translation.message, told)
    })
  }
})
