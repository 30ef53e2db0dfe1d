/** The addresses of one cluster with nodes. */
export interface ClusterNetwork {
  readonly index: number
  /** The interface of this machine that leads into the cluster; its name is what makes the index ours. */
  readonly hostLink: string
  readonly hostAddress: string
  /** Where the control plane is, and the gateway of the nodes. */
  readonly controlPlaneAddress: string
  readonly podCidr: string
  readonly nodeCidr: string
}

export interface NodeNetwork {
  readonly address: string
  readonly podCidr: string
}

/** Clusters with nodes on one machine. Each has a /24 of 172.30.0.0/16 for machines and a /16 of 10.128.0.0/10 for pods. */
export const MAX_CLUSTERS = 64

/** Nodes of one cluster: the last is 172.30.x.109. */
export const MAX_NODES = 99

export const clusterNetwork = (index: number): ClusterNetwork => ({
  index,
  hostLink: `kubeprober${index}`,
  hostAddress: `172.30.${index}.254`,
  controlPlaneAddress: `172.30.${index}.1`,
  podCidr: `10.${128 + index}.0.0/16`,
  nodeCidr: `172.30.${index}.0/24`
})

/** Nodes count from 1. */
export const nodeNetwork = (index: number, node: number): NodeNetwork => ({
  address: `172.30.${index}.${10 + node}`,
  podCidr: `10.${128 + index}.${node}.0/24`
})

/** The networks whose addresses nothing on this machine routes elsewhere, given `/proc/net/route`. */
export const candidates = (routeTable: string): ReadonlyArray<ClusterNetwork> => {
  const routes = parseRoutes(routeTable)
  return Array.from({ length: MAX_CLUSTERS }, (_, index) => clusterNetwork(index)).filter((network) =>
    [network.nodeCidr, network.podCidr].map(parseCidr).every((own) => !routes.some((route) => overlap(own, route)))
  )
}

interface Cidr {
  readonly address: number
  readonly mask: number
}

/** The destinations of an IPv4 route table in the format of proc_net(5), without the default routes. */
export const parseRoutes = (routeTable: string): ReadonlyArray<Cidr> =>
  routeTable.split("\n").slice(1).flatMap((line) => {
    const fields = line.split("\t")
    const [destination, mask] = [fields[1], fields[7]].map((field) => hostOrder(field ?? ""))
    return destination === undefined || mask === undefined || mask === 0 ? [] : [{ address: destination, mask }]
  })

/** The kernel prints addresses as hexadecimal numbers in network byte order, read on a little-endian machine. */
const hostOrder = (hex: string): number | undefined =>
  /^[0-9A-F]{8}$/i.test(hex) ? Buffer.from(hex, "hex").readUInt32LE() : undefined

const parseCidr = (cidr: string): Cidr => {
  const [address = "", bits = "32"] = cidr.split("/")
  return {
    address: Buffer.from(address.split(".").map(Number)).readUInt32BE(),
    mask: (0xffffffff << (32 - Number(bits))) >>> 0
  }
}

const overlap = (a: Cidr, b: Cidr): boolean => {
  const mask = (a.mask & b.mask) >>> 0
  return (a.address & mask) >>> 0 === (b.address & mask) >>> 0
}
