/**
 * Where credentials outlive the process: files of one folder, or Secrets of one namespace. Never custom resources.
 */
import { Context, Effect, FileSystem, Layer, Option, Path, type PlatformError, Redacted } from "effect"
import { Kube } from "../kube/Kube.ts"
import type { KubeError } from "../kube/KubeError.ts"
import { make as makeResource, stringMap } from "../kube/KubeResource.ts"
import { type Credential, fromBundle, toBundle, verify } from "./Credential.ts"
import { CredentialStoreError, type InvalidCredential } from "./PkiError.ts"

export class CredentialStore extends Context.Service<CredentialStore, {
  readonly read: (name: string) => Effect.Effect<Option.Option<Credential>, CredentialStoreError | InvalidCredential>
  /** Keeps the credential unless there is one already; returns the one that is kept from now on. */
  readonly create: (
    name: string,
    credential: Credential
  ) => Effect.Effect<Credential, CredentialStoreError | InvalidCredential>
  /** Keeps the credential in place of any other, at once or not at all. */
  readonly replace: (name: string, credential: Credential) => Effect.Effect<void, CredentialStoreError>
}>()("kubeprober/pki/CredentialStore") {
  /** `<folder>/<name>.pem`, readable by its owner alone. */
  static readonly layerFiles = (folder: string) => Layer.effect(CredentialStore, makeFiles(folder))

  /** Secret `<name>` of type kubernetes.io/tls in `namespace`. Needs get, create and update on Secrets of these names. */
  static readonly layerSecrets = (namespace: string) => Layer.effect(CredentialStore, makeSecrets(namespace))
}

/**
 * Others may neither read nor write, and the group may only read: a mounted Secret belongs to root and the pod's
 * fsGroup, with mode 0440.
 */
const TOO_OPEN = 0o037

const makeFiles = Effect.fnUntraced(function*(folder: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const fileOf = (name: string) => path.join(folder, `${name}.pem`)
  const failed = (source: string, operation: "read" | "write") => (error: PlatformError.PlatformError) =>
    new CredentialStoreError({ source, operation, detail: error.message })

  const read = Effect.fn("CredentialStore.read")(function*(name: string) {
    const file = fileOf(name)
    const content = yield* fs.readFileString(file).pipe(
      Effect.asSome,
      Effect.catchIf((error) => error.reason._tag === "NotFound", () => Effect.succeedNone),
      Effect.mapError(failed(file, "read"))
    )
    if (Option.isNone(content)) return Option.none<Credential>()
    const { mode } = yield* Effect.mapError(fs.stat(file), failed(file, "read"))
    if ((Number(mode) & TOO_OPEN) !== 0) {
      return yield* new CredentialStoreError({
        source: file,
        operation: "read",
        detail: `its mode ${(Number(mode) & 0o777).toString(8)} lets others at the private key (chmod 600)`
      })
    }
    return Option.some(yield* fromBundle(Redacted.make(content.value), file))
  })

  /** Written whole under another name first, so that a reader or a crash never sees half of it. */
  const write = Effect.fnUntraced(function*(
    credential: Credential,
    publish: (draft: string) => Effect.Effect<void, PlatformError.PlatformError>
  ) {
    yield* fs.makeDirectory(folder, { recursive: true, mode: 0o700 })
    const drafts = yield* fs.makeTempDirectoryScoped({ directory: folder, prefix: ".draft-" })
    const draft = path.join(drafts, "credential.pem")
    yield* fs.writeFileString(draft, Redacted.value(toBundle(credential)), { mode: 0o600 })
    yield* publish(draft)
  }, Effect.scoped)

  const create = Effect.fn("CredentialStore.create")(function*(name: string, credential: Credential) {
    const file = fileOf(name)
    // A link fails when its name is taken; a rename would replace.
    yield* write(credential, (draft) => fs.link(draft, file)).pipe(
      Effect.catchIf((error) => error.reason._tag === "AlreadyExists", () => Effect.void),
      Effect.mapError(failed(file, "write"))
    )
    return Option.getOrElse(yield* read(name), () => credential)
  })

  const replace = Effect.fn("CredentialStore.replace")(function*(name: string, credential: Credential) {
    const file = fileOf(name)
    yield* Effect.mapError(write(credential, (draft) => fs.rename(draft, file)), failed(file, "write"))
  })

  return CredentialStore.of({ read, create, replace })
})

const encodeBase64 = (text: string): string => Buffer.from(text).toString("base64")

/** Its data is base64, of PEM. */
const TlsSecret = makeResource({ kind: "Secret", plural: "secrets", scope: "Namespaced", fields: { data: stringMap } })

const makeSecrets = Effect.fnUntraced(function*(namespace: string) {
  const kube = yield* Kube
  const sourceOf = (name: string) => `Secret ${namespace}/${name}`
  const failed = (name: string, operation: "read" | "write") => (error: KubeError) =>
    new CredentialStoreError({ source: sourceOf(name), operation, detail: error.message })

  const decode = (name: string, data: Readonly<Record<string, string>>) => {
    const text = (key: string) => Buffer.from(data[key] ?? "", "base64").toString()
    return verify({
      certificate: text("tls.crt"),
      key: Redacted.make(text("tls.key"), { label: "private key" }),
      authorities: text("ca.crt")
    }, sourceOf(name))
  }

  const read = Effect.fn("CredentialStore.read")(function*(name: string) {
    const secret = yield* kube.get(TlsSecret, { name, namespace }).pipe(
      Effect.asSome,
      Effect.catchIf((error) => error.reason._tag === "NotFound", () => Effect.succeedNone),
      Effect.mapError(failed(name, "read"))
    )
    return Option.isNone(secret) ? Option.none<Credential>() : Option.some(yield* decode(name, secret.value.data))
  })

  const manifestOf = (name: string, credential: Credential) => ({
    metadata: { name, namespace },
    type: "kubernetes.io/tls",
    data: {
      "tls.crt": encodeBase64(credential.certificate),
      "tls.key": encodeBase64(Redacted.value(credential.key)),
      "ca.crt": encodeBase64(credential.authorities)
    }
  })

  const create = Effect.fn("CredentialStore.create")(function*(name: string, credential: Credential) {
    yield* kube.create(TlsSecret, manifestOf(name, credential)).pipe(
      Effect.catchIf((error) => error.reason._tag === "Conflict", () => Effect.void),
      Effect.mapError(failed(name, "write"))
    )
    return Option.getOrElse(yield* read(name), () => credential)
  })

  const replace = Effect.fn("CredentialStore.replace")(function*(name: string, credential: Credential) {
    yield* Effect.mapError(kube.apply(TlsSecret, manifestOf(name, credential), { force: true }), failed(name, "write"))
  })

  return CredentialStore.of({ read, create, replace })
})
