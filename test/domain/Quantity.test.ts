import { assert, describe, it } from "@effect/vitest"
import * as Quantity from "../../src/domain/Quantity.ts"

describe("quantities", () => {
  it("are read as Kubernetes reads them", () => {
    const amounts = {
      "0": 0,
      "10": 10,
      "250m": 0.25,
      "1.5": 1.5,
      ".5": 0.5,
      "3.": 3,
      "4Gi": 4 * 2 ** 30,
      "128974848": 128_974_848,
      "129e6": 129e6,
      "129M": 129e6,
      "1E": 1e18,
      "1E3": 1000,
      "2Ei": 2 * 2 ** 60,
      "100k": 100_000,
      "5u": 5e-6,
      "7n": 7e-9,
      "-1": -1
    }
    for (const [text, amount] of Object.entries(amounts)) assert.strictEqual(Quantity.parse(text), amount, text)
  })

  it("are nothing else", () => {
    for (const text of ["", "Gi", "1 Gi", "1gi", "1KI", "0x10", "1e", "1.2.3", "NaN", "Infinity"]) {
      assert.isUndefined(Quantity.parse(text), text)
    }
  })

  it("are told in the largest unit they fill", () => {
    assert.deepStrictEqual([512, 2 ** 20, 1.5 * 2 ** 30].map(Quantity.formatBytes), ["512", "1Mi", "1.5Gi"])
  })
})
