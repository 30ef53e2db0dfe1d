/**
 * A small shop to try the scenarios on: `node server.ts` serves it on port 8080. Customer `prober` logs in with the password
 * `open-sesame`, unless PASSWORD says otherwise.
 */
import { randomUUID } from "node:crypto"
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http"

export interface Shop {
  readonly server: Server
  /** Sessions that are not logged out, and orders that are not cancelled. */
  readonly left: () => { readonly sessions: number; readonly orders: number }
}

const read = (request: IncomingMessage): Promise<string> =>
  new Promise((resolve, reject) => {
    let body = ""
    request.on("data", (chunk) => body += String(chunk)).on("end", () => resolve(body)).on("error", reject)
  })

const isLogin = (value: unknown): value is { readonly user: string; readonly password: string } =>
  typeof value === "object" && value !== null && "user" in value && "password" in value

export const makeShop = ({ password, user }: { readonly user: string; readonly password: string }): Shop => {
  /** Tokens by the value of the session's cookie: a request must bring both. */
  const sessions = new Map<string, string>()
  const orders = new Map<string, { readonly id: string; readonly item: string; readonly state: string }>()

  const answer = (response: ServerResponse, status: number, body: object, headers: Record<string, string> = {}) =>
    response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body))

  const sessionOf = ({ headers }: IncomingMessage): string | undefined => {
    const cookie = /(?:^|; )session=([^;]+)/u.exec(headers.cookie ?? "")?.[1]
    return cookie !== undefined && headers.authorization === `Bearer ${sessions.get(cookie)}` ? cookie : undefined
  }

  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    const { method = "GET", url = "/" } = request
    const body = await read(request)
    if (method === "POST" && url === "/login") {
      const login: unknown = JSON.parse(body)
      if (!isLogin(login) || login.user !== user || login.password !== password) {
        return answer(response, 401, { error: "wrong user or password" })
      }
      const cookie = randomUUID()
      const token = randomUUID()
      sessions.set(cookie, token)
      return answer(response, 200, { token }, { "set-cookie": `session=${cookie}; Path=/; HttpOnly` })
    }
    const session = sessionOf(request)
    if (session === undefined) return answer(response, 401, { error: "log in first" })
    if (method === "POST" && url === "/logout") {
      sessions.delete(session)
      return answer(response, 200, {}, { "set-cookie": "session=; Path=/; Max-Age=0" })
    }
    if (method === "POST" && url === "/orders") {
      const order = { id: randomUUID(), item: String(new URLSearchParams(body).get("item")), state: "accepted" }
      orders.set(order.id, order)
      return answer(response, 201, order)
    }
    const order = orders.get(url.replace("/orders/", ""))
    if (order === undefined) return answer(response, 404, { error: "no such order" })
    if (method === "DELETE") orders.delete(order.id)
    return answer(response, 200, order)
  }

  return {
    server: createServer((request, response) => {
      handle(request, response).catch(() => answer(response, 400, { error: "not understood" }))
    }),
    left: () => ({ sessions: sessions.size, orders: orders.size })
  }
}

if (import.meta.main) {
  const { server } = makeShop({ user: "prober", password: process.env["PASSWORD"] ?? "open-sesame" })
  server.listen(8080, "127.0.0.1", () => console.log("the shop serves http://127.0.0.1:8080"))
}
