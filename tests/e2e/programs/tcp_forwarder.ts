/** What stands behind a network gateway's tunnels: takes connections at a port and pipes them to an address, each direction for itself. */
import { accepted } from "../../../demo/lab/accepted.ts";

const [port, host, target] = [Number(Deno.args[0]), Deno.args[1]!, Number(Deno.args[2])];

async function pipe(from: Deno.TcpConn, to: Deno.TcpConn): Promise<void> {
  const chunk = new Uint8Array(65_536);
  for (let count = await from.read(chunk); count !== null; count = await from.read(chunk)) {
    for (let at = 0; at < count;) at += await to.write(chunk.subarray(at, count));
  }
  await to.closeWrite();
}

async function serve(near: Deno.TcpConn): Promise<void> {
  using far = await Deno.connect({ hostname: host, port: target });
  using _near = near;
  const outcomes = await Promise.allSettled([pipe(near, far), pipe(far, near)]); // One side may reset: both are closed then.
  const failed = outcomes.filter((it) => it.status === "rejected").length;
  Deno.stdout.writeSync(new TextEncoder().encode(`forwarded ${failed === 0 ? "whole" : "broken"}\n`));
}

const listener = Deno.listen({ hostname: "::", port });
Deno.stdout.writeSync(new TextEncoder().encode("listening\n"));
for await (const socket of accepted(listener)) serve(socket);
