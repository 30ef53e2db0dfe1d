/**
 * The files of the node that a process runs on: `/proc`, `/sys` and what else of it is mounted. Paths are the node's own;
 * where they are in this process, the implementation knows.
 */
import { Context, Data, type Effect } from "effect"

/** A file of the node cannot be read. `missing` is often an answer: the kernel has no such feature. */
export class HostError extends Data.TaggedError("HostError")<{
  readonly path: string
  readonly kind: "missing" | "denied" | "unreadable"
  readonly detail: string
}> {
  override get message(): string {
    return `${this.path} of the node cannot be read (${this.kind}): ${this.detail}`
  }
}

/** How full a file system is, as statfs(2) tells it to an unprivileged user. */
export interface FileSystemUse {
  readonly bytes: number
  readonly bytesFree: number
  /** 0 where the file system has no fixed number of inodes. */
  readonly inodes: number
  readonly inodesFree: number
}

/** Provided by `HostNode`. */
export class Host extends Context.Service<Host, {
  /** The first 256 KiB of a file, as text. */
  readonly text: (path: string) => Effect.Effect<string, HostError>
  /** Names in a folder, sorted. */
  readonly names: (folder: string) => Effect.Effect<ReadonlyArray<string>, HostError>
  /** Of the file system that `path` is on. */
  readonly use: (path: string) => Effect.Effect<FileSystemUse, HostError>
}>()("kubeprober/infra/host/Host") {}
