/**
 * The law of shared pushes: a stream that takes them is told, response by response, what it would be told were it alone; and
 * however changes, acknowledgements, refusals and questions are interleaved, it ends with what the mesh is.
 */
import { assert, assertEquals, assertNotEquals, assertNotStrictEquals, assertStrictEquals } from "@std/assert";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { decodeDeltaDiscoveryResponse } from "../../mesh/proto/discovery_codec.ts";
import { seededRandom } from "../../mesh/proto/hostile_bytes_testing.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { Debouncer } from "./debounce.ts";
import { NONE, type Resource, type ResourceChange, type ResourceView } from "./resources.ts";
import { ResponseEncoder } from "./response.ts";
import { ServedView } from "./served_view.ts";
import { DeltaSession, type Outgoing } from "./session.ts";
import { SharedResponses } from "./shared_responses.ts";

const TYPES = [AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL] as const;
const SEEDS = 40, STEPS = 150, STREAMS = 5;

function resource(name: string, version: string, bytes = 10): Resource {
  return { name, version, aliases: [], bytes: new Uint8Array(bytes).fill(version.length) };
}

function shared(): SharedResponses {
  return new SharedResponses(new ResponseEncoder("{}"), "start");
}

function push(resources: readonly Resource[], removed: readonly string[] = NONE, answers = false) {
  return { typeUrl: ADDRESS_TYPE_URL, resources, removed, answers };
}

Deno.test("SharedResponses give one push one nonce and one message, whoever is sent it (CP-412, CP-658)", () => {
  const responses = shared(), body = push([resource("a", "1")]);
  const first = { ...body, nonce: responses.nonceOf(body) }, message = responses.messageOf(first);
  const second = { ...body, nonce: responses.nonceOf({ ...body }) };
  assertEquals(second.nonce, first.nonce);
  assertStrictEquals(responses.messageOf(second), message);
  assertEquals(decodeDeltaDiscoveryResponse(joined(message.parts)).nonce, first.nonce);
});

Deno.test("SharedResponses give another nonce to answers, to other bodies, and to the same arrays in a later push (CP-412)", () => {
  const responses = shared(), resources = [resource("a", "1")], removed = ["b"];
  const nonces = [
    responses.nonceOf(push(resources, removed)),
    responses.nonceOf(push(resources, removed, true)),
    responses.nonceOf(push(resources, removed, true)),
    responses.nonceOf(push([...resources], removed)),
    responses.nonceOf(push(resources, removed)),
    responses.nonceOf(push(resources)),
    responses.nonceOf({ ...push(resources), typeUrl: AUTHORIZATION_TYPE_URL }),
  ];
  assertEquals(responses.nonceOf(push(resources)), nonces.at(-2));
  responses.begin();
  nonces.push(responses.nonceOf(push(resources)));
  assertEquals(new Set(nonces).size, nonces.length);
});

Deno.test("SharedResponses encode an answer for its stream alone, and keep no message as large as a mesh", () => {
  const responses = shared(), large = push([resource("a", "1", 2 * 1024 * 1024)]);
  const first = { ...large, nonce: responses.nonceOf(large) }, message = responses.messageOf(first);
  const second = { ...large, nonce: responses.nonceOf(large) };
  assertNotEquals(second.nonce, first.nonce);
  assertNotStrictEquals(responses.messageOf(second), message);
  const answer = push([resource("a", "1")], [], true), nonce = responses.nonceOf(answer);
  assertNotStrictEquals(responses.messageOf({ ...answer, nonce }), responses.messageOf({ ...answer, nonce }));
});

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** A mesh of few names, whose changes gather until they are pushed. */
class Mesh implements ResourceView {
  generation = 0;
  readonly types = new Map(TYPES.map((typeUrl) => [typeUrl as string, new Map<string, Resource>()]));
  readonly gathered: ResourceChange[] = [];
  readonly debouncer = new Debouncer({
    quietMs: 0,
    idleQuietMs: 0,
    maxMs: 0,
    now: () => 0,
    schedule: (callback) => {
      this.flush = callback;
      return () => {};
    },
    flush: (changes) => void this.gathered.push(...changes),
  });
  flush = () => {};

  all(typeUrl: string): Iterable<Resource> {
    return this.types.get(typeUrl)!.values();
  }
  lookup(typeUrl: string, name: string): Resource[] {
    const found = this.types.get(typeUrl)!.get(name);
    return found === undefined ? [] : [found];
  }
  workloadsOnNode(): Resource[] {
    return [];
  }
  change(typeUrl: string, updated: readonly Resource[], removed: readonly string[]): void {
    const map = this.types.get(typeUrl)!;
    for (const it of updated) map.set(it.name, it);
    for (const name of removed) map.delete(name);
    this.generation++;
    this.debouncer.add({ typeUrl, updated, removed });
  }
}

/** One client, fed by shared pushes and, in step with that, by a session of its own. */
class Twin {
  readonly shared: DeltaSession;
  readonly alone: DeltaSession;
  readonly holds = new Map<string, Map<string, string>>(TYPES.map((typeUrl) => [typeUrl, new Map()]));
  readonly nonces = new Set<string>();
  readonly names: ReadonlySet<string> | undefined;
  readonly #responses: SharedResponses;
  /** What it has been sent and has not acknowledged yet, under both nonces. */
  readonly #open: { readonly typeUrl: string; readonly shared: string; readonly alone: string }[] = [];
  #aloneNonces = 0;

  constructor(mesh: Mesh, responses: SharedResponses, names: ReadonlySet<string> | undefined) {
    const options = {
      view: new ServedView(mesh),
      node: "",
      enforces: names === undefined,
      gathering: () => mesh.debouncer.gathering(AUTHORIZATION_TYPE_URL),
    };
    this.names = names;
    this.#responses = responses;
    this.shared = new DeltaSession({ ...options, nextNonce: (body) => responses.nonceOf(body) });
    this.alone = new DeltaSession({ ...options, nextNonce: () => `alone-${++this.#aloneNonces}` });
  }

