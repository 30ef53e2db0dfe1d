/** What other programs need to talk to a master; exported as `kubeprober/client`. */
export * as Connection from "./Connection.ts"
export { FleetClient, type FleetClientOptions, MasterUnreachable } from "./FleetClient.ts"
