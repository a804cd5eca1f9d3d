import { assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { createServer } from "node:net";
import { HeldPort } from "./held_port_testing.ts";

Deno.test("HeldPort is refused while nobody listens, taken by whoever names it, again and again, and given to nobody else", async () => {
  using held = new HeldPort();
  using other = new HeldPort();
  assertNotEquals(held.port, other.port);
  const { port } = held, hostname = "127.0.0.1";
  for (let round = 0; round < 3; round++) {
    await assertRejects(() => Deno.connect({ hostname, port }), Deno.errors.ConnectionRefused);
    {
      using listener = Deno.listen({ hostname, port });
      using connection = await Deno.connect({ hostname, port });
      using accepted = await listener.accept();
      assertEquals((connection.localAddr as Deno.NetAddr).port, (accepted.remoteAddr as Deno.NetAddr).port);
    }
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(port, hostname, resolve));
    await new Promise((resolve) => server.close(resolve));
  }
  for (let at = 0; at < 200; at++) {
    using any = Deno.listen({ hostname, port: 0 });
    assertNotEquals(any.addr.port, port);
  }
});
