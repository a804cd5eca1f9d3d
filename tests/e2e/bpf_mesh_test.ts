/** Two nodes whose agents redirect by eBPF: real traffic under mutual TLS, kills, and no rule anywhere. */
import { assert, assertEquals } from "@std/assert";
import { Mesh } from "../../demo/lab/mesh.ts";
import { sweepLeftovers } from "../../demo/lab/network.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { readSysctl } from "../../os/netns.ts";
import { PrivateBpffs, ScratchCgroup } from "./bpf_scratch.ts";
import { mutualTlsCount, type Pod, type Rig, until } from "./mesh.ts";

const PORT = 7000;

/** Both agents pin in one folder: they share the machine's hooks, as the agents before and after an update do. */
function bpfTest(name: string, run: (rig: Rig & { readonly pins: string }) => Promise<void>): void {
  Deno.test(name, async () => {
    sweepLeftovers();
    using bpffs = new PrivateBpffs();
    using cgroup = new ScratchCgroup();
    cgroup.enter(); // So do all processes of the lab, which are our children.
    const pins = `${bpffs.folder}/ambit`, chosen: string[] = [];
    const places = { AMBIT_BPF_PINS: pins, AMBIT_BPF_CGROUP: cgroup.path };
    await using mesh = await Mesh.start({
      key: "bpf",
      cniEnvironment: { AMBIT_REDIRECT: "bpf", ...places },
      ztunnelEnvironment: places,
      onLine: (_, line) => line.includes("redirection chosen") && chosen.push(line),
    });
    assertEquals(chosen.filter((line) => /backend\W+bpf/.test(line)).length, 2, chosen.join("\n"));
    const pod = (name: string, node: "node-a" | "node-b") =>
      mesh.addPod({ name, namespace: "e2e", serviceAccount: name, node });
    const [client, server] = await Promise.all([pod("client", "node-a"), pod("server", "node-b")]);
    await server.probe.do("listen", { port: PORT, kind: "line" });
    await run({ mesh, client, server, pins });
  });
}

async function served(client: Pod, server: Pod): Promise<void> {
  for (const [host, own] of [[server.ipv4, client.ipv4], [server.ipv6, client.ipv6]] as const) {
    const { reply } = await client.probe.do("line", { host, port: PORT, text: "hello" });
    assertEquals(reply, `YOU ${own} hello`, "the server sees the client's own address");
  }
}

bpfTest(
  "bpf: real traffic under mutual TLS with the client's address, no rule and nothing tracked (CNI-200, CNI-205, CNI-206)",
  async (rig) => {
    const { client, server } = rig;
    await served(client, server);
    const burst = await client.probe.do("burst", { host: server.ipv4, ports: [PORT], count: 2_000, concurrency: 16 });
    assertEquals([burst.errors, burst.succeeded], [{}, 2_000]);
    await until("all are counted", 60_000, async () => await mutualTlsCount(rig) === 2_002);
    for (const { place: { netns } } of [client, server]) {
      using firewall = FirewallSocket.open(netns);
      assertEquals(firewall.tableNames(), []);
      const tracked = readSysctl(netns, "net/netfilter/nf_conntrack_count");
      assert(tracked === undefined || tracked === "0", `${tracked} connections are tracked`);
    }
  },
);

bpfTest(
  "bpf: a pod outside the mesh is let in and out in plaintext, with its own address (CNI-205, CNI-207)",
  async (rig) => {
    const { mesh, client, server } = rig;
    const guest = await mesh.addPod({
      name: "guest",
      namespace: "e2e",
      serviceAccount: "guest",
      node: "node-a",
      enrolled: false,
    });
    await served(guest, server);
    await guest.probe.do("listen", { port: PORT, kind: "line" });
    await served(client, guest);
    // Many plaintext connections to one port at a time: none may take the ports of another that came in.
    const burst = await guest.probe.do("burst", { host: server.ipv4, ports: [PORT], count: 3_000, concurrency: 64 });
    assertEquals([burst.errors, burst.succeeded], [{}, 3_000]);
  },
);

bpfTest(
  "bpf: the agent's and ztunnel's ends by kill -9 leave capture in place, and the next ones take it up (CNI-214)",
  async (rig) => {
    const { mesh, client, server, pins } = rig, node = mesh.nodes["node-a"];
    const names = () => [...Deno.readDirSync(pins)].map(({ name }) => name).sort();
    const before = names();
    await client.probe.do("startFlow", { host: server.ipv4, port: PORT });
    await node.restartCni("SIGKILL");
    await served(client, server);
    assertEquals(names(), before);
    assertEquals((await client.probe.do("stopFlow", {})).error, "");
    await node.crashZtunnel();
    const refused = await client.probe.attempt("line", { host: server.ipv4, port: PORT, text: "?", timeoutMs: 1_000 });
    assert(refused.failure !== undefined, "nobody is there to serve it");
    node.restartZtunnel();
    await until("served again", 60_000, async () => {
      const { failure } = await client.probe.attempt("line", { host: server.ipv4, port: PORT, text: "again" });
      return failure === undefined;
    });
    await served(client, server);
  },
);

bpfTest("bpf: a pod that leaves and comes back is served each time, and leaves nothing (CNI-214)", async (rig) => {
  const { mesh, client, server, pins } = rig;
  for (let round = 0; round < 5; round++) {
    await client.unenrol();
    mesh.describePod(client, false);
    const folders = [...Deno.readDirSync(pins)].filter(({ isDirectory }) => isDirectory);
    assertEquals(folders.length, 1, "the server's alone");
    assertEquals(readSysctl(client.place.netns, "net/ipv4/tcp_fwmark_accept"), "0");
    await served(client, server);
    mesh.describePod(client, true);
    await client.enrol();
    await served(client, server);
  }
});
