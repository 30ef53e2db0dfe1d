/** What is mounted where, from `/proc/<pid>/mounts` (fstab(5), proc_pid_mounts(5)). */

export interface Mount {
  readonly path: string
  readonly type: string
  readonly source: string
  readonly readOnly: boolean
}

/** Blanks in paths are written as octal escapes. */
const unescaped = (text: string): string =>
  text.replace(/\\([0-7]{3})/gu, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

/** In the order of the file: what is mounted later lies on top. */
export const mountsIn = (text: string): ReadonlyArray<Mount> =>
  text.split("\n").flatMap((line) => {
    const [source, path, type, options] = line.split(" ")
    return source === undefined || path === undefined || type === undefined || options === undefined ? [] : [{
      source: unescaped(source),
      path: unescaped(path),
      type,
      readOnly: options.split(",").includes("ro")
    }]
  })

const contains = (mount: string, path: string): boolean =>
  mount === "/" || path === mount || path.startsWith(`${mount}/`)

/** The mount that `path` is on. */
export const mountOf = (mounts: ReadonlyArray<Mount>, path: string): Mount | undefined =>
  mounts.reduce<Mount | undefined>(
    (best, mount) =>
      contains(mount.path, path) && (best === undefined || mount.path.length >= best.path.length) ? mount : best,
    undefined
  )

/** Where each block device (`8:1`) is mounted first, from `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)). */
export const devicesIn = (text: string): ReadonlyMap<string, string> => {
  const devices = new Map<string, string>()
  for (const line of text.split("\n")) {
    const [, , device, , path] = line.split(" ")
    if (device !== undefined && path !== undefined && !devices.has(device)) devices.set(device, unescaped(path))
  }
  return devices
}
