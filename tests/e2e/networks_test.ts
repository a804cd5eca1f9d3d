/** Two networks and a gateway between them, all three of ours: a service is reached by double HBONE (ZT-044 to ZT-047). */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { until } from "../../demo/lab/until.ts";
import { APP_PORT } from "./dedicated_rig.ts";
import { identityOf, Networks, networksRig, SERVICE } from "./networks.ts";

Deno.test("a service on another network is reached through a gateway, which sees nothing of it (ZT-046, ZT-047, ZT-099)", async () => {
  await using rig = networksRig();
  await rig.start();
  await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
  await using networks = await Networks.start(rig);
  const { client, gateway, server } = networks.ztunnels;
  assertStringIncludes(await networks.say("hello across"), "hello across");
  await networks.forwarder.line("its one connection", (line) => line === "forwarded whole", 60_000);
  const told = await client.line("the end", (line) => line.includes("connection complete"), 60_000);
  for (
    const part of [
      `dst.addr=${rig.pods.gateway.place.ipv4}:15008`,
      `dst.hbone_addr=${SERVICE}:80`,
      `dst.service="${SERVICE}"`,
      `dst.workload="server"`,
      'dst.cluster="far-1"',
      `dst.identity="${identityOf("server")}"`,
      `src.identity="${identityOf("client")}"`,
      'direction="outbound"',
    ]
  ) assertStringIncludes(told, part);
  const through = await gateway.line("the tunnel", (line) => line.includes('direction="inbound"'), 60_000);
  assertStringIncludes(through, `src.identity="${identityOf("client")}"`);
  const arrived = await server.line("the connection", (line) => line.includes('direction="inbound"'), 60_000);
  for (
    const part of [`src.identity="${identityOf("client")}"`, `src.workload="client-app"`, `dst.service="${SERVICE}"`]
  ) {
    assertStringIncludes(arrived, part); // Whose address it came from is the gateway's; who it is, the inner session says.
  }
  const labels = { destination_principal: identityOf("server"), destination_workload: "server", reporter: "source" };
  await until("it is counted", 60_000, async () => await rig.counted("client", labels) === 1);
  assertEquals(await rig.counted("client", { destination_workload: "gateway" }), 0);
});

Deno.test("our own istiod tells of another network and its gateway, and a service there is reached (CP-123, CP-124, CP-207, CP-216)", async () => {
  await using rig = networksRig();
  await rig.start();
  await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
  await using networks = await Networks.start(rig, {}, { clientAsks: true });
  const { client, gateway } = networks.ztunnels;
  await until("the service is known", 60_000, async () => (await networks.say("hello")).includes("hello"));
  const since = client.lineCount; // Before it, some may have been tried in vain.
  assertStringIncludes(await networks.say("hello across"), "hello across");
  const told = await client.line("the end", (line) => line.includes("connection complete"), 60_000, since);
  for (
    const part of [
      `dst.addr=${rig.pods.gateway.place.ipv4}:15008`,
      `dst.hbone_addr=${SERVICE}:80`,
      `dst.identity="${identityOf("server")}"`,
    ]
  ) assertStringIncludes(told, part);
  assertStringIncludes(
    await gateway.line("the tunnel", (line) => line.includes('direction="inbound"'), 60_000),
    `src.identity="${identityOf("client")}"`,
  );
});
