/**
 * What is used of @kubernetes/client-node. Import it lazily, and through this file: a bundler can leave out the rest of
 * the package (3 MB of generated clients) only where names are imported one by one.
 */
export { KubeConfig } from "@kubernetes/client-node"
