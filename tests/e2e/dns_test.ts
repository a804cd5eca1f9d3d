/** DNS of an enrolled pod as its programs meet it: captured by the node agent's rules, answered by the proxy or forwarded. */
import { assertEquals } from "@std/assert";
import { parseIp } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { Logger } from "../../base/log.ts";
import { applyPodRules } from "../../cni/pod_rules.ts";
import { addressesToBind, parseListenAddress } from "../../dataplane/agent/dns/listen_address.ts";
import { type Exchanged } from "../../dataplane/agent/dns/forwarder.ts";
import { DnsProxy, type DnsState } from "../../dataplane/agent/dns/proxy.ts";
import { TcpListener } from "../../dataplane/agent/dns/tcp_listener.ts";
import { a, decode, nameserver, queryBytes, recordsOf, type Zone } from "../../dataplane/agent/dns/testing.ts";
import { UdpListener } from "../../dataplane/agent/dns/udp_listener.ts";
import { PodUpstreamSockets } from "../../dataplane/agent/dns/upstream_sockets.ts";
import { Counter, Histogram } from "../../dataplane/agent/metrics_registry.ts";
import { service, serving, workload } from "../../mesh/testing.ts";
import { bindInet } from "../../os/inet.ts";
import { createAnonymousNetns, type Netns, withinNetns, writeSysctl } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { Poller } from "../../os/poller.ts";
import { spawnWithin } from "../../os/process.ts";

const POD = { ipv4: "10.57.0.2", ipv6: "fd00:57::2" }, UPSTREAM = { ipv4: "10.57.0.1", ipv6: "fd00:57::1" };
const LARGE = Array.from({ length: 256 }, (_, at) => `240.0.0.${at}`);

/** The pod's own workload, a service with a VIP of both families, and a headless one. */
class Mesh implements DnsState {
  known = true;
  readonly client = workload("client", POD.ipv4, { canonicalName: "shopper", canonicalRevision: "v1" });
  readonly endpoint = workload("web-0", "10.57.7.1", { services: serving({ "ns1/sets.ns1.svc.cluster.local": "" }) });
  readonly services = [
    service("web", "10.96.0.10 fd00:96::10", "80:80", { hostname: "web.ns1.svc.cluster.local" }),
    service("sets", "", "80:80", { hostname: "sets.ns1.svc.cluster.local" }),
  ];

  findLocal() {
    return this.known ? this.client : undefined;
  }

  servicesOfHostname(hostname: string) {
    return this.services.filter((it) => it.hostname === hostname);
  }

  storedEndpoints() {
    return [this.endpoint];
  }
}

/** A pod whose DNS is captured, the proxy, and a nameserver on the other side of a veth. */
class Bench implements AsyncDisposable {
  readonly pod: Netns = createAnonymousNetns();
  readonly mesh = new Mesh();
  readonly asked: string[] = [];
  readonly counted: string[] = [];
  readonly #upstream: Netns = createAnonymousNetns();
  readonly #poller = new Poller();
  readonly #listeners = new DisposableStack();
  readonly #stop = new AbortController();
  readonly proxy: DnsProxy;

