/** The delta protocol, message by message, without a transport. */
import { assertEquals, assertNotEquals } from "@std/assert";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import type { DeltaDiscoveryRequest } from "../../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { type Resource, type ResourceView, WORKLOAD_TYPE_URL } from "./resources.ts";
import { ServedView } from "./served_view.ts";
import { DeltaSession, type Outgoing, type RequestOutcome } from "./session.ts";

function resource(name: string, version: string, aliases: string[] = [], size = 10): Resource {
  return { name, version, aliases, bytes: new Uint8Array(size) };
}

/** A small mesh: `a` and `b` behind service `s`; `b` runs on node n1. */
class Mesh implements ResourceView {
  /** Grows with each look: whatever a test has changed is seen. */
  get generation(): number {
    return ++this.#looks;
  }
  #looks = 0;
  addresses = new Map([
    ["a", resource("a", "1", ["/10.0.0.1"])],
    ["b", resource("b", "1", ["/10.0.0.2"])],
    ["ns/s", resource("ns/s", "1", ["/10.9.0.1"])],
  ]);
  policies = new Map([["ns/p", resource("ns/p", "1")]]);
  local = ["b"];

  all(typeUrl: string): Iterable<Resource> {
    return (typeUrl === ADDRESS_TYPE_URL ? this.addresses : this.policies).values();
  }
  lookup(typeUrl: string, name: string): Resource[] {
    const map = typeUrl === ADDRESS_TYPE_URL ? this.addresses : this.policies;
    const hits = [...map.values()].filter((it) => it.name === name || it.aliases.includes(name));
    return hits.some((it) => it.name === "ns/s") ? [...map.values()] : hits;
  }
  workloadsOnNode(node: string): Resource[] {
    return node === "n1" ? this.local.flatMap((name) => this.addresses.get(name) ?? []) : [];
  }
}

class Rig {
  readonly mesh = new Mesh();
  readonly session: DeltaSession;
  /** Whether {@link next} acknowledges what it takes, as a client would. */
  acknowledging = true;
  nonces = 0;

  /** Policies that have changed in the mesh and are not pushed yet. */
  gathering: Resource[] = [];

  constructor(options: { node?: string; enforces?: boolean; responseBytesMax?: number; namesMax?: number } = {}) {
    const view = new ServedView(this.mesh), gathering = () => this.gathering;
    this.session = new DeltaSession({ view, nextNonce: () => `n${++this.nonces}`, node: "", gathering, ...options });
  }

  request(part: Partial<DeltaDiscoveryRequest> & { versions?: Record<string, string> }): RequestOutcome {
    const { versions = {}, ...rest } = part;
    return this.session.receive({
      typeUrl: ADDRESS_TYPE_URL,
      resourceNamesSubscribe: [],
      resourceNamesUnsubscribe: [],
      initialResourceVersions: new Map(Object.entries(versions)),
      responseNonce: "",
      ...rest,
    });
  }

  /** What goes out next, in short. */
  next(): string {
    const out = this.session.next();
    if (out === undefined) return "nothing";
    if (this.acknowledging) {
      assertEquals(this.request({ typeUrl: out.typeUrl, responseNonce: out.nonce }), "acknowledged");
    }
    return describe(out);
  }

  onDemand(): void {
    this.request({ resourceNamesSubscribe: ["*"], resourceNamesUnsubscribe: ["*"] });
    assertEquals(this.next(), "n1 address [] -[]");
  }

  /** Addresses on demand, and all policies. */
  onDemandWithPolicies(): void {
    this.request({ typeUrl: AUTHORIZATION_TYPE_URL });
    this.request({ resourceNamesSubscribe: ["*"], resourceNamesUnsubscribe: ["*"] });
    assertEquals([this.next(), this.next()], ["n1 policy [ns/p@1] -[]", "n2 address [] -[]"]);
  }
}

function describe({ typeUrl, nonce, resources, removed }: Outgoing): string {
  const type = typeUrl === ADDRESS_TYPE_URL ? "address" : "policy";
  return `${nonce} ${type} [${resources.map((it) => `${it.name}@${it.version}`).join(" ")}] -[${removed.join(" ")}]`;
}

