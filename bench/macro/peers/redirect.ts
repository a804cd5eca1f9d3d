/** nftables rules that send a pod's traffic to a proxy, for peers that have no CNI of their own. */
import { runTool, type Topology } from "../topology.ts";
import { type Netns } from "../../../os/netns.ts";

/** Packets of the proxy's own sockets; never redirected (ZT-173). */
export const PROXY_MARK = 0x539;
// Chain priorities are those of iptables: -150 is mangle, -100 destination NAT.
const TPROXY_MARK = 0x111, TPROXY_TABLE = 100;

/** Sends connections that leave a namespace to a local port each: `[destination port, local port]`. */
export function redirectPorts(netns: Netns, ports: readonly (readonly [number, number])[], folder: string): void {
  const rules = ports.map(([from, to]) => `tcp dport ${from} redirect to :${to}`).join("\n    ");
  applyRules(
    netns,
    folder,
    `table ip bench {
  chain output {
    type nat hook output priority -100;
    meta mark & 0xfff == ${PROXY_MARK} accept
    oifname "lo" accept
    ${rules}
  }
}
`,
  );
}

/**
 * The redirection of an ambient pod: what leaves goes to 15001; what the inbound proxy opens in the client's name
 * (transparent sockets) gets its answers back through a mark on the connection and a routing table of its own.
 */
export function redirectPod(netns: Netns, folder: string): void {
  applyRules(
    netns,
    folder,
    `table ip bench {
  chain mark_in {
    type filter hook prerouting priority -150;
    meta mark & 0xfff == ${PROXY_MARK} ct mark set ${TPROXY_MARK}
  }
  chain mark_out {
    type route hook output priority -150;
    ct mark & 0xfff == ${TPROXY_MARK} meta mark set ct mark
  }
  chain output {
    type nat hook output priority -100;
    meta mark & 0xfff == ${TPROXY_MARK} accept
    oifname "lo" accept
    ip daddr 127.0.0.1 accept
    meta mark & 0xfff == ${PROXY_MARK} accept
    meta l4proto tcp redirect to :15001
  }
  chain prerouting {
    type nat hook prerouting priority -100;
    meta mark & 0xfff == ${PROXY_MARK} accept
    ip daddr 127.0.0.1 accept
    tcp dport != 15008 redirect to :15006
  }
}
`,
  );
  const mark = `${TPROXY_MARK}/0xfff`;
  runTool("ip", ["rule", "add", "fwmark", mark, "pref", "32764", "lookup", `${TPROXY_TABLE}`], netns);
  runTool("ip", ["route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", `${TPROXY_TABLE}`], netns);
}

/** Both pods of a topology. */
export function redirectBothPods(topology: Topology): void {
  redirectPod(topology.client.netns, topology.folder);
  redirectPod(topology.server.netns, topology.folder);
}

function applyRules(netns: Netns, folder: string, rules: string): void {
  const path = `${folder}/rules-${crypto.randomUUID()}.nft`;
  Deno.writeTextFileSync(path, rules);
  runTool("nft", ["-f", path], netns);
}
