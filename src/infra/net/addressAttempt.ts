/**
 * How long one of several addresses of a name has to take a connection (ms). Node gives up on it then for good, so its 250 ms
 * make servers that are far away, or that lose one packet (sent again after a second, RFC 6298), look down.
 */
export const ADDRESS_ATTEMPT = 1_200
