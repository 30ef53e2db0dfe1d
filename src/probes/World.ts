/**
 * What a probe may use of the world outside of the Kubernetes API: interfaces of `src/infra`, one service a file.
 *
 * A new kind of I/O is added in three places: its interface in `src/infra/<kind>`, this union, and its implementation in
 * `src/agent/LocalWorld.ts`.
 */
import type { Credentials } from "../infra/credentials/Credentials.ts"
import type { EtcdGateway } from "../infra/etcd/EtcdGateway.ts"
import type { Disk } from "../infra/host/Disk.ts"
import type { Host } from "../infra/host/Host.ts"
import type { MySql } from "../infra/middleware/MySql.ts"
import type { Postgres } from "../infra/middleware/Postgres.ts"
import type { Redis } from "../infra/middleware/Redis.ts"
import type { Dns } from "../infra/net/Dns.ts"
import type { HttpCall } from "../infra/net/HttpCall.ts"
import type { Links } from "../infra/net/Links.ts"
import type { Tcp } from "../infra/net/Tcp.ts"
import type { Samples } from "../infra/samples/Samples.ts"
import type { TlsPeer } from "../infra/tls/TlsPeer.ts"

export type World =
  | Credentials
  | Disk
  | Dns
  | EtcdGateway
  | Host
  | HttpCall
  | Links
  | MySql
  | Postgres
  | Redis
  | Samples
  | Tcp
  | TlsPeer
