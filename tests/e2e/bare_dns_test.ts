/** DNS of workloads that share a host's namespace: captured by control group, answered to each as its own, and no query comes back to who asks (CNI-125, CNI-274). */
import { assert, assertEquals } from "@std/assert";
import { type IpWords, parseIp } from "../../base/address.ts";
import { Logger } from "../../base/log.ts";
import { type Cgroup, findCgroupsById } from "../../cni/bare/cgroups.ts";
import { SharedNode } from "../../cni/bare/shared_node.ts";
import { SHARED_PORTS, SHARED_TABLE_NAMES } from "../../cni/bare/shared_statements.ts";
import { ZTUNNEL_MARK } from "../../cni/nft_rules.ts";
import { parseListenAddress } from "../../dataplane/agent/dns/listen_address.ts";
import { DnsProxy } from "../../dataplane/agent/dns/proxy.ts";
import { TcpListener } from "../../dataplane/agent/dns/tcp_listener.ts";
import { a, nameserver, queryBytes, recordsOf, type Zone } from "../../dataplane/agent/dns/testing.ts";
import { UdpListener } from "../../dataplane/agent/dns/udp_listener.ts";
import { PodUpstreamSockets } from "../../dataplane/agent/dns/upstream_sockets.ts";
import { Counter, Histogram } from "../../dataplane/agent/metrics_registry.ts";
import type { PodFacts } from "../../dataplane/agent/state.ts";
import { service, workload } from "../../mesh/testing.ts";
import { bindInet, receiveFrom, sendTo, socketAddress } from "../../os/inet.ts";
import { createAnonymousNetns, type Netns, withinNetns, writeSysctl } from "../../os/netns.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { groupsAtUdpPort } from "../../os/netlink/sock_diag.ts";
import { Poller } from "../../os/poller.ts";
import { spawnWithin } from "../../os/process.ts";
import { closeFd } from "../../os/sockets.ts";
import { until } from "../../demo/lab/until.ts";
import { RawSocket } from "./raw_socket.ts";
import { ScratchCgroups } from "./scratch_cgroup.ts";

const HOST = { ipv4: "10.58.0.2", ipv6: "fd00:58::2" }, PEER = { ipv4: "10.58.0.1", ipv6: "fd00:58::1" };
/** Where systemd's resolver listens. */
const STUB = "127.0.0.53";
const MARKED = { mark: ZTUNNEL_MARK };

const zoneOf = (ip: string): Zone =>
  new Map([["www.example a", [a("www.example", ip)]], ["web a", [a("web", "192.0.2.99")]]]);

/** A host with a resolver of its own, a nameserver behind a link, and ztunnel's part that answers. */
class Bench implements AsyncDisposable {
  readonly host: Netns = createAnonymousNetns();
  readonly peer: Netns = createAnonymousNetns();
  readonly cgroups = new ScratchCgroups();
  readonly node: SharedNode;
  /** What each nameserver was asked. */
  readonly asked: Record<"stub" | "peer", string[]> = { stub: [], peer: [] };
  readonly #poller = new Poller();
  readonly #listeners = new DisposableStack();
  readonly #stop = new AbortController();
  readonly proxy: DnsProxy;

