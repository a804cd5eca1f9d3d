/**
 * Policies from the wire to the verdict, through the shared tables, held against an evaluator that knows none of our code:
 * it works on what was meant to be written, with texts and numbers of 128 bits, word by word as the rules say it.
 */
import { assert, assertEquals } from "@std/assert";
import { principalOf } from "../../mesh/identity.ts";
import { authorize, type Policy } from "../../mesh/policy.ts";
import { decodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import { seeds } from "../../mesh/testing.ts";
import { createTables, openTables } from "./handles.ts";
import { SnapshotReader } from "./lookup.ts";
import { type Encoded, type MeshChanges, SnapshotWriter } from "./publish.ts";
import { randomOf, SampleMesh, workloadOf } from "./testing.ts";

// ---- what is meant

type Text = { kind: "exact" | "prefix" | "suffix" | "presence" | "unknown"; value: string };
type Range = { address: Uint8Array; length: number };
type Account = { namespace: string; name: string };

/** By field number of istio.security.Match. */
interface Meant {
  texts: Text[][]; // 1 to 4
  ranges: Range[][]; // 5 to 8
  ports: number[][]; // 9, 10
  accounts: Account[][]; // 11, 12
}

interface MeantPolicy {
  key: string;
  namespace: string;
  scope: number;
  deny: boolean;
  dryRun: boolean;
  rules: Meant[][][];
}

interface Caller {
  identity: { trustDomain: string; namespace: string; serviceAccount: string } | undefined;
  source: Uint8Array;
  destination: Uint8Array;
  port: number;
}

// ---- the plain evaluator

const MAPPED = 0xffffn << 32n, V4_BITS = 0xffffffffn;

function number(bytes: Uint8Array): bigint {
  const value = BigInt(`0x${bytes.toHex()}`);
  return bytes.length === 4 ? MAPPED | value : value;
}

const isV4 = (value: bigint) => value >> 32n === 0xffffn;

/** undefined: no range at all. */
function contains({ address, length }: Range, ip: Uint8Array): boolean | undefined {
  if (address.length !== 4 && address.length !== 16) return undefined;
  const base = number(address), value = number(ip);
  let bits = BigInt(length);
  if (address.length === 4) {
    if (bits > 32n) return undefined;
    bits += 96n;
  } else if (bits > 128n || (isV4(base) && bits < 96n)) return undefined;
  if (isV4(base) !== isV4(value)) return false; // ::/0 is all of IPv6 and nothing of IPv4.
  return (base ^ value) >> (128n - bits) === 0n;
}

function fits({ kind, value }: Text, text: string): boolean | undefined {
  if (kind === "unknown") return undefined;
  if (kind === "presence") return text.length > 0;
  if (kind === "exact") return text === value;
  return kind === "prefix" ? text.slice(0, value.length) === value : text.slice(-value.length || text.length) === value;
}

/** One pair of a list and its negation; `holds` says of an entry whether it does, or undefined for one that says nothing. */
function pair<T>(wanted: T[], unwanted: T[], deny: boolean, holds: (entry: T) => boolean | undefined): boolean {
  const positive = wanted.map(holds), negative = unwanted.map(holds);
  if (!deny && [...positive, ...negative].includes(undefined)) return false;
  const yes = positive.length === 0 || positive.includes(undefined) || positive.includes(true);
  return yes && !negative.includes(true);
}

function matches({ texts, ranges, ports, accounts }: Meant, caller: Caller, deny: boolean): boolean {
  if ([...texts, ...ranges, ...ports, ...accounts].every((list) => list.length === 0)) return false;
  const { identity } = caller, principal = identity && principalOf(identity);
  const inPrincipal = (text: Text) => text.kind === "unknown" ? undefined : !!principal && fits(text, principal);
  const inAccount = (it: Account) =>
    identity !== undefined && it.namespace === identity.namespace && it.name === identity.serviceAccount;
  return [
    pair(texts[0]!, texts[1]!, deny, (it) => fits(it, identity?.namespace ?? "")),
    pair(texts[2]!, texts[3]!, deny, inPrincipal),
    pair(ranges[0]!, ranges[1]!, deny, (it) => contains(it, caller.source)),
    pair(ranges[2]!, ranges[3]!, deny, (it) => contains(it, caller.destination)),
    pair(ports[0]!, ports[1]!, deny, (it) => it === caller.port),
    pair(accounts[0]!, accounts[1]!, deny, inAccount),
  ].every(Boolean);
}

function allowed(policies: MeantPolicy[], named: readonly string[], namespace: string, caller: Caller): boolean {
  const inForce = policies.filter((it) =>
    !it.dryRun && (it.scope === 0 || (it.scope === 1 && it.namespace === namespace) || named.includes(it.key))
  );
  const hit = ({ rules, deny }: MeantPolicy) =>
    rules.some((clauses) =>
      clauses.every((clause) => clause.length === 0 || clause.some((match) => matches(match, caller, deny)))
    );
  if (inForce.some((it) => it.deny && hit(it))) return false;
  const allows = inForce.filter((it) => !it.deny);
  return allows.length === 0 || allows.some(hit);
}

// ---- written by hand

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push(value % 128 + 128);
  return [...bytes, value];
}
const scalar = (field: number, value: number) => [...varint(field * 8), ...varint(value)];
const nested = (field: number, content: readonly number[]) => [
  ...varint(field * 8 + 2),
  ...varint(content.length),
  ...content,
];
const text = (field: number, value: string) => nested(field, [...new TextEncoder().encode(value)]);

