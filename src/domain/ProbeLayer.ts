/** The four layers of a cluster, in the order results are read: what users feel first, what carries it last. */
import { Schema } from "effect"

export const ProbeLayer = Schema.Literals(["application", "middleware", "kubernetes", "infrastructure"])
export type ProbeLayer = typeof ProbeLayer.Type
