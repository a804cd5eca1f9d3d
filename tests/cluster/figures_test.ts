import { assertEquals } from "@std/assert";
import { Wiretap } from "../../demo/lab/wiretap.ts";
import { ownNetns } from "../../os/netns.ts";
import { until } from "../kube/until.ts";
import { PAUSE_IMAGE } from "./layout.ts";
import { amount, type Cluster, clusterTest, isEnrolled, isReady, report, SYSTEM } from "./rig.ts";
import { app, stage, tcpProbe } from "./stage.ts";

const NAMESPACE = "figures", OPTIONS = { namespaces: [NAMESPACE] };
const PODS = /^10\.244\./, PODS_MS = 300_000, BYTE_MS = 60_000;
/** So many are started one after the other and timed; what `--pods` asks for beyond comes at once. */
const TIMED = 10;
const ROLES = { istiod: "app=istiod", ztunnel: "app=ztunnel", cni: "k8s-app=istio-cni-node" } as const;

/** Resident memory of a role's programs, shared pages by their share: each, in MiB. */
async function memoryOf(cluster: Cluster, role: keyof typeof ROLES): Promise<string> {
  const sizes: number[] = [];
  for (const pod of await cluster.pods(SYSTEM, ROLES[role])) {
    for (const pid of cluster.pidsOf(pod)) {
      if (!Deno.readTextFileSync(`/proc/${pid}/comm`).startsWith("deno")) continue;
      const [, kib] = /^Pss: +(\d+)/m.exec(Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`))!;
      sizes.push(Math.round(Number(kib) / 1_024));
    }
  }
  return sizes.sort((one, other) => one - other).join(", ");
}

const small = (name: string, node: string, args: readonly string[] = []) =>
  app(NAMESPACE, name, { node, container: { image: PAUSE_IMAGE, args } });

/** @returns How long from the pod's creation, and from its program's start, to its first byte. */
async function timeToFirstByte(cluster: Cluster, name: string, address: string): Promise<[number, number]> {
  const objects = small(name, "node1", ["first", address]);
  await cluster.apply(objects[0]!);
  const createdAtMs = Date.now();
  await cluster.apply(objects[1]!);
  let log = "";
  const said = async () => {
    log = await cluster.kubectl(["logs", "-n", NAMESPACE, name]).catch(() => "");
    return log.includes("byteAtMs");
  };
  await until(said, `${name} has a byte`, BYTE_MS);
  const { startedAtMs, byteAtMs } = JSON.parse(log) as { startedAtMs: number; byteAtMs: number };
  return [byteAtMs - createdAtMs, byteAtMs - startedAtMs];
}

clusterTest(
  "figures: from a pod's start to its first byte in the mesh, and the memory of each role",
  OPTIONS,
  async (cluster) => {
    const [namespace] = stage(NAMESPACE);
    const labels = { "istio.io/dataplane-mode": "ambient" }, pods = amount("pods", TIMED);
    const before = new Map<string, string>();
    for (const role of Object.keys(ROLES) as (keyof typeof ROLES)[]) before.set(role, await memoryOf(cluster, role));
    const server = app(NAMESPACE, "server", {
      node: "node2",
      container: { args: ["/apps/server.ts"], ...tcpProbe(8080) },
      ports: [7000],
    });
    await cluster.apply({ ...namespace, metadata: { name: NAMESPACE, labels } }, ...server);
    const address = `${(await cluster.readyPod(NAMESPACE, "server", PODS_MS)).status.podIP}:7000`;
    using netns = ownNetns();
    await using wire = new Wiretap(netns, "wire1", "ambit-plain-", PODS);
    const times: [number, number][] = [];
    for (let at = 0; at < Math.min(TIMED, pods); at++) times.push(await timeToFirstByte(cluster, `pod-${at}`, address));
    assertEquals((await wire.seen()).filter((it) => it.destinationPort === 7000), [], "a first byte in plain");
    for (const [at, what] of ["its creation", "its program's start"].entries()) {
      const sorted = times.map((it) => it[at]!).sort((one, other) => one - other);
      const p50 = sorted[Math.floor(sorted.length * 0.5)], p99 = sorted[Math.ceil(sorted.length * 0.99) - 1];
      report(`| from ${what} to a pod's first byte over mTLS, ${sorted.length} pods | p50 ${p50} ms | p99 ${p99} ms |`);
    }
    const more = Array.from({ length: Math.max(0, pods - TIMED) }, (_, at) => small(`more-${at}`, `node${at % 2 + 1}`))
      .flat();
    if (more.length > 0) await cluster.apply(...more);
    await cluster.untilPods(NAMESPACE, "", Math.max(TIMED, pods) + 1, (it) => isReady(it) && isEnrolled(it), PODS_MS);
    for (const [role, idle] of before) {
      report(
        `| ${role}, MiB of each process | idle ${idle} | with ${pods} pods ${await memoryOf(
          cluster,
          role as keyof typeof ROLES,
        )} |`,
      );
    }
  },
);
