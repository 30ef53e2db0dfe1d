/** The verbs of the original's kubectl plugin, in the words of our commands. */

/** Either the arguments for kubeprober, or why there are none. */
export type Translation =
  | { readonly _tag: "Run"; readonly argv: ReadonlyArray<string> }
  | { readonly _tag: "Refuse"; readonly message: string }

const run = (...argv: ReadonlyArray<string>): Translation => ({ _tag: "Run", argv })
const refuse = (message: string): Translation => ({ _tag: "Refuse", message })

/** The flags of the original; those of ours pass as they are. */
const ORIGINAL_FLAGS: Readonly<Record<string, "cluster" | "probe">> = {
  "-c": "cluster",
  "--cluster": "cluster",
  "-p": "probe",
  "--probe": "probe",
  "--probes": "probe"
}

/** Splits the flags of the original from the rest. A value may follow its flag or an equals sign. */
const separate = (argv: ReadonlyArray<string>) => {
  const found: Record<"cluster" | "probe", Array<string>> = { cluster: [], probe: [] }
  const rest: Array<string> = []
  for (let at = 0; at < argv.length; at += 1) {
    const argument = argv[at] ?? ""
    const equals = argument.indexOf("=")
    const flag = ORIGINAL_FLAGS[equals === -1 ? argument : argument.slice(0, equals)]
    if (flag === undefined) {
      rest.push(argument)
      continue
    }
    const value = equals === -1 ? argv[at += 1] ?? "" : argument.slice(equals + 1)
    found[flag].push(...value.split(",").filter((name) => name !== ""))
  }
  return { ...found, rest }
}

const OPS = "shells in managed clusters are not offered; read a cluster's API through the master with " +
  "`kubectl --server https://MASTER:9443/clusters/NAME --token TOKEN --certificate-authority FILE get pods`"

/**
 * What `kubectl probe ARGV` asks of kubeprober. `status`, `once` and `version` have their like; the rest is answered with
 * what there is in its place.
 */
export const translate = ([verb, ...argv]: ReadonlyArray<string>): Translation => {
  switch (verb) {
    case undefined:
    case "help":
    case "--help":
    case "-h":
      return run("--help")
    case "version":
    case "--version":
      return run("--version")
    case "status": {
      const { cluster, probe, rest } = separate(argv)
      return run(
        "status",
        ...cluster.flatMap((name) => ["--cluster", name]),
        ...probe.flatMap((name) => ["--probe", name]),
        ...rest
      )
    }
    case "once": {
      const { cluster, probe, rest } = separate(argv)
      const helps = rest.includes("--help") || rest.includes("-h")
      if (probe.length > 1 || (probe.length === 0 && !helps && !rest.some((word) => /^--use(=|$)/u.test(word)))) {
        return refuse(
          "once runs one Probe at a time: name it with -p, or checks of the catalogue with --use; " +
            "`kubeprober probe get` lists the Probes of the fleet"
        )
      }
      return run("once", ...probe, ...cluster.flatMap((name) => ["--cluster", name]), ...rest)
    }
    case "oncestatus":
      return refuse(
        "past runs are not listed by number: `kubeprober once` waits for its results and prints them " +
          "(-o json keeps them), and `kubeprober status` shows what every checker said last"
      )
    case "ops":
    case "terminal":
      return refuse(OPS)
    default:
      return refuse(`there is no verb ${verb}; there are status, once and version, and more in \`kubeprober --help\``)
  }
}