function writeText({ kind, value }: Text): number[] {
  if (kind === "unknown") return value === "" ? [] : text(7, value); // A kind that we do not know, or none.
  return kind === "presence" ? nested(4, []) : text({ exact: 1, prefix: 2, suffix: 3 }[kind], value);
}

function writeMatch({ texts, ranges, ports, accounts }: Meant): number[] {
  return [
    ...texts.flatMap((list, at) => list.flatMap((it) => nested(1 + at, writeText(it)))),
    ...ranges.flatMap((list, at) =>
      list.flatMap(({ address, length }) => nested(5 + at, [...nested(1, [...address]), ...scalar(2, length)]))
    ),
    ...ports.flatMap((list, at) => list.flatMap((port) => scalar(9 + at, port))),
    ...accounts.flatMap((list, at) =>
      list.flatMap(({ namespace, name }) => nested(11 + at, [...text(1, namespace), ...text(2, name)]))
    ),
  ];
}

function write({ key, namespace, scope, deny, dryRun, rules }: MeantPolicy): Uint8Array {
  const written = rules.flatMap((clauses) =>
    nested(5, clauses.flatMap((clause) => nested(1, clause.flatMap((match) => nested(2, writeMatch(match))))))
  );
  const flags = [...scalar(3, scope), ...(deny ? scalar(4, 1) : []), ...(dryRun ? scalar(6, 1) : [])];
  return Uint8Array.from([...text(1, key.split("/")[1]!), ...text(2, namespace), ...flags, ...written]);
}

// ---- a small world, so that its parts often meet

const ADDRESSES = ["0a000001", "0a000101", "7f000001", "00000000", "ffffffff"].map((it) => Uint8Array.fromHex(it));
const ADDRESSES_V6 = [
  "20010db8000000000000000000000001",
  "00000000000000000000000000000000",
  "00000000000000000000ffff0a000001",
].map((it) => Uint8Array.fromHex(it));
const NAMESPACES = ["shop", "shop2", "s", ""], ACCOUNTS = ["web", "webx", ""];
const TEXTS = ["shop", "s", "op", "", "td/ns/shop/sa/web", "td/", "/sa/web", "spiffe://td/ns/shop/sa/web", "*"];

class World {
  readonly #below: (limit: number) => number;

  constructor(seed: number) {
    this.#below = randomOf(seed);
  }

  #one<T>(of: readonly T[]): T {
    return of[this.#below(of.length)]!;
  }

  #some<T>(make: () => T): T[] {
    return Array.from({ length: Math.max(0, this.#below(5) - 2) }, make);
  }

  #text(): Text {
    const kind = this.#one(["exact", "prefix", "suffix", "presence", "exact", "prefix", "suffix", "unknown"] as const);
    return { kind, value: kind === "presence" ? "" : this.#one(TEXTS) };
  }

  #range(): Range {
    const address = this.#one([
      ...ADDRESSES,
      ...ADDRESSES_V6,
      this.#below(8) === 0 ? new Uint8Array(5) : ADDRESSES[0]!,
    ]);
    return { address, length: this.#one([0, 1, 8, 24, 31, 32, 33, 64, 95, 96, 97, 104, 120, 127, 128, 129]) };
  }

