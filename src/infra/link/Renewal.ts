/**
 * The agent's next certificate, over the link it has: served by the link itself, beside the uplink's procedures on the
 * same stream.
 */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Uplink } from "../../domain/rpc/Uplink.ts"
import { Revoked } from "../../domain/rpc/Uplink.ts"
import { CsrRefused } from "../pki/PkiError.ts"
import { UnknownCluster } from "./LinkError.ts"

/** A request for a certificate is under 1 KiB. */
export const Csr = Schema.String.check(Schema.isMaxCodePoints(8192))

/** A signed certificate, and the authorities to trust from now on, PEM. */
export const SignedCertificate = Schema.Struct({
  certificate: Schema.String.check(Schema.isMaxCodePoints(16_384)),
  authorities: Schema.String.check(Schema.isMaxCodePoints(65_536))
})
export type SignedCertificate = typeof SignedCertificate.Type

export class Renewal extends RpcGroup.make(
  /** For the same name as the link's own certificate, whatever the request says. */
  Rpc.make("renew", {
    payload: { csr: Csr },
    success: SignedCertificate,
    error: Schema.Union([CsrRefused, Revoked, UnknownCluster])
  })
) {}

/** All that an agent calls on the uplink stream. */
export const UplinkAndRenewal = Uplink.merge(Renewal)