Deno.test("receive() opens a wildcard watch by `*` or by naming nothing, unless `*` is unsubscribed too (CP-405)", () => {
  const cases: { subscribe: string[]; unsubscribe: string[]; wildcard: boolean }[] = [
    { subscribe: [], unsubscribe: [], wildcard: true },
    { subscribe: ["*"], unsubscribe: [], wildcard: true },
    { subscribe: ["*", "a"], unsubscribe: [], wildcard: true },
    { subscribe: ["*"], unsubscribe: ["*"], wildcard: false },
    { subscribe: [], unsubscribe: ["*"], wildcard: false },
    { subscribe: ["a"], unsubscribe: [], wildcard: false },
  ];
  for (const { subscribe, unsubscribe, wildcard } of cases) {
    const rig = new Rig();
    assertEquals(
      rig.request({ resourceNamesSubscribe: subscribe, resourceNamesUnsubscribe: unsubscribe }),
      "answered",
    );
    assertEquals(rig.session.status()[0]!.wildcard, wildcard, `+[${subscribe}] -[${unsubscribe}]`);
    assertNotEquals(rig.next(), "nothing", "a request is always answered (CP-411)");
  }
});

Deno.test("receive() keeps a watch wildcard whatever is subscribed later, and whatever versions name (CP-405)", () => {
  const rig = new Rig();
  rig.request({ versions: { a: "1" } });
  assertEquals(rig.session.status()[0]!.wildcard, true);
  rig.next();
  rig.request({ resourceNamesSubscribe: ["a"], responseNonce: "n1" });
  assertEquals(rig.session.status()[0]!.wildcard, true);
  assertEquals(rig.next(), "n2 address [a@1 b@1 ns/s@1] -[]", "a full answer (CP-410)");
});

Deno.test("next() skips what a wildcard client holds and names what is gone (CP-406, CP-415)", () => {
  const rig = new Rig();
  rig.request({ versions: { a: "1", b: "0", gone: "7" } });
  assertEquals(rig.next(), "n1 address [b@1 ns/s@1] -[gone]");
  assertEquals(rig.next(), "nothing");
});

Deno.test("next() answers with nothing when nothing is new (CP-411)", () => {
  const rig = new Rig();
  rig.request({ versions: { a: "1", b: "1", "ns/s": "1" } });
  assertEquals(rig.next(), "n1 address [] -[]");
});

Deno.test("receive() does not answer an ACK, and it clears the error (CP-409)", () => {
  const rig = new Rig();
  rig.acknowledging = false;
  rig.request({});
  rig.next();
  assertEquals(rig.request({ responseNonce: "n1", errorDetail: { code: 0, message: "bad" } }), "rejected");
  assertEquals(rig.session.status()[0]!.lastError, "bad");
  assertEquals(rig.next(), "nothing", "a NACK is not answered (CP-407)");
  assertEquals(rig.request({ responseNonce: "n1" }), "acknowledged");
  assertEquals([rig.session.status()[0]!.lastError, rig.session.status()[0]!.acknowledgedNonce], ["", "n1"]);
  assertEquals(rig.next(), "nothing");
});

Deno.test("receive() keeps the watch after a NACK (CP-407)", () => {
  const rig = new Rig();
  rig.acknowledging = false;
  rig.request({});
  rig.next();
  rig.request({ responseNonce: "n1", errorDetail: { code: 3, message: "bad" } });
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [resource("a", "2")], removed: [] });
  assertEquals(rig.next(), "n2 address [a@2] -[]");
});

Deno.test("receive() ignores a nonce that is not the last one of the type (CP-408)", () => {
  const rig = new Rig();
  rig.request({});
  rig.request({ typeUrl: AUTHORIZATION_TYPE_URL });
  rig.next();
  rig.next();
  assertEquals(rig.request({ responseNonce: "n1" }), "stale", "n1 is the other type's");
  assertEquals(rig.request({ responseNonce: "other", resourceNamesSubscribe: ["a"] }), "stale");
  assertEquals(rig.next(), "nothing");
  assertEquals(rig.request({ responseNonce: "n2" }), "acknowledged");
});

Deno.test("receive() takes the first request of a type whatever its nonce says: it may be of an earlier stream", () => {
  const rig = new Rig();
  assertEquals(rig.request({ responseNonce: "from-before" }), "answered");
  assertEquals(rig.next(), "n1 address [a@1 b@1 ns/s@1] -[]");
});