  #match(): Meant {
    const busy = this.#below(12);
    const list = <T>(at: number, make: () => T): T[] => busy === at || this.#below(6) === 0 ? this.#some(make) : [];
    return {
      texts: [0, 1, 2, 3].map((at) => list(at, () => this.#text())),
      ranges: [4, 5, 6, 7].map((at) => list(at, () => this.#range())),
      ports: [8, 9].map((at) => list(at, () => this.#one([0, 80, 443, 65_535]))),
      accounts: [10, 11].map((at) => list(at, () => ({ namespace: this.#one(NAMESPACES), name: this.#one(ACCOUNTS) }))),
    };
  }

  policies(): MeantPolicy[] {
    const keys = ["root/all", "shop/one", "shop/two", "other/three"];
    return keys.filter(() => this.#below(3) > 0).map((key) => ({
      key,
      namespace: key.split("/")[0]!,
      scope: this.#below(3),
      deny: this.#below(2) === 0,
      dryRun: this.#below(6) === 0,
      rules: this.#some(() => this.#some(() => this.#some(() => this.#match()))),
    }));
  }

  named(): string[] {
    return ["shop/one", "other/three", "none/of-that-name"].filter(() => this.#below(2) === 0);
  }

  caller(): Caller {
    const ips = this.#below(3) === 0 ? ADDRESSES_V6.slice(0, 2) : ADDRESSES;
    const trustDomain = "td", namespace = this.#one(NAMESPACES), serviceAccount = this.#one(ACCOUNTS);
    return {
      identity: this.#below(4) === 0 ? undefined : { trustDomain, namespace, serviceAccount },
      source: this.#one(ips),
      destination: this.#one(ips),
      port: this.#one([0, 80, 443, 8080]),
    };
  }
}

class WireMesh extends SampleMesh {
  readonly written = new Map<string, Encoded<Policy>>();
  changed = new Set<string>();

  override policy(key: string): Encoded<Policy> | undefined {
    return this.written.get(key);
  }
  override takeChanges(): MeshChanges {
    const policies = this.changed;
    this.changed = new Set();
    return { ...super.takeChanges(), policies };
  }
}

function words(bytes: Uint8Array): [number, number, number, number] {
  const value = number(bytes), word = (at: bigint) => Number(value >> (32n * at) & V4_BITS);
  return [word(3n), word(2n), word(1n), word(0n)];
}

Deno.test("a policy's bytes, through the tables, decide as its rules say in plain words, seeded (ZT-106 to ZT-119)", () => {
  const sizes = { pods: 1, identities: 1, flowsPerWorker: 8, connectionsPerWorker: 8, snapshotBytes: 1 << 20 };
  const tables = openTables(createTables({ ...sizes, workers: 1 }, ""));
  const writer = new SnapshotWriter(tables, () => {}, 1), mesh = new WireMesh();
  writer.admit(0);
  const reader = new SnapshotReader(tables, 0), outcomes = new Set<string>();
  for (const seed of seeds()) {
    const world = new World(seed), policies = world.policies(), named = world.named();
    mesh.changed = new Set([...mesh.written.keys(), ...policies.map(({ key }) => key)]);
    mesh.written.clear();
    for (const policy of policies) {
      const bytes = write(policy);
      mesh.written.set(policy.key, { bytes, resource: decodeAuthorization(bytes, policy.key) });
    }
    mesh.putWorkload(workloadOf("w", { namespace: "shop", authorizationPolicies: named }));
    mesh.pods.set(0, "w");
    writer.publish(mesh);
    while (!reader.refresh()) assert(reader.warming, "what is published is read");
    const inForce = reader.policiesFor(reader.localWorkload(0)!);
    for (let count = 0; count < 12; count++) {
      const caller = world.caller(), { identity } = caller;
      const [source0, source1, source2, source3] = words(caller.source);
      const [destination0, destination1, destination2, destination3] = words(caller.destination);
      const facts = {
        identity,
        principal: identity && principalOf(identity),
        source0,
        source1,
        source2,
        source3,
        destination0,
        destination1,
        destination2,
        destination3,
        destinationPort: caller.port,
      };
      const verdict = authorize(inForce, facts);
      const expected = allowed(policies, named, "shop", caller);
      outcomes.add(`${verdict.allowed} ${verdict.by.split(" ", 2).join(" ")}`);
      assertEquals(verdict.allowed, expected, `seed ${seed}: ${JSON.stringify({ policies, named, caller })}`);
    }
  }
  assertEquals([...outcomes].sort(), [
    "false allow policies",
    "false explicitly denied",
    "true allowed by:",
    "true no allow",
  ]);
});
