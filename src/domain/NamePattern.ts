/** Names as people choose them in configurations and on the command line: whole, or a beginning followed by `*`. */
export const matches = (pattern: string, name: string): boolean =>
  pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern
