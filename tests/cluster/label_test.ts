import { assert, assertEquals } from "@std/assert";
import { type Direction, isHbone, Wiretap } from "../../demo/lab/wiretap.ts";
import { ownNetns } from "../../os/netns.ts";
import { until } from "../kube/until.ts";
import { differences, type PodState, statesOf, untilAsBefore } from "./pod_state.ts";
import { amount, type Cluster, clusterTest, isReady, type PodStatus, report } from "./rig.ts";
import { countOf, type Lane, lanesOf, setMode, stage, untilMode, untilServed, untilServedAgain } from "./stage.ts";

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
    const before = new Set((await wire.seen()).map(key));
    await untilServedAgain(cluster, load, count);
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
/** 0.15 % were seen in 15 rounds and 0.24 % in 3, on machines that were busy. */
const OTHERS_SHARE_MAX = 0.03;
/**
 * Under STRICT who is in the mesh refuses who is not, and the two pods of a lane are not enrolled in the same moment: what
 * is asked between is refused. It is over this long after the last pod's annotation; 1.2 s were seen, with load.
 */
const REFUSED_MS_MAX = 10_000;
/** In what of a pod's state redirection shows, whichever means it is by. */
const CAPTURE = /, (nf_tables|iptables-legacy|eBPF): \+/;

interface Round {
  readonly asked: number;
  readonly wrong: number;
  /** Connections that were open, and were cut by a change of one of their ends. */
  readonly open: number;
  readonly others: readonly string[];
  /** From the last pod's annotation to the last failure. */
  readonly lateMs: number;
  readonly tookMs: number;
  readonly settledMs: number;
}

interface Look {
  readonly pods: readonly PodStatus[];
  readonly before: ReadonlyMap<string, PodState>;
  readonly wire: Wiretap;
}

/** One change of the label under load. @returns Once every lane's new connections follow it. */
async function change(cluster: Cluster, { pods, before, wire }: Look, mode: "ambient" | undefined): Promise<Round> {
  const load = pods.find((it) => it.metadata.name === "load")!;
  await lanesOf(cluster, load, true);
  const startedAt = performance.now();
  await setMode(cluster, NAMESPACE, mode);
  await untilMode(cluster, NAMESPACE, mode === "ambient");
  const tookMs = performance.now() - startedAt, annotatedAtMs = Date.now();
  // Who says that it is in the mesh is captured already: what comes later may be the agent's repair.
  for (const [name, state] of mode === undefined ? [] : await statesOf(cluster, pods)) {
    const made = differences(name, before.get(name)!, state);
    assert(made.some((it) => CAPTURE.test(it)), `${name} is in the mesh, and not redirected: ${made.join("\n")}`);
  }
  await untilNewOnesAre(mode === "ambient" ? "tunnelled" : "plain", cluster, load, wire);
  const lanes = await lanesOf(cluster, load);
  return {
    ...failures(lanes),
    asked: lanes.reduce((sum, { asked }) => sum + asked, 0),
    wrong: lanes.reduce((sum, { wrong }) => sum + wrong, 0),
    lateMs: Math.max(0, ...lanes.flatMap((it) => it.failures.map(({ atMs }) => atMs - annotatedAtMs))),
    tookMs,
    settledMs: performance.now() - startedAt,
  };
}

function failures(lanes: readonly Lane[]): { open: number; others: string[] } {
  return {
    open: lanes.reduce((sum, { failures }) => sum + Math.min(CUTS_MAX, failures.length), 0),
    others: lanes.flatMap(({ name, failures }) => failures.slice(CUTS_MAX).map(({ error }) => `${name}: ${error}`)),
  };
}

/** In and out again, so many times; what the mesh made in pods is gone each time. @returns What it cost. */
async function inAndOut(cluster: Cluster, wire: Wiretap, rounds: number, what: string): Promise<Round[]> {
  const pods = await cluster.pods(NAMESPACE), before = await statesOf(cluster, pods), all: Round[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const mode of ["ambient", undefined] as const) all.push(await change(cluster, { pods, before, wire }, mode));
    await untilAsBefore(cluster, pods, before);
  }
  const sum = (of: (round: Round) => number) => all.reduce((count, round) => count + of(round), 0);
  report(
    `${what}, ${rounds} times in and out: ${sum((it) => it.asked)} requests, cut where they were open ${
      sum((it) => it.open)
    }, others that failed ${sum((it) => it.others.length)}, the last ${
      Math.max(...all.map((it) => it.lateMs))
    } ms after the last pod's annotation`,
  );
  report(
    `from the label to every pod's annotation ${
      middle(all.map((it) => it.tookMs))
    }, until every lane's new connections follow ${middle(all.map((it) => it.settledMs))}`,
  );
  for (const [line, count] of countOf(all.flatMap((it) => it.others))) report(`${count} × ${line}`);
  assertEquals(sum((it) => it.wrong), 0, "a wrong byte");
  return all;
}

clusterTest(
  "label: a namespace goes into the mesh and out of it under load, also under STRICT; what is new is mTLS or plain at once, and nothing stays in a pod (CNI-070, CNI-075, CNI-080, CNI-083)",
  { namespaces: [NAMESPACE] },
  async (cluster) => {
    await cluster.apply(...stage(NAMESPACE));
    await cluster.untilPods(NAMESPACE, "", 4, isReady, PODS_MS);
    const [load] = await cluster.pods(NAMESPACE, "app=load");
    await untilServed(cluster, load!, SETTLED);
    using netns = ownNetns();
    await using wire = new Wiretap(netns, "wire1", MARKER, PODS);
    const rounds = amount("rounds", 2), open = await inAndOut(cluster, wire, rounds, "PERMISSIVE");
    // A proxy that is not told yet of the other pod's change tries the old way once more.
    const others = open.flatMap((it) => it.others), asked = open.reduce((sum, it) => sum + it.asked, 0);
    assert(others.length <= asked * OTHERS_SHARE_MAX, `${others.length} others failed`);
    await cluster.apply(strict);
    await untilServed(cluster, load!, SETTLED); // It says nothing to pods that are out of the mesh.
    for (const { lateMs } of await inAndOut(cluster, wire, Math.max(1, rounds - 1), "STRICT")) {
      assert(lateMs <= REFUSED_MS_MAX, `under STRICT it failed until ${lateMs} ms after the last pod's annotation`);
    }
    assertEquals(wire.droppedCount, 0);
  },
);

const strict = {
  apiVersion: "security.istio.io/v1",
  kind: "PeerAuthentication",
  metadata: { name: "strict", namespace: NAMESPACE },
  spec: { mtls: { mode: "STRICT" } },
};

function middle(times: readonly number[]): string {
  return `${times.toSorted((one, other) => one - other)[times.length >> 1]!.toFixed(0)} ms in the middle`;
}

const key = ({ source, sourcePort, destination, destinationPort }: Direction) =>
  `${source} ${sourcePort} ${destination} ${destinationPort}`;
