/** Every probe that comes with KubeProber. */
import { freshness } from "./application/freshness.ts"
import { http } from "./application/http.ts"
import { promql } from "./application/promql.ts"
import { scenario } from "./application/scenario.ts"
import { tcp } from "./application/tcp.ts"
import { diskLatency } from "./infrastructure/diskLatency.ts"
import { etcd } from "./infrastructure/etcd.ts"
import { nodeResources } from "./infrastructure/nodeResources.ts"
import { admissionWebhooks } from "./kubernetes/admissionWebhooks.ts"
import { apiCrud } from "./kubernetes/apiCrud.ts"
import { apiDeprecations } from "./kubernetes/apiDeprecations.ts"
import { apiHealth } from "./kubernetes/apiHealth.ts"
import { apiService } from "./kubernetes/apiService.ts"
import { certExpiry } from "./kubernetes/certExpiry.ts"
import { configDrift } from "./kubernetes/configDrift.ts"
import { crdConversion } from "./kubernetes/crdConversion.ts"
import { eventsStorm } from "./kubernetes/eventsStorm.ts"
import { finalizersStuck } from "./kubernetes/finalizersStuck.ts"
import { namespaceLifecycle } from "./kubernetes/namespaceLifecycle.ts"
import { nodeReadiness } from "./kubernetes/nodeReadiness.ts"
import { routesStatic } from "./kubernetes/routesStatic.ts"
import { selfAccess } from "./kubernetes/selfAccess.ts"
import { versionSkew } from "./kubernetes/versionSkew.ts"
import { workloadsHealth } from "./kubernetes/workloadsHealth.ts"
import { mysql } from "./middleware/mysql.ts"
import { postgres } from "./middleware/postgres.ts"
import { redis } from "./middleware/redis.ts"
import type { AnyProbe } from "./Probe.ts"

/** Sorted by id. */
export const catalogue: ReadonlyArray<AnyProbe> = [
  freshness,
  http,
  promql,
  scenario,
  tcp,
  diskLatency,
  etcd,
  nodeResources,
  admissionWebhooks,
  apiCrud,
  apiDeprecations,
  apiHealth,
  apiService,
  certExpiry,
  configDrift,
  crdConversion,
  eventsStorm,
  finalizersStuck,
  namespaceLifecycle,
  nodeReadiness,
  routesStatic,
  selfAccess,
  versionSkew,
  workloadsHealth,
  mysql,
  postgres,
  redis
]
