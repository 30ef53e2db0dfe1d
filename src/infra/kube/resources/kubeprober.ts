/** Our own kinds, as the API server holds them: the schemas of `src/domain/kinds`. */
import { Schema } from "effect"
import * as Domain from "../../../domain/kinds/Cluster.ts"
import type { Kind } from "../../../domain/kinds/Kind.ts"
import * as DomainProbe from "../../../domain/kinds/Probe.ts"
import * as DomainProbeRun from "../../../domain/kinds/ProbeRun.ts"
import * as DomainProbeStatus from "../../../domain/kinds/ProbeStatus.ts"
import { make } from "../KubeResource.ts"

const resourceOf = <Fields extends Schema.Struct.Fields>(
  { fields, group, kind, plural, scope, version }: Kind<Fields>
) => make({ group, version, kind, plural, scope, fields })

export const Cluster = resourceOf(Domain.Cluster)
export type Cluster = typeof Cluster.object.Type

export const Probe = resourceOf(DomainProbe.Probe)
export type Probe = typeof Probe.object.Type

/** With the spec unread: one Probe that cannot be read must not hide the others. Use it to follow or list Probes. */
export const UnreadProbe = make({
  group: Probe.group,
  version: Probe.version,
  kind: Probe.kind,
  plural: Probe.plural,
  scope: Probe.scope,
  fields: { spec: Schema.optionalKey(Schema.Unknown) }
})
export type UnreadProbe = typeof UnreadProbe.object.Type

export const ProbeStatus = resourceOf(DomainProbeStatus.ProbeStatus)
export type ProbeStatus = typeof ProbeStatus.object.Type

export const ProbeRun = resourceOf(DomainProbeRun.ProbeRun)
export type ProbeRun = typeof ProbeRun.object.Type
