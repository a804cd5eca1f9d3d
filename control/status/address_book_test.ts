/** Who gets which address: kept, taken over, given back, and none left. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { objectsOf } from "../ambient/testing.ts";
import type { ServiceEntryObject } from "../objects.ts";
import { AddressBook } from "./address_book.ts";
import { AddressPool } from "./address_pool.ts";

const PREFIXES = ["240.240.0.0/16", "2001:2::/48"];

interface EntryOptions {
  readonly hosts?: string;
  readonly spec?: string;
  readonly labels?: string;
  /** Years after 2000. */
  readonly age?: number;
  readonly allocated?: readonly (readonly [host: string, ...values: string[]])[];
}

function entry(
  name: string,
  { hosts = `${name}.test`, spec = "resolution: DNS", labels = "", age = 20, allocated = [] }: EntryOptions = {},
): ServiceEntryObject {
  const addresses = allocated.flatMap(([host, ...values]) => values.map((value) => ({ value, host })));
  const [object] = objectsOf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: ${name}, namespace: shop, labels: { ${labels} }, creationTimestamp: "${2000 + age}-01-01T00:00:00Z" }
spec: { hosts: [${
    hosts.split(",").map((it) => `"${it}"`)
  }], ports: [{ number: 80, name: http, protocol: HTTP }], ${spec} }