Deno.test("receive() leaves an unknown type unanswered (CP-413)", () => {
  const rig = new Rig();
  assertEquals(rig.request({ typeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster" }), "unknown-type");
  assertEquals(rig.next(), "nothing");
  assertEquals(rig.session.status(), []);
});

Deno.test("push() sends a wildcard client exactly what changed, removals sorted, nothing for nothing (CP-411, CP-416)", () => {
  const rig = new Rig();
  rig.request({});
  rig.next();
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [], removed: [] });
  assertEquals(rig.next(), "nothing");
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [resource("c", "1")], removed: ["z", "never-had"] });
  assertEquals(rig.next(), "n2 address [c@1] -[never-had z]");
  rig.session.push({ typeUrl: AUTHORIZATION_TYPE_URL, updated: [resource("ns/q", "1")], removed: [] });
  assertEquals(rig.next(), "nothing", "a type that is not watched is not sent");
});

Deno.test("push() merges what waits by name: a slow client costs its distinct names (CP-441, CP-443)", () => {
  const rig = new Rig();
  rig.request({});
  rig.next();
  for (let version = 0; version < 1_000; version++) {
    rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [resource("a", `${version}`)], removed: [] });
    rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [], removed: ["b"] });
  }
  assertEquals(rig.session.status()[0]!.waiting, 2);
  assertEquals(rig.next(), "n2 address [a@999] -[b]");
});

Deno.test("next() answers a request before a waiting push, and does not send older state after it (CP-442)", () => {
  const rig = new Rig();
  rig.request({});
  rig.next();
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [resource("a", "2")], removed: [] });
  rig.mesh.addresses.set("a", resource("a", "3"));
  rig.request({ responseNonce: "n1", resourceNamesSubscribe: ["a"] });
  assertEquals(rig.next(), "n2 address [a@3 b@1 ns/s@1] -[]");
  assertEquals(rig.next(), "nothing");
});

Deno.test("next() sends policies before the addresses that name them, and removes them after (CP-414, CP-427)", () => {
  const rig = new Rig();
  rig.request({});
  rig.request({ typeUrl: AUTHORIZATION_TYPE_URL });
  rig.next();
  rig.next();
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [resource("a", "2")], removed: ["b"] });
  rig.session.push({ typeUrl: AUTHORIZATION_TYPE_URL, updated: [resource("ns/new", "1")], removed: ["ns/old"] });
  assertEquals([rig.next(), rig.next(), rig.next(), rig.next()], [
    "n3 policy [ns/new@1] -[]",
    "n4 address [a@2] -[b]",
    "n5 policy [] -[ns/old]",
    "nothing",
  ]);
});

Deno.test("next() gives an on-demand client only what this request names, and says what is not there (CP-419)", () => {
  const rig = new Rig();
  rig.onDemand();
  rig.request({ resourceNamesSubscribe: ["/10.0.0.1"] });
  // Upstream does not report what it found by an alias; its own ztunnel then waits for that very name without end.
  assertEquals(rig.next(), "n2 address [a@1] -[/10.0.0.1]", "no resource has that name");
  rig.request({ resourceNamesSubscribe: ["/10.0.0.9"] });
  assertEquals(rig.next(), "n3 address [] -[/10.0.0.9]");
  rig.request({ resourceNamesSubscribe: ["ns/s"] });
  assertEquals(rig.next(), "n4 address [a@1 b@1 ns/s@1] -[]", "a service comes with its workloads (CP-418)");
});

Deno.test("push() gives an on-demand client what it was sent or asked for in vain (CP-420)", () => {
  const rig = new Rig();
  rig.onDemand();
  rig.request({ resourceNamesSubscribe: ["/10.0.0.1", "/10.0.0.9"] });
  rig.next();
  rig.session.push({
    typeUrl: ADDRESS_TYPE_URL,
    updated: [resource("a", "2"), resource("b", "2"), resource("late", "1", ["/10.0.0.9"])],
    removed: ["other"],
  });
  assertEquals(rig.next(), "n3 address [a@2 late@1] -[]");
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [], removed: ["late"] });
  assertEquals(rig.next(), "n4 address [] -[late]", "what was sent is subscribed by its own name");
});

