import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Option, Schema } from "effect"
import { execFileSync } from "node:child_process"
import { parse as parseYaml } from "yaml"
import { pages } from "../../scripts/probeDocs.ts"
import * as ExitCode from "../../src/cli/ExitCode.ts"
import { closest } from "../../src/cli/Failure.ts"
import * as CheckOutput from "../../src/cli/output/CheckOutput.ts"
import * as Junit from "../../src/cli/output/Junit.ts"
import * as Matrix from "../../src/cli/output/Matrix.ts"
import * as ProbeOutput from "../../src/cli/output/ProbeOutput.ts"
import * as Style from "../../src/cli/output/Style.ts"
import * as Table from "../../src/cli/output/Table.ts"
import * as Selection from "../../src/cli/Selection.ts"
import { CheckResult, type CheckerResult } from "../../src/domain/CheckResult.ts"
import type { Finding } from "../../src/domain/Report.ts"
import * as Report from "../../src/domain/Report.ts"
import type { Status } from "../../src/domain/Status.ts"
import { catalogue } from "../../src/probes/Catalogue.ts"
import { apiCrud } from "../../src/probes/kubernetes/apiCrud.ts"
import { apiHealth } from "../../src/probes/kubernetes/apiHealth.ts"
import { certExpiry } from "../../src/probes/kubernetes/certExpiry.ts"
import { namespaceLifecycle } from "../../src/probes/kubernetes/namespaceLifecycle.ts"
import { nodeReadiness } from "../../src/probes/kubernetes/nodeReadiness.ts"
import { type AnyProbe, toCheck } from "../../src/probes/Probe.ts"

const startedAt = DateTime.makeUnsafe("2026-01-02T03:04:05Z")

const finding = (status: Status, code: string, message: string): Finding => ({
  status,
  code,
  blame: status === "UNKNOWN" ? "checker" : "target",
  message,
  subject: { kind: "Node", name: "a1" }
})

const report = (checker: string, findings: ReadonlyArray<Finding>, layer: CheckerResult["layer"] = "kubernetes") => ({
  probe: checker,
  layer,
  ...Report.fromFindings({ checker, findings, summary: "all well", startedAt, duration: 12 })
})

const result = (clusters: Record<string, ReadonlyArray<CheckerResult>>): CheckResult => ({
  apiVersion: "kubeprober.erda.cloud/v1",
  kind: "CheckResult",
  profile: "observe",
  status: Report.worst(Object.values(clusters).flat()),
  startedAt,
  duration: 1500,
  clusters: Object.entries(clusters).map(([cluster, reports]) => ({
    cluster,
    server: "https://10.0.0.1:6443",
    kubernetesVersion: "v1.35.4",
    status: Report.worst(reports),
    reports,
    notRun: [{ checker: "k8s.api.crud", probe: "k8s.api.crud", reason: "it writes" }],
    requests: 7,
    duration: 1400
  }))
})

const matrix: Matrix.MatrixOptions = { style: Style.plain, wide: false, fixOf: (_, code) => `fix ${code}` }

const planned: ReadonlyArray<Matrix.MatrixRow> = [
  { checker: "infra.disk", layer: "infrastructure" },
  { checker: "k8s.node.readiness", layer: "kubernetes" },
  { checker: "k8s.api.crud", layer: "kubernetes" }
]

