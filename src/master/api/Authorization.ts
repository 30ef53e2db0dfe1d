/**
 * What callers may do, in the words of Kubernetes RBAC: verbs on resources of group `kubeprober.erda.cloud`.
 *
 * A master in a cluster asks its API server (SubjectAccessReview), so that rights are given by Roles like all others; one
 * without knows administrators alone. What cannot be found out is refused.
 */
import { Cache, Context, Effect, Layer, Option, Schema } from "effect"
import type { RpcGroup } from "effect/rpc"
import { type Fleet, FleetAccess, Forbidden, Unavailable } from "../../domain/rpc/Fleet.ts"
import { Kube } from "../../infra/kube/Kube.ts"
import { SubjectAccessReview } from "../../infra/kube/resources/authorization.ts"
import { ADMIN_GROUP, Authentication, type Caller, bearerOf } from "./Authentication.ts"

export const GROUP = "kubeprober.erda.cloud"

/** What someone wants to do. */
export interface Right {
  readonly verb: "get" | "list" | "watch" | "create" | "patch" | "delete"
  /** `clusters/proxy` is the cluster's own API. */
  readonly resource: "clusters" | "clusters/proxy" | "probes" | "proberuns" | "probestatuses"
  /** Absent: with all of them. */
  readonly name?: string | undefined
}

export class Authorization extends Context.Service<Authorization, {
  readonly allow: (caller: Caller, right: Right) => Effect.Effect<void, Forbidden | Unavailable>
}>()("kubeprober/master/api/Authorization") {
  /** Members of {@link ADMIN_GROUP} may do everything, all others nothing. */
  static readonly layerAdmin = Layer.succeed(Authorization, {
    allow: (caller, right) => caller.groups.includes(ADMIN_GROUP) ? Effect.void : Effect.fail(refused(caller, right))
  })

  /** As the managing cluster's authorizers say, of resources in `namespace`. Needs `create` on subjectaccessreviews. */
  static readonly layerKubernetes = (options: { readonly namespace: string }) =>
    Layer.effect(Authorization, makeKubernetes(options.namespace))
}

const refused = ({ user }: Caller, { name, resource, verb }: Right, reason?: string): Forbidden =>
  new Forbidden({
    user,
    verb,
    resource,
    ...(name === undefined ? {} : { name }),
    ...(reason === undefined || reason === "" ? {} : { reason })
  })

/** How long an answer stands: what a right that was taken back is still good for. */
const ANSWERED = "10 seconds"
const ANSWERS = 4096

const makeKubernetes = Effect.fnUntraced(function*(namespace: string) {
  const kube = yield* Kube
  const ask = Effect.fnUntraced(function*({ caller, right }: { readonly caller: Caller; readonly right: Right }) {
    const [resource, subresource] = right.resource.split("/")
    const { status } = yield* kube.create(SubjectAccessReview, {
      metadata: {},
      spec: {
        user: caller.user,
        groups: caller.groups,
        ...(caller.uid !== undefined && { uid: caller.uid }),
        ...(caller.extra !== undefined && { extra: caller.extra }),
        resourceAttributes: {
          namespace,
          group: GROUP,
          resource,
          verb: right.verb,
          ...(subresource !== undefined && { subresource }),
          ...(right.name !== undefined && { name: right.name })
        }
      }
    }).pipe(Effect.mapError(({ message }) => new Unavailable({ detail: `rights cannot be reviewed: ${message}` })))
    if (!status.allowed || status.denied) return yield* refused(caller, right, status.reason)
  })
  const answers = yield* Cache.makeWith(
    (question: string) => Effect.flatMap(Effect.orDie(decodeQuestion(question)), ask),
    { capacity: ANSWERS, timeToLive: (exit) => exit._tag === "Success" ? ANSWERED : "1 second" }
  )
  return Authorization.of({
    allow: (caller, right) => Cache.get(answers, encodeQuestion({ caller, right }))
  })
})

/** A question as a key of the cache. */
const Question = Schema.fromJsonString(Schema.Struct({
  caller: Schema.Struct({
    user: Schema.String,
    groups: Schema.Array(Schema.String),
    uid: Schema.optionalKey(Schema.String),
    extra: Schema.optionalKey(Schema.Record(Schema.String, Schema.Array(Schema.String)))
  }),
  right: Schema.Struct({
    verb: Schema.Literals(["get", "list", "watch", "create", "patch", "delete"]),
    resource: Schema.Literals(["clusters", "clusters/proxy", "probes", "proberuns", "probestatuses"]),
    name: Schema.optionalKey(Schema.UndefinedOr(Schema.String))
  })
}))
const encodeQuestion = Schema.encodeSync(Question)
const decodeQuestion = Schema.decodeEffect(Question)

/** The procedures of the fleet. */
type Procedure = RpcGroup.Rpcs<typeof Fleet>["_tag"]

/** The right each procedure needs; `named` when it is of the one resource the payload names. */
const rights = {
  matrix: { verb: "list", resource: "probestatuses" },
  history: { verb: "list", resource: "probestatuses" },
  transitions: { verb: "watch", resource: "probestatuses" },
  clusters: { verb: "list", resource: "clusters" },
  cluster: { verb: "get", resource: "clusters", named: true },
  createJoinToken: { verb: "create", resource: "clusters", named: true },
  labelCluster: { verb: "patch", resource: "clusters", named: true },
  revoke: { verb: "patch", resource: "clusters", named: true },
  removeCluster: { verb: "delete", resource: "clusters", named: true },
  run: { verb: "create", resource: "proberuns" },
  probes: { verb: "list", resource: "probes" },
  applyProbe: { verb: "patch", resource: "probes", named: true },
  deleteProbe: { verb: "delete", resource: "probes", named: true }
} satisfies Record<Procedure, Right & { readonly named?: true }>

const isProcedure = (tag: string): tag is Procedure => Object.hasOwn(rights, tag)

const Named = Schema.Struct({ cluster: Schema.optionalKey(Schema.String), name: Schema.optionalKey(Schema.String) })
const decodeNamed = Schema.decodeUnknownOption(Named)

/** The right that a call needs; none of a procedure nobody gave one, which nobody may call then. */
export const rightOf = (tag: string, payload: unknown): Right | undefined => {
  if (!isProcedure(tag)) return undefined
  const { resource, verb, ...how }: Right & { readonly named?: true } = rights[tag]
  if (how.named !== true) return { verb, resource }
  const { cluster, name } = Option.getOrElse(decodeNamed(payload), (): typeof Named.Type => ({}))
  return { verb, resource, name: name ?? cluster }
}

/** The fleet's calls, each by its own caller's right. */
export const layerFleetAccess: Layer.Layer<FleetAccess, never, Authentication | Authorization> = Layer.effect(
  FleetAccess,
  Effect.gen(function*() {
    const { authenticate } = yield* Authentication
    const { allow } = yield* Authorization
    return FleetAccess.of((effect, { headers, payload, rpc }) =>
      Effect.gen(function*() {
        const caller = yield* authenticate(bearerOf(headers["authorization"]))
        const right = rightOf(rpc._tag, payload)
        if (right === undefined) {
          return yield* new Unavailable({ detail: `no right is set for ${rpc._tag}, so nobody may call it` })
        }
        yield* allow(caller, right)
        return yield* effect
      })
    )
  })
)
