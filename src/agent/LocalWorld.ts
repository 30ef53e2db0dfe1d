/** The world outside of the Kubernetes API as Node gives it: what probes and tasks use of {@link World}. */
import { Context } from "effect"
import { Disk } from "../infra/host/Disk.ts"
import * as DiskNode from "../infra/host/DiskNode.ts"
import { Host } from "../infra/host/Host.ts"
import * as HostNode from "../infra/host/HostNode.ts"
import { TlsPeer } from "../infra/tls/TlsPeer.ts"
import * as TlsPeerNode from "../infra/tls/TlsPeerNode.ts"
import type { World } from "../probes/World.ts"

/** Of this process: all stateless, or connected only while a probe uses it. */
export const context: Context.Context<World> = Context.make(TlsPeer, TlsPeerNode.service).pipe(
  Context.add(Disk, DiskNode.service),
  Context.add(Host, HostNode.make(HostNode.HOST_FOLDER))
)
