import { assert, describe, it } from "@effect/vitest"
import { nameServersOf } from "../../src/local/node/LocalNode.ts"

describe("the name servers of a node", () => {
  it("are those of the machine, in order, without what it searches", () =>
    assert.strictEqual(
      nameServersOf(
        "# ours\nsearch corp.example\nnameserver 10.0.0.1\n nameserver\tfd00::1\n#nameserver 1.1.1.1\noptions rotate"
      ),
      "nameserver 10.0.0.1\nnameserver\tfd00::1\noptions timeout:1 attempts:1\n"
    ))

  it("are none where the machine has none", () => assert.deepStrictEqual(["", "search a"].map(nameServersOf), ["", ""]))
})
