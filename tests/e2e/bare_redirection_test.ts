/** The traffic checks of appendix A for workloads that share a host's namespace, told apart by control group (CNI-274 to CNI-276, CNI-279). */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { SharedNode } from "../../cni/bare/shared_node.ts";
import { SHARED_PORTS, SHARED_TABLE_NAMES, SLOTS_MAX } from "../../cni/bare/shared_statements.ts";
import { CAPTURE_PORTS, ZTUNNEL_MARK } from "../../cni/nft_rules.ts";
import { type EnrolRequest, parseEnrolRequest } from "../../mesh/enrolment.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { createAnonymousNetns, type Netns, withinNetns, writeSysctl } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { RawSocket } from "./raw_socket.ts";
import { ScratchCgroups } from "./scratch_cgroup.ts";

const ADDRESS = {
  ipv4: { host: "10.56.1.2", second: "10.56.1.3", peer: "10.56.1.1", loopback: "127.0.0.1" },
  ipv6: { host: "fd00:56::2", second: "fd00:56::3", peer: "fd00:56::1", loopback: "::1" },
} as const;
type Family = keyof typeof ADDRESS;

/** A host with two addresses of each family, and a peer that it is joined to. */
class Bench implements Disposable {
  readonly host: Netns = createAnonymousNetns();
  readonly peer: Netns = createAnonymousNetns();
  readonly cgroups = new ScratchCgroups();
  readonly node = new SharedNode({ never: [] });

  constructor() {
    for (const netns of [this.host, this.peer]) writeSysctl(netns, "net/ipv6/conf/default/accept_dad", "0");
    using host = RouteSocket.open(this.host);
    using peer = RouteSocket.open(this.peer);
    peer.addVeth({ name: "veth0", peerName: "eth0", peerNetns: this.host });
    for (const [routes, link, who] of [[host, "eth0", "host"], [peer, "veth0", "peer"]] as const) {
      routes.setUp("lo");
      routes.addAddress(link, `${ADDRESS.ipv4[who]}/24`);
      routes.addAddress(link, `${ADDRESS.ipv6[who]}/64`);
      routes.setUp(link);
    }
    host.addAddress("eth0", `${ADDRESS.ipv4.second}/24`);
    host.addAddress("eth0", `${ADDRESS.ipv6.second}/64`);
    const deadline = performance.now() + 10_000;
    while (!host.findLink("eth0")!.running || !peer.findLink("veth0")!.running) {
      assert(performance.now() < deadline, "the link carries packets");
    }
  }

  on<T>(body: () => T): T {
    return withinNetns(this.host, body);
  }

  [Symbol.dispose](): void {
    this.host[Symbol.dispose]();
    this.peer[Symbol.dispose]();
    this.cgroups[Symbol.dispose]();
  }
}

function request(change: Record<string, unknown> = {}): EnrolRequest {
  const fields = { target: "cgroup/x", namespace: "shop", serviceAccount: "web", name: "web-0", ...change };
  const parsed = parseEnrolRequest(fields);
  if ("wrong" in parsed) throw new Error(parsed.wrong);
  return parsed;
}

function exchange(one: RawSocket, other: RawSocket): void {
  one.send("there");
  assertEquals(other.receive(), "there");
  other.send("and back");
  assertEquals(one.receive(), "and back");
}

/** Connects, and takes what a listener got of it. Says who it was for and whom it came from. */
function meets(listener: RawSocket, connect: () => RawSocket, family: Family): { to: string; from: string } {
  using connected = connect();
  using accepted = listener.accept();
  exchange(connected, accepted);
  const captured = isCaptured(accepted, family);
  return { to: captured ?? accepted.localName(), from: accepted.otherName().split(" ")[0]! };
}

function isCaptured(socket: RawSocket, family: Family): string | undefined {
  try {
    return socket.originalDestination(family === "ipv6");
  } catch {
    return undefined; // It was not redirected.
  }
}

const test = (name: string, fn: (bench: Bench, family: Family) => void) => {
  for (const family of ["ipv4", "ipv6"] as const) {
    Deno.test(`${name} (${family})`, () => {
      using bench = new Bench();
      fn(bench, family);
    });
  }
};

