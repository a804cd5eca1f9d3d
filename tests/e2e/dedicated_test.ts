/** Dedicated mode: two processes, each for the one workload of its network namespace, without a node agent (ZT-001). */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { CAPTURE_PORTS, MARK_MASK, ZTUNNEL_MARK } from "../../cni/nft_rules.ts";
import { parseMetrics, sumOf } from "../../demo/lab/metrics.ts";
import { CONTROL_IPS, Network, type NodeName, podAddresses, type PodPlace } from "../../demo/lab/network.ts";
import { Probe } from "../../demo/lab/probe.ts";
import { denoProgram, Program } from "../../demo/lab/program.ts";
import { until } from "../../demo/lab/until.ts";
import { ipToBytes, parseIp } from "../../base/address.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import type { FirewallTable, Statement } from "../../os/netlink/nft_model.ts";

const ENTRY = new URL("../../main.ts", import.meta.url);
const STARTED_MS = 40_000, CONTROL_PORT = 15012, APP_PORT = 8080;
const NODES = { client: "node-a", server: "node-b" } as const satisfies Record<string, NodeName>;
type Name = keyof typeof NODES;

/** What leaves goes to the outbound listener, what arrives to the plaintext one; ztunnel, istiod and loopback pass. */
function redirection(): FirewallTable {
  const port = (port: number, negated = false): Statement => (
    { kind: "port", transport: "tcp", side: "destination", port, negated }
  );
  const pass = (...statements: Statement[]) => ({
    chain: "out",
    statements: [...statements, { kind: "return" }] as const,
  });
  const loopback: Statement = { kind: "address", family: "ipv4", side: "destination", ip: "127.0.0.1" };
  return {
    name: "dedicated",
    chains: [
      { name: "out", base: { type: "nat", hook: "output", priority: -100 } },
      { name: "in", base: { type: "nat", hook: "prerouting", priority: -100 } },
    ],
    rules: [
      pass(port(CONTROL_PORT)),
      pass({ kind: "mark", of: "packet", mask: MARK_MASK, value: ZTUNNEL_MARK }),
      pass(loopback),
      { chain: "out", statements: [{ kind: "transport", transport: "tcp" }, redirect(CAPTURE_PORTS.outbound)] },
      { chain: "in", statements: [port(CAPTURE_PORTS.inboundHbone, true), redirect(CAPTURE_PORTS.inboundPlaintext)] },
    ],
  };
}

const redirect = (port: number): Statement => ({ kind: "redirect", port });

/** A control plane, and two pods that no node agent knows. */
class Rig implements AsyncDisposable {
  readonly network: Network;
  readonly folder: string;
  readonly pods: Readonly<Record<Name, { place: PodPlace; probe: Probe }>>;
  readonly #cleanup: AsyncDisposableStack;

  constructor() {
    assert(Deno.uid() === 0, "network namespaces need root: run `deno task e2e` as root");
    const cleanup = this.#cleanup = new AsyncDisposableStack();
    const folder = this.folder = Deno.makeTempDirSync({ prefix: "ambit-dedicated-" });
    cleanup.defer(() => Deno.remove(folder, { recursive: true }));
    this.network = cleanup.use(new Network("dedicated"));
    const pod = (name: Name) => {
      const place = this.network.addPod(name, { node: NODES[name], ...podAddresses(NODES[name], 20) });
      using firewall = FirewallSocket.open(place.netns);
      firewall.replace([redirection()]);
      return { place, probe: cleanup.use(new Probe(name, place)) };
    };
    this.pods = { client: pod("client"), server: pod("server") };
  }

