import { assertEquals } from "@std/assert";
import { Logger } from "../../../base/log.ts";
import { service, workload } from "../../../mesh/testing.ts";
import type { Workload } from "../../../mesh/workload.ts";
import { type Query, readResponse } from "../../../wire/dns/message.ts";
import { writeQuery } from "../../../wire/dns/message_writer.ts";
import { Counter, Histogram } from "../metrics_registry.ts";
import type { KeptResponse } from "./cache.ts";
import { responder } from "./responder.ts";
import { a, decode, nameserver, queryBytes, recordsOf, type Zone } from "./testing.ts";

const ZONE: Zone = new Map([
  ["www.example a", [a("www.example", "192.0.2.1", 100)]],
  ["web.shop.svc.cluster.local srv", []],
  ["version.bind txt", []],
]);

class Rig {
  client: () => Workload | Promise<Workload | undefined> = () =>
    workload("client", "10.0.0.9", { namespace: "shop", canonicalName: "client", canonicalRevision: "v2" });
  readonly asked: string[] = [];
  readonly lines: string[] = [];
  reachable = true;
  nowMs = 0;
  readonly metrics = {
    dnsRequests: new Counter("requests", { help: "" }),
    dnsUpstreamRequests: new Counter("upstream_requests", { help: "" }),
    dnsUpstreamFailures: new Counter("upstream_failures", { help: "" }),
    dnsUpstreamSeconds: new Histogram("upstream_seconds", { help: "" }, [0.5]),
  };
  readonly #respond = responder({
    mesh: {
      servicesOfHostname: (hostname) =>
        hostname === "web.shop.svc.cluster.local"
          ? [service("web", "10.96.0.1", "80:80", { namespace: "shop", hostname })]
          : [],
      storedEndpoints: () => [],
    },
    settings: { clusterDomain: "cluster.local", search: undefined, preferredNamespace: "", ipv6: true },
    client: () => this.client(),
    forwarder: { forward: (query) => this.#forward(query) },
    metrics: this.metrics,
    random: () => 0,
    now: () => this.nowMs,
    log: new Logger("dns", { sink: (line) => this.lines.push(line) }),
  });

  async ask(bytes: Uint8Array, overTcp = false) {
    const answer = await this.#respond(bytes, overTcp);
    return answer === undefined ? undefined : { ...decode(answer), records: recordsOf(answer), length: answer.length };
  }

  /** The lines of all families that have samples. */
  counted(): string[] {
    const lines: string[] = [];
    for (const family of Object.values(this.metrics)) family.write(lines);
    return lines.filter((line) => !line.startsWith("#") && !line.includes("_bucket"));
  }

  async #forward(query: Query): Promise<KeptResponse | undefined> {
    this.nowMs += 250;
    if (!this.reachable) return undefined;
    const bytes = (await nameserver(ZONE, (asked) => this.asked.push(asked))(writeQuery(5, query), true))!;
    return { bytes, response: readResponse(bytes, 5, query.question)!, receivedAtMs: this.nowMs - 40_000 };
  }
}

const LABELS = `request_protocol="udp",source_canonical_service="client",source_canonical_revision="v2"`;

Deno.test("a name of the mesh is answered with authority, and not forwarded (ZT-178, ZT-185, ZT-188)", async () => {
  const rig = new Rig();
  const answer = await rig.ask(queryBytes("WEB.shop", "A", { edns: 1232, dnssecOk: true }));
  assertEquals([answer!.records, answer!.flag_aa, answer!.flag_ra], [["web.shop A 10.96.0.1"], true, true]);
  assertEquals([answer!.answers[0]!.ttl, answer!.additionals[0]!.udpPayloadSize], [30, 1232]);
  const none = await rig.ask(queryBytes("web.shop", "AAAA"));
  assertEquals([none!.rcode, none!.answers.length, none!.flag_aa], ["NOERROR", 0, true]);
  assertEquals(rig.asked, []);
  assertEquals(rig.counted(), [
    `requests_total{request_query_type="a",${LABELS}} 1`,
    `requests_total{request_query_type="aaaa",${LABELS}} 1`,
  ]);
});