describe("the table", () => {
  const two = result({
    alpha: [report("k8s.node.readiness", []), report("infra.disk", [], "infrastructure")],
    beta: [report("k8s.node.readiness", [finding("ERROR", "NODE_NOT_READY", "node a1 is NotReady")])]
  })

  it.effect("reads top-down by layer, clusters across, and never shows silence as PASS", () =>
    Effect.sync(() => {
      const lines = Matrix.table(planned, two.clusters.map(Matrix.columnOf), matrix)
      assert.deepStrictEqual(lines, [
        "PROBE                  alpha     beta",
        "                       v1.35.4   v1.35.4",
        "kubernetes",
        "  k8s.node.readiness   PASS      ERROR NODE_NOT_READY",
        "  k8s.api.crud         not run   not run",
        "infrastructure",
        "  infra.disk           PASS      -",
        "all                    PASS      ERROR"
      ])
    }))

  it.effect("continues below when the terminal is too narrow for all clusters", () =>
    Effect.sync(() => {
      const lines = Matrix.table(planned, two.clusters.map(Matrix.columnOf), { ...matrix, width: 45 })
      assert.isTrue(lines.every((line) => line.length <= 45), lines.join("\n"))
      assert.strictEqual(lines.filter((line) => line.startsWith("PROBE")).length, 2)
    }))

  it.effect("gives each cluster a place however narrow the terminal, and clips a live line to it", () =>
    Effect.sync(() => {
      const columns = two.clusters.map(Matrix.columnOf)
      const lines = Matrix.table(planned, columns, { ...matrix, style: Style.coloured, width: 10 })
      assert.strictEqual(lines.filter((line) => line.startsWith("PROBE")).length, 2)
      for (const line of lines) assert.isAtMost(Table.visibleLength(Table.clip(line, 10)), 10)
      assert.strictEqual(Table.clip("short", 10), "short")
    }))

  it.effect("tells what to do, once a code, and counts what it leaves out", () =>
    Effect.sync(() => {
      const many = Array.from({ length: 5 }, (_, index) => finding("WARN", "NODE_PRESSURE", `pressure ${index}`))
      const lines = Matrix.findings(
        result({ alpha: [report("k8s.node.readiness", many)] }).clusters.map(Matrix.columnOf),
        matrix
      )
      assert.strictEqual(lines.filter((line) => line.includes("fix NODE_PRESSURE")).length, 1)
      assert.strictEqual(lines.filter((line) => line.includes("pressure")).length, 3)
      assert.isTrue(lines.some((line) => line.includes("and 2 more")))
    }))

  it.effect("puts the worst finding of any cluster first", () =>
    Effect.sync(() => {
      const lines = Matrix.findings(
        result({
          alpha: [report("a", [finding("UNKNOWN", "ACCESS_MISSING", "not allowed")])],
          beta: [report("a", [finding("ERROR", "NODE_NOT_READY", "down")])]
        }).clusters.map(Matrix.columnOf),
        matrix
      )
      assert.strictEqual(lines.find((line) => line !== ""), "ERROR beta a NODE_NOT_READY")
    }))

  it.effect("says once, with the parent, how many checks were not run because of it", () =>
    Effect.sync(() => {
      const because = {
        ...finding("UNKNOWN", "PARENT_FAILED", "not run, because k8s.api.health is ERROR"),
        evidence: { parent: "k8s.api.health" }
      }
      const { clusters } = result({
        alpha: [
          report("k8s.api.health", [finding("ERROR", "API_DOWN", "down")]),
          report("one", [because]),
          report("two", [because])
        ]
      })
      const lines = Matrix.findings(clusters.map(Matrix.columnOf), matrix)
      assert.isTrue(lines.some((line) => line.includes("2 checks were not run because of it")))
      assert.isFalse(lines.some((line) => line.includes("PARENT_FAILED")))
      const wide = Matrix.findings(clusters.map(Matrix.columnOf), { ...matrix, wide: true })
      assert.strictEqual(wide.filter((line) => line.includes("PARENT_FAILED") && line.startsWith("UNKNOWN")).length, 2)
    }))

  const unauthenticated = (path: string) =>
    finding("UNKNOWN", "UNAUTHENTICATED", `the API server does not accept the credentials (401 at ${path})`)

  it("says once that nobody is let in, with how many checks that keeps from looking", () => {
    const { clusters } = result({
      alpha: [
        report("one", [unauthenticated("/api/v1/nodes")]),
        report("k8s.api.health", [unauthenticated("/readyz"), unauthenticated("/livez")]),
        report("two", [unauthenticated("/api/v1/pods")])
      ]
    })
    const columns = clusters.map(Matrix.columnOf)
    const lines = Matrix.findings(columns, matrix)
    assert.deepStrictEqual(lines.filter((line) => line.startsWith("UNKNOWN")), [
      "UNKNOWN alpha k8s.api.health UNAUTHENTICATED"
    ])
    assert.include(lines, "  2 checks were not run because of it")
    const wide = Matrix.findings(columns, { ...matrix, wide: true })
    assert.strictEqual(wide.filter((line) => line.startsWith("UNKNOWN")).length, 4)
  })

  it("gives a missing program for credentials a next step of its own", () => {
    const missing = "no credentials for cluster alpha from exec plugin aws-iam: it is not installed; brew install it"
    const { clusters } = result({ alpha: [report("one", [finding("UNKNOWN", "UNAUTHENTICATED", missing)])] })
    const text = Matrix.findings(clusters.map(Matrix.columnOf), matrix).join("\n")
    assert.include(text, "next: Install aws-iam ")
    assert.notInclude(text, "fix UNAUTHENTICATED")
  })

  it("tells many checks without rights together, and few each with what it lacks", () => {
    const lacks = (count: number) =>
      result({
        alpha: Array.from({ length: count }, (_, index) =>
          report(`check${index}`, [finding("UNKNOWN", "ACCESS_MISSING", `not allowed to list thing${index}`)]))
      }).clusters.map(Matrix.columnOf)
    const many = Matrix.findings(lacks(5), matrix)
    assert.include(many, "UNKNOWN alpha 5 checks lack rights (ACCESS_MISSING): check0, check1, check2, ...")
    assert.include(many.join("\n"), "kubeprober probe roles --to NAMESPACE/SERVICEACCOUNT")
    assert.notInclude(many.join("\n"), "thing1")
    assert.include(Matrix.findings(lacks(2), matrix).join("\n"), "thing1")
    assert.include(Matrix.findings(lacks(5), { ...matrix, wide: true }).join("\n"), "thing4")
  })

  it("does not fold different causes, nor faults of the cluster", () => {
    const { clusters } = result({
      alpha: [
        report("one", [finding("UNKNOWN", "API_FAULT", "500 at /a")]),
        report("two", [finding("UNKNOWN", "API_FAULT", "500 at /b")]),
        report("three", [finding("ERROR", "BROKEN", "it is down")]),
        report("four", [finding("ERROR", "BROKEN", "it is down")])
      ]
    })
    const lines = Matrix.findings(clusters.map(Matrix.columnOf), matrix)
    assert.strictEqual(lines.filter((line) => /^(ERROR|UNKNOWN)/u.test(line)).length, 4)
  })

  it.effect("says why checks were not run", () =>
    Effect.gen(function*() {
      const options = { profile: "standard", named: new Set<string>(), workerImage: Option.none<string>() } as const
      const reasons = catalogue.flatMap((probe) => Selection.reasonNotToRun(toCheck(probe), options) ?? [])
      const count = (part: string) => reasons.filter((reason) => reason.includes(part)).length
      const summary = Selection.summary(reasons)
      assert.match(summary, new RegExp(`^${count("--worker-image")} needs? --worker-image, `, "u"))
      assert.include(summary, `${count("node agents")} need node agents`)
      assert.include(summary, `${count("it writes")} write more than the profile permits`)
      assert.notInclude(summary, "other reason")
      assert.strictEqual(Selection.summary(["it rains"]), "1 for another reason (-o json)")

      const [one] = result({ alpha: [report("a", [])] }).clusters
      assert.isDefined(one)
      const text = yield* CheckOutput.render({
        format: "table",
        result: { ...result({}), clusters: [one, { ...one, cluster: "beta" }] },
        planned,
        matrix
      })
      assert.include(text, "\n1 not run: 1 writes more than the profile permits (--profile)\n")
    }))

  it.effect("aligns by what is visible, whatever the colour", () =>
    Effect.sync(() => {
      const lines = Table.render([[Style.coloured.status("PASS"), "x"], ["ERROR", "y"]])
      assert.strictEqual(new Set(lines.map((line) => Table.visibleLength(line))).size, 1)
    }))
})

