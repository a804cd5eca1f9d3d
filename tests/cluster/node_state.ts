/** What a node is made of, as text: what is installed on it may be compared with what was there before. */
import type { Cluster } from "./rig.ts";
import type { NodePlace } from "./node.ts";

/** Rules, routes, interfaces, addresses and files; without what the cluster's own parts keep changing. */
export async function nodeState(cluster: Cluster, node: NodePlace): Promise<Readonly<Record<string, string>>> {
  const run = (...command: string[]) => cluster.on(node, ...command);
  const tables = (await run("nft", "list", "tables")).trim().split("\n").filter((it) => !/ kube-proxy$/.test(it));
  const rules: string[] = [];
  for (const table of tables) {
    if (table !== "") rules.push(await run("nft", "--stateless", "list", ...table.split(" ")));
  }
  // A plugin that does nothing stays until nobody calls it any more (CNI-049).
  const files = "find /etc/cni /opt/cni -type f ! -exec grep -q 'Left behind by the uninstallation' {} ';' " +
    "-exec sha256sum {} + | sort -k 2";
  // Sockets, files and links: folders that the kubelet makes for mounts stay, as for anything that is mounted.
  const runFiles = "find /run -path /run/containerd -prune -o ! -type d -print | sort";
  return {
    "nft rules": rules.join(""),
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
