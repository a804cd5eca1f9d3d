/**
 * Pods that our node agents redirect by eBPF, served by our ztunnel on one node and by one of another make on the other.
 * Needs root and AMBIT_PEER_ZTUNNEL.
 */
import { assertEquals } from "@std/assert";
import { PrivateBpffs, ScratchCgroup } from "../e2e/bpf_scratch.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { APP_PORT } from "./dataplane_app.ts";
import { OPTIONS } from "./dataplane_node.ts";
import { bothWays, Rig } from "./dataplane_rig.ts";

Deno.test(
  "a ztunnel of another make serves pods that eBPF redirects, both ways, with the source's address (CNI-202, CNI-208, CNI-311)",
  OPTIONS,
  async () => {
    using bpffs = new PrivateBpffs();
    using cgroup = new ScratchCgroup();
    cgroup.enter();
    using _settings = environment({
      AMBIT_REDIRECT: "bpf",
      AMBIT_BPF_PINS: `${bpffs.folder}/ambit`,
      AMBIT_BPF_CGROUP: cgroup.path,
      AMBIT_BPF_FOREIGN_ZTUNNEL: cgroup.path,
    });
    await using rig = await Rig.start({ key: "bpf" });
    const ours = await rig.pod("ours", "node-a"), theirs = await rig.pod("theirs", "node-b");
    for (const { place: { netns } } of [ours, theirs]) {
      using firewall = FirewallSocket.open(netns);
      assertEquals(firewall.tableNames(), [], "no rule redirects");
    }
    for (let round = 0; round < 50; round++) {
      for (const { from, to } of bothWays(ours, theirs)) {
        for (const [host, caller] of [[to.ip, from.ip], [`[${to.place.ipv6}]`, from.place.ipv6]]) {
          const { body } = await from.do("http", { url: `http://${host}:${APP_PORT.http}/here` });
          assertEquals(body, `${to.name} heard ${caller} at /here`);
        }
      }
    }
  },
);

/** Settings of all programs that are started from now on. */
function environment(settings: Readonly<Record<string, string>>): Disposable {
  for (const [name, value] of Object.entries(settings)) Deno.env.set(name, value);
  return {
    [Symbol.dispose]() {
      for (const name of Object.keys(settings)) Deno.env.delete(name);
    },
  };
}