  /** Asks both for the same. */
  ask(typeUrl: string, versions: ReadonlyMap<string, string> = new Map()): void {
    const names = typeUrl === ADDRESS_TYPE_URL ? this.names : undefined;
    this.#request({ typeUrl, names: names === undefined ? [] : [...names], versions, shared: "", alone: "" });
  }

  settle(random: () => number): void {
    const open = this.#open.shift();
    if (open !== undefined) this.#request({ ...open, names: [], versions: new Map(), rejects: random() < 0.1 });
  }

  push(changes: readonly ResourceChange[]): void {
    for (const change of changes) this.shared.push(change), this.alone.push(change);
    this.pump();
  }

  /** Takes what both have to say, holds it together, and believes the shared one's bytes. */
  pump(): void {
    for (;;) {
      const outgoing = this.shared.next(), expected = this.alone.next();
      assertEquals(outgoing && { ...outgoing, nonce: "" }, expected && { ...expected, nonce: "" });
      if (outgoing === undefined || expected === undefined) return;
      this.#take(outgoing);
      this.#open.push({ typeUrl: outgoing.typeUrl, shared: outgoing.nonce, alone: expected.nonce });
    }
  }

  #take(outgoing: Outgoing): void {
    assert(!this.nonces.has(outgoing.nonce), "a nonce is used once on a stream (CP-412)");
    this.nonces.add(outgoing.nonce);
    const said = decodeDeltaDiscoveryResponse(joined(this.#responses.messageOf(outgoing).parts));
    assertEquals([said.typeUrl, said.nonce, said.removedResources], [
      outgoing.typeUrl,
      outgoing.nonce,
      [...outgoing.removed],
    ]);
    const held = this.holds.get(said.typeUrl)!;
    for (const { name, version } of said.resources) held.set(name, version);
    for (const name of said.removedResources) held.delete(name);
  }

  #request({ typeUrl, names, versions, shared, alone, rejects = false }: {
    typeUrl: string;
    names: readonly string[];
    versions: ReadonlyMap<string, string>;
    shared: string;
    alone: string;
    rejects?: boolean;
  }): void {
    const part = {
      typeUrl,
      resourceNamesSubscribe: names,
      resourceNamesUnsubscribe: names.length === 0 ? [] : ["*"],
      initialResourceVersions: versions,
      errorDetail: rejects ? { code: 3, message: "no" } : undefined,
    };
    const outcome = this.shared.receive({ ...part, responseNonce: shared });
    assertEquals(outcome, this.alone.receive({ ...part, responseNonce: alone }));
    this.pump();
  }

  get behind(): boolean {
    return this.#open.length > 0;
  }
}

Deno.test("A stream fed by shared pushes is told what it would be told alone, and ends with the mesh, seeded (CP-412, CP-415, CP-427, CP-441, CP-658)", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seededRandom(seed), upTo = (max: number) => Math.floor(random() * max);
    const mesh = new Mesh(), responses = shared(), sentBy = new Map<string, number>();
    let twins: Twin[] = [];
    const count = (twin: Twin) => {
      for (const nonce of twin.nonces) sentBy.set(nonce, (sentBy.get(nonce) ?? 0) + 1);
    };
    const open = (held?: Twin) => {
      const names = upTo(3) === 0 ? new Set(["n0", "n1", "n2"]) : undefined;
      const twin = new Twin(mesh, responses, held === undefined ? names : held.names);
      twins.push(twin);
      for (const typeUrl of random() < 0.5 ? TYPES : TYPES.toReversed()) {
        if (held !== undefined) { for (const one of held.holds.get(typeUrl)!) twin.holds.get(typeUrl)!.set(...one); }
        twin.ask(typeUrl, held?.holds.get(typeUrl));
      }
    };
    const flush = () => {
      mesh.flush();
      responses.begin();
      for (const twin of twins) twin.push(mesh.gathered);
      mesh.gathered.length = 0;
    };
    for (let step = 0; step < STEPS; step++) {
      const what = upTo(10), twin = twins[upTo(Math.max(1, twins.length))];
      if (what < 3) {
        const typeUrl = TYPES[upTo(2)]!, name = `n${upTo(6)}`;
        if (upTo(3) === 0) mesh.change(typeUrl, [], [name]);
        else mesh.change(typeUrl, [resource(name, `${step}`)], []);
      } else if (what < 5) flush();
      else if (what < 9) { for (let acks = upTo(4); acks > 0; acks--) twins[upTo(twins.length)]?.settle(random); }
      else if (twins.length < STREAMS) open();
      else if (upTo(4) === 0 && twin !== undefined) { // It breaks, and comes back with what it holds.
        twins = twins.filter((it) => it !== twin);
        count(twin);
        open(twin);
      }
    }
    flush();
    while (twins.some((twin) => twin.behind)) for (const twin of twins) twin.settle(() => 1);
    for (const twin of twins) {
      count(twin);
      for (const typeUrl of TYPES) {
        const watches = (name: string) => typeUrl === AUTHORIZATION_TYPE_URL || (twin.names?.has(name) ?? true);
        const now = [...mesh.all(typeUrl)].filter(({ name }) => watches(name)).map((it) =>
          [it.name, it.version] as const
        );
        const held = [...twin.holds.get(typeUrl)!].sort();
        assertEquals(held, now.toSorted(), `seed ${seed}, ${typeUrl}`);
      }
    }
    assert([...sentBy.values()].some((streams) => streams > 1), `seed ${seed}: pushes are shared`);
  }
});
