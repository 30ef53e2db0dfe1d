/** PostgreSQL servers. */
import { Context, type Effect, type Scope } from "effect"
import type { ServiceError, ServiceServer, SqlConnection } from "./Service.ts"

/** Provided by `PostgresNode`. */
export class Postgres extends Context.Service<Postgres, {
  /** A session in a database; closed with the scope. */
  readonly connect: (
    server: ServiceServer & { readonly database: string }
  ) => Effect.Effect<SqlConnection, ServiceError, Scope.Scope>
}>()("kubeprober/infra/middleware/Postgres") {}