test(
  "checks 1 and 2 on a host: what a control group sends is captured, others' and ztunnel's is not (CNI-274, CNI-276, CNI-279)",
  (bench, family) => {
    const at = ADDRESS[family], { host, peer, cgroups } = bench, web = cgroups.add("web"), db = cgroups.add("db");
    bench.on(() => bench.node.apply(0, web, request()));
    bench.on(() => bench.node.apply(1, db, request({ name: "db-0" })));
    assertEquals(bench.on(() => bench.node.check()), []);
    using remote = RawSocket.listen(peer, "::", 9000);
    using first = RawSocket.listen(host, "::", SHARED_PORTS.outbound);
    using second = RawSocket.listen(host, "::", SHARED_PORTS.outbound + 1);
    const from = (cgroup: typeof web, options = {}) => () =>
      cgroups.within(cgroup, () => RawSocket.connect(host, at.peer, 9000, options));
    for (const [listener, cgroup] of [[first, web], [second, db]] as const) {
      const seen = meets(listener, from(cgroup), family);
      assertEquals(seen.to, `${at.peer} 9000`);
      assert([at.host, at.second].some((own) => own === seen.from), "the source stays the host's");
    }
    assertEquals(meets(remote, from(web, { mark: ZTUNNEL_MARK }), family).to, `${at.peer} 9000`);
    meets(remote, () => RawSocket.connect(host, at.peer, 9000), family); // Of no enrolled group.
  },
);

test(
  "checks 3 and 4 on a host: declared ports are captured, with their source, and no others (CNI-275, CNI-279)",
  (bench, family) => {
    const at = ADDRESS[family], { host, peer, cgroups } = bench;
    bench.on(() => bench.node.apply(0, cgroups.add("web"), request({ inboundPorts: [8080] })));
    const own = request({ inboundPorts: [8080], address: at.second, name: "db-0" });
    using plaintext = RawSocket.listen(host, "::", SHARED_PORTS.plaintext);
    using other = RawSocket.listen(host, "::", 9000);
    using hbone = RawSocket.listen(host, "::", CAPTURE_PORTS.inboundHbone);
    using ssh = RawSocket.listen(host, "::", 22);
    const to = (port: number, ip: string = at.host) => () => RawSocket.connect(peer, ip, port);
    assertEquals(meets(plaintext, to(8080), family), { to: `${at.host} 8080`, from: at.peer });
    meets(other, to(9000), family);
    meets(hbone, to(CAPTURE_PORTS.inboundHbone), family); // Check 8.
    meets(ssh, to(22), family);
    bench.on(() => bench.node.delete(0));
    bench.on(() => bench.node.apply(1, cgroups.add("db"), own));
    using atSecond = RawSocket.listen(host, "::", SHARED_PORTS.plaintext + 1);
    assertEquals(meets(atSecond, to(8080, at.second), family), { to: `${at.second} 8080`, from: at.peer });
    assertThrows(() => RawSocket.connect(peer, at.host, 8080), Error, "ECONNREFUSED"); // The other address is nobody's.
  },
);

test(
  "checks 5 to 7 on a host: the original source reaches the application, whose replies come back to ztunnel (CNI-279)",
  (bench, family) => {
    const at = ADDRESS[family], { host, cgroups } = bench, web = cgroups.add("web");
    bench.on(() => bench.node.apply(0, web, request({ inboundPorts: [8080] })));
    using application = cgroups.within(web, () => RawSocket.listen(host, "::", 8080));
    using connected = RawSocket.connect(host, at.host, 8080, {
      mark: ZTUNNEL_MARK,
      transparent: true,
      local: { ip: at.peer, port: 0 },
    });
    using accepted = application.accept();
    assertEquals(accepted.otherName().split(" ")[0], at.peer);
    exchange(connected, accepted);
  },
);

test(
  "checks 10 and 11 on a host: its own addresses and loopback are direct, and so is what is never captured (CNI-276, CNI-279)",
  (bench, family) => {
    const at = ADDRESS[family], { host, peer, cgroups } = bench, web = cgroups.add("web");
    const exclude = { outboundPorts: [9001], outboundCidrs: [], inboundPorts: [] };
    bench.on(() => bench.node.apply(0, web, request({ exclude })));
    using application = RawSocket.listen(host, "::", 8080);
    const from = (ip: string, port: number) => () => cgroups.within(web, () => RawSocket.connect(host, ip, port));
    for (const own of [at.host, at.second, at.loopback]) meets(application, from(own, 8080), family);
    for (const port of [22, 9001]) { // SSH, and what the enrolment leaves out.
      using remote = RawSocket.listen(peer, "::", port);
      meets(remote, from(at.peer, port), family);
    }
    // Captured, and nobody listens: refused, never let through.
    using remote = RawSocket.listen(peer, "::", 9000);
    assertThrows(from(at.peer, 9000), Error, "ECONNREFUSED");
    const excluded = request({ exclude: { ...exclude, outboundCidrs: [`${at.peer}/${family === "ipv4" ? 24 : 64}`] } });
    bench.on(() => bench.node.apply(0, web, excluded));
    meets(remote, from(at.peer, 9000), family);
  },
);

