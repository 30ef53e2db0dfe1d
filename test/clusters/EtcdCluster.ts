/** Real members of etcd on this machine, with what tests do to them. */
import { Effect, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as EtcdApi from "../../src/infra/etcd/EtcdApi.ts"
import type { EtcdTarget } from "../../src/infra/etcd/EtcdGateway.ts"
import * as EtcdGatewayNode from "../../src/infra/etcd/EtcdGatewayNode.ts"
import { LocalBinaries } from "../../src/local/binaries/LocalBinaries.ts"
import type { KeyPairPem } from "../../src/local/Certificates.ts"
import * as Ports from "../../src/local/Ports.ts"
import { eventually } from "./TestCluster.ts"

export interface EtcdMember {
  readonly name: string
  /** Where clients ask. */
  readonly url: string
  readonly start: Effect.Effect<void>
  /** SIGKILL; returns when the process is gone. */
  readonly kill: Effect.Effect<void>
  /**
   * Makes each fsync of this process take so much longer, until the scope ends, as a slow disk does. Takes `strace`, and
   * the right to trace.
   */
  readonly slowDisk: (milliseconds: number) => Effect.Effect<void, never, Scope.Scope>
  readonly api: EtcdApi.EtcdApi
  /** Any call of the gateway, as the administrator; its answer, whatever its status. */
  readonly call: (path: string, body: object) => Effect.Effect<string>
}

export interface EtcdOptions {
  readonly members?: number
  /** Of etcd. */
  readonly flags?: ReadonlyArray<string>
  /** Serve with this pair, and only to clients of that authority. */
  readonly tls?: { readonly server: KeyPairPem; readonly ca: string; readonly client: EtcdTarget["tls"] }
}

const exited = (child: ChildProcess) =>
  new Promise<void>((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve()
    else child.once("exit", () => resolve())
  })

/** A cluster of one or more members, ready when it returns, gone when the scope ends. */
export const etcdCluster = Effect.fnUntraced(function*(options: EtcdOptions = {}) {
  const binaries = yield* LocalBinaries
  const { etcd } = yield* Effect.orDie(binaries.resolve(["etcd"]))
  const folder = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "kubeprober-etcd-"))),
    (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
  )
  const { flags = [], members: size = 1, tls } = options
  const names = Array.from({ length: size }, (_, index) => `m${index + 1}`)
  const ports = yield* Effect.orDie(
    Ports.free("127.0.0.1", names.flatMap((name) => [`${name} client`, `${name} peer`]))
  )
  const scheme = tls === undefined ? "http" : "https"
  const peerOf = (name: string) => `http://127.0.0.1:${ports[`${name} peer`]}`
  if (tls !== undefined) {
    for (
      const [file, text] of [["ca.crt", tls.ca], ["server.crt", tls.server.cert], [
        "server.key",
        tls.server.key
      ]] as const
    ) {
      yield* Effect.promise(() => writeFile(join(folder, file), text))
    }
  }
  const secured = tls === undefined ? [] : [
    `--cert-file=${join(folder, "server.crt")}`,
    `--key-file=${join(folder, "server.key")}`,
    `--trusted-ca-file=${join(folder, "ca.crt")}`,
    "--client-cert-auth"
  ]

  const members = yield* Effect.forEach(
    names,
    Effect.fnUntraced(function*(name): Effect.fn.Return<EtcdMember, never, Scope.Scope> {
      const url = `${scheme}://127.0.0.1:${ports[`${name} client`]}`
      let child: ChildProcess | undefined
      const kill = Effect.promise(async () => {
        if (child === undefined) return
        child.kill("SIGKILL")
        await exited(child)
        child = undefined
      })
      const start = Effect.sync(() => {
        child ??= spawn(etcd.path, [
          `--name=${name}`,
          `--data-dir=${join(folder, name)}`,
          `--listen-client-urls=${url}`,
          `--advertise-client-urls=${url}`,
          `--listen-peer-urls=${peerOf(name)}`,
          `--initial-advertise-peer-urls=${peerOf(name)}`,
          `--initial-cluster=${names.map((each) => `${each}=${peerOf(each)}`).join(",")}`,
          ...secured,
          ...flags
        ], { stdio: "ignore" })
      })
      yield* Effect.acquireRelease(start, () => kill)
      const connection = yield* EtcdGatewayNode.service.connect({ url: new URL(url), tls: tls?.client })
      return {
        name,
        url,
        start,
        kill,
        slowDisk: (milliseconds) =>
          Effect.acquireRelease(
            Effect.promise(async () => {
              const tracer = spawn("strace", [
                "-f",
                "-e",
                "trace=fsync,fdatasync",
                "-e",
                `inject=fsync,fdatasync:delay_enter=${milliseconds * 1000}`,
                "-o",
                "/dev/null",
                "-p",
                String(child?.pid)
              ], { stdio: ["ignore", "ignore", "pipe"] })
              // It says on standard error when it has attached.
              await new Promise<void>((resolve, reject) => {
                tracer.stderr.once("data", () => resolve())
                tracer.once("error", reject)
                tracer.once("exit", () => reject(new Error("strace ended")))
              })
              return tracer
            }),
            // Ended so, it detaches and leaves the process running.
            (tracer) =>
              Effect.promise(() => {
                tracer.kill("SIGTERM")
                return exited(tracer)
              })
          ).pipe(Effect.asVoid),
        api: EtcdApi.make(connection, { timeout: "5 seconds" }),
        call: (path, body) =>
          Effect.map(
            Effect.orDie(
              connection.ask({
                method: "POST",
                path,
                body: JSON.stringify(body),
                timeout: "10 seconds",
                maximumBody: 1024 * 1024
              })
            ),
            (answer) => answer.body
          )
      }
    })
  )
  return { folder, members, urls: members.map(({ url }) => url) }
})

/** Waits until all members have one leader. */
export const ready = (members: ReadonlyArray<EtcdMember>) =>
  eventually(
    Effect.forEach(
      members,
      ({ api }) => Effect.orElseSucceed(Effect.map(api.status, ({ leader }) => leader), () => "0")
    ),
    (leaders) => new Set(leaders).size === 1 && leaders[0] !== "0"
  )

/** The member that leads. */
export const leaderOf = Effect.fnUntraced(function*(members: ReadonlyArray<EtcdMember>) {
  yield* ready(members)
  for (const member of members) {
    const { header, leader } = yield* Effect.orDie(member.api.status)
    if (header.member_id === leader) return { member, id: leader }
  }
  return yield* Effect.die("no member leads")
})
