/** Connections in every way that TCP has: half-closed, reset, short, long, idle, large; through the mesh as without it. */
import { assert, assertEquals } from "@std/assert";
import { pause } from "../../demo/lab/until.ts";
import { assertCarried, meshTest, until } from "./mesh.ts";

const MIB = 1024 ** 2, GB = 1_000_000_000;

meshTest("a half-close by the client leaves the other direction open", async (rig) => {
  const { client, server } = rig;
  await server.probe.do("listen", { port: 7000, kind: "sink" });
  for (const bytes of [0, 1, 16_384, 5 * MIB]) {
    const { sha256, reply } = await client.probe.do("upload", { host: server.ipv4, port: 7000, bytes });
    assertEquals(reply, `${bytes} ${sha256}`);
  }
  await assertCarried(rig, 4);
});

meshTest("a half-close by the server leaves the other direction open", async (rig) => {
  const { client, server } = rig;
  await server.probe.do("listen", { port: 7000, kind: "farewell" });
  for (const bytes of [1, 16_384, 5 * MIB]) {
    const { heard, sha256 } = await client.probe.do("lateUpload", { host: server.ipv4, port: 7000, bytes });
    assertEquals(heard, "that was all");
    await until(
      "the server has it all",
      60_000,
      async () => (await server.probe.do("served", { port: 7000 })).lastSha256 === sha256,
    );
  }
  await assertCarried(rig, 3);
});

meshTest("a reset by the server ends the client's connection (ZT-066)", async (rig) => {
  const { client, server } = rig;
  await server.probe.do("listen", { port: 7000, kind: "reset" });
  for (let round = 0; round < 10; round++) {
    const { handle } = await client.probe.do("open", { host: server.ipv4, port: 7000 });
    const said = await client.probe.attempt("say", { handle, text: "x".repeat(1_000) });
    assert(said.failure !== undefined && !said.failure.includes("took longer"), JSON.stringify(said));
    await client.probe.do("close", { handle });
  }
  await assertCarried(rig, 10);
});

meshTest("a reset by the client ends the server's sending (ZT-066)", async (rig) => {
  const { client, server } = rig;
  await server.probe.do("listen", { port: 7000, kind: "source" });
  for (let round = 0; round < 10; round++) {
    await client.probe.do("resetMidway", { host: server.ipv4, port: 7000 });
    await until("the server's connection ends", 60_000, async () => {
      const { accepted, open } = await server.probe.do("served", { port: 7000 });
      return accepted === round + 1 && open === 0;
    });
  }
  const { lastError } = await server.probe.do("served", { port: 7000 });
  assert(/reset|pipe/i.test(lastError), `the server saw ${lastError}`);
  await assertCarried(rig, 10);
});

meshTest("100,000 short connections, and none fails", async (rig) => {
  const { client, server } = rig;
  const ports = [7000, 7001, 7002, 7003];
  for (const port of ports) await server.probe.do("listen", { port, kind: "line" });
  const outcome = await client.probe.do("burst", { host: server.ipv4, ports, count: 100_000, concurrency: 64 });
  assertEquals(outcome.errors, {});
  assertEquals([outcome.succeeded, outcome.failed], [100_000, 0]);
  await assertCarried(rig, 100_000);
});

meshTest("10,000 connections stay open unused, and each is there when it is needed", async (rig) => {
  const { client, server } = rig;
  await server.probe.do("listen", { port: 7000, kind: "line" });
  const crowd = { host: server.ipv4, port: 7000, count: 10_000, concurrency: 64 };
  const opened = await client.probe.do("openIdle", crowd);
  assertEquals([opened.errors, opened.succeeded], [{}, 10_000]);
  await pause(Number(Deno.env.get("AMBIT_E2E_IDLE_S") ?? "15") * 1_000); // Unused time is what this is about.
  assertEquals((await server.probe.do("served", { port: 7000 })).open, 10_000);
  const used = await client.probe.do("useIdle", { concurrency: 64 });
  assertEquals([used.errors, used.succeeded], [{}, 10_000]);
  await assertCarried(rig, 10_000);
});

meshTest("one connection carries AMBIT_E2E_BIG_GB (5) gigabytes unchanged", async (rig) => {
  const { client, server } = rig;
  const bytes = Number(Deno.env.get("AMBIT_E2E_BIG_GB") ?? "5") * GB;
  await server.probe.do("listen", { port: 7000, kind: "sink" });
  const target = { host: server.ipv4, port: 7000, bytes, timeoutMs: 3_600_000 };
  const { sha256, reply } = await client.probe.do("upload", target);
  assertEquals(reply, `${bytes} ${sha256}`);
  await assertCarried(rig);
});
