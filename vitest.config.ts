import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** A file that starts clusters, or installs the package, is an integration test; what it imports says so. */
const isIntegration = (file: string): boolean =>
  file.startsWith("test/package/") || file.endsWith(".integration.test.ts") ||
  /from "[^"]*\/(TestCluster|WorkerCluster|NodeAgents|LocalCluster|LocalFleet|Local|ProbeProcess)\.ts"/.test(
    readFileSync(join(import.meta.dirname, file), "utf8")
  )

const files = globSync("test/**/*.test.ts", { cwd: import.meta.dirname })

/** Files that take minutes, though they are not among the largest: one that is begun last is waited for alone. */
const LONG = ["fleet/apiServerDown", "probes/mesh", "probes/workerPods", "fleet/masterKills"]

/** The long ones first, then as ever. */
class LongFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const isLong = ({ moduleId }: TestSpecification) => LONG.some((name) => moduleId.endsWith(`/${name}.test.ts`))
    const sorted = await super.sort(files)
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))]
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: LongFirst },
    // Clusters of several files run side by side. They wait more than they compute: two cores have room for three.
    maxWorkers: 3,
    // Real clusters share these cores with whatever else runs: a deadline may pass for want of a turn. The report marks who
    // needed the second try (`retry x1`); whoever does so twice in a row has a fault.
    retry: 1,
    testTimeout: 120_000,
    hookTimeout: 180_000,
    reporters: ["default"],
    projects: [
      { extends: true, test: { name: "unit", include: files.filter((file) => !isIntegration(file)) } },
      { extends: true, test: { name: "integration", include: files.filter(isIntegration) } }
    ]
  }
})
