//go:build tools

// Package tools pins the etcd server that local clusters store their state in.
package tools

import _ "go.etcd.io/etcd/server/v3"
