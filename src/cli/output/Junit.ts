/**
 * JUnit XML, as CI systems read it: a suite a cluster, a case a checker.
 *
 * WARN passes with its text in `system-out`, UNKNOWN is an error (the checker could not look), ERROR a failure, and
 * what was not run is skipped. What a failing checker could not look at is in `system-err`, apart from the failure. Format: https://github.com/testmoapp/junitxml.
 */
import type { CheckResult, CheckerResult, ClusterResult } from "../../domain/CheckResult.ts"

// XML 1.0 section 2.2 allows no other control characters, not even escaped.
// oxlint-disable-next-line no-control-regex
const FORBIDDEN = /[\u0000-\u0008\u000B\u000C\u000E-\u001F\uFFFE\uFFFF]/gu

const escapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  "\"": "&quot;",
  "'": "&apos;"
}

export const escape = (text: string): string =>
  text.replace(FORBIDDEN, "\uFFFD").replace(/[&<>"']/gu, (character) => escapes[character] ?? character)

const attributes = (values: Readonly<Record<string, string | number>>): string =>
  Object.entries(values).map(([name, value]) => ` ${name}="${escape(String(value))}"`).join("")

const seconds = (millis: number): string => (millis / 1000).toFixed(3)

const details = (findings: CheckerResult["findings"]): string =>
  findings.map((finding) => `${finding.status} ${finding.code}: ${finding.message}`).join("\n")

/** What is said of the target, and what of the checker. */
const apart = ({ findings }: CheckerResult) => ({
  target: details(findings.filter(({ blame }) => blame === "target")),
  checker: details(findings.filter(({ blame }) => blame === "checker"))
})

const section = (name: string, text: string): string => text === "" ? "" : `<${name}>${escape(text)}</${name}>`

const body = (report: CheckerResult): string => {
  const shown = attributes({ message: report.message, type: report.code ?? report.status })
  const { checker, target } = apart(report)
  switch (report.status) {
    case "ERROR":
      return `<failure${shown}>${escape(target)}</failure>${section("system-err", checker)}`
    case "UNKNOWN":
      return `<error${shown}>${escape(checker)}</error>${section("system-out", target)}`
    default:
      return section("system-out", [report.message, target].filter((text) => text !== "").join("\n")) +
        section("system-err", checker)
  }
}

const suite = (cluster: ClusterResult): string => {
  const count = (status: string) => cluster.reports.filter((report) => report.status === status).length
  const cases = [
    ...cluster.reports.map((report) =>
      `    <testcase${
        attributes({
          classname: `${cluster.cluster}.${report.layer}`,
          name: report.checker,
          time: seconds(report.duration)
        })
      }>${body(report)}</testcase>`
    ),
    ...cluster.notRun.map((entry) =>
      `    <testcase${attributes({ classname: cluster.cluster, name: entry.checker, time: 0 })}><skipped${
        attributes({ message: entry.reason })
      }/></testcase>`
    )
  ]
  return [
    `  <testsuite${
      attributes({
        name: cluster.cluster,
        tests: cases.length,
        failures: count("ERROR"),
        errors: count("UNKNOWN"),
        skipped: cluster.notRun.length,
        time: seconds(cluster.duration)
      })
    }>`,
    ...cases,
    "  </testsuite>"
  ].join("\n")
}

export const render = (result: CheckResult): string =>
  [
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
    `<testsuites${attributes({ name: "kubeprober check", time: seconds(result.duration) })}>`,
    ...result.clusters.map(suite),
    "</testsuites>"
  ].join("\n")