describe("colour", () => {
  it.effect("is for terminals, without NO_COLOR", () =>
    Effect.sync(() => {
      assert.strictEqual(Style.forStream({ isTTY: true }, {}), Style.coloured)
      assert.strictEqual(Style.forStream({ isTTY: true }, { NO_COLOR: "1" }), Style.plain)
      assert.strictEqual(Style.forStream({ isTTY: true }, { NO_COLOR: "" }), Style.coloured)
      assert.strictEqual(Style.forStream({}, {}), Style.plain)
    }))
})

describe("json and yaml", () => {
  const one = result({ alpha: [report("k8s.node.readiness", [finding("WARN", "NODE_CORDONED", "cordoned")])] })

  it.effect("decode to the result they were made from", () =>
    Effect.gen(function*() {
      const options = { result: one, planned, matrix: { style: Style.plain, fixOf: () => undefined } }
      const json = yield* CheckOutput.render({ ...options, format: "json" })
      assert.deepStrictEqual(yield* Schema.decodeUnknownEffect(Schema.fromJsonString(CheckResult))(json), one)
      const yaml = yield* CheckOutput.render({ ...options, format: "yaml" })
      const parsed = (yield* Effect.promise(() => import("yaml"))).parse(yaml)
      assert.deepStrictEqual(yield* Schema.decodeUnknownEffect(CheckResult)(parsed), one)
    }))
})

