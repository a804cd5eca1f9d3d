/** Long connections between our ztunnel and one of another make: idle, while certificates change, and many in a session. */
import { assert, assertEquals } from "@std/assert";
import { pause, until } from "../../demo/lab/until.ts";
import { APP_PORT } from "./dataplane_app.ts";
import { OPTIONS } from "./dataplane_node.ts";
import { bothWays, Rig, type RigPod } from "./dataplane_rig.ts";

/** Both ping an idle session after 10 s and give up 20 s later (ZT-063). */
const IDLE_MS = 35_000;

Deno.test("idle sessions with a ztunnel of another make live on, over a change of certificates", OPTIONS, async (t) => {
  await using rig = await Rig.start({
    key: "rotation",
    environment: { SECRET_TTL: "60s" },
    oursOnly: { POOL_MAX_STREAMS_PER_CONNECTION: "1000" },
  });
  const ours = await rig.pod("ours", "node-a"), theirs = await rig.pod("theirs", "node-b");
  const ways = bothWays(ours, theirs);
  const serialOf = async (pod: RigPod) =>
    (await pod.node.dump()).certificates.find((it) => it.identity === pod.identity)?.certChain[0]?.serialNumber;

  const held = await Promise.all(
    ways.map(({ from, to }) => from.do("hold", { host: to.ip, port: APP_PORT.echo, count: 3 })),
  );
  assertEquals(held.map(({ ok, failures }) => ({ ok, failures })), Array(2).fill({ ok: 3, failures: [] }));
  const first = [await serialOf(ours), await serialOf(theirs)];
  assert(first[0] !== undefined && first[1] !== undefined);

  await t.step("idle for longer than a PING may take, both certificates are renewed", async () => {
    const idleUntilMs = performance.now() + IDLE_MS;
    await until("both have a new certificate", 60_000, async () => {
      const now = [await serialOf(ours), await serialOf(theirs)];
      return now[0] !== first[0] && now[1] !== first[1];
    });
    await pause(Math.max(0, idleUntilMs - performance.now())); // Not for a state: that nothing happens is the claim.
  });

  for (const [index, { name, from }] of ways.entries()) {
    await t.step(`${name}: connections from before carry on`, async () => {
      const { handles } = held[index]!;
      assertEquals(await from.do("say", { handles, text: "still here" }), { ok: 3, failures: [] });
    });
  }

  const newcomers = bothWays(await rig.pod("ours-2", "node-a"), await rig.pod("theirs-2", "node-b"));
  for (const [index, { name, from }] of newcomers.entries()) {
    await t.step(`${name}: new sessions are made with the new certificate`, async () => {
      await from.do("echo", { host: ways[index]!.to.ip, port: APP_PORT.echo, text: "hello" });
    });
  }

  await t.step("ours to theirs: 1,000 a session are wanted, 200 are used, as the other allows (ZT-071)", async () => {
    const many = await ours.do("hold", { host: theirs.ip, port: APP_PORT.echo, count: 450 });
    assertEquals({ ok: many.ok, failures: many.failures }, { ok: 450, failures: [] });
    const { outbound } = ours.hboneSessions();
    // Two workers, each with sessions of its own: an even split is 2 and 2, the most uneven one 3 and 1.
    assert(outbound >= 3 && outbound <= 5, `${outbound} sessions carry 450 connections`);
    await ours.do("release", { handles: many.handles });
  });
});
