/**
 * Who an agent is, as its client certificate says: `CN=<cluster>` for people, URI `kp://cluster/<uid>` for the master.
 *
 * The uid is the master's own for the Cluster: a cluster that is removed and added again under the same name has another.
 */
import { Result } from "effect"
import type { X509Certificate } from "node:crypto"

export interface AgentName {
  readonly cluster: string
  readonly uid: string
}

/** The subject alternative name of a cluster's agent. */
export const sanOf = (uid: string): string => `kp://cluster/${uid}`

const subject = /^CN=([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)$/u
const alternativeName = /^URI:kp:\/\/cluster\/([A-Za-z0-9-]{1,64})$/u

/** Reads the name from a certificate that was verified. Any name beside the two makes it no agent's. */
export const read = (certificate: X509Certificate): Result.Result<AgentName, string> => {
  const cluster = subject.exec(certificate.subject)?.[1]
  const uid = alternativeName.exec(certificate.subjectAltName ?? "")?.[1]
  return cluster === undefined || uid === undefined
    ? Result.fail("it is not the certificate of an agent")
    : Result.succeed({ cluster, uid })
}
