import { assert, describe, it } from "@effect/vitest"
import * as FleetDetails from "../../src/cli/FleetDetails.ts"
import * as FleetTable from "../../src/cli/output/FleetTable.ts"
import { plain } from "../../src/cli/output/Style.ts"
import type { Cell, ClusterView, ProbeView } from "../../src/domain/rpc/Fleet.ts"
import { checkerCodes } from "../../src/probes/CheckerCodes.ts"
import { nodeReadiness } from "../../src/probes/kubernetes/nodeReadiness.ts"
import { EARLIER, NOW, cell, row } from "./fleetRows.ts"

const options = { style: plain, wide: false, now: NOW }

describe("the fleet's table", () => {
  it("has checkers down by layer and clusters across", () => {
    const rows = [
      row("a", [cell("api"), cell("shop", { layer: "application" })]),
      row("b", [cell("api", { status: "ERROR", code: "API_DOWN" })], { status: "ERROR" })
    ]
    assert.deepStrictEqual(FleetTable.table(rows, options), [
      "PROBE         a        b",
      "              linked   linked",
      "application",
      "  shop        PASS     -",
      "kubernetes",
      "  api         PASS     ERROR API_DOWN",
      "all           PASS     ERROR"
    ])
  })

  it("never shows what cannot be vouched for as if it could", () => {
    const rows = [
      row("a", [cell("api", { status: "UNKNOWN", freshness: "unreachable" })], { status: "UNKNOWN", linked: false }),
      row("b", [cell("api", { status: "UNKNOWN", freshness: "stale" })], { status: "UNKNOWN" })
    ]
    const text = FleetTable.render(rows, options).join("\n")
    assert.include(text, "UNKNOWN unreachable")
    assert.include(text, "UNKNOWN stale")
    assert.include(text, "a has no link")
    assert.notInclude(text, "PASS")
    assert.include(text, "2 clusters, 1 linked")
  })

  it("tells what is wrong with its age, and counts what it leaves out", () => {
    const failing = cell("nodes", { status: "WARN", code: "NODE_NOT_READY", message: "node n1 is NotReady" })
    const text = FleetTable.messages([row("a", [failing, cell("api")])], options).join("\n")
    assert.include(text, "WARN a nodes NODE_NOT_READY for 1m30s, looked 1m30s ago")
    assert.include(text, "node n1 is NotReady")
    const many = Array.from({ length: 25 }, (_, index) => cell(`c${index}`, { status: "ERROR", code: "X" }))
    assert.include(FleetTable.messages([row("a", many)], options).join("\n"), "and 5 more")
    assert.notInclude(FleetTable.messages([row("a", many)], { ...options, wide: true }).join("\n"), "more")
  })

  it("tells once why many checkers were not run", () => {
    const child = (name: string) =>
      cell(name, { status: "UNKNOWN", code: "PARENT_FAILED", message: "not run, because api is ERROR (API_DOWN)" })
    const cells = [cell("api", { status: "ERROR", code: "API_DOWN", message: "no answer" }), child("a"), child("b")]
    const lines = FleetTable.messages([row("c1", cells)], options)
    assert.strictEqual(lines.length, 2)
    assert.strictEqual(lines[1], "UNKNOWN c1 2 checkers not run, because api is ERROR (API_DOWN)")
  })

  it("tells once that nobody is let in, and many checks without rights together", () => {
    const refused = (name: string) =>
      cell(name, { status: "UNKNOWN", code: "UNAUTHENTICATED", message: `401 at /${name}` })
    const lines = FleetTable.messages([row("c1", ["a", "b", "c"].map(refused))], options)
    assert.strictEqual(lines.length, 1)
    assert.include(lines[0], "UNKNOWN c1 a UNAUTHENTICATED")
    assert.include(lines[0], "2 checks were not run because of it")
    const lacks = (name: string) =>
      cell(name, { status: "UNKNOWN", code: "ACCESS_MISSING", message: `not allowed to list ${name}` })
    const [text = "", ...more] = FleetTable.messages([row("c1", ["a", "b", "c", "d"].map(lacks))], options)
    assert.deepStrictEqual(more, [])
    assert.include(text, "UNKNOWN c1 4 checks lack rights (ACCESS_MISSING): a, b, c, ...\n  next: ")
  })

  it("has every finding and what to do, where they are known", () => {
    const failing = cell("nodes", { status: "ERROR", code: "NODE_NOT_READY", message: "n1 is NotReady (and 1 more)" })
    const finding = (name: string) => ({
      status: "ERROR" as const,
      code: "NODE_NOT_READY",
      blame: "target" as const,
      message: `${name} is NotReady`
    })
    const details = {
      findingsOf: () => [finding("n1"), finding("n2")],
      fixOf: ({ code }: Cell) => `fix ${code}`
    }
    const lines = FleetTable.messages([row("a", [failing])], { ...options, wide: true, details }).join("\n").split("\n")
    assert.deepStrictEqual(lines.slice(1), [
      "  ERROR NODE_NOT_READY: n1 is NotReady",
      "  ERROR NODE_NOT_READY: n2 is NotReady",
      "  next: fix NODE_NOT_READY"
    ])
  })

  it("knows what to do by the catalogue's probe that a check uses, whatever its name", () => {
    const probes: ReadonlyArray<ProbeView> = [{
      name: "basics",
      labels: {},
      generation: 1,
      spec: { checks: [{ name: "nodes", use: "k8s.node.readiness" }] }
    }]
    const fixOf = FleetDetails.fixesOf([nodeReadiness], probes)
    const fix = nodeReadiness.codes["NODE_NOT_READY"]?.spec.fix ?? ""
    assert.strictEqual(fixOf(cell("nodes", { code: "NODE_NOT_READY" })), fix)
    assert.strictEqual(fixOf(cell("k8s.node.readiness", { code: "NODE_NOT_READY" })), fix)
    assert.strictEqual(
      fixOf(cell("nodes/cleanup", { code: "CLEANUP_FAILED" })),
      checkerCodes.CLEANUP_FAILED.spec.fix
    )
    assert.isUndefined(fixOf(cell("nodes", { code: "NOBODYS" })))
  })

  it("lists clusters down, worst first, when there are many", () => {
    const rows = Array.from(
      { length: 12 },
      (_, index) =>
        row(`c${index}`, [cell("api", { status: index === 7 ? "ERROR" : "PASS" })], {
          status: index === 7 ? "ERROR" : "PASS"
        })
    )
    const [head = "", first = ""] = FleetTable.table(rows, options)
    assert.match(head, /^CLUSTER +STATUS +LINK/u)
    assert.match(first, /^c7 +ERROR +linked +1 +1: api *$/u)
  })

  it("tells what fails apart from what nobody could look at", () => {
    const rows = Array.from({ length: 9 }, (_, index) =>
      row(`c${index}`, [
        cell("api"),
        cell("nodes", { status: "WARN", code: "NODE_NOT_READY" }),
        cell("certs", { status: "UNKNOWN", code: "ACCESS_MISSING", blame: "checker" }),
        cell("info", { status: "INFO", code: "NOT_CONFIRMED" })
      ], { status: "WARN" }))
    const [head = "", first = ""] = FleetTable.table(rows, options)
    assert.match(head, /FAILING +UNKNOWN$/u)
    assert.match(first, /^c0 +WARN +linked +4 +1: nodes +1: certs$/u)
    assert.include(FleetTable.summary(rows, options.style), "9 WARN, 9 UNKNOWN, 9 INFO, 9 PASS")
  })

  it("tells checks of one name in two Probes apart, and breaks into blocks for a narrow terminal", () => {
    const other = cell("api", { probe: { namespace: "kubeprober", name: "other" } })
    const lines = FleetTable.table([row("first", [cell("api"), other]), row("second", [cell("api")])], {
      ...options,
      width: 24
    })
    assert.isTrue(lines.some((line) => line.includes("basics/api")))
    assert.isTrue(lines.some((line) => line.includes("other/api")))
    assert.strictEqual(lines.filter((line) => line.startsWith("PROBE")).length, 2)
    for (const line of lines) assert.isAtMost(line.length, 24)
  })
})

describe("the list of clusters", () => {
  const view = (name: string, more: Partial<ClusterView>): ClusterView => ({
    name,
    labels: {},
    status: "UNKNOWN",
    state: { link: { state: "Disconnected", since: EARLIER }, heartbeat: NOW },
    ...more
  })

  it("tells a cluster that may not return from one whose link is lost", () => {
    const lines = FleetTable.clusters([view("a", { revoked: true }), view("b", {})], options)
    assert.match(lines[1] ?? "", /^a +UNKNOWN +revoked /u)
    assert.match(lines[2] ?? "", /^b +UNKNOWN +lost +just now$/u)
  })
})
