/** The X.509 library, with the polyfill it asks for loaded before it. */
// A polyfill; there is nothing to name.
// oxlint-disable-next-line import/no-unassigned-import
import "reflect-metadata"

export * from "@peculiar/x509"
