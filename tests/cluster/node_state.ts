/** What a node is made of, as text: what is installed on it may be compared with what was there before. */
import type { Cluster } from "./rig.ts";
import type { NodePlace } from "./node.ts";
import { nftRules, savedRules } from "./rules_text.ts";

const SETTINGS = String.raw`^net\.ipv[46]\.(conf\.(all|default|eth0|lo)\.|tcp_fwmark|ip_)`;

export type NodeState = Readonly<Record<string, string>>;

/** Rules, routes, interfaces, addresses and files; without what the cluster's own parts keep changing. */
export async function nodeState(cluster: Cluster, node: NodePlace): Promise<NodeState> {
  const run = (...command: string[]) => cluster.on(node, ...command);
  const tables = (await run("nft", "list", "tables")).trim().split("\n").filter((it) => !/ kube-proxy$/.test(it));
  const rules: string[] = [];
  for (const table of tables) {
    if (table !== "") rules.push(await run("nft", "--stateless", "list", ...table.split(" ")));
  }
  // A plugin that does nothing stays until nobody calls it any more (CNI-049).
  const files = "find /etc/cni /opt/cni -type f ! -exec grep -q 'Left behind by the uninstallation' {} ';' " +
    "-exec sha256sum {} + | sort -k 2";
  // The lock is of all programs of iptables. Sockets, files and links: folders that the kubelet makes for mounts stay, as for anything that is mounted.
  const runFiles = "find /run -path /run/containerd -prune -o ! -type d ! -name xtables.lock -print | sort";
  return {
    "nft rules": nftRules(rules.join("")),
    "iptables-legacy": savedRules(await run("iptables-legacy-save")),
    "ip6tables-legacy": savedRules(await run("ip6tables-legacy-save")),
    "sets": await run("ipset", "list", "-n"),
    "pins": await run("find", "/sys/fs/bpf", "-mindepth", "1"),
    "settings": await run("sysctl", "--all", "--ignore", "--pattern", SETTINGS),
    "ip rules": await run("ip", "rule"),
    "IPv6 rules": await run("ip", "-6", "rule"),
    routes: withoutPods(await run("ip", "route", "show", "table", "all")),
    interfaces: withoutPods(await run("ip", "-brief", "address")),
    "files of CNI": await run("sh", "-c", files),
    "files of /run": await run("sh", "-c", runFiles),
  };
}

/** The primary network plugin makes its bridge with the first pod, and leaves it. */
function withoutPods(text: string): string {
  return text.split("\n").filter((line) => !/\b(cni0|veth\w+)\b/.test(line)).join("\n");
}