status: { addresses: ${JSON.stringify(addresses)} }`);
  return object as ServiceEntryObject;
}

function values(book: AddressBook, of: ServiceEntryObject): string[] {
  return book.assign(of).addresses.map(({ host, value }) => `${host} ${value}`);
}

Deno.test("AddressBook gives each host one address of each prefix, in order (CP-240)", () => {
  const book = new AddressBook(PREFIXES);
  assertEquals(values(book, entry("a", { hosts: "x.test,y.test,x.test" })), [
    "x.test 240.240.0.1",
    "x.test 2001:2::1",
    "y.test 240.240.0.2",
    "y.test 2001:2::2",
  ]);
  assertEquals(values(book, entry("a", { hosts: "x.test,y.test" })).length, 4, "the same until its status has them");
  assertEquals(values(book, entry("b"))[0], "b.test 240.240.0.3");
  assertEquals(book.used(), [["240.240.0.0/16", 3], ["2001:2::/48", 3]]);
});

Deno.test("AddressBook gives none to entries that are not for it (CP-240)", () => {
  const cases: readonly (readonly [string, EntryOptions])[] = [
    ["an address was written", { spec: `resolution: STATIC, addresses: ["10.0.0.1"]` }],
    ["no resolution", { spec: "resolution: NONE" }],
    ["opted out", { labels: `networking.istio.io/enable-autoallocate-ip: "FALSE"` }],
    ["a wildcard", { hosts: "*.test" }],
  ];
  for (const [why, options] of cases) assertEquals(values(new AddressBook(PREFIXES), entry("a", options)), [], why);
  const dynamic = entry("a", { hosts: "*.test", spec: "resolution: DYNAMIC_DNS" });
  assertEquals(values(new AddressBook(PREFIXES), dynamic).length, 2);
});

Deno.test("AddressBook keeps what entries have, and gives none of it to others (CP-240)", () => {
  const book = new AddressBook(PREFIXES);
  const old = entry("old", { allocated: [["old.test", "240.240.0.2", "2001:2::2"]] }),
    fresh = entry("a", { hosts: "x.test,y.test" });
  book.rebuild([fresh, old]);
  assertEquals(values(book, fresh).map((it) => it.split(" ")[1]), [
    "240.240.0.1",
    "2001:2::1",
    "240.240.0.3",
    "2001:2::3",
  ]);
  assertEquals(values(book, old), ["old.test 240.240.0.2", "old.test 2001:2::2"]);
});

Deno.test("AddressBook lets the oldest of two entries with one address keep it, in whatever order they come (CP-240)", () => {
  const older = entry("z", { age: 10, allocated: [["z.test", "240.240.0.1", "2001:2::1"]] });
  const newer = entry("a", { age: 20, allocated: [["a.test", "240.240.0.1", "2001:2::7"]] });
  const started = new AddressBook(PREFIXES);
  started.rebuild([newer, older]);
  assertEquals(values(started, newer), ["a.test 2001:2::7", "a.test 240.240.0.2"], "just what clashes is replaced");
  assertEquals(values(started, older), ["z.test 240.240.0.1", "z.test 2001:2::1"]);

  const running = new AddressBook(PREFIXES);
  assertEquals(running.assign(newer).displaced, []);
  assertEquals(running.assign(older).displaced, ["ServiceEntry/shop/a"]);
  assertEquals(values(running, newer), ["a.test 2001:2::7", "a.test 240.240.0.2"]);
});

Deno.test("AddressBook yields to what an author wrote, even later (CP-240)", () => {
  const book = new AddressBook(PREFIXES);
  const ours = entry("a", { age: 1, allocated: [["a.test", "240.240.0.5", "2001:2::5"]] });
  assertEquals(values(book, ours).length, 2);
  const written = entry("w", { age: 30, spec: `resolution: STATIC, addresses: ["240.240.0.5", "240.240.0.0/30"]` });
  assertEquals(book.assign(written).displaced, ["ServiceEntry/shop/a"]);
  assertEquals(values(book, ours), ["a.test 2001:2::5", "a.test 240.240.0.4"], "nor out of a range that one wrote");
});

Deno.test("AddressBook takes addresses from hosts that are not listed any more, and from entries that need none (CP-240)", () => {
  const book = new AddressBook(PREFIXES);
  const allocated = [["x.test", "240.240.0.1", "2001:2::1"], ["y.test", "240.240.0.2", "2001:2::2"]] as const;
  assertEquals(values(book, entry("a", { hosts: "y.test", allocated })), ["y.test 240.240.0.2", "y.test 2001:2::2"]);
  assertEquals(values(book, entry("a", { hosts: "y.test", spec: "resolution: NONE", allocated })), []);
});

Deno.test("AddressBook gives a freed address to nobody while there are others, also as leader again (CP-240)", () => {
  const book = new AddressBook(["240.240.0.0/29"]);
  assertEquals(values(book, entry("a")), ["a.test 240.240.0.1"]);
  book.forget("ServiceEntry/shop/a");
  assertEquals(values(book, entry("b")), ["b.test 240.240.0.2"]);
  book.rebuild([]);
  assertEquals(values(book, entry("c")), ["c.test 240.240.0.3"]);
  for (const name of ["d", "e", "f", "g"]) values(book, entry(name));
  assertEquals(values(book, entry("h")), ["h.test 240.240.0.1"], "the one freed the longest ago");
  assertEquals(values(book, entry("i")), ["i.test 240.240.0.2"]);
  assertEquals(book.assign(entry("j")), { addresses: [], displaced: [], exhausted: ["240.240.0.0/29"] });
});

Deno.test("AddressBook gives no address twice, whatever comes and goes (CP-240)", () => {
  const book = new AddressBook(["240.240.0.0/24"]);
  const live = new Map<string, ServiceEntryObject>();
  let seed = 7;
  const random = (below: number) => (seed = (seed * 48271) % 0x7fffffff) % below;
  for (let step = 0; step < 2_000; step++) {
    const name = `e${random(60)}`;
    if (random(3) === 0) {
      live.delete(name);
      book.forget(`ServiceEntry/shop/${name}`);
      continue;
    }
    const count = 1 + random(3), hosts = Array.from({ length: count }, (_, at) => `h${at}.${name}`).join(",");
    const before = live.get(name)?.allocated ?? [];
    const plain = entry(name, { hosts, age: random(30) });
    const seen = { ...plain, allocated: before };
    live.set(name, { ...seen, allocated: book.assign(seen).addresses });
    if (step % 200 === 0) book.rebuild(live.values());
    const all = [...live.values()].flatMap(({ allocated }) => allocated.map(({ value }) => value));
    assertEquals(new Set(all).size, all.length, `step ${step}`);
  }
  assert(live.size > 10);
});

Deno.test("AddressPool refuses what is no range (CP-240)", () => {
  for (const bad of ["", "240.240.0.1", "240.240.0.0/33", "ten/8", "2001:2::/128"]) {
    const error = assertThrows(() => new AddressPool(bad), MeshError);
    assertEquals(error.code, "AMB0260");
  }
});