Deno.test("next() adds the workloads of an on-demand client's own node to answers and pushes (CP-419)", () => {
  const rig = new Rig({ node: "n1" });
  rig.onDemand();
  rig.request({ resourceNamesSubscribe: ["a"] });
  assertEquals(rig.next(), "n2 address [a@1 b@1] -[]");
  const moved = resource("c", "1");
  rig.mesh.addresses.set("c", moved);
  rig.mesh.local.push("c");
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [moved, resource("elsewhere", "1")], removed: [] });
  assertEquals(rig.next(), "n3 address [c@1] -[]");
});

Deno.test("receive() stops sending what an on-demand client unsubscribes", () => {
  const rig = new Rig();
  rig.onDemand();
  rig.request({ resourceNamesSubscribe: ["a"] });
  rig.next();
  rig.request({ resourceNamesUnsubscribe: ["a"], responseNonce: "n2" });
  assertEquals(rig.next(), "n3 address [] -[]");
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [resource("a", "2")], removed: [] });
  assertEquals(rig.next(), "nothing");
});

Deno.test("receive() takes the names of initial versions as subscribed, on demand (CP-406)", () => {
  const rig = new Rig();
  rig.request({
    resourceNamesSubscribe: ["*"],
    resourceNamesUnsubscribe: ["*"],
    versions: { a: "1", b: "", gone: "3" },
  });
  assertEquals(rig.next(), "n1 address [b@1] -[gone]");
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [resource("a", "2")], removed: [] });
  assertEquals(rig.next(), "n2 address [a@2] -[]");
});

Deno.test("next() merges questions of one type that came before it could answer", () => {
  const rig = new Rig();
  rig.onDemand();
  rig.request({ resourceNamesSubscribe: ["a"] });
  rig.request({ resourceNamesSubscribe: ["b"] });
  assertEquals([rig.next(), rig.next()], ["n2 address [a@1 b@1] -[]", "nothing"]);
});

Deno.test("next() cuts a response that grows too large, and loses nothing of it (CP-450)", () => {
  const rig = new Rig({ responseBytesMax: 15 });
  rig.request({});
  assertEquals([rig.next(), rig.next(), rig.next()], [
    "n1 address [a@1 b@1] -[]",
    "n2 address [ns/s@1] -[]",
    "nothing",
  ]);
});

Deno.test("next() removes with the last part of what it had to cut, so that no policy goes before its replacement (CP-427, CP-450)", () => {
  const rig = new Rig({ responseBytesMax: 15 });
  rig.mesh.policies = new Map(["ns/p", "ns/q", "ns/r"].map((name) => [name, resource(name, "2")]));
  rig.request({ typeUrl: AUTHORIZATION_TYPE_URL, versions: { "ns/gone": "1", "ns/back": "1" } });
  assertEquals(rig.next(), "n1 policy [ns/p@2 ns/q@2] -[]", "an answer");
  rig.session.push({ typeUrl: AUTHORIZATION_TYPE_URL, updated: [resource("ns/back", "2")], removed: [] });
  assertEquals([rig.next(), rig.next(), rig.next()], [
    "n2 policy [ns/r@2 ns/back@2] -[]",
    "n3 policy [] -[ns/gone]",
    "nothing",
  ], "what came back meanwhile is not removed");
  rig.request({ resourceNamesSubscribe: ["*"] });
  while (rig.next() !== "nothing");
  rig.session.push({
    typeUrl: ADDRESS_TYPE_URL,
    updated: ["a", "b", "c"].map((name) => resource(name, "2")),
    removed: ["ns/s"],
  });
  const parts = [rig.next(), rig.next(), rig.next()].map((it) => it.slice(it.indexOf(" ") + 1));
  assertEquals(parts, ["address [a@2 b@2] -[]", "address [c@2] -[ns/s]", "nothing"], "a push");
});

Deno.test("next() tells of an alias with or behind the resource that it found, however small the parts", () => {
  const rig = new Rig({ responseBytesMax: 5 });
  rig.onDemand();
  rig.request({ resourceNamesSubscribe: ["/10.0.0.1", "/10.0.0.2", "/10.0.0.99"] });
  assertEquals([rig.next(), rig.next(), rig.next()], [
    "n2 address [a@1] -[]",
    "n3 address [b@1] -[/10.0.0.1 /10.0.0.2 /10.0.0.99]",
    "nothing",
  ]);
});

