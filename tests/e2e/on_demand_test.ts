/** A mesh whose ztunnels know only what was asked for (XDS_ON_DEMAND), with traffic (ZT-127). */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { sumOf } from "../../demo/lab/metrics.ts";
import { serviceYaml } from "../../demo/lab/yaml.ts";
import { meshTest, type Pod, type Rig, until } from "./mesh.ts";

const PORT = 8080;
const say = async (from: Pod, host: string, text: string, port = PORT) =>
  (await from.probe.do("line", { host, port, text })).reply;
const known = async ({ mesh }: Rig, node: "node-a" | "node-b") =>
  (await mesh.nodes[node].configDump()).workloads.map(({ name }) => name).sort();
/** Waits until so many are counted, and holds that there are no more. */
async function openedIs(rig: Rig, labels: Record<string, string>, count: number): Promise<void> {
  await until(`${count} connections are counted`, 60_000, async () => await opened(rig, labels) >= count);
  assertEquals(await opened(rig, labels), count);
}
const opened = async ({ mesh }: Rig, labels: Record<string, string>) =>
  sumOf(await mesh.nodes["node-a"].metrics(), "istio_tcp_connections_opened_total", { reporter: "source", ...labels });

meshTest(
  "on demand, each node knows its own pods, and others from the first connection on (ZT-016, ZT-127)",
  async (rig) => {
    const { mesh, client, server } = rig;
    const service = { name: "server", namespace: "e2e", addresses: ["10.96.7.7"], port: 80, targetPort: PORT };
    mesh.writeConfig("service.yaml", serviceYaml(service));
    await server.probe.do("listen", { port: PORT, kind: "line" });
    assertEquals([await known(rig, "node-a"), await known(rig, "node-b")], [["client"], ["server"]]);
    assertStringIncludes(await say(client, server.ipv4, "first"), "first");
    assertEquals(await known(rig, "node-a"), ["client", "server"]);
    const labels = { connection_security_policy: "mutual_tls", destination_workload: "server" };
    await openedIs(rig, labels, 1);
    assertStringIncludes(await say(client, server.ipv6, "by its other address"), "other");
    await openedIs(rig, labels, 2);
    // A service by its address: it comes with its endpoints.
    await until("the service is there", 60_000, async () => {
      const { reply } = await client.probe.do("line", { host: "10.96.7.7", port: 80, text: "vip" }).catch(() => ({
        reply: "",
      }));
      return reply.includes("vip");
    });
    const byService = { ...labels, destination_service: "server.e2e.svc.cluster.local" };
    await until("it is counted", 60_000, async () => await opened(rig, byService) >= 1);
    // The ztunnel behind asked who the sources are, without letting them wait.
    await until("node B knows the client", 60_000, async () => (await known(rig, "node-b")).includes("client"));
  },
  { onDemand: true },
);

meshTest(
  "on demand, what is not in the mesh is passed through, and taken in when it joins (ZT-020, ZT-127)",
  async (rig) => {
    const { mesh, client } = rig;
    const spec = {
      name: "stranger",
      namespace: "e2e",
      serviceAccount: "stranger",
      node: "node-b",
      enrolled: false,
      described: true, // Not at all: nobody knows it.
    } as const;
    const stranger = await mesh.addPod(spec);
    await stranger.probe.do("listen", { port: PORT, kind: "line" });
    assertStringIncludes(await say(client, stranger.ipv4, "who are you"), "who are you");
    assertStringIncludes(await say(client, stranger.ipv4, "again"), "again");
    await openedIs(rig, { connection_security_policy: "unknown", destination_workload: "unknown" }, 2);
    mesh.describePod(stranger, true);
    await until("istiod tells of it unasked", 60_000, async () => (await known(rig, "node-a")).includes("stranger"));
    await stranger.enrol();
    const labels = { connection_security_policy: "mutual_tls", destination_workload: "stranger" };
    await until("it is reached by mutual TLS", 60_000, async () => {
      await say(client, stranger.ipv4, "now").catch(() => "");
      return await opened(rig, labels) >= 1;
    });
  },
  { onDemand: true },
);

meshTest(
  "on demand, with istiod gone what is known is served, and what is not is never sent in the clear (ZT-133)",
  async (rig) => {
    const { mesh, client, server } = rig;
    await server.probe.do("listen", { port: PORT, kind: "line" });
    assertStringIncludes(await say(client, server.ipv4, "before"), "before");
    mesh.istiod.kill("SIGKILL");
    await mesh.istiod.status;
    assertStringIncludes(await say(client, server.ipv4, "after"), "after");
    const before = await opened(rig, {});
    const { handle } = await client.probe.do("open", { host: "10.96.99.99", port: PORT });
    const { ending } = await client.probe.do("ended", { handle, timeoutMs: 60_000 });
    assert(ending !== "open", "it waits 10 s at most");
    assertEquals(await opened(rig, {}), before);
  },
  { onDemand: true },
);
