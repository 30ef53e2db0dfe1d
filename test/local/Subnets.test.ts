import { assert, describe, it } from "@effect/vitest"
import {
  MAX_CLUSTERS,
  MAX_NODES,
  candidates,
  clusterNetwork,
  nodeNetwork,
  parseRoutes
} from "../../src/local/node/Subnets.ts"

const HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"

/** A line of /proc/net/route, from dotted addresses. */
const route = (destination: string, mask: string): string => {
  const hex = (address: string) =>
    Buffer.from(address.split(".").map(Number).toReversed()).toString("hex").toUpperCase()
  return `eth0\t${hex(destination)}\t00000000\t0001\t0\t0\t0\t${hex(mask)}\t0\t0\t0`
}

const table = (...routes: ReadonlyArray<string>): string => [HEADER, ...routes, ""].join("\n")

const free = (...routes: ReadonlyArray<string>): ReadonlyArray<number> =>
  candidates(table(...routes)).map(({ index }) => index)

describe("networks of clusters", () => {
  it("are all free on a machine with a default route and a network elsewhere", () => {
    assert.strictEqual(free(route("0.0.0.0", "0.0.0.0"), route("192.0.2.0", "255.255.255.0")).length, MAX_CLUSTERS)
  })

  it("leave out those whose machines or pods are routed elsewhere", () => {
    assert.notInclude(free(route("172.30.5.0", "255.255.255.0")), 5)
    assert.notInclude(free(route("10.133.7.0", "255.255.255.0")), 5)
    assert.notInclude(free(route("172.30.5.77", "255.255.255.255")), 5)
    assert.include(free(route("172.30.5.0", "255.255.255.0")), 4)
  })

  it("are none where a wide route covers them", () => {
    assert.deepStrictEqual(free(route("10.0.0.0", "255.0.0.0")), [])
    assert.deepStrictEqual(free(route("172.16.0.0", "255.240.0.0")), [])
  })

  it("are read from the table as the kernel prints it", () => {
    const line = "kubeprober0\t00001EAC\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"
    assert.deepStrictEqual(parseRoutes(table(line)), [{ address: 0xac1e0000, mask: 0xffffff00 }])
  })

  it("have an interface name that Linux takes, and share no address", () => {
    const all = Array.from({ length: MAX_CLUSTERS }, (_, index) => clusterNetwork(index))
    assert.isTrue(all.every(({ hostLink }) => hostLink.length <= 15))
    const addresses = all.flatMap(({ controlPlaneAddress, hostAddress, index }) => [
      controlPlaneAddress,
      hostAddress,
      ...Array.from({ length: MAX_NODES }, (_, node) => nodeNetwork(index, node + 1).address)
    ])
    assert.strictEqual(new Set(addresses).size, addresses.length)
    assert.isTrue(addresses.every((address) => address.split(".").every((byte) => Number(byte) < 255)))
  })
})
