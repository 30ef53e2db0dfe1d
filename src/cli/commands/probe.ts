/** `kubeprober probe list|describe`: what can be asked of a cluster, what it takes and what it can say. */
import { Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { permits } from "../../domain/Profile.ts"
import type { RoleSubject } from "../../probes/Roles.ts"
import * as Structured from "../output/Structured.ts"
import { DRY_RUN_NAMESPACE, STANDING_NAMESPACE } from "../probeNamespaces.ts"
import { Screen, print } from "../Screen.ts"
import * as flags from "./flags.ts"
import { apply, get, remove } from "./probes.ts"

/** Loaded when a command runs: `--help` needs none of it. */
const load = Effect.promise(() => Promise.all([import("../Plan.ts"), import("../output/ProbeOutput.ts")]))

const list = Command.make(
  "list",
  {
    modules: flags.modules,
    output: flags.listOutput
  },
  Effect.fn("probe.list")(function*(options) {
    const [Plan, ProbeOutput] = yield* load
    const plan = yield* Plan.make({ ...options, only: [], except: [], manifests: [], namespaces: Option.none() })
    const probes = plan.checks.map((check) => check.probe)
    yield* print(
      options.output === "json" || options.output === "yaml"
        ? [yield* Structured.render(probes.map(ProbeOutput.describeProbe), options.output)]
        : ProbeOutput.list(probes, { wide: options.output === "wide" })
    )
  })
).pipe(
  Command.withAlias("ls"),
  Command.withDescription("List every probe")
)

const describe = Command.make(
  "describe",
  {
    id: Argument.String("ID").pipe(Argument.withDescription("The probe's id, as `probe list` shows it")),
    modules: flags.modules,
    output: flags.listOutput
  },
  Effect.fn("probe.describe")(function*(options) {
    const [Plan, ProbeOutput] = yield* load
    const plan = yield* Plan.make({
      only: [options.id],
      except: [],
      modules: options.modules,
      manifests: [],
      namespaces: Option.none()
    })
    const screen = yield* Screen
    const probes = plan.checks.map((check) => check.probe)
    for (const probe of probes) {
      yield* print(
        options.output === "json" || options.output === "yaml"
          ? [yield* Structured.render(ProbeOutput.describeProbe(probe), options.output)]
          : ProbeOutput.describeText(probe, screen.out.style)
      )
    }
  })
).pipe(Command.withDescription("Say what a probe proves, writes, needs, can be told, and can say"))

/** `ns/name` is a ServiceAccount, anything else a user. */
const subjectOf = (text: string): RoleSubject => {
  const [namespace, name] = text.split("/")
  return name === undefined || namespace === undefined
    ? { kind: "User", name: text }
    : { kind: "ServiceAccount", namespace, name }
}

const roles = Command.make(
  "roles",
  {
    only: flags.only,
    except: flags.except,
    modules: flags.modules,
    manifests: flags.manifests,
    profile: flags.profile,
    probeNamespace: flags.probeNamespace,
    to: Flag.String("to").pipe(
      Flag.withDescription("Bind the roles to this user, or to this ServiceAccount, written NAMESPACE/NAME"),
      Flag.withMetavar("WHO"),
      Flag.optional
    )
  },
  Effect.fn("probe.roles")(function*(options) {
    const [Plan] = yield* load
    const [Roles, yaml] = yield* Effect.promise(() => Promise.all([import("../../probes/Roles.ts"), import("yaml")]))
    const { checks, named } = yield* Plan.make({ ...options, namespaces: Option.none() })
    const needs = checks
      .filter(({ probe }) => permits(options.profile, probe.writes) || named.has(probe.id))
      .flatMap(({ probe }) => probe.needs)
    const probeNamespace = Option.getOrElse(
      options.probeNamespace,
      () => options.profile === "observe" ? DRY_RUN_NAMESPACE : STANDING_NAMESPACE
    )
    const manifests = Roles.forNeeds(needs, { name: `kubeprober-${options.profile}`, probeNamespace })
    const namespaces = probeNamespace === DRY_RUN_NAMESPACE ? [] : [{
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name: probeNamespace, labels: { "pod-security.kubernetes.io/enforce": "restricted" } }
    }]
    const bindings = Option.match(options.to, {
      onNone: () => [],
      onSome: (to) => Roles.bindings(manifests, [subjectOf(to)])
    })
    yield* print(
      [...namespaces, ...manifests, ...bindings].map((manifest) => `---\n${yaml.stringify(manifest).trimEnd()}`)
    )
  })
).pipe(
  Command.withDescription("Print the least RBAC that lets a plan's probes run"),
  Command.withExamples([{
    command: "kubeprober probe roles --to kubeprober/agent | kubectl apply -f -",
    description: "Let a ServiceAccount run `check`, and nothing else"
  }, {
    command: "kubeprober probe roles --profile standard --to kubeprober/agent | kubectl apply -f -",
    description: "Also `check --profile standard --probe-namespace kubeprober-probes`"
  }])
)

export const probe = Command.make("probe").pipe(
  Command.withDescription("What can be asked of a cluster, and the Probes of a fleet"),
  Command.withSubcommands([list, describe, roles, get, apply, remove])
)
