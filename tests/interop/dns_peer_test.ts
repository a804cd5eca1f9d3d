/**
 * The DNS of a ztunnel of another make and ours, side by side: the same mesh, the same nameserver, the same questions.
 * Needs root and AMBIT_PEER_ZTUNNEL, the path of its program; without the variable the test is shown as ignored.
 */
import { assertEquals } from "@std/assert";
import { parseIp } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { ignore } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { parseListenAddress } from "../../dataplane/agent/dns/listen_address.ts";
import { DnsProxy } from "../../dataplane/agent/dns/proxy.ts";
import { parseResolvConf } from "../../dataplane/agent/dns/resolv_conf.ts";
import { a, decode, nameserver, queryBytes, type Zone } from "../../dataplane/agent/dns/testing.ts";
import { UdpListener } from "../../dataplane/agent/dns/udp_listener.ts";
import { PodUpstreamSockets } from "../../dataplane/agent/dns/upstream_sockets.ts";
import { applyLocal, parseLocal } from "../../dataplane/agent/local_file.ts";
import { Counter, Histogram } from "../../dataplane/agent/metrics_registry.ts";
import { MeshState } from "../../dataplane/agent/state.ts";
import { bindInet } from "../../os/inet.ts";
import { createAnonymousNetns, type Netns, withinNetns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { Poller } from "../../os/poller.ts";
import { spawnWithin } from "../../os/process.ts";

const PEER = Deno.env.get("AMBIT_PEER_ZTUNNEL");
const LOOPBACK = parseIp("127.0.0.1")!, PORT = 15053, START_MS = 120_000;
const SEARCH = "shop.svc.cluster.local svc.cluster.local cluster.local corp.example";
const CLIENT = { namespace: "shop", name: "client", serviceAccount: "client" };

const service = (namespace: string, hostname: string, vips: string, more = "") =>
  `- { name: ${JSON.stringify(hostname)}, namespace: ${namespace}, hostname: ${JSON.stringify(hostname)}, ` +
  `vips: [${vips.split(" ").filter((vip) => vip !== "").map((vip) => JSON.stringify(`/${vip}`)).join(", ")}], ` +
  `ports: { 80: 8080 }${more} }`;

const YAML = `workloads:
- { uid: client, name: client, namespace: shop, serviceAccount: client, workloadIps: [10.9.0.1], services: {}, node: "" }
- { uid: set-0, name: set-0, namespace: shop, serviceAccount: set, workloadIps: [10.9.0.2, "fd00::2"], node: "",
    services: { "shop/sets.shop.svc.cluster.local": { 80: 8080 } } }
policies: []
services:
${
  [
    service("shop", "web.shop.svc.cluster.local", "10.0.0.1 fd00:1::1"),
    service("bank", "till.bank.svc.cluster.local", "10.0.0.2"),
    service("shop", "www.example.com", "192.0.2.1"),
    service("bank", "all.example", "192.0.2.20"),
    service("shop", "all.example", "192.0.2.22"),
    service("bank", "chosen.example", "192.0.2.30"),
    service("wood", "chosen.example", "192.0.2.31", ", canonical: true"),
    service("platform", "chosen.example", "192.0.2.32"),
    service("bank", "preferred.example", "192.0.2.40"),
    service("platform", "preferred.example", "192.0.2.41"),
    service("shop", "*.wild.example", "192.0.2.50"),
    service("shop", "sets.shop.svc.cluster.local", ""),
    service("shop", "outside.example", ""),
  ].join("\n")
}
`;

const ZONE: Zone = new Map([
  ["www.elsewhere.example a", [a("www.elsewhere.example", "198.51.100.1")]],
  ["web.shop.svc.cluster.local txt", [{ name: "web.shop.svc.cluster.local", type: "TXT", ttl: 5, data: "text" }]],
]);

const NAMES =
  ("web web.shop web.shop.svc web.shop.svc.cluster.local WEB.Shop till till.bank www.example.com all.example " +
    "www.example.com.shop.svc.cluster.local www.example.com.corp.example web.shop.shop.svc.cluster.local " +
    "www.example.com.cluster.local web.corp.example chosen.example preferred.example one.wild.example wild.example " +
    "one.two.wild.example one.wild.example.shop.svc.cluster.local sets sets.shop set-0.sets.shop.svc.cluster.local " +
    "outside.example nowhere.example www.elsewhere.example").split(" ");

/** What an answer says, but for the order of addresses, TTLs that run down, and what only we add. */
function told(bytes: Uint8Array): unknown {
  const { id, type, rcode, flag_aa, flag_ra, flag_rd, flag_tc, questions, answers, additionals } = decode(bytes);
  return {
    header: { id, type, rcode, flag_aa, flag_ra, flag_rd, flag_tc },
    questions: questions.map(({ name, type }) => `${name} ${type}`),
    answers: answers.map(({ name, type, ttl, data }) => `${name} ${type} ${flag_aa ? ttl : ""} ${String(data)}`).sort(),
    edns: rcode === "NOERROR" ? additionals.map(({ type, udpPayloadSize }) => `${type} ${udpPayloadSize}`) : [],
  };
}

/** A namespace with loopback, a nameserver on it, and something that answers on port 15053. */
class Side implements Disposable {
  readonly netns: Netns = createAnonymousNetns();
  readonly #stack = new DisposableStack();
  readonly #poller: Poller;

  constructor(poller: Poller) {
    this.#poller = poller;
    using routes = RouteSocket.open(this.netns);
    routes.setUp("lo");
    const options = { transport: "udp", mark: 0, reusePort: false } as const;
    const fd = withinNetns(this.netns, () => bindInet(LOOPBACK, 53, options));
    this.#stack.use(new UdpListener(fd, 53, { poller, respond: nameserver(ZONE) }));
  }

  /** @returns undefined when nobody answers in time. */
  async ask(query: Uint8Array<ArrayBuffer>, tcp: boolean, timeoutMs = 3_000): Promise<Uint8Array | undefined> {
    const sockets = new PodUpstreamSockets({ netns: this.netns, mark: 0, poller: this.#poller, port: PORT });
    const accept = () => ({ code: 0, truncated: false, records: [] });
    const options = { timeoutMs, accept, signal: new AbortController().signal };
    const exchanged = tcp
      ? await sockets.exchangeTcp(LOOPBACK, query, options)
      : await sockets.exchangeUdp(LOOPBACK, query, options);
    return exchanged?.bytes;
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
    this.netns[Symbol.dispose]();
  }
}

function ourProxy(netns: Netns): DnsProxy {
  const state = new MeshState("");
  applyLocal(state, parseLocal(YAML, "the test's mesh"));
  const settings = parseResolvConf(`search ${SEARCH}\nnameserver 127.0.0.1\n`);
  const counter = () => new Counter("c", { help: "" });
  const proxy = new DnsProxy({
    state,
    listen: parseListenAddress(`localhost:${PORT}`),
    answers: { clusterDomain: "cluster.local", search: settings.search, preferredNamespace: "platform", ipv6: true },
    upstreams: () => settings,
    mark: 0,
    reusePort: false,
    metrics: {
      dnsRequests: counter(),
      dnsUpstreamRequests: counter(),
      dnsUpstreamFailures: counter(),
      dnsUpstreamSeconds: new Histogram("h", { help: "" }, [1]),
    },
    log: new Logger("dns", { sink: () => {} }),
  });
  proxy.addPod("client", CLIENT, netns.duplicate());
  return proxy;
}

function peerProcess(netns: Netns, resolvConf: string): Deno.ChildProcess {
  return spawnWithin(netns, "unshare", {
    args: ["--mount", "sh", "-c", `mount --bind ${resolvConf} /etc/resolv.conf && exec ${PEER} proxy ztunnel`],
    clearEnv: true,
    env: {
      PATH: Deno.env.get("PATH")!,
      PROXY_MODE: "dedicated",
      PROXY_WORKLOAD_INFO: `${CLIENT.namespace}/${CLIENT.name}/${CLIENT.serviceAccount}`,
      LOCAL_XDS: YAML,
      XDS_ADDRESS: "",
      CA_ADDRESS: "https://127.0.0.1:1", // Nobody needs a certificate here.
      CA_ROOT_CA: "SYSTEM",
      ISTIO_META_DNS_CAPTURE: "true",
      PREFERED_SERVICE_NAMESPACE: "platform",
      RUST_LOG: "warn",
    },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  });
}

Deno.test({
  name: "both makes of ztunnel give the same answers to the same questions (ZT-176 to ZT-187)",
  ignore: PEER === undefined,
  async fn() {
    const resolvConf = Deno.makeTempFileSync();
    Deno.writeTextFileSync(resolvConf, `search ${SEARCH}\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n`);
    await using poller = new Poller();
    using ours = new Side(poller);
    using theirs = new Side(poller);
    await using _proxy = ourProxy(ours.netns);
    const peer = peerProcess(theirs.netns, resolvConf);
    try {
      const deadline = performance.now() + START_MS;
      while (await theirs.ask(queryBytes("web", "A"), false, 200) === undefined) {
        assert(performance.now() < deadline, "the other make serves");
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      const differences: unknown[] = [];
      const compare = async (what: string, query: Uint8Array<ArrayBuffer>, tcp: boolean) => {
        const [our, their] = await Promise.all([ours.ask(query, tcp), theirs.ask(query, tcp)]);
        const [said, expected] = [our, their].map((bytes) => bytes === undefined ? "nothing" : told(bytes));
        if (JSON.stringify(said) !== JSON.stringify(expected)) differences.push({ what, said, expected });
      };
      for (const name of NAMES) {
        for (const type of ["A", "AAAA"]) {
          await compare(`${name} ${type}`, queryBytes(name, type), false);
          await compare(`${name} ${type} by TCP`, queryBytes(name, type, { edns: 1232 }), true);
        }
      }
      await compare("another type", queryBytes("web.shop.svc.cluster.local", "TXT"), false);
      await compare("NOTIFY", queryBytes("web", "A", { opcode: "NOTIFY" }), false);
      const response = queryBytes("web", "A");
      response[2]! |= 0x80;
      await compare("a response by UDP", response, false);
      await compare("a response by TCP", response, true);
      assertEquals(differences, []);
    } finally {
      try {
        peer.kill("SIGKILL");
      } catch (error) {
        ignore(error, "it has ended by itself, and what was asked of it has failed");
      }
      await peer.status;
      Deno.removeSync(resolvConf);
    }
  },
});