describe("junit", () => {
  it.effect("tells failures, errors and skips apart, and is well-formed whatever a message holds", () =>
    Effect.sync(() => {
      const xml = Junit.render(result({
        "a&b": [
          report("one", [finding("ERROR", "BROKEN", "<tag> \"quoted\" & \u0000\u001B control")]),
          report("two", [finding("UNKNOWN", "ACCESS_MISSING", "no")]),
          report("three", [])
        ]
      }))
      assert.include(xml, "failures=\"1\" errors=\"1\" skipped=\"1\"")
      assert.notInclude(xml, "\u0000")
      // A real parser decides whether it is well-formed.
      const python = "import sys, xml.dom.minidom as m; d = m.parseString(sys.stdin.buffer.read());" +
        " print(len(d.getElementsByTagName('testcase')))"
      assert.strictEqual(execFileSync("python3", ["-c", python], { input: xml }).toString().trim(), "4")
    }))
})

describe("checker faults apart from target faults", () => {
  const mixed = [
    report("both", [finding("ERROR", "BROKEN", "it is down"), finding("UNKNOWN", "NODE_SILENT", "node b is silent")]),
    report("blind", [finding("UNKNOWN", "ACCESS_MISSING", "not allowed"), finding("INFO", "NOTED", "by the way")]),
    report("warned", [finding("WARN", "TIRED", "it is slow"), finding("UNKNOWN", "NODE_SILENT", "node c is silent")]),
    report("well", [])
  ]
  const mixture = result({ alpha: mixed })

  it("in junit: failures, errors, and what a failing checker could not look at beside its failure", () => {
    const xml = Junit.render(mixture)
    assert.include(xml, "failures=\"1\" errors=\"1\"")
    assert.match(
      xml,
      /<failure[^>]*type="BROKEN">ERROR BROKEN: it is down<\/failure><system-err>UNKNOWN NODE_SILENT: /u
    )
    assert.match(
      xml,
      /<error[^>]*type="ACCESS_MISSING">UNKNOWN ACCESS_MISSING: not allowed<\/error><system-out>INFO NOTED/u
    )
    assert.match(xml, /<system-out>it is slow[^<]*WARN TIRED: it is slow<\/system-out><system-err>UNKNOWN NODE_SILENT/u)
  })

  it("in the table and below it: each under its own status and code, and counted apart", () => {
    const columns = mixture.clusters.map(Matrix.columnOf)
    for (const wide of [false, true]) {
      const text = Matrix.findings(columns, { ...matrix, wide }).join("\n")
      assert.include(text, "ERROR alpha both BROKEN")
      assert.include(text, "UNKNOWN alpha both NODE_SILENT")
      assert.include(text, "UNKNOWN alpha blind ACCESS_MISSING")
    }
    assert.include(Matrix.summary(mixture, Style.plain), "1 ERROR, 1 WARN, 1 UNKNOWN, 1 PASS")
    assert.include(Matrix.table(planned, columns, matrix).join("\n"), "ERROR")
  })

  it.effect("in json and yaml: by blame, for the report and for each finding", () =>
    Effect.gen(function*() {
      for (const format of ["json", "yaml"] as const) {
        const text = yield* CheckOutput.render({ format, result: mixture, planned, matrix })
        const parsed: unknown = format === "json" ? JSON.parse(text) : parseYaml(text)
        const { clusters } = yield* Schema.decodeUnknownEffect(CheckResult)(parsed)
        assert.deepStrictEqual(
          clusters[0]?.reports.map(({ blame, findings, status }) => [status, blame, findings.map((one) => one.blame)]),
          [
            ["ERROR", "target", ["target", "checker"]],
            ["UNKNOWN", "checker", ["checker", "target"]],
            ["WARN", "target", ["target", "checker"]],
            ["PASS", undefined, []]
          ]
        )
      }
    }))

  it("in the exit code: what could not be looked at is no failure", () => {
    const unseen = result({
      alpha: [report("blind", [finding("UNKNOWN", "ACCESS_MISSING", "no")]), report("well", [])]
    })
    assert.deepStrictEqual(
      (["error", "warn", "unknown"] as const).map((failOn) => ExitCode.ofResult(unseen, failOn)),
      [0, 0, 1]
    )
  })

  it("whatever a probe of anyone's calls its own fault", () => {
    const odd = report("odd", [
      { status: "ERROR", code: "MINE", blame: "checker", message: "I crashed" },
      { status: "UNKNOWN", code: "YOURS", blame: "target", message: "no idea" }
    ])
    assert.deepStrictEqual(odd.findings.map(({ blame, status }) => [status, blame]), [
      ["UNKNOWN", "checker"],
      ["UNKNOWN", "checker"]
    ])
    assert.deepStrictEqual([odd.status, odd.blame], ["UNKNOWN", "checker"])
  })
})

