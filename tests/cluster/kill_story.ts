/** What the kubelet, the node's agent and the part itself said around a kill: where the time went is in it. */
import { type Cluster, type PodStatus, SYSTEM } from "./rig.ts";

const LINES_MAX = 25, CHARS_MAX = 300;
/** Of a pod whose start is late: the kubelet looks at it again after 10 to 15 s. */
const BEFORE_MS = 500;

/** Lines since shortly before the kill. */
export async function storyOf(cluster: Cluster, killed: PodStatus, killedAtMs: number): Promise<string[]> {
  const { metadata: { name }, spec: { nodeName } } = killed, sinceMs = killedAtMs - BEFORE_MS;
  const kubelet = await Deno.readTextFile(`${cluster.folder}/log/${nodeName}-kubelet.log`);
  const of = (await cluster.pods(SYSTEM)).filter(({ metadata, spec }) =>
    metadata.name === name || spec.nodeName === nodeName && /^(ztunnel|istio-cni-node)-/.test(metadata.name)
  );
  const logs = await Promise.all(of.map(async ({ metadata }) => {
    const since = new Date(sinceMs).toISOString();
    const text = await cluster.kubectl(["logs", "-n", SYSTEM, metadata.name, `--since-time=${since}`]);
    return text.split("\n").map((line) => `${metadata.name}: ${line}`);
  }));
  return [
    ...firstOf(
      kubelet.split("\n").filter((line) => line.includes(name) && klogMs(line, killedAtMs) >= sinceMs),
      "kubelet: ",
    ),
    ...logs.flatMap((lines) => firstOf(lines.filter((line) => !line.endsWith(": ") && !line.includes("\taccess\t")))),
  ];
}

const firstOf = (lines: readonly string[], prefix = "") =>
  lines.slice(0, LINES_MAX).map((line) => `${prefix}${line.slice(0, CHARS_MAX)}`);

/** A line of klog names hours, minutes and what is less, of our own clock and day. */
function klogMs(line: string, nearMs: number): number {
  const found = /^[IWEF]\d{4} (\d+):(\d+):([\d.]+) /.exec(line);
  if (found === null) return -Infinity;
  const day = new Date(nearMs);
  day.setHours(Number(found[1]), Number(found[2]), 0, 0);
  return day.getTime() + Number(found[3]) * 1_000;
}
