/** A port for a server that is killed and started again on it. */
import { Effect } from "effect"
import { createServer } from "node:net"

/**
 * A port that is free, below those from which the kernel takes the local ends of connections: an agent that dials it
 * while the master is down must not take it.
 */
export const lowPort: Effect.Effect<number> = Effect.callback<number, Error>((resume) => {
  const server = createServer()
  server.once("error", (error) => resume(Effect.fail(error)))
  const port = 20_000 + Math.floor(Math.random() * 10_000)
  server.listen(port, "127.0.0.1", () => server.close(() => resume(Effect.succeed(port))))
}).pipe(Effect.retry({ times: 20 }), Effect.orDie)
