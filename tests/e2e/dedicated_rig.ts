/** Two pods that no node agent knows, each with room for a ztunnel of its own, and a control plane. */
import { assert } from "@std/assert";
import { CAPTURE_PORTS, MARK_MASK, ZTUNNEL_MARK } from "../../cni/nft_rules.ts";
import { parseMetrics, sumOf } from "../../demo/lab/metrics.ts";
import { CONTROL_IPS, Network, type NodeName, podAddresses, type PodPlace } from "../../demo/lab/network.ts";
import { Probe } from "../../demo/lab/probe.ts";
import { denoProgram, Program } from "../../demo/lab/program.ts";
import { until } from "../../demo/lab/until.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import type { FirewallTable, Statement } from "../../os/netlink/nft_model.ts";

const ENTRY = new URL("../../main.ts", import.meta.url);
export const STARTED_MS = 120_000, CONTROL_PORT = 15012, APP_PORT = 8080;
const NODES = { client: "node-a", server: "node-b", gateway: "node-b" } as const satisfies Record<string, NodeName>;
export type Name = keyof typeof NODES;
const TWO: readonly Name[] = ["client", "server"];

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
export class Rig implements AsyncDisposable {
  readonly network: Network;
  readonly folder: string;
  readonly pods: Readonly<Record<Name, { place: PodPlace; probe: Probe }>>;
  readonly #names: readonly Name[];
  readonly #cleanup: AsyncDisposableStack;

  /** @param names the pods that there are. */
  constructor(names: readonly Name[] = TWO) {
    this.#names = names;
    assert(Deno.uid() === 0, "network namespaces need root: run `deno task e2e` as root");
    const cleanup = this.#cleanup = new AsyncDisposableStack();
    const folder = this.folder = Deno.makeTempDirSync({ prefix: "ambit-dedicated-" });
    cleanup.defer(() => Deno.remove(folder, { recursive: true }));
    this.network = cleanup.use(new Network("dedicated"));
    const pod = (name: Name) => {
      const place = this.network.addPod(name, {
        node: NODES[name],
        ...podAddresses(NODES[name], 20 + names.indexOf(name)),
      });
      using firewall = FirewallSocket.open(place.netns);
      firewall.replace([redirection()]);
      return { place, probe: cleanup.use(new Probe(name, place)) };
    };
    this.pods = Object.fromEntries(names.map((name) => [name, pod(name)])) as Rig["pods"];
  }

  async start(): Promise<void> {
    Deno.mkdirSync(`${this.folder}/config`);
    for (const name of this.#names) {
      Deno.writeTextFileSync(`${this.folder}/config/${name}.yaml`, podYaml(name, this.pods[name].place));
    }
    const flags = ["--config-dir", `${this.folder}/config`, "--state-dir", `${this.folder}/state`];
    flags.push("--secure-grpc-address", `0.0.0.0:${CONTROL_PORT}`, "--server-hosts", CONTROL_IPS.join(","));
    const istiod = new Program("istiod", this.network.control, denoProgram(ENTRY, ["istiod", ...flags]));
    this.#cleanup.use(istiod);
    await istiod.line("serving", (line) => line.includes("istiod is ready"), STARTED_MS);
    await Promise.all(this.#names.map((name) => this.#token(name)));
  }

  /** An application in the server's pod that takes PROXY headers, and says what it heard. The caller ends it. */
  async proxyApplication(port: number): Promise<Program> {
    const application = denoProgram(new URL("./programs/proxy_application.ts", import.meta.url), [String(port)]);
    const program = new Program("application", this.pods.server.place, application);
    await program.line("its port", (line) => line === "listening");
    return program;
  }

  /** In the gateway's pod, what pipes its tunnels on to `host`. The caller ends it. */
  async forwarder(port: number, host: string, target: number): Promise<Program> {
    const args = [String(port), host, String(target)];
    const program = denoProgram(new URL("./programs/tcp_forwarder.ts", import.meta.url), args);
    const forwarder = new Program("forwarder", this.pods.gateway.place, program);
    await forwarder.line("its port", (line) => line === "listening");
    return forwarder;
  }

  /** Ours, or the one of another make at `path`. The caller ends it. */
  ztunnel(name: Name, environment: Readonly<Record<string, string>> = {}, path?: string): Program {
    const control = `https://${this.network.nodes[NODES[name]].controlIp}:${CONTROL_PORT}`;
    return new Program(`ztunnel of ${name}`, this.pods[name].place, {
      ...(path === undefined ? denoProgram(ENTRY, ["ztunnel"]) : { command: path, args: ["proxy", "ztunnel"] }),
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
      const { status, body } = await this.page(name, ":15021/healthz/ready");
      assert(status === 200, `${body}\n${program.tail()}`); // Becomes the cause, should it never be.
      return true;
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
metadata: { name: ${name}, namespace: shop, labels: { app: ${name} },
  annotations: { ambient.istio.io/redirection: enabled } }
spec: { nodeName: ${node}, serviceAccountName: ${name}, containers: [{ name: app }] }
status: { phase: Running, podIPs: [{ ip: ${ipv4} }], conditions: [{ type: Ready, status: "True" }] }
`;
}

/** The same two workloads, as a local file has them. */
export function localYaml(rig: Rig, { policies = "[]", server = "" } = {}): string {
  const workload = (name: Name, more = "") =>
    `- { uid: ${name}, name: ${name}, namespace: shop, serviceAccount: ${name}, protocol: HBONE, services: {},
    trustDomain: cluster.local, workloadIps: [${rig.pods[name].place.ipv4}, "${rig.pods[name].place.ipv6}"] ${more}}`;
  return `workloads:\n${workload("client")}\n${workload("server", server)}\npolicies: ${policies}\n`;
}
