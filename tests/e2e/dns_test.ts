/** DNS of an enrolled pod as its programs meet it: captured by the node agent's rules, answered by the proxy or forwarded. */
import { assertEquals } from "@std/assert";
import { a, decode, queryBytes, recordsOf, type Zone } from "../../dataplane/agent/dns/testing.ts";
import { serviceYaml } from "../../demo/lab/yaml.ts";
import { askNodeAgent } from "../../cli/enrol_client.ts";
import { Bench, getent, UPSTREAM } from "./dns_bench.ts";
import { meshTest } from "./mesh.ts";

const LARGE = Array.from({ length: 256 }, (_, at) => `240.0.0.${at}`);

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

meshTest("in a whole mesh a pod enrolled with DNS finds services, and one without is left alone", async (rig) => {
  const { mesh, client } = rig;
  const service = {
    name: "server",
    namespace: "e2e",
    addresses: ["10.96.7.7", "fd00:96::7"],
    port: 80,
    targetPort: 8080,
  };
  mesh.writeConfig("service.yaml", serviceYaml(service));
  await mesh.seen("the service", (dump) => JSON.stringify(dump).includes("server.e2e.svc.cluster.local"));
  // Nobody listens at this address: what is answered is answered by ztunnel.
  const look = (name: string, timeoutS?: number) =>
    getent(client.place.netns, "10.255.255.1", ["ahostsv4", name], timeoutS);
  assertEquals(await look("server", 1), []);
  const { name, namespace, serviceAccount } = client.spec, target = `netns/${client.place.name}`;
  const body = { target, namespace, serviceAccount, name, dnsCapture: true };
  await askNodeAgent(client.node.enrolSocket, { method: "POST", path: "/enrol", body });
  for (const asked of ["server", "server.e2e", "server.e2e.svc.cluster.local"]) {
    assertEquals((await look(asked))[0]?.split(/\s+/)[0], "10.96.7.7", asked);
  }
  const sample = (await client.node.metrics()).find((it) => it.name === "istio_dns_requests_total");
  assertEquals([sample?.labels.request_protocol, (sample?.value ?? 0) >= 3], ["udp", true]);
}, { ztunnelEnvironment: { AMBIT_RESOLV_CONF: "/dev/null" } });
