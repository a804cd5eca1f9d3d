/** Two bare nodes whose workloads are in the hosts' own namespaces: control groups, files, units, and what becomes of them. */
import { assert, assertEquals } from "@std/assert";
import { askNodeAgent } from "../../cli/enrol_client.ts";
import type { Cgroup } from "../../cni/bare/cgroups.ts";
import { Mesh, type MeshOptions } from "../../demo/lab/mesh.ts";
import { sumOf } from "../../demo/lab/metrics.ts";
import { type NodeName, sweepLeftovers, WIRE } from "../../demo/lab/network.ts";
import type { LabNode } from "../../demo/lab/node.ts";
import { Probe } from "../../demo/lab/probe.ts";
import { until } from "../../demo/lab/until.ts";
import { Wiretap } from "../../demo/lab/wiretap.ts";
import { policyYaml, serviceYaml } from "../../demo/lab/yaml.ts";
import type { NodeStatus } from "../../mesh/enrolment.ts";
import { getent } from "./dns_bench.ts";
import { ScratchCgroups } from "./scratch_cgroup.ts";

const PORT = 7000, MARKER = "ambit-bare-secret";

/** A workload of a host: an entry in the mesh's configuration, a control group, and a program in it. */
class Bare {
  readonly mesh: Mesh;
  readonly cgroups: ScratchCgroups;

  constructor(mesh: Mesh, cgroups: ScratchCgroups) {
    this.mesh = mesh;
    this.cgroups = cgroups;
  }

  ip(node: NodeName): string {
    return this.mesh.network.nodes[node].wireIp;
  }

  async describe(name: string, node: NodeName, serviceAccount = name): Promise<void> {
    this.mesh.writeConfig(`bare-${name}.yaml`, podAt(name, node, serviceAccount, this.ip(node)));
    await this.mesh.seen(`workload ${name}`, (dump) => dump.workloads.some((it) => it.name === name));
  }

  /** A program of the host, in the group from before it opens a socket. */
  async start(name: string, node: NodeName, cgroup: Cgroup): Promise<Probe> {
    const probe = this.mesh.defer(() => new Probe(name, this.mesh.network.nodes[node]));
    this.cgroups.put(cgroup, probe.pid);
    await probe.do("line", { host: "127.0.0.1", port: 1, text: "" }).catch(() => {}); // It runs.
    return probe;
  }
}

function podAt(name: string, node: NodeName, serviceAccount: string, ip: string): string {
  return `apiVersion: v1
kind: Pod
metadata:
  name: ${name}
  namespace: bare
  labels: { app: ${name} }
  annotations: { ambient.istio.io/redirection: enabled }
spec:
  nodeName: ${node}
  serviceAccountName: ${serviceAccount}
  containers: [{ name: app }]
status:
  phase: Running
  podIPs: [{ ip: ${ip} }]
  conditions: [{ type: Ready, status: "True" }]
`;
}

const enrol = (node: LabNode, body: Record<string, unknown>) =>
  askNodeAgent(node.enrolSocket, { method: "POST", path: "/enrol", body: { namespace: "bare", ...body } });
const unenrol = (node: LabNode, target: string) =>
  askNodeAgent(node.enrolSocket, { method: "POST", path: "/unenrol", body: { target } });
const status = async (node: LabNode) =>
  await askNodeAgent(node.enrolSocket, { method: "GET", path: "/status" }) as NodeStatus;

/** Connections that both sides counted as mutual TLS between the two accounts. */
async function mutualTls(mesh: Mesh, source: string, destination: string): Promise<number> {
  const labels = {
    connection_security_policy: "mutual_tls",
    source_principal: `spiffe://cluster.local/ns/bare/sa/${source}`,
    destination_principal: `spiffe://cluster.local/ns/bare/sa/${destination}`,
  };
  const sides = [["node-a", "source"], ["node-b", "destination"]] as const;
  const counts = await Promise.all(
    sides.map(async ([node, reporter]) =>
      sumOf(await mesh.nodes[node].metrics(), "istio_tcp_connections_opened_total", { ...labels, reporter })
    ),
  );
  return Math.min(...counts);
}

function bareTest(name: string, run: (bare: Bare) => Promise<void>, options: Partial<MeshOptions> = {}): void {
  Deno.test(name, async () => {
    assert(Deno.uid() === 0, "network namespaces need root: run `deno task e2e` as root");
    sweepLeftovers();
    using cgroups = new ScratchCgroups();
    await using mesh = await Mesh.start({ key: "bare", ...options });
    await run(new Bare(mesh, cgroups));
  });
}