  async start(): Promise<void> {
    Deno.mkdirSync(`${this.folder}/config`);
    for (const name of ["client", "server"] as const) {
      Deno.writeTextFileSync(`${this.folder}/config/${name}.yaml`, podYaml(name, this.pods[name].place));
    }
    const flags = ["--config-dir", `${this.folder}/config`, "--state-dir", `${this.folder}/state`];
    flags.push("--secure-grpc-address", `0.0.0.0:${CONTROL_PORT}`, "--server-hosts", CONTROL_IPS.join(","));
    const istiod = new Program("istiod", this.network.control, denoProgram(ENTRY, ["istiod", ...flags]));
    this.#cleanup.use(istiod);
    await istiod.line("serving", (line) => line.includes("istiod is ready"), STARTED_MS);
    await Promise.all([this.#token("client"), this.#token("server")]);
  }

  /** The caller ends it. */
  ztunnel(name: Name, environment: Readonly<Record<string, string>> = {}): Program {
    const control = `https://${this.network.nodes[NODES[name]].controlIp}:${CONTROL_PORT}`;
    return new Program(`ztunnel of ${name}`, this.pods[name].place, {
      ...denoProgram(ENTRY, ["ztunnel"]),
      environment: {
        PROXY_MODE: "dedicated",
        PROXY_WORKLOAD_INFO: `shop/${name}/${name}`,
        PACKET_MARK: String(ZTUNNEL_MARK),
        ENABLE_ORIG_SRC: "false",
        XDS_ADDRESS: control,
        CA_ADDRESS: control,
        XDS_ROOT_CA: `${this.folder}/state/root-cert.pem`,
        CA_ROOT_CA: `${this.folder}/state/root-cert.pem`,
        AUTH_TOKEN: `${this.folder}/${name}.token`,
        ZTUNNEL_WORKER_THREADS: "2",
        ISTIO_META_DNS_CAPTURE: "false",
        ...environment,
      },
    });
  }

  /** The answer of a page of a ztunnel, reached from beside it. */
  async page(name: Name, path: `:${string}`): Promise<{ status: number; body: string }> {
    return await this.pods[name].probe.do("request", { url: `http://127.0.0.1${path}` });
  }

  async ready(name: Name, program: Program): Promise<void> {
    await until(`${program.name} is ready`, STARTED_MS, async () => {
      assert(!program.ended, program.tail());
      return (await this.page(name, ":15021/healthz/ready")).status === 200;
    });
  }

  /** What the server's application answers to the client's. */
  async say(text: string): Promise<string> {
    const host = this.pods.server.place.ipv4;
    return (await this.pods.client.probe.do("line", { host, port: APP_PORT, text })).reply;
  }

  async counted(name: Name, labels: Readonly<Record<string, string>>): Promise<number> {
    return sumOf(
      parseMetrics((await this.page(name, ":15020/metrics")).body),
      "istio_tcp_connections_opened_total",
      labels,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanup.disposeAsync();
  }

  /** A token of the workload itself: it asks for its own certificate, and for nobody else's. */
  async #token(name: Name): Promise<void> {
    const flags = ["--state-dir", `${this.folder}/state`, "--namespace", "shop", "--service-account", name];
    const { command, args } = denoProgram(ENTRY, ["token", ...flags, "--pod", name, "--node", NODES[name]]);
    const { success, stdout, stderr } = await new Deno.Command(command, { args, stdin: "null" }).output();
    assert(success, new TextDecoder().decode(stderr));
    Deno.writeFileSync(`${this.folder}/${name}.token`, stdout, { mode: 0o600 });
  }
}

function podYaml(name: Name, { ipv4, node }: PodPlace): string {
  return `apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, annotations: { ambient.istio.io/redirection: enabled } }
spec: { nodeName: ${node}, serviceAccountName: ${name}, containers: [{ name: app }] }
status: { phase: Running, podIPs: [{ ip: ${ipv4} }], conditions: [{ type: Ready, status: "True" }] }
`;
}

/** The same two workloads, as a local file has them. */
function localYaml(rig: Rig, { policies = "[]", server = "" } = {}): string {
  const workload = (name: Name, more = "") =>
    `- { uid: ${name}, name: ${name}, namespace: shop, serviceAccount: ${name}, protocol: HBONE, services: {},
    workloadIps: [${rig.pods[name].place.ipv4}, "${rig.pods[name].place.ipv6}"] ${more}}`;
  return `workloads:\n${workload("client")}\n${workload("server", server)}\npolicies: ${policies}\n`;
}

const textHex = (text: string) => new TextEncoder().encode(text).toHex();
const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");

const MUTUAL_TLS = {
  connection_security_policy: "mutual_tls",
  source_principal: "spiffe://cluster.local/ns/shop/sa/client",
  destination_principal: "spiffe://cluster.local/ns/shop/sa/server",
};

Deno.test("two dedicated ztunnels carry their applications' TCP by mutual TLS (ZT-001, ZT-002, ZT-150, ZT-221)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
  await using client = rig.ztunnel("client");
  await using server = rig.ztunnel("server");
  await Promise.all([rig.ready("client", client), rig.ready("server", server)]);
  assertStringIncludes(await rig.say("hello"), "hello");
  await until(
    "both have counted it",
    5_000,
    async () =>
      await rig.counted("client", { ...MUTUAL_TLS, reporter: "source" }) === 1 &&
      await rig.counted("server", { ...MUTUAL_TLS, reporter: "destination" }) === 1,
  );
  const dump = JSON.parse((await rig.page("server", ":15000/config_dump")).body);
  assertEquals(dump.workloadState, undefined); // ZT-208
  assertEquals(dump.config.proxyMode, "dedicated");
  assertEquals(dump.certificates.map((it: { identity: string }) => it.identity), [
    "spiffe://cluster.local/ns/shop/sa/server", // Its own, and no other's.
  ]);
});

Deno.test("a mesh of local files needs istiod for certificates alone, and obeys the file's policies (ZT-009, ZT-145)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
  const path = `${rig.folder}/mesh.yaml`;
  Deno.writeTextFileSync(path, localYaml(rig));
  await using client = rig.ztunnel("client", { XDS_ADDRESS: "", LOCAL_XDS_PATH: path });
  {
    await using server = rig.ztunnel("server", { XDS_ADDRESS: "", LOCAL_XDS: localYaml(rig) });
    await Promise.all([rig.ready("client", client), rig.ready("server", server)]);
    assertStringIncludes(await rig.say("by file"), "by file");
    assertEquals(await rig.counted("client", { ...MUTUAL_TLS, reporter: "source" }), 1);
    const dump = JSON.parse((await rig.page("client", ":15000/config_dump")).body);
    assertEquals(dump.staticConfig.workloads.map((it: { uid: string }) => it.uid), ["client", "server"]);
  }
  const policy = `[{ name: not-client, namespace: shop, scope: Namespace, action: Deny, dryRun: false,
    rules: [[[{ principals: [!Exact cluster.local/ns/shop/sa/client] }]]] }]`;
  await using server = rig.ztunnel("server", { XDS_ADDRESS: "", LOCAL_XDS: localYaml(rig, { policies: policy }) });
  await rig.ready("server", server);
  const host = rig.pods.server.place.ipv4;
  await until("the server refuses by policy", 20_000, async () => {
    const { failure } = await rig.pods.client.probe.attempt("line", { host, port: APP_PORT, text: "no" });
    return failure !== undefined && server.lines.some((line) => line.includes("not-client"));
  });
});