  constructor(zone: Zone) {
    for (const netns of [this.pod, this.#upstream]) writeSysctl(netns, "net/ipv6/conf/default/accept_dad", "0");
    using inside = RouteSocket.open(this.pod);
    using outside = RouteSocket.open(this.#upstream);
    outside.addVeth({ name: "veth0", peerName: "eth0", peerNetns: this.pod });
    for (const [routes, link, at] of [[inside, "eth0", POD], [outside, "veth0", UPSTREAM]] as const) {
      routes.setUp("lo");
      routes.addAddress(link, `${at.ipv4}/24`);
      routes.addAddress(link, `${at.ipv6}/64`);
      routes.setUp(link);
    }
    const deadline = performance.now() + 10_000;
    while (!inside.findLink("eth0")!.running || !outside.findLink("veth0")!.running) {
      assert(performance.now() < deadline, "the link carries packets");
    }
    applyPodRules(this.pod, { dnsCapture: true });
    this.#serve(zone);
    const log = new Logger("dns", { sink: () => {} });
    const counter = (name: string) => new Counter(name, { help: "" });
    const metrics = {
      dnsRequests: counter("requests"),
      dnsUpstreamRequests: counter("upstream_requests"),
      dnsUpstreamFailures: counter("upstream_failures"),
      dnsUpstreamSeconds: new Histogram("seconds", { help: "" }, [5]),
    };
    this.metrics = metrics;
    this.proxy = new DnsProxy({
      state: this.mesh,
      listen: parseListenAddress("localhost:15053"),
      answers: { clusterDomain: "cluster.local", search: undefined, preferredNamespace: "", ipv6: true },
      upstreams: () => ({
        nameservers: [parseIp(UPSTREAM.ipv4)!],
        timeoutMs: 1_000,
        attempts: 2,
        rotate: false,
        search: [],
      }),
      mark: 1337,
      reusePort: true,
      metrics,
      log,
    });
    this.proxy.addPod("pod", { name: "client", namespace: "ns1", serviceAccount: "client" }, this.pod.duplicate());
  }

  readonly metrics: { readonly dnsRequests: Counter; readonly dnsUpstreamRequests: Counter };

  /** Asks as a program in the pod does: the nameserver's own address, which the rules redirect. */
  async ask(
    query: Uint8Array<ArrayBuffer>,
    options: { readonly tcp?: boolean; readonly nameserver?: string } = {},
  ): Promise<Uint8Array> {
    const sockets = new PodUpstreamSockets({ netns: this.pod, mark: 0, poller: this.#poller });
    const response = { code: 0, truncated: false, records: [] };
    const exchange: PodUpstreamSockets["exchangeUdp"] = (...args) =>
      options.tcp === true ? sockets.exchangeTcp(...args) : sockets.exchangeUdp(...args);
    const exchanged: Exchanged | undefined = await exchange(parseIp(options.nameserver ?? UPSTREAM.ipv4)!, query, {
      timeoutMs: 8_000,
      accept: () => response,
      signal: this.#stop.signal,
    });
    assert(exchanged !== undefined, "the query is answered");
    return exchanged.bytes;
  }

  /** What getent, the C library's resolver, prints. */
  async getent(...args: string[]): Promise<string[]> {
    const settings = Deno.makeTempFileSync();
    Deno.writeTextFileSync(settings, `nameserver ${UPSTREAM.ipv4}\nsearch ns1.svc.cluster.local svc.cluster.local\n`);
    try {
      const script = `mount --bind ${settings} /etc/resolv.conf && exec getent ${args.join(" ")}`;
      const child = spawnWithin(this.pod, "unshare", {
        args: ["--mount", "sh", "-c", script],
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      });
      const { stdout } = await child.output();
      return new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "");
    } finally {
      Deno.removeSync(settings);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.proxy[Symbol.asyncDispose]();
    this.#listeners.dispose();
    await this.#poller[Symbol.asyncDispose]();
    this.pod[Symbol.dispose]();
    this.#upstream[Symbol.dispose]();
  }

  /** The nameserver: the proxy's own listeners, with a behaviour that a library writes. */
  #serve(zone: Zone): void {
    const respond = nameserver(zone, (asked, overTcp) => this.asked.push(`${asked} ${overTcp ? "tcp" : "udp"}`));
    const poller = this.#poller, now = () => performance.now();
    for (const text of [UPSTREAM.ipv4, UPSTREAM.ipv6]) {
      for (const transport of ["udp", "tcp"] as const) {
        const [ip] = addressesToBind({ ip: parseIp(text)!, port: 53 }, true);
        const options = { transport, mark: 0, reusePort: false };
        const fd = withinNetns(this.#upstream, () => bindInet(ip!, 53, options));
        assert(fd >= 0, "the nameserver has its port");
        if (transport === "udp") this.#listeners.use(new UdpListener(fd, 53, { poller, respond }));
        else this.#listeners.use(new TcpListener(fd, { poller, respond, now }));
      }
    }
  }
}

const ZONE: Zone = new Map([
  ["www.example a", [a("www.example", "192.0.2.1")]],
  ["large.example a", LARGE.map((ip) => a("large.example", ip))],
]);

function lines(family: { write(lines: string[]): void }): string[] {
  const written: string[] = [];
  family.write(written);
  return written.filter((line) => !line.startsWith("#"));
}

Deno.test("the C library's resolver in a pod finds services by short and full names, and what the mesh does not know", async () => {
  await using bench = new Bench(ZONE);
  assertEquals((await bench.getent("ahostsv4", "web"))[0]!.split(/\s+/).slice(0, 2), ["10.96.0.10", "STREAM"]);
  assertEquals((await bench.getent("ahostsv6", "web.ns1"))[0]!.split(/\s+/)[0], "fd00:96::10");
  assertEquals((await bench.getent("ahostsv4", "sets.ns1.svc.cluster.local"))[0]!.split(/\s+/)[0], "10.57.7.1");
  assertEquals(bench.asked, [], "nothing of it left the pod");
  assertEquals((await bench.getent("ahostsv4", "www.example"))[0]!.split(/\s+/)[0], "192.0.2.1");
  assertEquals(await bench.getent("ahostsv4", "nowhere.example"), []);
  assertEquals(bench.asked.includes("www.example A udp"), true);
});

Deno.test("queries by UDP and TCP, of both families, are captured and answered (ZT-176)", async () => {
  await using bench = new Bench(ZONE);
  for (const nameserver of [UPSTREAM.ipv4, UPSTREAM.ipv6]) {
    for (const tcp of [false, true]) {
      const bytes = await bench.ask(queryBytes("web.ns1.svc.cluster.local", "A"), { tcp, nameserver });
      assertEquals(recordsOf(bytes), ["web.ns1.svc.cluster.local A 10.96.0.10"]);
      const { id, flag_aa, flag_ra, flag_tc } = decode(bytes);
      assertEquals([id, flag_aa, flag_ra, flag_tc], [0x1234, true, true, false]);
    }
  }
  assertEquals(bench.asked, []);
  const labels = `source_canonical_service="shopper",source_canonical_revision="v1"`;
  assertEquals(lines(bench.metrics.dnsRequests), [
    `requests_total{request_query_type="a",request_protocol="udp",${labels}} 2`,
    `requests_total{request_query_type="a",request_protocol="tcp",${labels}} 2`,
  ]);
  assertEquals(lines(bench.metrics.dnsUpstreamRequests), []);
});

Deno.test("what the mesh does not know is asked upstream once, whole over TCP, cut over UDP (ZT-185, ZT-186)", async () => {
  await using bench = new Bench(ZONE);
  const query = queryBytes("large.example", "A", { edns: 1232 });
  const whole = await bench.ask(query, { tcp: true });
  assertEquals(recordsOf(whole).length, 256);
  const cut = await bench.ask(query);
  assertEquals([decode(cut).flag_tc, cut.length <= 1232, recordsOf(cut).length > 20], [true, true, true]);
  assertEquals(recordsOf(cut)[0], recordsOf(whole)[0]);
  assertEquals(bench.asked, ["large.example A udp", "large.example A tcp"]);
  assertEquals(decode(await bench.ask(queryBytes("nowhere.example", "TXT"))).rcode, "NXDOMAIN");
});

Deno.test("a pod whose workload is not known yet gets its answer when it is (ZT-177)", async () => {
  await using bench = new Bench(ZONE);
  bench.mesh.known = false;
  const asking = bench.ask(queryBytes("web", "A"));
  const early = await Promise.race([
    asking.then(() => "answered"),
    new Promise((done) => setTimeout(done, 20, "not yet")),
  ]);
  assertEquals(early, "not yet");
  bench.mesh.known = true;
  assertEquals(recordsOf(await asking), ["web A 10.96.0.10"]);
});
