import { Data } from "effect"
import type { PlatformError } from "effect/PlatformError"
import type { LockFailed } from "./process/FileLock.ts"

/** A program that local clusters need is neither at hand nor buildable here. */
export class BinariesMissing extends Data.TaggedError("BinariesMissing")<{
  readonly names: ReadonlyArray<string>
  readonly searched: ReadonlyArray<string>
  /** Why building them was not possible. */
  readonly cause: string
}> {
  override get message(): string {
    return `Cannot find ${this.names.join(", ")} (searched ${
      this.searched.join(", ")
    }; ${this.cause}). Provide them in one ` +
      "of three ways: point KUBEBUILDER_ASSETS at a folder that holds them (setup-envtest leaves one), put them on PATH, " +
      "or install Go 1.26 or newer, and they are built once into the cache."
  }
}

/** `go build` failed. The build can be started again: what was compiled stays in Go's cache. */
export class BuildFailed extends Data.TaggedError("BuildFailed")<{
  readonly binary: string
  readonly output: string
}> {
  override get message(): string {
    return `Building ${this.binary} with Go failed; start again to resume, or provide the binary through KUBEBUILDER_ASSETS ` +
      `or PATH. The last output was:\n${this.output}`
  }
}

/** A binary does not run, or does not say which version it is. */
export class BinaryUnusable extends Data.TaggedError("BinaryUnusable")<{
  readonly path: string
  readonly output: string
}> {
  override get message(): string {
    return `${this.path} does not tell its version, so it is not used: ${
      this.output || "no output"
    }. Replace or remove it.`
  }
}

/** This machine cannot run nodes. Clusters without nodes still work. */
export class NodeUnsupported extends Data.TaggedError("NodeUnsupported")<{
  readonly reason: "platform" | "not-root" | "no-packages" | "tool-missing" | "kernel"
  readonly detail: string
}> {
  override get message(): string {
    return `This machine cannot run nodes of a local cluster: ${this.detail}. A cluster with nodes: 0 (control plane only) still works.`
  }
}

/** The name is not usable, or the options contradict each other. */
export class InvalidOptions extends Data.TaggedError("InvalidOptions")<{
  readonly option: string
  readonly value: string
  readonly expected: string
}> {
  override get message(): string {
    return `${this.option} is ${JSON.stringify(this.value)}, expected ${this.expected}.`
  }
}

/** A live process owns a local cluster of that name. */
export class ClusterExists extends Data.TaggedError("ClusterExists")<{
  readonly cluster: string
  readonly directory: string
}> {
  override get message(): string {
    return `A local cluster named ${this.cluster} is running already (${this.directory}). Take it down first, or choose another name.`
  }
}

/** The process that was to own a detached cluster has ended. */
export class SupervisorFailed extends Data.TaggedError("SupervisorFailed")<{
  readonly cluster: string
  /** What it gave as its reason, or else the last of what it wrote. */
  readonly reason: string
}> {
  override get message(): string {
    return `The local cluster ${this.cluster} did not come up. ${this.reason}`
  }
}

/** No local cluster of that name is running. */
export class ClusterNotFound extends Data.TaggedError("ClusterNotFound")<{
  readonly cluster: string
  readonly running: ReadonlyArray<string>
}> {
  override get message(): string {
    return `No local cluster named ${this.cluster} is running. Running: ${this.running.join(", ") || "none"}.`
  }
}

/** Every network that local clusters may use is taken. */
export class NoFreeNetwork extends Data.TaggedError("NoFreeNetwork")<{
  readonly tried: number
}> {
  override get message(): string {
    return `All ${this.tried} networks for local clusters are in use on this machine (172.30.0.0/16, 10.128.0.0/10). ` +
      "Take a local cluster down, or remove the conflicting route."
  }
}

/** The operating system gives no port for a component to listen on. */
export class NoFreePort extends Data.TaggedError("NoFreePort")<{
  readonly address: string
  readonly cause: Error
}> {
  override get message(): string {
    return `No port of ${this.address} can be listened on (${this.cause.message}). Check that the interface is up, and ` +
      "the limits on open files and ports."
  }
}

/** A component of the cluster ended by itself. */
export class ComponentExited extends Data.TaggedError("ComponentExited")<{
  readonly component: string
  readonly status: string
  readonly logPath: string
  readonly logTail: string
}> {
  override get message(): string {
    return `${this.component} ended (${this.status}). Its log is ${this.logPath}, and ends with:\n${this.logTail}`
  }
}

/** Something did not come up within its deadline. */
export class NotReady extends Data.TaggedError("NotReady")<{
  readonly what: string
  readonly after: string
  readonly last: string
}> {
  override get message(): string {
    return `${this.what} did not become ready within ${this.after}: ${this.last}`
  }
}

/** A command that sets the cluster up, or that the caller asked for, failed. */
export class CommandFailed extends Data.TaggedError("CommandFailed")<{
  readonly command: string
  readonly status: string
  readonly output: string
}> {
  override get message(): string {
    return `${this.command} failed (${this.status}): ${this.output.trim() || "no output"}`
  }
}

/** The API server refused a request of the set-up, or could not be asked. */
export class ApiFailed extends Data.TaggedError("ApiFailed")<{
  readonly request: string
  readonly status: number | undefined
  readonly detail: string
}> {
  override get message(): string {
    return `${this.request} failed (${this.status ?? "no answer"}): ${this.detail}`
  }
}

/** A file or process of the cluster could not be handled. */
export class LocalIoError extends Data.TaggedError("LocalIoError")<{
  readonly doing: string
  readonly cause: PlatformError | LockFailed
}> {
  override get message(): string {
    return `${this.doing} failed: ${this.cause.message}`
  }
}

/** Everything that can keep a local cluster from coming up. */
export type LocalError =
  | BinariesMissing
  | BuildFailed
  | BinaryUnusable
  | NodeUnsupported
  | InvalidOptions
  | ClusterExists
  | NoFreeNetwork
  | NoFreePort
  | ComponentExited
  | NotReady
  | CommandFailed
  | ApiFailed
  | LocalIoError
