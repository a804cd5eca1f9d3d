import { assertEquals } from "@std/assert";
import { renderNftText } from "../nft_text.ts";
import { sharedTables } from "./shared_rules.ts";
import type { SharedRuleOptions, SharedWorkload } from "./shared_statements.ts";

const OPTIONS: SharedRuleOptions = { ipv6: false, never: [], exempt: [] };

function workload(slot: number, path: string, more: Partial<SharedWorkload> = {}): SharedWorkload {
  return { slot, cgroup: { path, id: 100 + slot }, request: {}, leaving: false, ...more };
}

/** The rules of the nat table, without what each begins with. */
function rules(workloads: readonly SharedWorkload[], options: Partial<SharedRuleOptions> = {}): string[] {
  return renderNftText(sharedTables(workloads, { ...OPTIONS, ...options })).split("\n")
    .filter((line) => line.startsWith("add rule inet ambit-node-nat ")).map((line) =>
      line.slice("add rule inet ambit-node-nat ".length)
    );
}

Deno.test("sharedTables() captures a group's TCP and its declared ports, and never what keeps a host reachable (CNI-274 to CNI-276)", () => {
  const request = {
    inboundPorts: [8080, 9090],
    exclude: { outboundPorts: [3306], outboundCidrs: ["10.1.0.0/16"], inboundPorts: [9090] },
  };
  assertEquals(
    rules([workload(3, "system.slice/web.service", { request })], { never: ["10.0.0.1"] }),
    [
      "prerouting meta mark and 0xfff == 0x539 counter accept",
      "prerouting tcp dport 8080 fib daddr type local counter redirect to :15303",
      "output meta mark and 0xfff == 0x111 counter accept",
      "output meta mark and 0xfff == 0x539 counter accept",
      "output ip daddr 10.0.0.1/32 return",
      "output ip daddr 127.0.0.0/8 return",
      "output ip daddr 169.254.0.0/16 return",
      "output tcp dport 22 return",
      'output meta l4proto tcp socket cgroupv2 level 2 "system.slice/web.service" jump workload-3',
      "workload-3 fib daddr type local accept",
      "workload-3 tcp dport 3306 accept",
      "workload-3 ip daddr 10.1.0.0/16 accept",
      "workload-3 meta l4proto tcp counter redirect to :15103",
    ],
  );
});

Deno.test("sharedTables(): of nested groups the inner one is meant, and ztunnel's own in a captured one is let out (CNI-276)", () => {
  const outer = workload(0, "app.slice"), inner = workload(1, "app.slice/web.service");
  const jumps = (options: Partial<SharedRuleOptions>) =>
    rules([outer, inner], options).filter((it) => it.includes("cgroupv2"));
  assertEquals(jumps({}).map((line) => line.split("jump ")[1]), ["workload-1", "workload-0"]);
  const own = { path: "app.slice/ztunnel.service", id: 7 }, elsewhere = { path: "system.slice/ztunnel.service", id: 8 };
  assertEquals(
    jumps({ exempt: [own, elsewhere] })[0],
    'output meta l4proto tcp socket cgroupv2 level 2 "app.slice/ztunnel.service" counter return',
  );
  assertEquals(jumps({ exempt: [elsewhere] }).length, 2);
});

Deno.test("sharedTables(): an address of its own, ingress, and a workload that leaves (CNI-275, CNI-278)", () => {
  const inbound = (request: SharedWorkload["request"], more: Partial<SharedWorkload> = {}) =>
    rules([workload(0, "a", { request, ...more })], { ipv6: true }).filter((it) => it.startsWith("prerouting tcp"));
  assertEquals(inbound({ inboundPorts: [80], address: "10.0.0.2" }), [
    "prerouting tcp dport 80 ip daddr 10.0.0.2/32 counter redirect to :15300",
  ]);
  const six = ["prerouting tcp dport 80 ip6 daddr fd00::2/128 counter redirect to :15300"];
  assertEquals(inbound({ inboundPorts: [80], address: "fd00::2" }), six);
  // Loopback without IPv6 is no reason to let in past the mesh what comes to another interface.
  const without = rules([workload(0, "a", { request: { inboundPorts: [80], address: "fd00::2" } })]);
  assertEquals(without.filter((it) => it.startsWith("prerouting tcp")), six);
  assertEquals([inbound({ inboundPorts: [80], ingress: true }), inbound({ inboundPorts: [22] })], [[], []]);
  assertEquals(inbound({ inboundPorts: [80] }, { leaving: true }), []);
  const left = rules([workload(0, "a", { leaving: true }), workload(1, "b")]).filter((it) => it.includes("workload"));
  assertEquals(left.length, 3, "only the other's are left");
});

Deno.test("sharedTables() sends a group's DNS queries to its own port, those to the host's resolver too, in a zone of their own (CNI-125, CNI-274)", () => {
  const exclude = { outboundPorts: [53], outboundCidrs: ["10.1.0.0/16"], inboundPorts: [] };
  const asking = workload(3, "app.slice", { request: { dnsCapture: true, exclude } });
  const inner = workload(4, "app.slice/quiet.service");
  const resolver = { path: "app.slice/resolved.service", id: 9 };
  const text = renderNftText(sharedTables([asking, inner], { ...OPTIONS, never: ["10.0.0.1"], resolvers: [resolver] }));
  const lines = text.split("\n").filter((it) => it.startsWith("add rule inet ambit-node-"));
  const of = (table: string, chain: string) =>
    lines.filter((it) => it.startsWith(`add rule inet ambit-node-${table} ${chain} `))
      .map((it) => it.slice(`add rule inet ambit-node-${table} ${chain} `.length));
  const whose = [
    'socket cgroupv2 level 2 "app.slice/resolved.service" counter return',
    'socket cgroupv2 level 2 "app.slice/quiet.service" return',
    'socket cgroupv2 level 1 "app.slice" jump dns-3',
  ];
  assertEquals(of("nat", "output").slice(2, 6), [
    "ip daddr 10.0.0.1/32 return",
    "udp dport 53 jump dns",
    "tcp dport 53 jump dns",
    "ip daddr 127.0.0.0/8 return",
  ]);
  assertEquals([of("nat", "dns"), of("raw", "dns")], [whose, whose]);
  assertEquals(of("nat", "dns-3"), [
    "ip daddr 10.1.0.0/16 accept",
    "tcp dport 53 accept",
    "meta l4proto udp counter redirect to :15503",
    "meta l4proto tcp counter redirect to :15503",
  ]);
  assertEquals(of("raw", "output"), [
    "meta mark and 0xfff == 0x539 udp sport 15503 counter ct zone set 15503",
    "meta mark and 0xfff == 0x539 accept",
    "ip daddr 127.0.0.0/8 udp dport 15503 counter drop",
    "ip daddr 127.0.0.0/8 tcp dport 15503 counter drop",
    "ip6 daddr ::1/128 udp dport 15503 counter drop",
    "ip6 daddr ::1/128 tcp dport 15503 counter drop",
    "ip daddr 10.0.0.1/32 return",
    "udp dport 53 jump dns",
  ]);
  assertEquals(of("raw", "dns-3"), ["ip daddr 10.1.0.0/16 accept", "counter ct zone set 15503 accept"]);
  const without = sharedTables([{ ...asking, leaving: true }, inner], OPTIONS).map(({ name }) => name);
  assertEquals(without, ["ambit-node-nat", "ambit-node-mangle"]);
});