test(
  "of nested groups the inner one is meant, also in what it leaves out (CNI-274, CNI-276)",
  (bench, family) => {
    const at = ADDRESS[family],
      { host, peer, cgroups } = bench,
      outer = cgroups.add("app"),
      inner = cgroups.add("app/web");
    const exclude = { outboundPorts: [9001], outboundCidrs: [], inboundPorts: [] };
    bench.on(() => bench.node.apply(0, outer, request()));
    bench.on(() => bench.node.apply(1, inner, request({ exclude })));
    using outers = RawSocket.listen(host, "::", SHARED_PORTS.outbound);
    using inners = RawSocket.listen(host, "::", SHARED_PORTS.outbound + 1);
    using remote = RawSocket.listen(peer, "::", 9001);
    const from = (cgroup: typeof outer, port: number) => () =>
      cgroups.within(cgroup, () => RawSocket.connect(host, at.peer, port));
    meets(outers, from(outer, 9000), family);
    meets(inners, from(inner, 9000), family);
    meets(remote, from(inner, 9001), family); // Left out by the inner one, so not the outer one's either.
    meets(outers, from(outer, 9001), family);
  },
);

test(
  "a control group that was made anew is another: captured once its rule is written, and not before (CNI-274, CNI-278)",
  (bench, family) => {
    const at = ADDRESS[family], { host, peer, cgroups } = bench;
    bench.on(() => bench.node.apply(0, cgroups.add("web"), request()));
    const again = cgroups.renew("web");
    using remote = RawSocket.listen(peer, "::", 9000);
    using outbound = RawSocket.listen(host, "::", SHARED_PORTS.outbound);
    const connect = () => cgroups.within(again, () => RawSocket.connect(host, at.peer, 9000));
    meets(remote, connect, family); // Which is why a unit enrols itself before its program starts.
    bench.on(() => bench.node.apply(0, again, request()));
    meets(outbound, connect, family);
  },
);

test("leaving: nothing new is captured, then nothing of ours is left (CNI-278)", (bench, family) => {
  const at = ADDRESS[family], { host, peer, cgroups } = bench, web = cgroups.add("web");
  bench.on(() => bench.node.apply(0, web, request({ inboundPorts: [8080] })));
  using outbound = RawSocket.listen(host, "::", SHARED_PORTS.outbound);
  using remote = RawSocket.listen(peer, "::", 9000);
  const connect = () => cgroups.within(web, () => RawSocket.connect(host, at.peer, 9000));
  using before = connect();
  using taken = outbound.accept();
  bench.on(() => bench.node.release(0));
  meets(remote, connect, family);
  exchange(before, taken); // What ztunnel carries goes on.
  bench.on(() => bench.node.delete(0));
  using firewall = FirewallSocket.open(host);
  assertEquals(firewall.tableNames().filter((name) => Object.values(SHARED_TABLE_NAMES).includes(name as never)), []);
  using routes = RouteSocket.open(host);
  for (const rule of ["ipv4", "ipv6"] as const) {
    assertEquals(routes.hasRule({ family: rule, mark: 0x111, mask: 0xfff, priority: 32764, table: 100 }), false);
  }
});

test("rules that others changed are noticed and written again (CNI-097)", (bench) => {
  const { host, cgroups } = bench;
  bench.on(() => bench.node.apply(0, cgroups.add("web"), request({ inboundPorts: [8080] })));
  using firewall = FirewallSocket.open(host);
  firewall.deleteTables([SHARED_TABLE_NAMES.nat]);
  assertEquals(bench.on(() => bench.node.check()), [`table ${SHARED_TABLE_NAMES.nat} is missing`]);
  bench.on(() => bench.node.write());
  assertEquals(bench.on(() => bench.node.check()), []);
});

Deno.test("a host has as many units as it may have, each with all that it may leave out (CNI-274)", () => {
  using bench = new Bench();
  const { cgroups, node } = bench,
    list = <T>(count: number, of: (at: number) => T) => Array.from({ length: count }, (_, at) => of(at));
  const exclude = {
    outboundPorts: list(8, (at) => 1_000 + at),
    outboundCidrs: list(8, (at) => `fd00:${at}::/64`),
    inboundPorts: [],
  };
  for (let slot = 0; slot < SLOTS_MAX; slot++) {
    const inboundPorts = list(15, (at) => 20_000 + slot * 15 + at);
    node.adopt(slot, cgroups.add(`unit-${slot}`), { inboundPorts, exclude, dnsCapture: true }, false);
  }
  bench.on(() => node.write());
  assertEquals(bench.on(() => node.check()), []);
  bench.on(() => node.release(7));
  assertEquals(bench.on(() => node.check()), []);
});