Deno.test("next() holds a type's next response until the last one is acknowledged or rejected (CP-441, CP-443)", () => {
  for (const errorDetail of [undefined, { code: 0, message: "bad" }]) {
    const rig = new Rig();
    rig.acknowledging = false;
    rig.request({});
    assertEquals(rig.next(), "n1 address [a@1 b@1 ns/s@1] -[]");
    rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [resource("a", "2")], removed: [] });
    const unsettled = (type: string) => rig.session.someUnsettled((it) => it === type);
    assertEquals([rig.next(), unsettled(ADDRESS_TYPE_URL)], ["nothing", true]);
    assertEquals(unsettled(AUTHORIZATION_TYPE_URL), false);
    rig.request({ typeUrl: AUTHORIZATION_TYPE_URL });
    assertEquals(rig.next(), "n2 policy [ns/p@1] -[]", "one type does not hold up another's answer");
    rig.request({ responseNonce: "n1", ...(errorDetail === undefined ? {} : { errorDetail }) });
    assertEquals(rig.next(), "n3 address [a@2] -[]");
    rig.request({ responseNonce: "n1", errorDetail: { code: 0, message: "late" } });
    rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [resource("a", "3")], removed: [] });
    assertEquals(rig.next(), "nothing", "a late rejection of an earlier response settles nothing");
  }
});

Deno.test("next() keeps the policy order while one type is held up (CP-427)", () => {
  const rig = new Rig();
  rig.request({});
  rig.next();
  rig.request({ typeUrl: AUTHORIZATION_TYPE_URL });
  rig.acknowledging = false;
  assertEquals(rig.next(), "n2 policy [ns/p@1] -[]");
  rig.session.push({ typeUrl: AUTHORIZATION_TYPE_URL, updated: [resource("ns/q", "1")], removed: ["ns/p"] });
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [resource("a", "2")], removed: [] });
  assertEquals(rig.next(), "nothing", "the address waits for the policy before it");
  rig.request({ typeUrl: AUTHORIZATION_TYPE_URL, responseNonce: "n2" });
  assertEquals([rig.next(), rig.next(), rig.next()], ["n3 policy [ns/q@1] -[]", "n4 address [a@2] -[]", "nothing"]);
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [resource("a", "3")], removed: [] });
  rig.request({ typeUrl: AUTHORIZATION_TYPE_URL, responseNonce: "n3" });
  assertEquals(rig.next(), "nothing", "the removal waits for the addresses before it");
  rig.request({ responseNonce: "n4" });
  assertEquals([rig.next(), rig.next()], ["n5 address [a@3] -[]", "n6 policy [] -[ns/p]"]);
});

const POLICIES = { typeUrl: AUTHORIZATION_TYPE_URL };

for (const enforces of [false, true]) {
  const who = enforces ? "a client that enforces" : "any client";
  Deno.test(`next() answers ${who} that comes back with policies first, and takes those that are gone last (CP-427)`, () => {
    const rig = new Rig({ enforces });
    rig.request({ versions: { a: "0" } });
    rig.request({ ...POLICIES, versions: { "ns/old": "1" } });
    assertEquals([rig.next(), rig.next(), rig.next(), rig.next()], [
      "n1 policy [ns/p@1] -[]",
      "n2 address [a@1 b@1 ns/s@1] -[]",
      "n3 policy [] -[ns/old]",
      "nothing",
    ]);
  });
}

Deno.test("next() tells who enforces policies no address before it has asked for them, in whichever order it asks (CP-427)", () => {
  const rig = new Rig({ enforces: true });
  rig.request({ versions: { a: "0" } });
  assertEquals(rig.next(), "nothing");
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, updated: [resource("a", "1")], removed: [] });
  assertEquals(rig.next(), "nothing");
  rig.request(POLICIES);
  assertEquals([rig.next(), rig.next()], ["n1 policy [ns/p@1] -[]", "n2 address [a@1 b@1 ns/s@1] -[]"]);

  const other = new Rig({ enforces: true });
  other.request({ ...POLICIES, versions: { "ns/old": "1" } });
  assertEquals([other.next(), other.next()], ["n1 policy [ns/p@1] -[]", "nothing"], "workloads may name ns/old");
  other.request({});
  assertEquals([other.next(), other.next()], ["n2 address [a@1 b@1 ns/s@1] -[]", "n3 policy [] -[ns/old]"]);
});

