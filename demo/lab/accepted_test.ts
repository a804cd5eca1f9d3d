import { assertEquals } from "@std/assert";
import * as libc from "../../os/libc_cold.ts";
import { accepted } from "./accepted.ts";

const SOL_SOCKET = 1, SO_LINGER = 13;

/** Connects, and resets before anybody can have taken it. */
function connectAndReset(port: number): void {
  const address = new Uint8Array(16), fd = libc.socket(libc.AF.INET, libc.SOCK.STREAM, 0);
  address[0] = libc.AF.INET;
  new DataView(address.buffer).setUint16(2, port);
  address.set([127, 0, 0, 1], 4);
  assertEquals(libc.connect(fd, address), 0);
  libc.setSocketOption(fd, SOL_SOCKET, SO_LINGER, new Uint8Array(Int32Array.of(1, 0).buffer));
  libc.close(fd);
}

Deno.test("accepted() passes over who reset before he was taken, and ends with the listener", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 }), { port } = listener.addr as Deno.NetAddr;
  for (let count = 0; count < 3; count++) connectAndReset(port);
  using client = await Deno.connect({ hostname: "127.0.0.1", port });
  let taken = 0;
  for await (const connection of accepted(listener)) {
    taken++;
    assertEquals((connection.remoteAddr as Deno.NetAddr).port, (client.localAddr as Deno.NetAddr).port);
    connection.close();
    listener.close();
  }
  assertEquals(taken, 1);
});
