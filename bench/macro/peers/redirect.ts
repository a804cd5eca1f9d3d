/** nftables rules that send a pod's traffic to a proxy, for peers that have no CNI of their own. */
import { ZTUNNEL_MARK } from "../../../cni/nft_rules.ts";
import type { Netns } from "../../../os/netns.ts";
import { runTool } from "../topology.ts";

/** Sends connections that leave a namespace to a local port each: `[destination port, local port]`. */
export function redirectPorts(netns: Netns, ports: readonly (readonly [number, number])[], folder: string): void {
  const rules = ports.map(([from, to]) => `tcp dport ${from} redirect to :${to}`).join("\n    ");
  applyRules(
    netns,
    folder,
    `table ip bench {
  chain output {
    type nat hook output priority -100; # destination NAT
    meta mark & 0xfff == ${ZTUNNEL_MARK} accept
    oifname "lo" accept
    ${rules}
  }
}
`,
  );
}

function applyRules(netns: Netns, folder: string, rules: string): void {
  const path = `${folder}/rules-${crypto.randomUUID()}.nft`;
  Deno.writeTextFileSync(path, rules);
  runTool("nft", ["-f", path], netns);
}