Deno.test("an application is told by a PROXY header who speaks, over both families (ZT-095, ZT-097)", async () => {
  await using rig = new Rig();
  await rig.start();
  const tunnel = ", applicationTunnel: { protocol: PROXY, port: 9100 } ";
  const environment = { XDS_ADDRESS: "", LOCAL_XDS: localYaml(rig, { server: tunnel }) };
  const application = denoProgram(new URL("./programs/proxy_application.ts", import.meta.url), ["9100"]);
  await using program = new Program("application", rig.pods.server.place, application);
  await program.line("its port", (line) => line === "listening");
  await using client = rig.ztunnel("client", environment);
  await using server = rig.ztunnel("server", environment);
  await Promise.all([rig.ready("client", client), rig.ready("server", server)]);
  const identity = MUTUAL_TLS.source_principal, tlv = `d0${hex(identity.length, 4)}${textHex(identity)}`;
  const hexOf = (ip: string) => ipToBytes(parseIp(ip)!).toHex();
  for (const [family, protocol] of [["ipv4", "11"], ["ipv6", "21"]] as const) {
    const [from, to] = [rig.pods.client.place[family], rig.pods.server.place[family]];
    const { reply } = await rig.pods.client.probe.do("line", { host: to, port: APP_PORT, text: family });
    const [reachedFrom, heard] = reply.split(" ");
    assertEquals(reachedFrom, family === "ipv4" ? "127.0.0.1" : "::1");
    const addresses = hexOf(from) + hexOf(to);
    const length = hex(addresses.length / 2 + 4 + tlv.length / 2, 4);
    const sourcePort = heard!.slice(32 + addresses.length, 36 + addresses.length);
    const header = `0d0a0d0a000d0a515549540a21${protocol}${length}${addresses}${sourcePort}${hex(APP_PORT, 4)}${tlv}`;
    assertEquals(heard, header + textHex(`${family}\n`));
  }
});

