/** What a pod's network namespace holds, as text: what the mesh made in it must be gone once the pod has left. */
import { type ProgramInfo, type ProgramKind, programsOfNetwork } from "../../os/bpf/programs.ts";
import { type Netns, withinNetns } from "../../os/netns.ts";
import { output } from "../kube/go_tools.ts";
import { until } from "../kube/until.ts";
import { type Cluster, isEnrolled, type PodStatus } from "./rig.ts";
import { nftRules, savedRules } from "./rules_text.ts";

const SETTLE_MS = 20_000;
const OF_INTERFACES: readonly ProgramKind[] = ["tcxIngress", "tcxEgress"];

export type PodState = Readonly<Record<string, string>>;

/** By any program: rules of both netfilters, sets, routes, interfaces, settings, sockets that listen, eBPF. */
export async function podState(cluster: Cluster, pod: PodStatus): Promise<PodState> {
  using netns = cluster.netnsOf(pod);
  return await stateOf(netns, ["--net", "--target", `${cluster.pidOf(pod)}`]);
}

async function stateOf(netns: Netns, enter: readonly string[]): Promise<PodState> {
  const run = (...command: string[]) => output("nsenter", [...enter, ...command]);
  const legacy = async (program: string) => savedRules(await run(`${program}-legacy-save`));
  return {
    "nf_tables": nftRules(await run("nft", "--stateless", "list", "ruleset")),
    "iptables-legacy": await legacy("iptables"),
    "ip6tables-legacy": await legacy("ip6tables"),
    "sets": await run("ipset", "list", "-n"),
    "rules": await run("ip", "rule"),
    "IPv6 rules": await run("ip", "-6", "rule"),
    "routes": settledRoutes(await run("ip", "route", "show", "table", "all")),
    "IPv6 routes": settledRoutes(await run("ip", "-6", "route", "show", "table", "all")),
    "interfaces": await run("ip", "-brief", "address"),
    "settings": await run(
      "sysctl",
      "--all",
      "--ignore",
      "--pattern",
      String.raw`^net\.ipv[46]\.(conf\.|tcp_fwmark|ip_)`,
    ),
    "listeners": listeners(await run("ss", "--no-header", "--numeric", "--listening", "--tcp", "--udp")),
    "eBPF": programsIn(netns, await run("ip", "-oneline", "link")).map(({ name }) => name).sort().join("\n"),
  };
}

/** Without those of an interface's own address of IPv6, which the kernel makes a second after the interface. */
const settledRoutes = (text: string) => text.split("\n").filter((line) => !/^local fe80::/.test(line)).join("\n");

const DNS_PORT = 15053;

/** Addresses of TCP, and ztunnel's of UDP: those of applications come and go. */
function listeners(text: string): string {
  const sockets = text.split("\n").map((line) => line.trim().split(/\s+/)).filter((it) => it.length > 4);
  return sockets.filter(([kind, , , , local]) => kind === "tcp" || local!.endsWith(`:${DNS_PORT}`))
    .map(([kind, , , , local]) => `${kind} ${local}`).sort().join("\n");
}

/** @param links as `ip -oneline link` tells of them. */
function programsIn(netns: Netns, links: string): ProgramInfo[] {
  const indexes = [...links.matchAll(/^(\d+): /gm)].map(([, index]) => Number(index));
  const ofInterfaces = () =>
    indexes.flatMap((index) => OF_INTERFACES.flatMap((kind) => programsOfNetwork(index, kind)));
  return [...programsOfNetwork(netns.fd, "skLookup"), ...withinNetns(netns, ofInterfaces)];
}

/** By name. */
export async function statesOf(cluster: Cluster, pods: readonly PodStatus[]): Promise<Map<string, PodState>> {
  return new Map(
    await Promise.all(pods.map(async (pod) => [pod.metadata.name, await podState(cluster, pod)] as const)),
  );
}

/** Waits until each pod's namespace is as it was. @throws Error with what differs. */
export async function untilAsBefore(
  cluster: Cluster,
  pods: readonly PodStatus[],
  before: ReadonlyMap<string, PodState>,
): Promise<void> {
  let left: string[] = [];
  const same = async () => {
    left = [];
    for (const [name, after] of await statesOf(cluster, pods)) {
      left.push(...differences(name, before.get(name)!, after));
    }
    return left.length === 0;
  };
  await until(same, "the pods' namespaces are as they were", SETTLE_MS).catch((error) => {
    throw new Error(`${error.message}:\n${left.join("\n")}`);
  });
}

/** What the mesh has added to a pod, a line each: tells that looking for it finds it. */
export function differences(name: string, before: PodState, after: PodState): string[] {
  return Object.keys(before).flatMap((what) => {
    const [old, now] = [before, after].map((state) => state[what]!.split("\n").filter((line) => line.trim() !== ""));
    const more = now!.filter((line) => !old!.includes(line)), less = old!.filter((line) => !now!.includes(line));
    return [...more.map((it) => `${name}, ${what}: + ${it}`), ...less.map((it) => `${name}, ${what}: - ${it}`)];
  });
}

/** All but those that are out of the mesh whatever their namespace says. */
export const meant = (pods: readonly PodStatus[]) =>
  pods.filter(({ metadata: { labels = {} } }) => labels["istio.io/dataplane-mode"] !== "none");

/** Waits until the node's agents say of all that are meant that they are in the mesh, or that none is. */
export async function untilIn(cluster: Cluster, namespace: string, inMesh: boolean, ms: number): Promise<void> {
  const all = async () => meant(await cluster.pods(namespace)).every((pod) => isEnrolled(pod) === inMesh);
  await until(all, `the pods of ${namespace} are ${inMesh ? "in" : "out of"} the mesh`, ms);
}
