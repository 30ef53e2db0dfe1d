/** `kubeprober probe get|apply|delete`: the Probes of a fleet. */
import { Effect, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { ProbeSpec } from "../../domain/kinds/Probe.ts"
import * as ProbeKind from "../../domain/kinds/Probe.ts"
import { apiVersion } from "../../infra/kube/KubeResource.ts"
import { formatPolicy } from "../output/ProbePolicy.ts"
import * as Structured from "../output/Structured.ts"
import * as Table from "../output/Table.ts"
import { note, print } from "../Screen.ts"
import * as flags from "./flags.ts"

const load = Effect.promise(() => import("../MasterSession.ts"))

const encodeSpec = Schema.encodeSync(ProbeSpec)

export const get = Command.make(
  "get",
  { ...flags.master, output: flags.listOutput },
  Effect.fn("probe.get")(function*(options) {
    const { withFleet } = yield* load
    yield* withFleet(options, (fleet) =>
      Effect.gen(function*() {
        const { probes } = yield* fleet.probes({})
        if (options.output === "json" || options.output === "yaml") {
          const manifests = probes.map(({ labels, name, spec }) => ({
            apiVersion: apiVersion(ProbeKind.Probe),
            kind: ProbeKind.Probe.kind,
            metadata: { name, labels },
            spec: encodeSpec(spec)
          }))
          return yield* print([yield* Structured.render(manifests, options.output)])
        }
        if (probes.length === 0) return yield* note(["no Probe yet; `kubeprober probe apply -f FILE` makes one"])
        yield* print(Table.render([
          ["NAME", "LAYER", "WHEN", "RUNS", "CLUSTERS"],
          ...probes.map(({ name, spec }) => [
            name,
            spec.layer ?? "",
            formatPolicy(spec),
            spec.checks === undefined ? "a pod" : spec.checks.map((check) => check.use).join(","),
            spec.clusterSelector === undefined ? `labelled probe/${name}=true` : "by selector"
          ])
        ]))
      }))
  })
).pipe(Command.withDescription("List the Probes of the fleet"))

export const apply = Command.make(
  "apply",
  {
    ...flags.master,
    files: Flag.String("filename").pipe(
      Flag.withAlias("f"),
      Flag.atLeast(1),
      Flag.withDescription("Probe manifests, YAML or JSON; - reads standard input"),
      Flag.withMetavar("FILE")
    )
  },
  Effect.fn("probe.apply")(function*(options) {
    const [{ withFleet }, Manifests, { catalogue }] = yield* Effect.promise(() =>
      Promise.all([import("../MasterSession.ts"), import("../Manifests.ts"), import("../../probes/Catalogue.ts")])
    )
    // All files are read and examined before anything is changed.
    const probes = (yield* Effect.forEach(options.files, Manifests.loadProbes)).flat()
    yield* note((yield* Effect.forEach(probes, (probe) => Manifests.examine(probe, catalogue))).flat())
    yield* withFleet(options, (fleet) =>
      Effect.forEach(
        probes,
        (probe) => Effect.andThen(fleet.applyProbe(probe), print([`probe ${probe.name} applied`])),
        { discard: true }
      ))
  })
).pipe(Command.withDescription("Make or change Probes of the fleet; agents follow within a second"))

export const remove = Command.make(
  "delete",
  { ...flags.master, names: Argument.String("NAME").pipe(Argument.variadic({ min: 1 })) },
  Effect.fn("probe.delete")(function*(options) {
    const { withFleet } = yield* load
    yield* withFleet(options, (fleet) =>
      Effect.forEach(
        options.names,
        (name) => Effect.andThen(fleet.deleteProbe({ name }), print([`probe ${name} deleted`])),
        { discard: true }
      ))
  })
).pipe(Command.withDescription("Delete Probes of the fleet, and what they said"))