bareTest(
  "two bare nodes: what control groups of the hosts say to each other is mutual TLS, and judged (CNI-274, CNI-275, CNI-279)",
  async (bare) => {
    const { mesh, cgroups } = bare, [a, b] = [mesh.nodes["node-a"], mesh.nodes["node-b"]];
    const [clientGroup, serverGroup] = [cgroups.add("client"), cgroups.add("server")];
    await bare.describe("client", "node-a");
    await bare.describe("server", "node-b");
    const client = await bare.start("client", "node-a", clientGroup);
    const server = await bare.start("server", "node-b", serverGroup);
    await server.do("listen", { port: PORT, kind: "line" });
    await server.do("listen", { port: PORT + 1, kind: "line" });
    const target = { host: bare.ip("node-b"), port: PORT }, text = MARKER;
    await enrol(a, { target: `cgroup/${clientGroup.path}`, serviceAccount: "client", name: "client" });
    await enrol(b, {
      target: `cgroup/${serverGroup.path}`,
      serviceAccount: "server",
      name: "server",
      inboundPorts: [PORT],
    });
    await using wiretap = new Wiretap(mesh.network.nodes["node-a"].netns, WIRE, MARKER);
    await until("mutual TLS", 60_000, async () => {
      const { output } = await client.attempt("line", { ...target, text }) as { output?: { reply: string } };
      return output !== undefined && await mutualTls(mesh, "client", "server") > 0;
    });
    assertEquals((await wiretap.seen()).filter((it) => it.markers > 0), [], "nothing was seen in clear");
    // A port that was not declared is nobody's: not even through the tunnel of the port beside it.
    const beside = await client.attempt("line", { host: target.host, port: PORT + 1, text: "x" });
    assert("failure" in beside, "an undeclared port is not reached over the workload's HBONE");
    // Judged by who it is from, also without a tunnel: a program of no group is nobody.
    const from =
      "  action: ALLOW\n  rules: [{ from: [{ source: { principals: [cluster.local/ns/bare/sa/client] } }] }]";
    mesh.writeConfig("policy.yaml", policyYaml("only-client", "bare", from));
    await mesh.seen("the policy", ({ policies }) => policies.some(({ name }) => name === "only-client"));
    await until("the stranger is refused", 60_000, async () => {
      return "failure" in await a.probe.attempt("line", { ...target, text: "stranger" });
    });
    assertEquals((await client.do("line", { ...target, text: "again" })).reply !== "", true);
    // The node agent and ztunnel come back, and it is as before.
    await a.restartCni("SIGKILL");
    await b.restartCni("SIGTERM");
    await client.do("line", { ...target, text: "after the node agents" });
    await b.crashZtunnel();
    const unserved = await client.attempt("line", { ...target, text: "x", timeoutMs: 1_000 });
    assert("failure" in unserved, "captured, and nobody there: not served");
    b.restartZtunnel();
    await b.ztunnelReady();
    await until("served again", 60_000, async () => !("failure" in await client.attempt("line", { ...target, text })));
    const line = await b.takeOver();
    assert(line.includes("taken over"), line);
    await client.do("line", { ...target, text: "after the takeover" });
    assertEquals(
      (await status(a)).pods.map(({ target, state, cgroup, problems }) => ({ target, state, cgroup, problems })),
      [
        { target: `cgroup/${clientGroup.path}`, state: "enrolled", cgroup: clientGroup.path, problems: [] },
      ],
    );
    await unenrol(a, `cgroup/${clientGroup.path}`);
    await unenrol(b, `cgroup/${serverGroup.path}`);
    assertEquals([(await status(a)).pods, (await status(b)).pods], [[], []]);
    const direct = await client.do("line", { ...target, text: "plain again" });
    assert(direct.reply !== "");
  },
);