  /** @param upstream where ztunnel asks. @param home what the host's resolver runs in. */
  constructor(upstream: string, home: (cgroups: ScratchCgroups) => Cgroup) {
    const { host, peer, cgroups } = this;
    for (const netns of [host, peer]) writeSysctl(netns, "net/ipv6/conf/default/accept_dad", "0");
    using inside = RouteSocket.open(host);
    using outside = RouteSocket.open(peer);
    outside.addVeth({ name: "veth0", peerName: "eth0", peerNetns: host });
    for (const [routes, link, at] of [[inside, "eth0", HOST], [outside, "veth0", PEER]] as const) {
      routes.setUp("lo");
      routes.addAddress(link, `${at.ipv4}/24`);
      routes.addAddress(link, `${at.ipv6}/64`);
      routes.setUp(link);
    }
    const deadline = performance.now() + 10_000;
    while (!inside.findLink("eth0")!.running || !outside.findLink("veth0")!.running) {
      assert(performance.now() < deadline, "the link carries packets");
    }
    for (const ip of [PEER.ipv4, PEER.ipv6]) this.#serve(peer, ip, "peer");
    cgroups.within(home(cgroups), () => this.#serve(host, STUB, "stub"));
    this.node = new SharedNode({
      never: [],
      resolvers: (paths) => findCgroupsById(cgroups.root, paths, groupsAtUdpPort(53, host)),
    });
    const counter = (name: string) => new Counter(name, { help: "" });
    this.proxy = new DnsProxy({
      state: {
        findLocal: ({ name, namespace }) => workload(name, HOST.ipv4, { namespace }),
        servicesOfHostname: (hostname) => SERVICES.filter((it) => it.hostname === hostname),
        storedEndpoints: () => [],
      },
      listen: parseListenAddress("localhost:15053"),
      answers: { clusterDomain: "cluster.local", search: undefined, preferredNamespace: "", ipv6: true },
      upstreams: () => ({ nameservers: [ip(upstream)], timeoutMs: 5_000, attempts: 1, rotate: false, search: [] }),
      mark: ZTUNNEL_MARK,
      reusePort: true,
      metrics: {
        dnsRequests: counter("requests"),
        dnsUpstreamRequests: counter("upstream_requests"),
        dnsUpstreamFailures: counter("upstream_failures"),
        dnsUpstreamSeconds: new Histogram("seconds", { help: "" }, [5]),
      },
      log: new Logger("dns", { sink: () => {} }),
    });
  }

  /** Enrols a group, with ztunnel serving it as a workload of that namespace. */
  enrol(slot: number, cgroup: Cgroup, namespace: string): void {
    const facts: PodFacts = { name: `client-${slot}`, namespace, serviceAccount: "client" };
    this.proxy.addPod(`pod-${slot}`, facts, this.host.duplicate(), { port: SHARED_PORTS.dns + slot });
    this.on(() => this.node.apply(slot, cgroup, { dnsCapture: true }));
  }

  on<T>(body: () => T): T {
    return withinNetns(this.host, body);
  }

  /** The records that a program of the group gets from a nameserver, which the answer must come from. */
  async ask(
    cgroup: Cgroup | undefined,
    nameserver: string,
    name: string,
    options: { tcp?: boolean; timeoutMs?: number; port?: number } = {},
  ): Promise<string[]> {
    const sockets = new PodUpstreamSockets({ netns: this.host, mark: 0, poller: this.#poller, port: options.port });
    const accept = () => ({ code: 0, truncated: false, records: [] });
    const exchange = { timeoutMs: options.timeoutMs ?? 8_000, accept, signal: this.#stop.signal },
      query = queryBytes(name, "A");
    const begin = () =>
      options.tcp === true
        ? sockets.exchangeTcp(ip(nameserver), query, exchange)
        : sockets.exchangeUdp(ip(nameserver), query, exchange);
    const answer = await (cgroup === undefined ? begin() : this.cgroups.within(cgroup, begin));
    return answer === undefined ? ["no answer"] : recordsOf(answer.bytes);
  }

  /** As {@link ask}, from a port that was used just before. */
  async askFrom(
    port: number,
    nameserver: string,
    name: string,
    options: { cgroup?: Cgroup; mark?: number } = {},
  ): Promise<string[]> {
    const local = nameserver.startsWith("127.") ? "127.0.0.1" : HOST.ipv4;
    const make = () =>
      this.on(() => bindInet(ip(local), port, { transport: "udp", reusePort: false, mark: 0, ...options }));
    const fd = options.cgroup === undefined ? make() : this.cgroups.within(options.cgroup, make);
    assert(fd >= 0, `bound: ${fd}`);
    try {
      assert(sendTo(fd, queryBytes(name, "A"), socketAddress(ip(nameserver), 53)) > 0);
      const target = new Uint8Array(4_096);
      let received = -1;
      await until("an answer", 8_000, () => Promise.resolve((received = receiveFrom(fd, target).count) > 0));
      return recordsOf(target.slice(0, received));
    } finally {
      closeFd(fd);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.proxy[Symbol.asyncDispose]();
    this.#listeners.dispose();
    await this.#poller[Symbol.asyncDispose]();
    this.host[Symbol.dispose]();
    this.peer[Symbol.dispose]();
    this.cgroups[Symbol.dispose]();
  }

  #serve(netns: Netns, address: string, who: "stub" | "peer"): void {
    const respond = nameserver(zoneOf(who === "stub" ? "192.0.2.53" : "192.0.2.1"), (it) => this.asked[who].push(it));
    const poller = this.#poller, now = () => performance.now();
    for (const transport of ["udp", "tcp"] as const) {
      const options = { transport, mark: 0, reusePort: false };
      const fd = withinNetns(netns, () => bindInet(ip(address), 53, options));
      assert(fd >= 0, "the nameserver has its port");
      if (transport === "udp") this.#listeners.use(new UdpListener(fd, 53, { poller, respond }));
      else this.#listeners.use(new TcpListener(fd, { poller, respond, now }));
    }
  }
}

const SERVICES = [
  service("web", "10.96.0.1", "80:80", { hostname: "web.shop.svc.cluster.local", namespace: "shop" }),
  service("web", "10.96.0.2", "80:80", { hostname: "web.bank.svc.cluster.local", namespace: "bank" }),
];
const ip = (text: string): IpWords => parseIp(text)!;
const NAMESERVERS = [PEER.ipv4, PEER.ipv6, STUB];

Deno.test("a group's queries are answered by ztunnel as its own, whoever is asked and however; others' are left alone (CNI-125, CNI-274)", async () => {
  await using bench = new Bench(PEER.ipv4, (cgroups) => cgroups.add("resolved.service"));
  const web = bench.cgroups.add("web"), db = bench.cgroups.add("db"), quiet = bench.cgroups.add("quiet");
  bench.enrol(0, web, "shop");
  bench.enrol(1, db, "bank");
  bench.on(() => bench.node.apply(2, quiet, {}));
  assertEquals(bench.on(() => bench.node.check()), []);
  for (const nameserver of NAMESERVERS) {
    for (const tcp of [false, true]) {
      assertEquals(await bench.ask(web, nameserver, "web", { tcp }), ["web A 10.96.0.1"], `${nameserver} ${tcp}`);
      assertEquals(await bench.ask(db, nameserver, "web", { tcp }), ["web A 10.96.0.2"]);
      for (const other of [quiet, undefined]) { // One that is enrolled without DNS, and a program of no group.
        if (other !== undefined && tcp) continue; // Its TCP is captured as any other.
        assertEquals(await bench.ask(other, nameserver, "web", { tcp }), ["web A 192.0.2.99"]);
      }
    }
  }
  assertEquals(await bench.ask(web, STUB, "www.example"), ["www.example A 192.0.2.1"], "forwarded");
  bench.on(() => bench.node.release(0));
  assertEquals(await bench.ask(web, STUB, "web"), ["web A 192.0.2.99"]);
  assertEquals(await bench.ask(db, STUB, "web"), ["web A 10.96.0.2"]);
  bench.on(() => bench.node.release(1));
  using firewall = FirewallSocket.open(bench.host);
  assertEquals(firewall.tableNames().includes(SHARED_TABLE_NAMES.raw), false, "its table goes with the last that asks");
  assertEquals(bench.on(() => bench.node.check()), []);
});

Deno.test("what ztunnel asks the host's own resolver does not come back to it, though both are in the captured group (CNI-276)", async () => {
  await using bench = new Bench(STUB, (cgroups) => {
    cgroups.add("app");
    return cgroups.add("app/resolved.service");
  });
  const app = bench.cgroups.add("app/web");
  const outer = { ...app, path: app.path.slice(0, -"/web".length) };
  const whole = findCgroupsById(
    bench.cgroups.root,
    [outer.path],
    new Set([Deno.statSync(`${bench.cgroups.root}/${outer.path}`).ino!]),
  )[0]!;
  bench.enrol(0, whole, "shop");
  assertEquals(await bench.ask(app, PEER.ipv4, "www.example"), ["www.example A 192.0.2.53"]);
  assertEquals(bench.asked, { stub: ["www.example A"], peer: [] });
  // What the resolver itself asks goes where it did.
  const resolver = findCgroupsById(bench.cgroups.root, [whole.path], groupsAtUdpPort(53, bench.host))[0]!;
  assertEquals(resolver.path, `${whole.path}/resolved.service`);
  assertEquals(await bench.ask(resolver, PEER.ipv4, "web"), ["web A 192.0.2.99"]);
  assertEquals(bench.node.remarks(0), []);
  bench.enrol(1, resolver, "shop");
  assertEquals(bench.node.remarks(1).map((it) => it.split(",")[0]), ["it answers DNS on this host itself"]);
  assertEquals(await bench.ask(resolver, PEER.ipv4, "web"), ["web A 192.0.2.99"], "as it is said");
});

for (const nameserver of [PEER.ipv4, STUB]) {
  Deno.test(`an address and port that others used a moment ago make nobody somebody else, asking ${nameserver} (CNI-274)`, async () => {
    await using bench = new Bench(nameserver, (cgroups) => cgroups.add("resolved.service"));
    const web = bench.cgroups.add("web"), db = bench.cgroups.add("db"), port = 40_000;
    bench.enrol(0, web, "shop");
    bench.enrol(1, db, "bank");
    for (let round = 0; round < 2; round++) {
      assertEquals(await bench.askFrom(port, nameserver, "web", { cgroup: web }), ["web A 10.96.0.1"]);
      assertEquals(await bench.askFrom(port, nameserver, "web", { cgroup: db }), ["web A 10.96.0.2"]);
      assertEquals(await bench.askFrom(port, nameserver, "web"), ["web A 192.0.2.99"]);
      assertEquals(await bench.askFrom(port, nameserver, "web", MARKED), ["web A 192.0.2.99"]); // ztunnel's own.
    }
  });
}

Deno.test("a host's firewall that lets in only what was asked for lets in answers to ztunnel and to everybody else (CNI-125)", async () => {
  await using bench = new Bench(PEER.ipv4, (cgroups) => cgroups.add("resolved.service"));
  const web = bench.cgroups.add("web");
  const rules = `table inet hostfw {
  chain input {
    type filter hook input priority 0; policy drop;
    iifname lo accept
    ct state established accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
  }
}
`;
  const { code, stderr } = await spawnWithin(bench.host, "nft", {
    args: [rules],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
  bench.enrol(0, web, "shop");
  assertEquals(await bench.ask(web, STUB, "web"), ["web A 10.96.0.1"]);
  assertEquals(await bench.ask(web, PEER.ipv4, "www.example"), ["www.example A 192.0.2.1"]);
  assertEquals(await bench.ask(undefined, PEER.ipv4, "web"), ["web A 192.0.2.99"]);
  assertEquals(await bench.askFrom(40_001, PEER.ipv4, "web", MARKED), ["web A 192.0.2.99"]);
});

Deno.test("where a group's queries are sent nobody else is answered, nor the group itself (CNI-274)", async () => {
  await using bench = new Bench(PEER.ipv4, (cgroups) => cgroups.add("resolved.service"));
  const web = bench.cgroups.add("web"), db = bench.cgroups.add("db"), port = SHARED_PORTS.dns;
  bench.enrol(0, web, "shop");
  for (const loopback of ["127.0.0.1", "::1"]) {
    for (const who of [undefined, db, web]) {
      const asking = bench.ask(who, loopback, "web", { port, timeoutMs: 300 });
      assertEquals(await bench.ask(who, loopback, "web", { port, timeoutMs: 300, tcp: true }), ["no answer"]);
      assertEquals(await asking, ["no answer"]);
    }
  }
  assertEquals(await bench.ask(web, STUB, "web"), ["web A 10.96.0.1"]);
  // Elsewhere the same port is a service as any other.
  using remote = RawSocket.listen(bench.peer, "::", port);
  using connected = RawSocket.connect(bench.host, PEER.ipv4, port);
  using accepted = remote.accept();
  assert(connected.fd > 0 && accepted.fd > 0);
});

Deno.test("with nobody there to answer, a captured query has no answer, and the nameserver never sees it (CNI-276)", async () => {
  await using bench = new Bench(PEER.ipv4, (cgroups) => cgroups.add("resolved.service"));
  const web = bench.cgroups.add("web");
  bench.on(() => bench.node.apply(0, web, { dnsCapture: true }));
  for (const nameserver of NAMESERVERS) {
    const asking = bench.ask(web, nameserver, "web", { timeoutMs: 1 });
    assertEquals(await bench.ask(web, nameserver, "web", { tcp: true }), ["no answer"]);
    assertEquals(await asking, ["no answer"]);
    assertEquals(await bench.ask(undefined, nameserver, "web"), ["web A 192.0.2.99"]); // It was there all the time.
  }
  assertEquals(bench.asked, { stub: ["web A"], peer: ["web A", "web A"] }, "and was asked that alone");
});
