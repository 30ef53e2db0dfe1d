/** How the sources become JavaScript files, for the package and for the container image. */
import { Data, Effect } from "effect"
import { fileURLToPath } from "node:url"
import { type BuildOptions, build } from "rolldown"

export class BuildFailed extends Data.TaggedError("BuildFailed")<{ readonly part: string; readonly cause?: unknown }> {
  override get message(): string {
    return `${this.part} could not be built${this.cause instanceof Error ? `: ${this.cause.message}` : ""}`
  }
}

/** The folder of this project, with a slash at its end. */
export const root = fileURLToPath(new URL("..", import.meta.url))

/** The program with its own copy of everything: `kubeprober.js` is what people start. */
export const program = {
  input: { "kubeprober": "src/cli/launcher.ts", "local-supervisor": "src/local/supervisor.ts" },
  external: [],
  minify: true
} as const

/** Bundles into `folder`, which is absolute or of this project; the modules it took in. */
export const bundle = (folder: string, options: {
  readonly input: Readonly<Record<string, string>>
  readonly external: ReadonlyArray<RegExp>
  readonly minify: boolean
}): Effect.Effect<ReadonlyArray<string>, BuildFailed> =>
  Effect.tryPromise({
    try: () => {
      const config: BuildOptions = {
        cwd: root,
        input: { ...options.input },
        platform: "node",
        external: [...options.external],
        treeshake: {
          // The generated clients of every API group are 3 MB that nothing of ours calls; client-node does not say that
          // its modules only define things.
          moduleSideEffects: [{ test: /@kubernetes[\\/]client-node/, sideEffects: false }]
        },
        output: {
          dir: folder,
          format: "esm",
          minify: options.minify,
          entryFileNames: "[name].js",
          chunkFileNames: "chunks/[name]-[hash].js"
        },
        logLevel: "warn"
      }
      return build(config)
    },
    catch: (cause) => new BuildFailed({ part: folder, cause })
  }).pipe(
    Effect.map(({ output }) => output.flatMap((file) => file.type === "chunk" ? file.moduleIds : []))
  )