Deno.test("a SOCKS client in the namespace reaches a workload by mutual TLS (ZT-189, ZT-190)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
  const environment = { XDS_ADDRESS: "", LOCAL_XDS: localYaml(rig), UNSTABLE_ENABLE_SOCKS5: "true" };
  await using client = rig.ztunnel("client", environment);
  await using server = rig.ztunnel("server", environment);
  await Promise.all([rig.ready("client", client), rig.ready("server", server)]);
  const request = `05010001${ipToBytes(parseIp(rig.pods.server.place.ipv4)!).toHex()}${hex(APP_PORT, 4)}`;
  const target = { host: "127.0.0.1", port: 15080, hex: `050100${request}${textHex("by socks\n")}`, waitMs: 500 };
  const { receivedBytes } = await rig.pods.client.probe.do("raw", target);
  const reply = `YOU ${rig.pods.server.place.ipv4} by socks\n`; // Sources are not kept here: ztunnel's own address.
  assertEquals(receivedBytes, 2 + 10 + reply.length);
  assertEquals(await rig.counted("client", { ...MUTUAL_TLS, reporter: "source" }), 1);
});

Deno.test("a dedicated ztunnel takes its ports at once, and accepts when it knows the mesh (ZT-221, ZT-222)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.server.probe.do("listen", { port: APP_PORT, kind: "line" });
  await using client = rig.ztunnel("client", { XDS_ADDRESS: "https://127.0.0.1:1" });
  const page = await until("the ports are taken", STARTED_MS, async () => {
    const page = await rig.page("client", ":15021/healthz/ready");
    return page.body.includes("proxy") ? undefined : page;
  });
  assertEquals([page.status, page.body.trim()], [500, "not ready, pending: state manager"]);
  const target = { host: rig.pods.server.place.ipv4, port: APP_PORT };
  const { handle } = await rig.pods.client.probe.do("open", target); // Waits in the backlog.
  assertEquals((await rig.pods.client.probe.do("ended", { handle, timeoutMs: 300 })).ending, "open");
  assert(!client.ended, client.tail());
});

Deno.test("a ztunnel without its TCP proxy leaves the ports of that alone (ZT-008)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.client.probe.do("listen", { port: CAPTURE_PORTS.outbound, kind: "line" });
  await using client = rig.ztunnel("client", { ENABLE_PROXY: "false", ISTIO_META_DNS_CAPTURE: "true" });
  await rig.ready("client", client);
});

Deno.test("a dedicated ztunnel ends with an error where a port is taken, or its settings are wrong (ZT-002, ZT-004)", async () => {
  await using rig = new Rig();
  await rig.start();
  await rig.pods.client.probe.do("listen", { port: CAPTURE_PORTS.inboundPlaintext, kind: "line" });
  const cases: readonly (readonly [environment: Record<string, string>, told: string])[] = [
    [{}, `cannot listen on port ${CAPTURE_PORTS.inboundPlaintext}`],
    [{ PROXY_WORKLOAD_INFO: "shop/client" }, "must match the format 'namespace/name/service-account'"],
    [{ LOCAL_XDS: "pods: []" }, "pods: no such field"],
    [{ ENABLE_PROXY: "false" }, "ztunnel run without any servers enabled"],
  ];
  for (const [environment, told] of cases) {
    await using program = rig.ztunnel("client", environment);
    const { code } = await program.status;
    await until(told, 2_000, () => program.tail().includes(told));
    assert(code !== 0, told);
  }
});
