/** Every probe that comes with KubeProber. */
import { freshness } from "./application/freshness.ts"
import { http } from "./application/http.ts"
import { promql } from "./application/promql.ts"
import { scenario } from "./application/scenario.ts"
import { tcp } from "./application/tcp.ts"
import { clockSkew } from "./infrastructure/clockSkew.ts"
import { diskLatency } from "./infrastructure/diskLatency.ts"
import { etcd } from "./infrastructure/etcd.ts"
import { mesh } from "./infrastructure/mesh.ts"
import { nodeBaseline } from "./infrastructure/nodeBaseline.ts"
import { nodeKernel } from "./infrastructure/nodeKernel.ts"
import { nodeResources } from "./infrastructure/nodeResources.ts"
import { nodeRuntime } from "./infrastructure/nodeRuntime.ts"
import { admissionWebhooks } from "./kubernetes/admissionWebhooks.ts"
import { apiCrud } from "./kubernetes/apiCrud.ts"
import { apiDeprecations } from "./kubernetes/apiDeprecations.ts"
import { apiFromPod } from "./kubernetes/apiFromPod.ts"
import { apiHealth } from "./kubernetes/apiHealth.ts"
import { apiService } from "./kubernetes/apiService.ts"
import { capacityQuota } from "./kubernetes/capacityQuota.ts"
import { certExpiry } from "./kubernetes/certExpiry.ts"
import { configDrift } from "./kubernetes/configDrift.ts"
import { controlLoops } from "./kubernetes/controlLoops.ts"
import { crdConversion } from "./kubernetes/crdConversion.ts"
import { dnsCluster } from "./kubernetes/dnsCluster.ts"
import { eventsStorm } from "./kubernetes/eventsStorm.ts"
import { finalizersStuck } from "./kubernetes/finalizersStuck.ts"
import { ingressHttp } from "./kubernetes/ingressHttp.ts"
import { namespaceLifecycle } from "./kubernetes/namespaceLifecycle.ts"
import { nodeReadiness } from "./kubernetes/nodeReadiness.ts"
import { nodeSweep } from "./kubernetes/nodeSweep.ts"
import { pdbDrain } from "./kubernetes/pdbDrain.ts"
import { routesStatic } from "./kubernetes/routesStatic.ts"
import { selfAccess } from "./kubernetes/selfAccess.ts"
import { serviceClusterIp } from "./kubernetes/serviceClusterIp.ts"
import { storageHealth } from "./kubernetes/storageHealth.ts"
import { versionSkew } from "./kubernetes/versionSkew.ts"
import { workloadLifecycle } from "./kubernetes/workloadLifecycle.ts"
import { workloadsHealth } from "./kubernetes/workloadsHealth.ts"
import { mysql } from "./middleware/mysql.ts"
import { postgres } from "./middleware/postgres.ts"
import { redis } from "./middleware/redis.ts"
import type { AnyProbe } from "./Probe.ts"

const all: ReadonlyArray<AnyProbe> = [
  admissionWebhooks,
  apiCrud,
  apiDeprecations,
  apiFromPod,
  apiHealth,
  apiService,
  capacityQuota,
  certExpiry,
  clockSkew,
  configDrift,
  controlLoops,
  crdConversion,
  diskLatency,
  dnsCluster,
  etcd,
  eventsStorm,
  finalizersStuck,
  freshness,
  http,
  ingressHttp,
  mesh,
  mysql,
  namespaceLifecycle,
  nodeBaseline,
  nodeKernel,
  nodeReadiness,
  nodeResources,
  nodeRuntime,
  nodeSweep,
  pdbDrain,
  postgres,
  promql,
  redis,
  routesStatic,
  scenario,
  selfAccess,
  serviceClusterIp,
  storageHealth,
  tcp,
  versionSkew,
  workloadLifecycle,
  workloadsHealth
]

/** Sorted by id. */
export const catalogue: ReadonlyArray<AnyProbe> = all.toSorted((a, b) => a.id < b.id ? -1 : 1)