Deno.test("other names and types are forwarded: no authority, TTLs by age, both counters (ZT-178, ZT-185, ZT-188)", async () => {
  const rig = new Rig();
  const answer = await rig.ask(queryBytes("www.example", "A"));
  assertEquals([answer!.records, answer!.flag_aa, answer!.flag_ra], [["www.example A 192.0.2.1"], false, true]);
  assertEquals(answer!.answers[0]!.ttl, 60, "it came 40 seconds ago");
  await rig.ask(queryBytes("web.shop.svc.cluster.local", "SRV"));
  assertEquals(rig.asked, ["www.example A", "web.shop.svc.cluster.local SRV"]);
  assertEquals(rig.counted(), [
    `requests_total{request_query_type="a",${LABELS}} 1`,
    `requests_total{request_query_type="srv",${LABELS}} 1`,
    `upstream_requests_total{request_query_type="a",${LABELS}} 1`,
    `upstream_requests_total{request_query_type="srv",${LABELS}} 1`,
    `upstream_seconds_sum{request_query_type="a",${LABELS}} 0.25`,
    `upstream_seconds_count{request_query_type="a",${LABELS}} 1`,
    `upstream_seconds_sum{request_query_type="srv",${LABELS}} 0.25`,
    `upstream_seconds_count{request_query_type="srv",${LABELS}} 1`,
  ]);
});

Deno.test("upstream's NXDOMAIN is passed on, its silence is SERVFAIL; both count as failures (ZT-186, ZT-188)", async () => {
  const rig = new Rig();
  const missing = await rig.ask(queryBytes("no.example", "A"));
  assertEquals([missing!.rcode, missing!.flag_aa, missing!.flag_ra], ["NXDOMAIN", false, false]);
  rig.reachable = false;
  const silent = await rig.ask(queryBytes("www.example", "A", { edns: 1232 }));
  assertEquals([silent!.rcode, silent!.flag_aa, silent!.flag_ra], ["SERVFAIL", false, false]);
  assertEquals([silent!.questions[0]!.name, silent!.additionals.length], ["www.example", 1]);
  assertEquals(rig.counted().filter((line) => line.startsWith("upstream_failures")), [
    `upstream_failures_total{request_query_type="a",${LABELS}} 2`,
  ]);
});

Deno.test("a class other than the Internet's is not the mesh's", async () => {
  const rig = new Rig(), bytes = queryBytes("web.shop.svc.cluster.local", "A");
  bytes[bytes.length - 1] = 3; // CH
  await rig.ask(bytes);
  assertEquals(rig.counted().some((line) => line.startsWith("upstream_requests")), true);
});

Deno.test("a client that stays unknown gets SERVFAIL, and is counted without a name (ZT-177, ZT-188)", async () => {
  const rig = new Rig();
  rig.client = () => Promise.resolve(undefined);
  assertEquals((await rig.ask(queryBytes("web.shop", "A"), true))!.rcode, "SERVFAIL");
  const labels = `request_protocol="tcp",source_canonical_service="unknown",source_canonical_revision="unknown"`;
  assertEquals(rig.counted(), [`requests_total{request_query_type="a",${labels}} 1`]);
});

Deno.test("a client that becomes known is served", async () => {
  const rig = new Rig(), known = rig.client;
  rig.client = () => Promise.resolve(known());
  assertEquals((await rig.ask(queryBytes("web", "A")))!.records, ["web A 10.96.0.1"]);
});

Deno.test("what is no query is refused, uncounted, or gets no answer at all (ZT-176)", async () => {
  const rig = new Rig();
  const refused = await rig.ask(queryBytes("web", "A", { opcode: "NOTIFY" }));
  assertEquals([refused!.rcode, refused!.questions.length], ["NOTIMP", 1]);
  const damaged = queryBytes("web", "A");
  damaged[5] = 2;
  assertEquals((await rig.ask(damaged))!.rcode, "FORMERR");
  const response = queryBytes("web", "A");
  response[2]! |= 0x80;
  assertEquals(await rig.ask(response), undefined);
  assertEquals(await rig.ask(new Uint8Array(11)), undefined);
  assertEquals(rig.counted(), []);
});

Deno.test("types without a name share one label, so that nobody can make thousands", async () => {
  const rig = new Rig();
  for (const type of [4_711, 60_000]) {
    const bytes = queryBytes("www.example", "A");
    bytes.set([type >> 8, type & 255], bytes.length - 4);
    await rig.ask(bytes);
  }
  assertEquals(rig.counted()[0], `requests_total{request_query_type="unknown",${LABELS}} 2`);
});
