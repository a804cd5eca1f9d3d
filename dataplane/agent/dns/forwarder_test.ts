import { assert, assertEquals } from "@std/assert";
import { formatIp } from "../../../base/address.ts";
import { ip } from "../../../mesh/testing.ts";
import { Code, type Query, readQuery } from "../../../wire/dns/message.ts";
import { ResponseCache } from "./cache.ts";
import { type Exchanged, Forwarder, type UpstreamSockets } from "./forwarder.ts";
import { a, decode, nameserver, queryBytes, recordsOf, type Zone } from "./testing.ts";

const LARGE = Array.from({ length: 100 }, (_, at) => a("large.example", `192.0.2.${at}`));
const ZONE: Zone = new Map<string, readonly ReturnType<typeof a>[] | number>([
  ["www.example a", [a("www.example", "192.0.2.1", 10)]],
  ["large.example a", LARGE],
  ["broken.example a", Code.SERVFAIL],
]);

function query(name: string, options: Parameters<typeof queryBytes>[2] = {}): Query {
  const received = readQuery(queryBytes(name, "A", options));
  if (received.kind !== "query") throw new Error("it is no query");
  return received.query;
}

/** Nameservers by address: what each does with a query, or `dead`. */
class Rig implements UpstreamSockets {
  readonly asked: string[] = [];
  readonly servers: Record<string, Zone | "dead" | "gate">;
  nowMs = 0;
  understandsEdns = true;
  nextId = 1;
  readonly gate = Promise.withResolvers<void>();
  readonly forwarder: Forwarder;

  constructor(servers: Record<string, Zone | "dead" | "gate">, rotate = false) {
    this.servers = servers;
    this.forwarder = new Forwarder({
      settings: { nameservers: Object.keys(servers).map(ip), timeoutMs: 5_000, attempts: 2, rotate, search: [] },
      sockets: this,
      now: () => this.nowMs,
      randomId: () => this.nextId++,
      signal: new AbortController().signal,
    });
  }

  exchangeUdp: UpstreamSockets["exchangeUdp"] = (...args) => this.#exchange("udp", ...args);
  exchangeTcp: UpstreamSockets["exchangeTcp"] = (...args) => this.#exchange("tcp", ...args);

  async #exchange(
    transport: "udp" | "tcp",
    ...[nameserverIp, bytes, options]: Parameters<UpstreamSockets["exchangeUdp"]>
  ): Promise<Exchanged | undefined> {
    const text = formatIp(...nameserverIp), server = this.servers[text]!;
    this.asked.push(`${transport} ${text} ${decode(bytes).id}`);
    if (server === "gate") await this.gate.promise;
    if (server === "dead") {
      this.nowMs += options.timeoutMs;
      return undefined;
    }
    const answer = await nameserver(server === "gate" ? ZONE : server)(bytes, transport === "tcp");
    if (!this.understandsEdns && decode(bytes).additionals.length > 0) answer![3]! |= Code.FORMERR;
    const response = options.accept(answer!);
    return response === undefined ? undefined : { bytes: answer!, response };
  }
}

Deno.test("Forwarder remembers an answer as long as its TTL says, whatever the case it is asked in (ZT-186)", async () => {
  const rig = new Rig({ "10.0.0.1": ZONE });
  const first = await rig.forwarder.forward(query("www.example"));
  assertEquals(recordsOf(first!.bytes), ["www.example A 192.0.2.1"]);
  rig.nowMs = 9_999;
  assertEquals((await rig.forwarder.forward(query("WWW.example")))!.bytes, first!.bytes);
  assertEquals(rig.asked, ["udp 10.0.0.1 1"]);
  rig.nowMs = 10_000;
  await rig.forwarder.forward(query("www.example"));
  assertEquals(rig.asked.at(-1), "udp 10.0.0.1 2");
});

Deno.test("Forwarder remembers what is not there as its SOA says, and asks anew for DNSSEC", async () => {
  const rig = new Rig({ "10.0.0.1": ZONE });
  assertEquals((await rig.forwarder.forward(query("no.example")))!.response.code, Code.NXDOMAIN);
  await rig.forwarder.forward(query("no.example"));
  assertEquals(rig.asked.length, 1);
  await rig.forwarder.forward(query("no.example", { edns: 1232, dnssecOk: true }));
  assertEquals(rig.asked.length, 2);
});

Deno.test("Forwarder asks by TCP what does not fit into a datagram", async () => {
  const rig = new Rig({ "10.0.0.1": ZONE });
  assertEquals(recordsOf((await rig.forwarder.forward(query("large.example")))!.bytes).length, 100);
  assertEquals(rig.asked, ["udp 10.0.0.1 1", "tcp 10.0.0.1 1"]);
});

