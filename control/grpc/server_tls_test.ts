/** Some break their channel: its back-off timers outlive it, so that these tests stand in a file of their own. */
import net from "node:net";
import { assert, assertEquals } from "@std/assert";

import { clientPair, echo, FAILING, newAuthority, Rig, serverTls } from "./server_testing.ts";

Deno.test(
  "GrpcServer knows a client by its certificate, and reads nothing of one that does not verify (CP-003)",
  FAILING,
  async () => {
    await using rig = await Rig.start();
    const known = rig.client(await clientPair(rig.authority));
    assertEquals(await echo(known), 5);
    assert(rig.calls[0]!.peer.certificate!.length > 100);
    const stranger = rig.client(await clientPair(await newAuthority()));
    assertEquals([await echo(stranger), rig.calls.length], ["UNAVAILABLE", 1]);
    known.close();
    stranger.close();
  },
);

Deno.test(
  "GrpcServer presents what it is given from then on, and keeps the connections there are (CP-006)",
  FAILING,
  async () => {
    await using rig = await Rig.start();
    const other = await newAuthority(), standing = rig.client(), late = rig.client(undefined, other);
    assertEquals([await echo(standing), await echo(late)], [5, "UNAVAILABLE"]);
    rig.credentials.update(await serverTls(other));
    const newer = rig.client(await clientPair(other), other),
      older = rig.client(await clientPair(rig.authority), other);
    assertEquals([await echo(standing), await echo(newer), await echo(older)], [5, 5, "UNAVAILABLE"]);
    for (const client of [standing, late, newer, older]) client.close();
  },
);

Deno.test("GrpcServer.stop() waits for no handshake, and counts how connections ended", FAILING, async () => {
  await using rig = await Rig.start();
  const socket = net.connect(rig.port, "127.0.0.1"), closed = new Promise((resolve) => socket.on("close", resolve));
  socket.on("error", () => {}).on("data", () => {});
  await new Promise((resolve) => socket.on("connect", resolve));
  const client = rig.client();
  assertEquals(await echo(client), 5);
  assert(/\nambit_grpc_connections 1\n/.test(rig.metrics.render()));
  client.close();
  await rig.server.stop(60_000); // A handshake may take 10 s.
  await closed;
  const text = rig.metrics.render();
  assert(/\nambit_grpc_connections 0\n/.test(text) && /ended_total\{reason="[^"]+"\} 1\n/.test(text), text);
});
