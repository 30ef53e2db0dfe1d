//go:build tools

// Package tools pins the DNS server that nodes of local clusters run.
package tools

import _ "github.com/coredns/coredns"