Deno.test("Forwarder asks without EDNS a nameserver that does not understand it (RFC 6891 §7)", async () => {
  const rig = new Rig({ "10.0.0.1": ZONE });
  rig.understandsEdns = false;
  assertEquals(recordsOf((await rig.forwarder.forward(query("www.example")))!.bytes), ["www.example A 192.0.2.1"]);
  assertEquals(rig.asked, ["udp 10.0.0.1 1", "udp 10.0.0.1 2"]);
});

Deno.test("Forwarder goes on to the next nameserver when one is silent or unable, and comes round again", async () => {
  const silent = new Rig({ "10.0.0.1": "dead", "10.0.0.2": ZONE });
  assertEquals((await silent.forwarder.forward(query("www.example")))!.response.code, Code.NOERROR);
  assertEquals([silent.asked, silent.nowMs], [["udp 10.0.0.1 1", "udp 10.0.0.2 2"], 2_000]);
  const unable = new Rig({
    "10.0.0.1": ZONE,
    "10.0.0.2": new Map([["broken.example a", [a("broken.example", "192.0.2.9")]]]),
  });
  assertEquals(recordsOf((await unable.forwarder.forward(query("broken.example")))!.bytes).length, 1);
  const none = new Rig({ "10.0.0.1": ZONE });
  assertEquals((await none.forwarder.forward(query("broken.example")))!.response.code, Code.SERVFAIL);
  await none.forwarder.forward(query("broken.example"));
  assertEquals(none.asked.length, 4, "two attempts each time: a failure is not remembered");
});

Deno.test("Forwarder gives up after ten seconds in all, and without nameservers at once", async () => {
  const rig = new Rig({ "10.0.0.1": "dead", "10.0.0.2": "dead", "10.0.0.3": "dead" });
  assertEquals(await rig.forwarder.forward(query("www.example")), undefined);
  assertEquals([rig.asked.length, rig.nowMs], [5, 10_000]);
  assertEquals(await new Rig({}).forwarder.forward(query("www.example")), undefined);
});

Deno.test("Forwarder begins with another nameserver each time if it is told to rotate", async () => {
  const rig = new Rig({ "10.0.0.1": ZONE, "10.0.0.2": ZONE }, true);
  for (const name of ["a.example", "b.example", "c.example"]) await rig.forwarder.forward(query(name));
  assertEquals(rig.asked, ["udp 10.0.0.1 1", "udp 10.0.0.2 2", "udp 10.0.0.1 3"]);
});

Deno.test("Forwarder shares an exchange between equal questions, and has no more than 128 of them", async () => {
  const rig = new Rig({ "10.0.0.1": "gate" });
  const equal = Array.from({ length: 300 }, () => rig.forwarder.forward(query("www.example")));
  const others = Array.from({ length: 200 }, (_, at) => rig.forwarder.forward(query(`n${at}.example`)));
  rig.gate.resolve();
  assertEquals((await Promise.all(equal)).every((kept) => kept?.response.code === Code.NOERROR), true);
  const outcomes = await Promise.all(others);
  assertEquals([rig.asked.length, outcomes.filter((kept) => kept === undefined).length], [128, 73]);
});

Deno.test("ResponseCache stays within its bounds, and lets go of what was not used longest", () => {
  const cache = new ResponseCache({ entriesMax: 3, bytesMax: 100 });
  const put = (key: string, length: number, seconds = 10) =>
    cache.put(key, {
      bytes: new Uint8Array(length),
      response: { code: 0, truncated: false, records: [] },
      receivedAtMs: 0,
    }, seconds);
  for (const key of ["a", "b", "c"]) put(key, 10);
  assert(cache.get("a", 1) !== undefined);
  put("d", 10);
  assertEquals(["a", "b", "c", "d"].filter((key) => cache.get(key, 1) !== undefined), ["a", "c", "d"]);
  put("e", 90);
  assertEquals([["a", "c", "d", "e"].filter((key) => cache.get(key, 1) !== undefined), cache.bytes], [["d", "e"], 100]);
  put("f", 101);
  put("g", 1, 0);
  assertEquals([cache.get("f", 1), cache.get("g", 1), cache.get("e", 10_000), cache.bytes], [
    undefined,
    undefined,
    undefined,
    10,
  ]);
  put("h", 1, 1e9);
  assertEquals(cache.get("h", 86_400_000), undefined, "nothing is kept for more than a day");
});
