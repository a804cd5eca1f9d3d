/** A service whose endpoint is a hostname, resolved by the node's own resolver for each connection (ZT-033). */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { parseIp } from "../../base/address.ts";
import { a, nameserver, type Record as DnsRecord } from "../../dataplane/agent/dns/testing.ts";
import { UdpListener } from "../../dataplane/agent/dns/udp_listener.ts";
import { CONTROL_IPS } from "../../demo/lab/network.ts";
import { sumOf } from "../../demo/lab/metrics.ts";
import { bindInet } from "../../os/inet.ts";
import { withinNetns } from "../../os/netns.ts";
import { Poller } from "../../os/poller.ts";
import { meshTest, until } from "./mesh.ts";

const PORT = 8080;
const entryYaml = (name: string, vip: string, endpoint: string) =>
  `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: ${name}, namespace: e2e }
spec:
  hosts: [${name}.mesh.example]
  addresses: [${vip}]
  ports: [{ number: 80, name: tcp, protocol: TCP, targetPort: ${PORT} }]
  resolution: DNS
  location: MESH_EXTERNAL
  endpoints: [{ address: ${endpoint} }]
---
`;

// Written in the test: ztunnel reads it when the first hostname is resolved.
const resolvConf = `/tmp/ambit-e2e-${Deno.pid}-resolv.conf`;

meshTest(
  "a service's endpoint that is a hostname is reached by what DNS says of it, and counted (ZT-032, ZT-033, ZT-192)",
  async (rig) => {
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => Deno.remove(resolvConf));
    const { mesh, client } = rig;
    const outside = await mesh.addPod({
      name: "outside",
      namespace: "e2e",
      serviceAccount: "outside",
      node: "node-b",
      enrolled: false,
    });
    await outside.probe.do("listen", { port: PORT, kind: "line" });
    const zone = new Map<string, readonly DnsRecord[]>([["db.outside.example a", [
      a("db.outside.example", outside.ipv4),
    ]]]);
    const asked: string[] = [], [ip] = CONTROL_IPS;
    Deno.writeTextFileSync(resolvConf, `nameserver ${ip}\noptions timeout:8 attempts:1\n`);
    const poller = cleanup.use(new Poller());
    const fd = withinNetns(
      mesh.network.control.netns,
      () => bindInet(parseIp(ip!)!, 53, { transport: "udp", mark: 0, reusePort: false }),
    );
    assert(fd >= 0, "the nameserver has its port");
    cleanup.use(new UdpListener(fd, 53, { poller, respond: nameserver(zone, (question) => asked.push(question)) }));
    mesh.writeConfig(
      "entries.yaml",
      entryYaml("db", "10.96.8.8", "db.outside.example") + entryYaml("gone", "10.96.8.9", "gone.outside.example"),
    );
    await mesh.seen("the services", (dump) => JSON.stringify(dump).includes("gone.mesh.example"));
    const counted = async (hostname: string) =>
      sumOf(await client.node.metrics(), "istio_on_demand_dns_total", {
        hostname,
        source_workload: "client",
        source_principal: "spiffe://cluster.local/ns/e2e/sa/client",
      });
    for (let nth = 1; nth <= 3; nth++) {
      const { reply } = await client.probe.do("line", { host: "10.96.8.8", port: 80, text: `by name ${nth}` });
      assertStringIncludes(reply, `by name ${nth}`);
      assertEquals(await counted("db.outside.example"), nth, "each use counts, whether it is known already or not");
    }
    assertEquals(asked.toSorted(), ["db.outside.example A", "db.outside.example AAAA"], "one question a family");
    const { handle } = await client.probe.do("open", { host: "10.96.8.9", port: 80 });
    assert((await client.probe.do("ended", { handle, timeoutMs: 60_000 })).ending !== "open");
    assertEquals(await counted("gone.outside.example"), 1);
    await until("the log says why", 60_000, () => {
      return client.node.ztunnel.lines.some((line) => line.includes("no ip addresses were resolved for workload:"));
    });
  },
  { ztunnelEnvironment: { AMBIT_RESOLV_CONF: resolvConf } },
);
