/** So many things, as people read it: `1 node`, `3 nodes`, `2 replicas`. */
export const counted = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`
