import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { KubeCaller, decodeCaller, encodeCaller, read, segmentsOf } from "../../src/domain/KubeRequest.ts"

const passed: ReadonlyArray<readonly [target: string, verb: string, isLong: boolean]> = [
  ["/api", "get", false],
  ["/apis/apps/v1", "get", false],
  ["/version?timeout=32s", "get", false],
  ["/openapi/v3/apis/apps/v1?hash=AB12", "get", false],
  ["/readyz/etcd", "get", false],
  ["/api/v1/pods?limit=500", "list", false],
  ["/api/v1/namespaces", "list", false],
  ["/api/v1/namespaces/a", "get", false],
  ["/api/v1/namespaces/a/status", "get", false],
  ["/api/v1/namespaces/a/pods", "list", false],
  ["/api/v1/namespaces/a/pods?watch=true&resourceVersion=5", "watch", true],
  ["/api/v1/namespaces/a/pods?watch=", "watch", true],
  ["/api/v1/namespaces/a/pods?watch=false&watch=true", "list", false],
  ["/api/v1/namespaces/a/pods/p", "get", false],
  ["/api/v1/namespaces/a/pods/p/log?container=c", "get", false],
  ["/api/v1/namespaces/a/pods/p/log?follow=true", "get", true],
  ["/apis/apps/v1/namespaces/a/deployments/d/scale", "get", false],
  ["/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node", "get", false],
  ["/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode", "get", false]
]

const refused: ReadonlyArray<readonly [method: string, target: string]> = [
  ...["exec", "attach", "portforward", "proxy", "ephemeralcontainers", "eviction", "binding", "token", "log/x"].map(
    (part) => ["GET", `/api/v1/namespaces/a/pods/p/${part}`] as const
  ),
  ["GET", "/api/v1/nodes/n/proxy/metrics"],
  ["GET", "/api/v1/namespaces/a/services/s/proxy"],
  ["GET", "/api/v1/namespaces/a/configmaps/c/log"],
  ["GET", "/api/v1/watch/pods"],
  ["GET", "/api/v1/proxy/nodes/n"],
  ["GET", "/metrics"],
  ["GET", "/debug/pprof"],
  ["GET", "/logs/kube-apiserver.log"],
  ["GET", "/"],
  ["GET", ""],
  ["GET", "api"],
  ["GET", "//api"],
  ["GET", "/api//v1"],
  ["GET", "/api/v1/"],
  ["GET", "/api/v1/pods/../secrets"],
  ["GET", "/api/v1/pods/./p"],
  ["GET", "/api/v1/pods/%2e%2e/secrets"],
  ["GET", "/api/v1/pods/%2E%2E/secrets"],
  ["GET", "/api/v1/namespaces/a%2fpods/p"],
  ["GET", "/api/v1/namespaces/a%5cpods"],
  ["GET", "/api/v1/namespaces/a\\..\\pods"],
  ["GET", "/api/v1/namespaces/a%252fb"],
  ["GET", "/api/v1/namespaces/a%00"],
  ["GET", "/api/v1/namespaces/a%0d%0ax"],
  ["GET", "/api/v1/namespaces/a%zz"],
  ["GET", "/api/v1/namespaces/a%3fwatch"],
  ["GET", "/api/v1/namespaces/ä"],
  ["GET", "/api/v1/pods?a=b#c"],
  ["GET", "/api/v1/pods?a=b c"],
  ["GET", `/api/v1/pods?a=${"b".repeat(9000)}`],
  ...["POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "get", ""].map((method) =>
    [method, "/api/v1/namespaces/a/pods"] as const
  ),
  ["POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"],
  ["POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews/x"],
  ["POST", "/apis/authentication.k8s.io/v1/tokenreviews"]
]

describe("a request to a managed cluster", () => {
  for (const [target, verb, isLong] of passed) {
    it(`passes as ${verb}: ${target}`, () => {
      const request = Result.getOrThrow(read("GET", target))
      assert.deepStrictEqual([request.verb, request.isLong], [verb, isLong])
      // What is sent on is judged alike.
      assert.deepStrictEqual(Result.getOrThrow(read("GET", `${request.path}${request.query}`)), request)
    })
  }

  for (const [method, target] of refused) {
    it(`is refused: ${method} ${target.slice(0, 80)}`, () => {
      assert.isTrue(Result.isFailure(read(method, target)))
    })
  }

  it("may ask about oneself", () => {
    for (
      const path of ["authorization.k8s.io/v1/selfsubjectaccessreviews", "authentication.k8s.io/v1/selfsubjectreviews"]
    ) {
      assert.strictEqual(Result.getOrThrow(read("POST", `/apis/${path}`)).verb, "create")
    }
  })

  it.effect.prop("is read in one way alone, or not at all", { path: Schema.String }, ({ path }) =>
    Effect.sync(() => {
      const segments = segmentsOf(`/${path}`)
      if (segments === undefined) return
      const url = new URL(`http://h/${segments.map(encodeURIComponent).join("/")}`)
      assert.deepStrictEqual(url.pathname.slice(1).split("/").map(decodeURIComponent), segments)
    }), { arbitrary: { runs: 500 } })

  it.effect.prop("says who asks, whatever they are called", { caller: KubeCaller }, ({ caller }) =>
    Effect.sync(() => {
      const header = Result.getOrThrow(encodeCaller(caller))
      assert.match(header, /^[\w-]*=*$/)
      assert.deepStrictEqual(Result.getOrThrow(decodeCaller(header)), caller)
    }))

  it("says nothing of a header that no master has written", () => {
    for (const header of [undefined, "", "%%", "e30", "eyJ1c2VyIjoiIn0"]) {
      assert.isTrue(Result.isFailure(decodeCaller(header)))
    }
  })
})
