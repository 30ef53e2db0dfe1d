/** Single Redis servers, of any role: data servers, members of a cluster, Sentinels. */
import { Context, type Effect, type Scope } from "effect"
import type { ServiceError, ServiceServer } from "./Service.ts"

/** What a command answers (RESP2). Numbers are JavaScript's. */
export type RedisReply = string | number | null | ReadonlyArray<RedisReply>

export interface RedisConnection {
  /** One command. Nothing is repeated and no redirection is followed: they are what a probe wants to know of. */
  readonly send: (command: string, ...rest: ReadonlyArray<string>) => Effect.Effect<RedisReply, ServiceError>
}

/** Provided by `RedisNode`. */
export class Redis extends Context.Service<Redis, {
  /** Connected and logged in; closed with the scope. */
  readonly connect: (server: ServiceServer) => Effect.Effect<RedisConnection, ServiceError, Scope.Scope>
}>()("kubeprober/infra/middleware/Redis") {}
