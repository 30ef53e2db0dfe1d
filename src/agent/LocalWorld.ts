/** The world outside of the Kubernetes API as Node gives it: what probes and tasks use of {@link World}. */
import { Context } from "effect"
import { Credentials } from "../infra/credentials/Credentials.ts"
import * as CredentialsNode from "../infra/credentials/CredentialsNode.ts"
import { EtcdGateway } from "../infra/etcd/EtcdGateway.ts"
import * as EtcdGatewayNode from "../infra/etcd/EtcdGatewayNode.ts"
import { Disk } from "../infra/host/Disk.ts"
import * as DiskNode from "../infra/host/DiskNode.ts"
import { Host } from "../infra/host/Host.ts"
import * as HostNode from "../infra/host/HostNode.ts"
import { MySql } from "../infra/middleware/MySql.ts"
import * as MySqlNode from "../infra/middleware/MySqlNode.ts"
import { Postgres } from "../infra/middleware/Postgres.ts"
import * as PostgresNode from "../infra/middleware/PostgresNode.ts"
import { Redis } from "../infra/middleware/Redis.ts"
import * as RedisNode from "../infra/middleware/RedisNode.ts"
import { Dns } from "../infra/net/Dns.ts"
import * as DnsNode from "../infra/net/DnsNode.ts"
import { HttpCall } from "../infra/net/HttpCall.ts"
import * as HttpCallNode from "../infra/net/HttpCallNode.ts"
import { Links } from "../infra/net/Links.ts"
import * as LinksNode from "../infra/net/LinksNode.ts"
import { Tcp } from "../infra/net/Tcp.ts"
import * as TcpNode from "../infra/net/TcpNode.ts"
import { Samples } from "../infra/samples/Samples.ts"
import * as SamplesNode from "../infra/samples/SamplesNode.ts"
import { TlsPeer } from "../infra/tls/TlsPeer.ts"
import * as TlsPeerNode from "../infra/tls/TlsPeerNode.ts"
import type { World } from "../probes/World.ts"

export interface LocalWorldOptions {
  /** Where Secrets are mounted; {@link CredentialsNode.FOLDER} when absent. */
  readonly credentials?: string | undefined
}

/** Of this process: all stateless, or connected only while a probe uses it. */
export const make = ({ credentials }: LocalWorldOptions = {}): Context.Context<World> =>
  Context.make(TlsPeer, TlsPeerNode.service).pipe(
    Context.add(Credentials, CredentialsNode.make(credentials)),
    Context.add(Disk, DiskNode.service),
    Context.add(Dns, DnsNode.service),
    Context.add(EtcdGateway, EtcdGatewayNode.service),
    Context.add(Host, HostNode.make(HostNode.HOST_FOLDER)),
    Context.add(HttpCall, HttpCallNode.service),
    Context.add(Links, LinksNode.service),
    Context.add(MySql, MySqlNode.service),
    Context.add(Postgres, PostgresNode.service),
    Context.add(Redis, RedisNode.service),
    Context.add(Samples, SamplesNode.service),
    Context.add(Tcp, TcpNode.service)
  )

/** With Secrets from their usual folder. */
export const context: Context.Context<World> = make()
