/** A pod whose DNS is captured, the proxy, and a nameserver on the other side of a veth: for tests of DNS. */
import { parseIp } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { Logger } from "../../base/log.ts";
import { applyPodRules } from "../../cni/pod_rules.ts";
import { addressesToBind, parseListenAddress } from "../../dataplane/agent/dns/listen_address.ts";
import { type Exchanged } from "../../dataplane/agent/dns/forwarder.ts";
import { DnsProxy, type DnsState } from "../../dataplane/agent/dns/proxy.ts";
import { TcpListener } from "../../dataplane/agent/dns/tcp_listener.ts";
import { nameserver, type Zone } from "../../dataplane/agent/dns/testing.ts";
import { UdpListener } from "../../dataplane/agent/dns/udp_listener.ts";
import { PodUpstreamSockets } from "../../dataplane/agent/dns/upstream_sockets.ts";
import { Counter, Histogram } from "../../dataplane/agent/metrics_registry.ts";
import { service, serving, workload } from "../../mesh/testing.ts";
import { bindInet } from "../../os/inet.ts";
import { createAnonymousNetns, type Netns, withinNetns, writeSysctl } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { Poller } from "../../os/poller.ts";
import { spawnWithin } from "../../os/process.ts";

export const POD = { ipv4: "10.57.0.2", ipv6: "fd00:57::2" };
export const UPSTREAM = { ipv4: "10.57.0.1", ipv6: "fd00:57::1" };

const ASK_MS = 15_000, ASK_ATTEMPTS = 5;

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

/** Disposing takes all of it away. */
export class Bench implements AsyncDisposable {
  readonly pod: Netns = createAnonymousNetns();
  readonly mesh = new Mesh();
  readonly asked: string[] = [];
  readonly upstream: Netns = createAnonymousNetns();
  readonly poller = new Poller();
  readonly #listeners = new DisposableStack();
  readonly #stop = new AbortController();
  readonly proxy: DnsProxy;

  /** @param zone what the nameserver knows; undefined: there is none, and the test makes its own. */
  constructor(zone: Zone | undefined) {
    for (const netns of [this.pod, this.upstream]) writeSysctl(netns, "net/ipv6/conf/default/accept_dad", "0");
    using inside = RouteSocket.open(this.pod);
    using outside = RouteSocket.open(this.upstream);
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
    if (zone !== undefined) this.#serve(zone);
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
        timeoutMs: 10_000, // A second question would be counted, and only a fault needs one.
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

  /** Asks as a resolver in the pod does: the nameserver's own address, which the rules redirect; and again after a while. */
  async ask(
    query: Uint8Array<ArrayBuffer>,
    options: { readonly tcp?: boolean; readonly nameserver?: string } = {},
  ): Promise<Uint8Array> {
    const sockets = new PodUpstreamSockets({ netns: this.pod, mark: 0, poller: this.poller });
    const accept = () => ({ code: 0, truncated: false, records: [] });
    const nameserver = parseIp(options.nameserver ?? UPSTREAM.ipv4)!;
    const exchange = { timeoutMs: ASK_MS, accept, signal: this.#stop.signal };
    for (let attempt = 0; attempt < ASK_ATTEMPTS; attempt++) { // A full socket drops datagrams without a word.
      const exchanged: Exchanged | undefined = options.tcp === true
        ? await sockets.exchangeTcp(nameserver, query, exchange)
        : await sockets.exchangeUdp(nameserver, query, exchange);
      if (exchanged !== undefined) return exchanged.bytes;
    }
    throw new Error("the query is not answered");
  }

  /** Lets the proxy do what it has to. */
  turn(): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, 10));
  }

  /** {@link getent} in the pod. */
  getent(...args: string[]): Promise<string[]> {
    return getent(this.pod, UPSTREAM.ipv4, args);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.proxy[Symbol.asyncDispose]();
    this.#listeners.dispose();
    await this.poller[Symbol.asyncDispose]();
    this.pod[Symbol.dispose]();
    this.upstream[Symbol.dispose]();
  }

  /** The nameserver: the proxy's own listeners, with a behaviour that a library writes. */
  #serve(zone: Zone): void {
    const respond = nameserver(zone, (asked, overTcp) => this.asked.push(`${asked} ${overTcp ? "tcp" : "udp"}`));
    const poller = this.poller, now = () => performance.now();
    for (const text of [UPSTREAM.ipv4, UPSTREAM.ipv6]) {
      for (const transport of ["udp", "tcp"] as const) {
        const [ip] = addressesToBind({ ip: parseIp(text)!, port: 53 }, true);
        const options = { transport, mark: 0, reusePort: false };
        const fd = withinNetns(this.upstream, () => bindInet(ip!, 53, options));
        assert(fd >= 0, "the nameserver has its port");
        if (transport === "udp") this.#listeners.use(new UdpListener(fd, 53, { poller, respond }));
        else this.#listeners.use(new TcpListener(fd, { poller, respond, now }));
      }
    }
  }
}

/** What getent, that is the C library's resolver, prints in a namespace. @param timeoutS how long it waits for each answer. @param cgroup the folder of what it runs in. */
export async function getent(
  netns: Netns,
  nameserver: string,
  args: readonly string[],
  timeoutS = 20,
  cgroup?: string,
): Promise<string[]> {
  const settings = Deno.makeTempFileSync(), search = "ns1.svc.cluster.local svc.cluster.local cluster.local";
  Deno.writeTextFileSync(
    settings,
    `nameserver ${nameserver}\nsearch ${search}\noptions timeout:${timeoutS} attempts:1\n`,
  );
  try {
    const enter = cgroup === undefined ? "" : `echo $$ > ${cgroup}/cgroup.procs && `;
    const script = `${enter}mount --bind ${settings} /etc/resolv.conf && exec getent ${args.join(" ")}`;
    const child = spawnWithin(netns, "unshare", {
      args: ["--mount", "sh", "-c", script],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
    const { stdout, stderr } = await child.output();
    assert(stderr.length === 0, new TextDecoder().decode(stderr));
    return new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "");
  } finally {
    Deno.removeSync(settings);
  }
}
