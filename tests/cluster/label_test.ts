import { assert, assertEquals } from "@std/assert";
import { type Direction, isHbone, Wiretap } from "../../demo/lab/wiretap.ts";
import { ownNetns } from "../../os/netns.ts";
import { until } from "../kube/until.ts";
import { amount, type Cluster, clusterTest, isReady, type PodStatus, report } from "./rig.ts";
import { type Lane, lanesOf, setMode, stage, untilMode, untilServed } from "./stage.ts";

const NAMESPACE = "label", PODS = /^10\.244\./, MARKER = "ambit-plain-";
const SETTLED = 10; // answers of every lane
const PODS_MS = 90_000, SETTLE_MS = 20_000;

/**
 * Waits until each lane's new connections go this way, and holds them to it for as many requests again. What a proxy
 * opens goes by what it knows of the other pod, which it is told of once that pod is enrolled.
 */
async function untilNewOnesAre(
  way: "tunnelled" | "plain",
  cluster: Cluster,
  load: PodStatus,
  wire: Wiretap,
): Promise<void> {
  const opened = async (count: number) => {
    const before = new Set((await wire.seen()).map(key)), asked = await lanesOf(cluster, load);
    await untilServed(cluster, load, count + Math.max(...asked.map((it) => it.asked - it.failures.length)));
    return (await wire.seen()).filter((it) => it.markers > 0 && !before.has(key(it)));
  };
  const fits = async (count: number) => (await opened(count)).length === 0 === (way === "tunnelled");
  await until(() => fits(SETTLED / 2), `new connections are ${way}`, SETTLE_MS);
  const wrong = way === "tunnelled" ? await opened(SETTLED) : [];
  assertEquals(wrong, [], "a question was read on the wire");
  if (way === "tunnelled") {
    assert((await wire.seen()).some((it) => isHbone(it) && it.bytes > 0), "no tunnel crossed the wire");
  }
}

/** The client's pod changes and the server's, each at its own moment, and each may cut what it finds open in a lane. */
const CUTS_MAX = 2;
/** 0.15 % were seen in 15 rounds on a machine that was busy. */
const OTHERS_SHARE_MAX = 0.01;

function failures(lanes: readonly Lane[]): { open: number; others: string[] } {
  return {
    open: lanes.reduce((sum, { failures }) => sum + Math.min(CUTS_MAX, failures.length), 0),
    others: lanes.flatMap(({ name, failures }) => failures.slice(CUTS_MAX).map(({ error }) => `${name}: ${error}`)),
  };
}

clusterTest(
  "label: a namespace goes into the mesh and out of it under load, and what is new is mTLS or plain at once (CNI-070, CNI-075, CNI-080, CNI-083)",
  { namespaces: [NAMESPACE] },
  async (cluster) => {
    await cluster.apply(...stage(NAMESPACE));
    await cluster.untilPods(NAMESPACE, "", 4, isReady, PODS_MS);
    const [load] = await cluster.pods(NAMESPACE, "app=load");
    await untilServed(cluster, load!, SETTLED);
    using netns = ownNetns();
    await using wire = new Wiretap(netns, "wire1", MARKER, PODS);
    const rounds = amount("rounds", 5),
      totals = { asked: 0, open: 0, others: [] as string[] },
      tookMs: number[] = [],
      settledMs: number[] = [];
    for (let round = 0; round < rounds; round++) {
      for (const mode of ["ambient", undefined] as const) {
        await lanesOf(cluster, load!, true);
        const startedAt = performance.now();
        await setMode(cluster, NAMESPACE, mode);
        await untilMode(cluster, NAMESPACE, mode === "ambient");
        tookMs.push(performance.now() - startedAt);
        await untilNewOnesAre(mode === "ambient" ? "tunnelled" : "plain", cluster, load!, wire);
        settledMs.push(performance.now() - startedAt);
        const lanes = await lanesOf(cluster, load!), failed = failures(lanes);
        assertEquals(lanes.filter(({ wrong }) => wrong > 0), []);
        totals.asked += lanes.reduce((sum, { asked }) => sum + asked, 0);
        totals.open += failed.open;
        totals.others.push(...failed.others);
      }
    }
    assertEquals(wire.droppedCount, 0);
    report(
      `${rounds} times in and out: ${totals.asked} requests, cut where they were open ${totals.open}, others that failed ${totals.others.length}`,
    );
    report(
      `from the label to every pod's annotation ${middle(tookMs)}, until every lane's new connections follow ${
        middle(settledMs)
      }`,
    );
    for (const [line, count] of countOf(totals.others)) report(`${count} × ${line}`);
    // A proxy that is not told yet of the other pod's change tries the old way once more.
    assert(totals.others.length <= totals.asked * OTHERS_SHARE_MAX, `${totals.others.length} others failed`);
  },
);

function middle(times: readonly number[]): string {
  return `${times.toSorted((one, other) => one - other)[times.length >> 1]!.toFixed(0)} ms in the middle`;
}

const key = ({ source, sourcePort, destination, destinationPort }: Direction) =>
  `${source} ${sourcePort} ${destination} ${destinationPort}`;

function countOf(lines: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const line of lines) counts.set(line, (counts.get(line) ?? 0) + 1);
  return counts;
}