bareTest(
  "two units of one account share port 15008 of their host: each request finds its own, and nothing else of the host is reached (CNI-275)",
  async (bare) => {
    const { mesh, cgroups } = bare, [a, b] = [mesh.nodes["node-a"], mesh.nodes["node-b"]];
    const [clientGroup, webGroup, apiGroup] = [cgroups.add("client"), cgroups.add("web"), cgroups.add("api")];
    await bare.describe("client", "node-a");
    await bare.describe("web", "node-b", "shared");
    await bare.describe("api", "node-b", "shared");
    const client = await bare.start("client", "node-a", clientGroup);
    const web = await bare.start("web", "node-b", webGroup), api = await bare.start("api", "node-b", apiGroup);
    await web.do("listen", { port: PORT, kind: "line" });
    await api.do("listen", { port: PORT + 1, kind: "line" });
    await api.do("listen", { port: PORT + 2, kind: "line" });
    const host = bare.ip("node-b");
    await enrol(a, { target: `cgroup/${clientGroup.path}`, serviceAccount: "client", name: "client" });
    const own = (name: string, { path }: Cgroup, port: number) =>
      enrol(b, { target: `cgroup/${path}`, serviceAccount: "shared", name, inboundPorts: [port] });
    await own("web", webGroup, PORT);
    await own("api", apiGroup, PORT + 1);
    await until("mutual TLS", 60_000, async () => {
      return !("failure" in await client.attempt("line", { host, port: PORT, text: "x" })) &&
        await mutualTls(mesh, "client", "shared") > 0;
    });
    // Held open, so that one session carries both: whichever of the two workloads accepted it.
    const { handle } = await client.do("open", { host, port: PORT });
    for (let round = 0; round < 5; round++) {
      for (const port of [PORT, PORT + 1]) {
        assert((await client.do("line", { host, port, text: `round ${round}` })).reply !== "");
      }
    }
    assert("failure" in await client.attempt("line", { host, port: PORT + 2, text: "x" }), "nobody declared it");
    await until("all are counted", 60_000, async () => await mutualTls(mesh, "client", "shared") >= 11);
    // The proxy's own ports are for what was redirected there, and for nobody who finds them.
    for (const port of [15100, 15101, 15300, 15301]) {
      assert("failure" in await a.probe.attempt("line", { host, port, text: "x" }), `port ${port} from outside`);
      assert(
        "failure" in await b.probe.attempt("line", { host: "127.0.0.1", port, text: "x" }),
        `port ${port} from the host`,
      );
    }
    const line = await b.takeOver();
    assert(line.includes("taken over"), line);
    assert((await client.do("say", { handle, text: "over the takeover" })).reply !== "", "the connection goes on");
    for (const port of [PORT, PORT + 1]) await client.do("line", { host, port, text: "and new ones" });
    await unenrol(b, `cgroup/${webGroup.path}`);
    await until(
      "api is served on",
      60_000,
      async () => !("failure" in await client.attempt("line", { host, port: PORT + 1, text: "x" })),
    );
  },
);

bareTest(
  "a unit finds services by name, through a killed ztunnel, a takeover and another node agent (CNI-125, CNI-271, CNI-274)",
  async (bare) => {
    const { mesh, cgroups } = bare, a = mesh.nodes["node-a"], group = cgroups.add("client");
    await bare.describe("client", "node-a");
    mesh.writeConfig(
      "service.yaml",
      serviceYaml({ name: "web", namespace: "bare", addresses: ["10.96.7.7"], port: 80, targetPort: 8080 }),
    );
    await mesh.seen("the service", (dump) => JSON.stringify(dump).includes("web.bare.svc.cluster.local"));
    // The host's own resolver, where nobody is: what is answered is answered by ztunnel.
    const look = async (timeoutS?: number) =>
      (await getent(mesh.network.nodes["node-a"].netns, "127.0.0.53", ["ahostsv4", "web.bare"], timeoutS, folder))[0]
        ?.split(/\s+/)[0];
    const folder = `${cgroups.root}/${group.path}`,
      request = { target: `cgroup/${group.path}`, serviceAccount: "client" };
    await enrol(a, { ...request, name: "client" });
    assertEquals(await look(1), undefined, "not captured: not asked for");
    await enrol(a, { ...request, name: "client", dnsCapture: true });
    assertEquals(await look(), "10.96.7.7");
    await a.restartCni("SIGKILL");
    assertEquals(await look(), "10.96.7.7");
    await a.crashZtunnel();
    const asked = look(); // It waits in the socket that the node agent holds.
    a.restartZtunnel();
    assertEquals(await asked, "10.96.7.7");
    const line = await a.takeOver();
    assert(line.includes("taken over"), line);
    assertEquals(await look(), "10.96.7.7");
    assertEquals((await status(a)).pods.map(({ dnsCapture, problems }) => [dnsCapture, problems]), [[true, []]]);
    await enrol(a, { ...request, name: "client", dnsCapture: false });
    assertEquals(await look(1), undefined, "not captured any more");
  },
  { ztunnelEnvironment: { AMBIT_RESOLV_CONF: "/dev/null" } },
);
