/** Servers that speak MySQL's protocol: MySQL, MariaDB, Percona, and members of Galera clusters. */
import { Context, type Effect, type Scope } from "effect"
import type { ServiceError, ServiceServer, SqlConnection } from "./Service.ts"

/** Provided by `MySqlNode`. */
export class MySql extends Context.Service<MySql, {
  /** A session without a database; closed with the scope. */
  readonly connect: (server: ServiceServer) => Effect.Effect<SqlConnection, ServiceError, Scope.Scope>
}>()("kubeprober/infra/middleware/MySql") {}
