/** A ztunnel that is replaced under load: no connection ends, no byte is wrong, and how long the pause is. */
import type { ConnectKind } from "../../demo/lab/pattern_protocol.ts";
import { assert, assertEquals } from "@std/assert";
import type { PatternOrder } from "../../demo/lab/probe_pattern.ts";
import { meshTest, until } from "./mesh.ts";

const CONNECTIONS = Number(Deno.env.get("AMBIT_E2E_TAKEOVER_CONNECTIONS") ?? "1000");
const TAKEOVERS = Number(Deno.env.get("AMBIT_E2E_TAKEOVERS") ?? "20");
/** Ways in which nobody resets a connection on purpose. */
const ORDERLY: readonly ConnectKind[] = ["short", "long", "upload", "bulk", "farewell"];
const PATTERN_PORT = 7000, LINE_PORT = 7100;

/** `key=value` and `key: value` of a log line. */
function numberIn(line: string, key: string): number {
  const found = new RegExp(`${key}[=:"\\s]+([0-9.]+)`).exec(line);
  if (found === null) throw new Error(`no ${key} in ${line}`);
  return Number(found[1]);
}

/** Resident memory in MiB, and open descriptors, of a process. */
function footprint(pid: number): { mib: number; descriptors: number } {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const mib = Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024;
  return { mib: Math.round(mib), descriptors: [...Deno.readDirSync(`/proc/${pid}/fd`)].length };
}

meshTest(
  `${TAKEOVERS} takeovers in a row with ${CONNECTIONS} open connections: none ends, no byte is wrong`,
  async (rig) => {
    const { mesh, client, server } = rig;
    const quiet = await mesh.addPod({ name: "quiet", namespace: "e2e", serviceAccount: "quiet", node: "node-a" });
    const crowd = await mesh.addPod({ name: "crowd", namespace: "e2e", serviceAccount: "crowd", node: "node-a" });
    await server.probe.do("listenPattern", { port: PATTERN_PORT });
    await server.probe.do("listen", { port: LINE_PORT, kind: "line" });
    const target = { host: server.ipv4, port: PATTERN_PORT };
    const load: Omit<PatternOrder, "lanes" | "seed"> = {
      targets: [target],
      pauseMs: 100,
      bulkBytesMax: 20_000_000,
      longMs: 20_000,
    };
    await crowd.probe.do("startPattern", { ...load, lanes: CONNECTIONS, seed: 1, kinds: ["long"], longMs: 3_600_000 });
    await client.probe.do("startPattern", { ...load, lanes: 16, seed: 2, kinds: ORDERLY });
    const openNow = async () => (await crowd.probe.do("patternTallies", {})).client.open;
    await until(`${CONNECTIONS} connections are open`, 60_000, async () => await openNow() >= CONNECTIONS * 0.98);
    await quiet.probe.do("startFlow", { host: server.ipv4, port: LINE_PORT });
    const pauses: number[] = [], prints: ReturnType<typeof footprint>[] = [];
    let carried = Infinity;
    for (let round = 0; round < TAKEOVERS; round++) {
      const node = mesh.nodes[round % 2 === 0 ? "node-a" : "node-b"],
        line = await node.takeOver({ ZTUNNEL_WORKER_THREADS: String([2, 3, 1][round % 3]) });
      pauses.push(numberIn(line, "pauseMs"));
      carried = Math.min(carried, numberIn(line, "connections"));
      await node.ztunnelReady();
      prints.push(footprint(node.ztunnel.pid));
    }
    const flow = await quiet.probe.do("stopFlow", {});
    const tallies = await Promise.all([client, crowd].map((pod) => pod.probe.do("stopPattern", {})));
    const { server: served } = await server.probe.do("patternTallies", {});
    pauses.sort((a, b) => a - b);
    const figures = JSON.stringify({
      takeovers: TAKEOVERS,
      connectionsAtLeast: carried,
      pauseMs: { least: pauses[0], middle: pauses[pauses.length >> 1], most: pauses.at(-1) },
      longestAnswerMs: Math.round(flow.longestGapMs),
      exchanges: flow.exchanges,
      good: tallies.map(({ good }) => good),
      megabytes: Math.round(tallies.reduce((sum, { bytes }) => sum + bytes, 0) / 1e6),
      first: prints[0],
      last: prints.at(-1),
    });
    Deno.stdout.writeSync(new TextEncoder().encode(`${figures}\n`));
    assertEquals(flow.error, "");
    for (const { failures, truncated, wrong } of [...tallies, served]) {
      assertEquals([failures, truncated, wrong], [{}, {}, []]);
    }
    assert(carried >= CONNECTIONS * 0.98, `${carried} connections went over each time`);
    const growth = prints.at(-1)!.descriptors - prints[0]!.descriptors;
    assert(growth < 64, `descriptors do not pile up: ${growth} more`);
    assert(prints.at(-1)!.mib < 1.5 * prints[0]!.mib, "nor does memory");
  },
);
