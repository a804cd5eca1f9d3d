import { assert, assertEquals } from "@std/assert";
import { formatIp } from "../../../base/address.ts";
import { ip } from "../../../mesh/testing.ts";
import type { Exchanged, UpstreamSockets } from "./forwarder.ts";
import { chooseAddress, SystemResolver } from "./system_resolver.ts";
import { a, decode, nameserver, type Record as DnsRecord, type Zone } from "./testing.ts";

const aaaa = (name: string, data: string): DnsRecord => ({ name, type: "AAAA", ttl: 300, data });
const ZONE: Zone = new Map([
  ["db.example a", [a("db.example", "192.0.2.1", 10), a("db.example", "192.0.2.2", 10)]],
  ["db.example aaaa", [aaaa("db.example", "2001:db8::1")]],
  ["six.example aaaa", [aaaa("six.example", "2001:db8::6")]],
  ["short.ns.svc a", [a("short.ns.svc", "192.0.2.9")]],
]);

class Rig implements UpstreamSockets {
  asked: string[] = [];
  nowMs = 0;
  drawn = 0;
  hosts = "10.0.0.5 printer\n";
  nameservers = ["10.0.0.1"];
  silent = false;
  readonly stop = new AbortController();
  readonly resolver: SystemResolver;

  constructor({ ipv6 = true } = {}) {
    this.resolver = new SystemResolver({
      settings: () => ({
        nameservers: this.nameservers.map(ip),
        timeoutMs: 1_000,
        attempts: 2,
        rotate: false,
        search: ["ns.svc", "svc"],
      }),
      hosts: () => this.hosts,
      sockets: this,
      ipv6,
      now: () => this.nowMs,
      randomId: () => 7,
      random: () => this.drawn,
      signal: this.stop.signal,
    });
  }

  async resolve(name: string, wantsIpv4 = true): Promise<string | undefined> {
    const found = await this.resolver.resolve(name, wantsIpv4);
    return found && formatIp(...found);
  }

  exchangeTcp: UpstreamSockets["exchangeTcp"] = (...args) => this.exchangeUdp(...args);
  exchangeUdp: UpstreamSockets["exchangeUdp"] = async (server, bytes, options): Promise<Exchanged | undefined> => {
    const { name, type } = decode(bytes).questions[0]!;
    this.asked.push(`${name} ${type} of ${formatIp(...server)}`);
    this.nowMs += this.silent ? options.timeoutMs : 0;
    if (this.silent) return undefined;
    const answer = (await nameserver(ZONE)(bytes, true))!, response = options.accept(answer);
    return response && { bytes: answer, response };
  };
}

Deno.test("resolve() asks for both families, and draws from the wanted one if it has any (ZT-033)", async () => {
  const rig = new Rig();
  assertEquals(await rig.resolve("db.example"), "192.0.2.1");
  assertEquals(rig.asked, ["db.example A of 10.0.0.1", "db.example AAAA of 10.0.0.1"]);
  rig.drawn = 0.999;
  assertEquals(await rig.resolve("DB.example."), "192.0.2.2");
  assertEquals([await rig.resolve("db.example", false), await rig.resolve("six.example")], [
    "2001:db8::1",
    "2001:db8::6",
  ]);
  const first = rig.asked.length;
  rig.nowMs = 9_999;
  await rig.resolve("db.example");
  assertEquals(rig.asked.length, first, "kept as long as the TTL says");
  rig.nowMs = 10_001;
  await rig.resolve("db.example");
  assertEquals(rig.asked.slice(first), ["db.example A of 10.0.0.1"], "the other family lasts longer");
});

Deno.test("resolve() without IPv6 asks for IPv4 alone", async () => {
  const rig = new Rig({ ipv6: false });
  assertEquals([await rig.resolve("db.example", false), await rig.resolve("six.example.")], ["192.0.2.1", undefined]);
  assertEquals(rig.asked, ["db.example A of 10.0.0.1", "six.example A of 10.0.0.1"]);
});

// The original goes by resolv.conf's ndots, so that a name of few labels would be looked for in ztunnel's own namespace
// first. Only a nameserver can tell the order; what an object of the mesh names is meant in full.
Deno.test("resolve() tries the name as it is before search domains, and none behind a closing dot (ZT-033)", async () => {
  const rig = new Rig();
  assertEquals(await rig.resolve("short"), "192.0.2.9");
  assertEquals(rig.asked.filter((it) => it.includes(" A ")), ["short A of 10.0.0.1", "short.ns.svc A of 10.0.0.1"]);
  rig.asked = [];
  assertEquals(await rig.resolve("gone."), undefined);
  assertEquals(rig.asked.length, 2);
});

Deno.test("resolve() takes what the hosts file knows, and an address for itself; what is no name has none", async () => {
  const rig = new Rig();
  assertEquals([await rig.resolve("Printer"), await rig.resolve("192.0.2.77"), await rig.resolve("fd00::7")], [
    "10.0.0.5",
    "192.0.2.77",
    "fd00::7",
  ]);
  for (const text of ["", ".", "a..b", "x".repeat(300), "no name"]) {
    assertEquals(await rig.resolve(text), undefined, text);
  }
  assertEquals(rig.asked, []);
});

Deno.test("resolve() follows a changed resolv.conf, and gives up where nobody answers", async () => {
  const rig = new Rig();
  await rig.resolve("db.example");
  rig.nameservers = ["10.0.0.2"];
  rig.nowMs = 9_000;
  await rig.resolve("db.example.");
  assertEquals(rig.asked.some((it) => it.endsWith("10.0.0.2")), false);
  rig.nowMs = 11_000;
  rig.asked = [];
  assertEquals(await rig.resolve("db.example."), "192.0.2.1");
  assertEquals(rig.asked, ["db.example A of 10.0.0.2", "db.example AAAA of 10.0.0.2"]);
  rig.silent = true;
  assertEquals(await rig.resolve("new.example."), undefined);
  rig.stop.abort();
  assertEquals(await rig.resolve("another"), undefined);
  rig.nameservers = [];
  assertEquals(await new Rig().resolver.resolve("", true), undefined);
});

Deno.test("chooseAddress() draws each of the family with equal chance, the other one only for want of it (ZT-033)", () => {
  const list = ["10.0.0.1", "fd00::1", "10.0.0.2"].map(ip);
  const drawn = (wantsIpv4: boolean) =>
    [0, 0.49, 0.51, 0.999].map((at) => formatIp(...chooseAddress(list, wantsIpv4, () => at)!));
  assertEquals(drawn(true), ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"]);
  assertEquals(drawn(false), Array(4).fill("fd00::1"));
  assert(chooseAddress([ip("10.0.0.1")], false, () => 0.5) !== undefined);
  assertEquals(chooseAddress([], true, () => 0), undefined);
});
