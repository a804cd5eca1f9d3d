/** Comings and goings: pods, node agents, and ztunnels of our make and of another, in order and by force. */
import { assert, assertEquals } from "@std/assert";
import { runWithin } from "../../os/process.ts";
import { until } from "../../demo/lab/until.ts";
import { APP_PORT } from "./dataplane_app.ts";
import { OPTIONS } from "./dataplane_node.ts";
import { bothWays, Rig, type RigPod } from "./dataplane_rig.ts";

const HBONE_LISTENERS = [15001, 15006, 15008];
const UPLOAD_BYTES = 32 * 1_048_576;

function listening(pod: RigPod): number[] {
  const { stdout } = runWithin(pod.place.netns, "ss", { args: ["-Hltn"] });
  const ports = new TextDecoder().decode(stdout).trim().split("\n").map((line) =>
    Number(/:(\d+)$/.exec(line.trim().split(/\s+/)[3] ?? "")?.[1])
  );
  return HBONE_LISTENERS.filter((port) => ports.includes(port));
}

/** Whether a connection to a server of the pod is open. */
function hasConnection(pod: RigPod, port: number): boolean {
  const { stdout } = runWithin(pod.place.netns, "ss", {
    args: ["-Htn", "state", "established", "sport", "=", `:${port}`],
  });
  return stdout.length > 0;
}

Deno.test("a ztunnel of another make takes its pods from our node agent (CNI-311)", OPTIONS, async (t) => {
  await using rig = await Rig.start({ key: "zds" });
  const ours = await rig.pod("ours", "node-a"), theirs = await rig.pod("theirs", "node-b");
  const both = async (text: string) => {
    for (const { from, to } of bothWays(ours, theirs)) {
      await from.do("echo", { host: to.ip, port: APP_PORT.echo, text });
    }
  };
  await both("at first");

  await t.step("one that is killed and started again gets its pods in the snapshot", async () => {
    rig.theirs.ztunnel.kill("SIGKILL");
    await rig.theirs.ztunnel.stop(0);
    assertEquals(listening(theirs), []);
    assertEquals(
      (await ours.do("refused", { host: theirs.ip, port: APP_PORT.echo }).catch(() => ({ bytes: 0 }))).bytes,
      0,
    );
    rig.theirs.startZtunnel();
    await rig.theirs.ztunnelReady();
    await until("it listens in the pod", 60_000, () => listening(theirs).length === 3);
    await both("after its restart");
  });

  for (const [who, pod, other] of [["theirs", theirs, ours], ["ours", ours, theirs]] as const) {
    await t.step(`a restart of the node agent beside ${who} leaves pods and connections as they are`, async () => {
      const { handles } = await pod.do("hold", { host: other.ip, port: APP_PORT.echo, count: 1 });
      pod.node.cni.kill("SIGKILL");
      await pod.node.cni.stop(0);
      assertEquals(listening(pod), HBONE_LISTENERS);
      await both("without a node agent");
      const again = pod.node.startCni();
      await again.line("its sockets", (line) => line.includes("node agent serves"));
      const late = await rig.pod(`late-${who}`, pod.place.node);
      await late.do("echo", { host: other.ip, port: APP_PORT.echo, text: "a pod after the restart" });
      await both("after the node agent's restart");
      assertEquals((await pod.do("say", { handles, text: "still here" })).failures, []);
    });
  }

  await t.step("a pod that leaves is let go of, and comes back", async () => {
    await rig.unenrol(theirs);
    await until("nobody listens in the pod", 60_000, () => listening(theirs).length === 0);
    await rig.enrol(theirs);
    assertEquals(listening(theirs), HBONE_LISTENERS);
    await both("after it came back");
  });

  await t.step("a pod that is enrolled while the ztunnel is away is in its next snapshot", async () => {
    await rig.unenrol(theirs);
    rig.theirs.ztunnel.kill("SIGKILL");
    await rig.theirs.ztunnel.stop(0);
    const restart = async () => {
      rig.theirs.startZtunnel();
      await rig.theirs.ztunnelReady();
    };
    await Promise.all([rig.enrol(theirs), restart()]); // The first ends when a ztunnel listens in the pod.
    assertEquals(listening(theirs), HBONE_LISTENERS);
    await both("enrolled meanwhile");
  });
});

