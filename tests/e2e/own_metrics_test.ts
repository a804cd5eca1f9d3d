/** A ztunnel's metrics, read over mutual TLS through the HBONE listener in its own network namespace (ZT-005). */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { parseMetrics, sumOf } from "../../demo/lab/metrics.ts";
import { policyYaml } from "../../demo/lab/yaml.ts";
import { meshTest, until } from "./mesh.ts";

const OWN = { namespace: "istio-system", serviceAccount: "ztunnel" };

/** ztunnel's pod, as Kubernetes would describe it. */
const ztunnelPod = (node: string, ip: string) =>
  `apiVersion: v1
kind: Pod
metadata:
  name: ztunnel-${node}
  namespace: ${OWN.namespace}
  labels: { app: ztunnel }
  annotations: { ambient.istio.io/redirection: enabled }
spec: { nodeName: ${node}, serviceAccountName: ${OWN.serviceAccount}, containers: [{ name: ztunnel }] }
status:
  phase: Running
  podIPs: [{ ip: ${ip} }]
  conditions: [{ type: Ready, status: "True" }]
`;

meshTest("metrics are read through HBONE by whom policy lets in, and the counters say so (ZT-005)", async (rig) => {
  const { mesh, server } = rig, node = mesh.nodes["node-a"], url = `http://${node.place.wireIp}:15020/metrics`;
  mesh.writeConfig("ztunnel.yaml", ztunnelPod("node-a", node.place.wireIp));
  await mesh.seen("ztunnel's own pod", (dump) => dump.workloads.some(({ name }) => name === "ztunnel-node-a"));
  const scrape = () => server.probe.attempt("request", { url });
  const labels = {
    reporter: "destination",
    connection_security_policy: "mutual_tls",
    source_principal: `spiffe://${server.principal}`,
    destination_principal: `spiffe://cluster.local/ns/${OWN.namespace}/sa/${OWN.serviceAccount}`,
  };
  const counted = await until("a scrape that was carried under mutual TLS", 60_000, async () => {
    const answer = await scrape();
    if (answer.failure !== undefined) return undefined;
    assertEquals(answer.output.status, 200);
    const count = sumOf(parseMetrics(answer.output.body), "istio_tcp_connections_opened_total", labels);
    return count > 0 ? count : undefined;
  });
  assert(counted > 0);
  await node.probe.do("listen", { port: 7000, kind: "line" });
  const other = await server.probe.attempt("line", { host: node.place.wireIp, port: 7000, text: "hello" });
  assert(other.failure !== undefined, "other ports of that namespace are not for others");
  // No plaintext listener and no redirection stand there: what is not HBONE reaches the port itself, as before.
  assertStringIncludes((await node.probe.do("request", { url: "http://127.0.0.1:15020/metrics" })).body, "istio_build");

  mesh.writeConfig("policy.yaml", policyYaml("nobody", OWN.namespace, "  action: DENY\n  rules: [{}]"));
  await until("the policy holds for ztunnel, too", 60_000, async () => (await scrape()).failure !== undefined);
  mesh.removeConfig("policy.yaml");
  await until("it does not any more", 60_000, async () => (await scrape()).failure === undefined);
}, { ztunnelEnvironment: { SERVICE_ACCOUNT: OWN.serviceAccount } });

meshTest("a takeover leaves the own listener to the successor (ZT-005)", async ({ mesh, server }) => {
  const node = mesh.nodes["node-a"], url = `http://${node.place.wireIp}:15020/metrics`;
  mesh.writeConfig("ztunnel.yaml", ztunnelPod("node-a", node.place.wireIp));
  await mesh.seen("ztunnel's own pod", (dump) => dump.workloads.some(({ name }) => name === "ztunnel-node-a"));
  const scraped = async () => (await server.probe.attempt("request", { url })).failure === undefined;
  await until("the first scrape", 60_000, scraped);
  await node.takeOver();
  await until("a scrape of the successor", 60_000, scraped);
}, { ztunnelEnvironment: { SERVICE_ACCOUNT: OWN.serviceAccount } });