describe("the exit code", () => {
  const of = (status: Status, failOn: ExitCode.FailOn) =>
    ExitCode.ofResult(
      result({ alpha: [report("a", status === "PASS" ? [] : [finding(status, "CODE", "m")]), report("b", [])] }),
      failOn
    )

  it.effect("is 1 at or above the threshold, else 0", () =>
    Effect.sync(() => {
      assert.strictEqual(of("ERROR", "error"), 1)
      assert.strictEqual(of("WARN", "error"), 0)
      assert.strictEqual(of("WARN", "warn"), 1)
      assert.strictEqual(of("UNKNOWN", "warn"), 0)
      assert.strictEqual(of("UNKNOWN", "unknown"), 1)
      assert.strictEqual(of("PASS", "info"), 0)
      assert.strictEqual(of("ERROR", "never"), 0)
    }))

  it.effect("is 2 when a cluster could not be looked at at all", () =>
    Effect.sync(() => {
      const blind = result({
        alpha: [report("a", [])],
        beta: [report("a", [finding("UNKNOWN", "UNAUTHENTICATED", "no")])]
      })
      assert.strictEqual(ExitCode.ofResult(blind, "error"), 2)
      assert.strictEqual(ExitCode.ofResult(blind, "unknown"), 1)
    }))

  it.effect("is 2 when only the API server's health could be told, or nothing at all", () =>
    Effect.sync(() => {
      const refused = report("k8s.node.readiness", [finding("UNKNOWN", "ACCESS_MISSING", "no")])
      assert.strictEqual(ExitCode.ofResult(result({ alpha: [report("k8s.api.health", []), refused] }), "error"), 2)
      assert.strictEqual(ExitCode.ofResult(result({ alpha: [report("k8s.api.health", [])] }), "error"), 0)
      assert.strictEqual(ExitCode.ofResult(result({ alpha: [] }), "error"), 2)
    }))
})

