import { assertEquals } from "@std/assert";
import { createAnonymousNetns } from "../os/netns.ts";
import { FirewallSocket } from "../os/netlink/nftables.ts";
import { HostProbes, hostTable } from "./host_probes.ts";
import { renderNftText } from "./nft_text.ts";

const privileged = Deno.uid() === 0;

function sorted(probes: HostProbes): string[] {
  return probes.addresses().map(({ ip, uid }) => `${ip} ${uid}`).sort();
}

Deno.test("the host's rules let local sockets reach enrolled pods from the probes' address (CNI-180, CNI-183, CNI-184)", () => {
  assertEquals(
    renderNftText([hostTable()]),
    `add table inet istio-ambient-nat
flush table inet istio-ambient-nat
add set inet istio-ambient-nat istio-inpod-probes-v4 { type ipv4_addr; }
add set inet istio-ambient-nat istio-inpod-probes-v6 { type ipv6_addr; }
add chain inet istio-ambient-nat postrouting { type nat hook postrouting priority 100; }
add rule inet istio-ambient-nat postrouting meta l4proto tcp meta skuid != 4294967295 ip daddr @istio-inpod-probes-v4 counter snat ip to 169.254.7.127
add rule inet istio-ambient-nat postrouting meta l4proto tcp meta skuid != 4294967295 ip6 daddr @istio-inpod-probes-v6 counter snat ip6 to fd16:9254:7127:1337:ffff:ffff:ffff:ffff
`,
  );
});

Deno.test({
  name:
    "HostProbes keeps each address with its pod, over restarts and changes of owner (CNI-084, CNI-090, CNI-091, CNI-181)",
  ignore: !privileged,
  fn() {
    using netns = createAnonymousNetns();
    using probes = new HostProbes(netns);
    probes.ensure();
    probes.add([{ ip: "10.0.0.2", uid: "a" }, { ip: "fd00::2", uid: "a" }]);
    probes.add([{ ip: "10.0.0.2", uid: "a" }]); // Again: nothing to do.
    {
      using restarted = new HostProbes(netns);
      restarted.ensure();
      assertEquals(sorted(restarted), ["10.0.0.2 a", "fd00::2 a"]);
    }
    probes.add([{ ip: "10.0.0.2", uid: "b" }]);
    assertEquals(
      probes.remove([{ ip: "10.0.0.2", uid: "a" }, { ip: "fd00::2", uid: "a" }, { ip: "10.9.9.9", uid: "a" }]),
      [
        { ip: "10.0.0.2", uid: "b" },
      ],
    );
    assertEquals(sorted(probes), ["10.0.0.2 b"]);
    probes.sync([{ ip: "10.0.0.3", uid: "c" }], { complete: false });
    assertEquals(sorted(probes), ["10.0.0.2 b", "10.0.0.3 c"]);
    probes.sync([{ ip: "10.0.0.3", uid: "c" }], { complete: true });
    assertEquals(sorted(probes), ["10.0.0.3 c"]);
  },
});

Deno.test({
  name: "HostProbes notices what others took away, and leaves nothing when it goes (CNI-047, CNI-188)",
  ignore: !privileged,
  fn() {
    using netns = createAnonymousNetns();
    using probes = new HostProbes(netns), firewall = FirewallSocket.open(netns);
    assertEquals(probes.check(), ["table istio-ambient-nat is missing"]);
    probes.ensure();
    assertEquals(probes.check(), []);
    firewall.replace([{ ...hostTable(), rules: [] }]);
    assertEquals(probes.check(), ["chain istio-ambient-nat postrouting has 0 rules, not 2"]);
    probes.ensure();
    assertEquals(probes.check(), []);
    probes.uninstall();
    probes.uninstall();
    assertEquals(firewall.tableNames(), []);
  },
});