Deno.test("expectNoMore() answers a client that asks for one of both alone (CP-411, CP-427)", () => {
  for (const typeUrl of [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL]) {
    const rig = new Rig({ enforces: true });
    rig.request({ typeUrl, versions: { "ns/old": "1" } });
    const first = rig.next();
    assertEquals(first, typeUrl === ADDRESS_TYPE_URL ? "nothing" : "n1 policy [ns/p@1] -[]");
    rig.session.expectNoMore();
    const rest = typeUrl === ADDRESS_TYPE_URL ? "n1 address [a@1 b@1 ns/s@1] -[ns/old]" : "n2 policy [] -[ns/old]";
    assertEquals(rig.next(), rest);
  }
});

Deno.test("next() sends policies that still gather ahead of an answer that may name them, once (CP-427, CP-445)", () => {
  const rig = new Rig();
  rig.onDemandWithPolicies();
  const fresh = resource("ns/q", "1");
  rig.mesh.policies.set("ns/q", fresh);
  rig.gathering = [fresh];
  rig.request({ resourceNamesSubscribe: ["a"] });
  assertEquals([rig.next(), rig.next(), rig.next()], ["n3 policy [ns/q@1] -[]", "n4 address [a@1] -[]", "nothing"]);
  rig.request({ resourceNamesSubscribe: ["b"] });
  assertEquals([rig.next(), rig.next()], ["n5 address [b@1] -[]", "nothing"]);
});

Deno.test("next() answers no address while a policy waits that the client has not settled (CP-427, CP-442)", () => {
  const rig = new Rig();
  rig.onDemandWithPolicies();
  rig.acknowledging = false;
  rig.session.push({ ...POLICIES, updated: [resource("ns/q", "1")], removed: [] });
  assertEquals(rig.next(), "n3 policy [ns/q@1] -[]");
  rig.session.push({ ...POLICIES, updated: [resource("ns/r", "1")], removed: [] });
  rig.request({ resourceNamesSubscribe: ["a"] });
  assertEquals(rig.next(), "nothing");
  rig.request({ ...POLICIES, responseNonce: "n3" });
  assertEquals([rig.next(), rig.next()], ["n4 policy [ns/r@1] -[]", "n5 address [a@1] -[]"]);
});

Deno.test("push() tells whoever watches addresses of all of them, workloads to those who watch these, and others nothing (CP-421, CP-423, CP-424)", () => {
  const rig = new Rig(), change = { updated: [resource("a", "2")], removed: [] };
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, ...change });
  assertEquals([rig.next(), rig.session.waiting], ["nothing", false], "a waypoint that watches neither is not woken");
  rig.request({ typeUrl: WORKLOAD_TYPE_URL });
  assertEquals(rig.session.next()?.typeUrl, WORKLOAD_TYPE_URL);
  rig.request({ typeUrl: WORKLOAD_TYPE_URL, responseNonce: "n1" });
  rig.session.push({ typeUrl: ADDRESS_TYPE_URL, ...change });
  rig.session.push({ typeUrl: WORKLOAD_TYPE_URL, ...change });
  const out = rig.session.next();
  assertEquals([out?.typeUrl, out?.resources.length, rig.session.next()], [WORKLOAD_TYPE_URL, 1, undefined]);
});

Deno.test("DeltaSession is exhausted by names that are asked for, and by versions of names that nobody has asked for", () => {
  const asking = new Rig({ namesMax: 3 });
  asking.request({ resourceNamesSubscribe: ["a", "b", "c"] });
  assertEquals(asking.session.exhausted, false);
  asking.request({ resourceNamesSubscribe: ["d"] });
  assertEquals(asking.session.exhausted, true);
  const holding = new Rig({ namesMax: 3 });
  for (const name of ["a", "b", "c"]) holding.request({ versions: { [name]: "1" } }); // Not one is answered meanwhile.
  assertEquals(holding.session.exhausted, false);
  holding.request({ versions: { d: "1" } });
  assertEquals(holding.session.exhausted, true);
});