Deno.test("drain and death of either ztunnel end the other's connections, and pass", OPTIONS, async (t) => {
  await using rig = await Rig.start({ key: "drain" });
  const ours = await rig.pod("ours", "node-a"), theirs = await rig.pod("theirs", "node-b");
  for (const [who, node] of [["ours", rig.ours], ["theirs", rig.theirs]] as const) {
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      await t.step(`${signal} to ${who} with connections open both ways`, async () => {
        const ways = bothWays(ours, theirs);
        const held = await Promise.all(
          ways.map(({ from, to }) => from.do("hold", { host: to.ip, port: APP_PORT.echo, count: 2 })),
        );
        assertEquals(held.map(({ failures }) => failures), [[], []]);
        // Under way for 3 s, since nobody reads before: longer than the signal takes, shorter than a drain may.
        const uploads = signal === "SIGKILL" ? [] : ways.map(async ({ from, to }) => {
          const target = { host: to.ip, port: APP_PORT.slowSink, bytes: UPLOAD_BYTES };
          const { sha256, reply } = await from.do("upload", target);
          assertEquals(reply, `${UPLOAD_BYTES} ${sha256}`);
        });
        await until(
          "the uploads are under way",
          60_000,
          () => ways.every(({ to }) => uploads.length === 0 || hasConnection(to, APP_PORT.slowSink)),
        );
        const stopped = performance.now();
        node.ztunnel.kill(signal);
        let late: Promise<unknown> | undefined;
        if (signal === "SIGTERM") {
          if (who === "ours") await node.ztunnel.line("the drain", (line) => line.includes("draining"));
          else await until("its listeners are closed", 60_000, () => listening(theirs).length === 0);
          for (const [index, { from }] of ways.entries()) {
            const said = await from.do("say", { handles: held[index]!.handles, text: "while draining" });
            assertEquals(said, { ok: 2, failures: [] });
          }
          const other = who === "ours" ? ways[1]! : ways[0]!, target = { host: other.to.ip, port: APP_PORT.echo };
          if (who === "ours") {
            // Our node agent holds the sockets: who comes waits for the next ztunnel.
            late = other.from.do("echo", { ...target, text: "while draining, anew" });
          } else {
            // New ones are refused by a session that is told to end, or by a closed port: soon, not after a timeout.
            const asked = performance.now();
            assertEquals((await other.from.do("refused", target)).bytes, 0);
            assert(performance.now() - asked < 9_000, "a new connection is refused before a connect's time limit");
          }
        }
        const endings = await Promise.all(
          ways.flatMap(({ from }, index) =>
            held[index]!.handles.map((handle) => from.do("ended", { handle, timeoutMs: 60_000 }))
          ),
        );
        const endedMs = performance.now() - stopped;
        await Promise.all(uploads);
        await node.ztunnel.status;
        // A stream that theirs has cut is a reset to the application behind ours; the original makes an end of it.
        const expected = ways.flatMap(({ from }) => Array(2).fill(who === "theirs" && from === ours ? "reset" : "eof"));
        assertEquals(endings.map(({ ending }) => ending), expected);
        if (signal === "SIGTERM") {
          assert(endedMs > 4_500, `cut after ${endedMs} ms: the limit is 5 s`);
        }
        node.startZtunnel();
        await node.ztunnelReady();
        await until("it listens again", 60_000, () => listening(node === rig.ours ? ours : theirs).length === 3);
        await late;
        for (const { from, to } of ways) {
          await from.do("echo", { host: to.ip, port: APP_PORT.echo, text: "again" });
        }
      });
    }
  }
});
