/** The network interfaces of wherever this process runs. */
import { Context, type Effect, type Option } from "effect"

/** Provided by `LinksNode`. */
export class Links extends Context.Service<Links, {
  /**
   * The largest packet in bytes (IP header included) that every interface but the loopback sends in one piece; nothing when
   * that cannot be read.
   */
  readonly mtu: Effect.Effect<Option.Option<number>>
}>()("kubeprober/infra/net/Links") {}