describe("did you mean", () => {
  it.effect("offers what is near, and nothing when nothing is", () =>
    Effect.sync(() => {
      const known = ["k8s.api.health", "k8s.api.crud", "k8s.node.readiness"]
      assert.deepStrictEqual(closest("k8s.api.heatlh", known)[0], "k8s.api.health")
      assert.deepStrictEqual(closest("zzzzzz", known), [])
    }))
})

describe("a probe described", () => {
  it("as text says where it works, what it writes and costs, and what runs before and re-runs it", () => {
    const text = ProbeOutput.describeText(nodeReadiness, Style.plain).join("\n")
    assert.match(text, /^WORKS +in the agent$/mu)
    assert.match(text, /^WRITES +nothing$/mu)
    assert.match(text, /^COSTS +3 API requests/mu)
    assert.match(text, /^INTERVAL +1m/mu)
    assert.match(text, /^RETRIES +up to 2 more tries/mu)
    assert.match(text, /^AFTER +k8s\.api\.health$/mu)
    assert.match(text, /^RE-RUN ON +changes of nodes$/mu)
    assert.match(text, /^ {2}leaseAge: duration, default 40s$/mu)
  })

  it("as data says the same", () => {
    const { codes, config, confirmed, needs, ...facts } = ProbeOutput.describeProbe(apiCrud)
    assert.deepStrictEqual(facts, {
      id: "k8s.api.crud",
      layer: "kubernetes",
      proves: apiCrud.proves,
      writes: "namespace",
      placement: "agent",
      costs: apiCrud.costs,
      interval: "5m",
      timeout: "1m",
      retries: "none",
      dependsOn: ["k8s.api.health"],
      onChange: []
    })
    assert.match(confirmed, /^a new WARN or ERROR by another run, but not CREATE_FAILED, /u)
    assert.deepStrictEqual(config[0], {
      name: "slow",
      type: "duration",
      default: "1s",
      description: "A request that takes longer is slow."
    })
    assert.deepInclude(needs, { rule: "watch configmaps in the probe namespace", optional: false })
    assert.deepStrictEqual(codes.map(({ code }) => code), Object.keys(apiCrud.codes))
  })

  it("knows choices, lists and objects of a configuration", () => {
    const typeOf = (probe: AnyProbe, field: string) =>
      ProbeOutput.describeProbe(probe).config.find(({ name }) => name === field)?.type
    assert.strictEqual(typeOf(apiHealth, "endpoints"), "auto | always | never")
    assert.strictEqual(typeOf(certExpiry, "hosts"), "list of {host: string, serverName?: string}")
    assert.strictEqual(typeOf(namespaceLifecycle, "labels"), "map of string")
  })

  it("is the same on its page of the reference", () => {
    const page = pages([nodeReadiness]).find(({ name }) => name === "k8s.node.readiness.md")?.content ?? ""
    for (const said of [nodeReadiness.proves, nodeReadiness.costs, "`list nodes`", "`NODE_NOT_READY`", "`leaseAge`"]) {
      assert.include(page, said)
    }
  })
})
