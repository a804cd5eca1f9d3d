import { assertEquals, assertThrows } from "@std/assert";
import { AssertionError } from "../../base/assert.ts";
import { Engine } from "./engine.ts";
import type { Change, Collection, Store } from "./store.ts";

interface Item {
  readonly group: string;
  readonly value: number;
  readonly reference: string;
}

interface Graph {
  readonly engine: Engine;
  readonly left: Store<Item>;
  readonly right: Store<Item>;
  readonly outputs: readonly Collection<unknown>[];
}

/** One of everything, chained: derive over a join, fetches by key and by group, groups of derived items, many outputs. */
function build(): Graph {
  const engine = new Engine();
  const left = engine.source<Item>("left"), right = engine.source<Item>("right");
  const rightByGroup = engine.index(right, "right by group", (item) => [item.group, `any-${item.value % 2}`]);
  const doubled = engine.derive(
    "doubled",
    left,
    (item) => item.value % 3 === 0 ? undefined : { ...item, value: item.value * 2 },
  );
  const referring = engine.derive("referring", left, (item, fetch) => ({
    own: item.value,
    referred: fetch.one(right, item.reference)?.value ?? -1,
    beside: fetch.by(rightByGroup, item.group).map((it) => it.value),
  }));
  const named = engine.deriveMany(
    "named",
    right,
    (item, fetch, key) =>
      Array.from(
        { length: item.value % 4 },
        (_, at) => [`${key}/${at}`, fetch.one(doubled, item.reference)?.value ?? at] as const,
      ),
  );
  const doubledByGroup = engine.index(doubled, "doubled by group", (item) => [item.group]);
  const sums = engine.group(
    "sums",
    doubledByGroup,
    (items, fetch, group) => items.reduce((sum, item) => sum + item.value, fetch.by(rightByGroup, group).length),
  );
  const tagged = (store: Store<Item>, tag: string) =>
    engine.deriveMany(
      `${tag} tagged`,
      store,
      (item, _, key) => item.value > 5 ? [[`${tag}-${key}`, item.value] as const] : [],
    );
  const joined = engine.join("joined", [tagged(left, "l"), tagged(right, "r")]);
  const last = engine.derive("last", joined, (value, fetch) => `${value}:${fetch.one(sums, "a") ?? "none"}`);
  return { engine, left, right, outputs: [doubled, referring, named, sums, joined, last] };
}

function contents(graph: Graph): Record<string, [string, unknown][]> {
  return Object.fromEntries(graph.outputs.map((it) => [it.name, [...it.entries()].sort(([a], [b]) => a < b ? -1 : 1)]));
}

function seededRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * below);
  };
}

Deno.test("Engine.settle() gives what a full recomputation gives, after any updates in any batches (CP-105)", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = seededRandom(seed), graph = build();
    const mirrors = graph.outputs.map((collection) => {
      const mirror = new Map<string, unknown>();
      graph.engine.subscribe(collection, (changes: readonly Change<unknown>[]) => {
        for (const { key, before, after } of changes) {
          assertEquals(mirror.get(key), before, `seed ${seed}: ${collection.name} ${key}`);
          if (after === undefined) mirror.delete(key);
          else mirror.set(key, after);
        }
      });
      return mirror;
    });
    for (let batch = 0; batch < 30; batch++) {
      for (let write = random(6); write >= 0; write--) {
        const item = { group: "abc"[random(3)]!, value: random(12), reference: `k${random(6)}` };
        (random(2) === 0 ? graph.left : graph.right).write(`k${random(6)}`, random(4) === 0 ? undefined : item);
      }
      graph.engine.settle();
      const fresh = build();
      for (const [key, item] of graph.left.entries()) fresh.left.write(key, item);
      for (const [key, item] of graph.right.entries()) fresh.right.write(key, item);
      fresh.engine.settle();
      assertEquals(contents(graph), contents(fresh), `seed ${seed}, batch ${batch}`);
      for (const [at, collection] of graph.outputs.entries()) {
        assertEquals(mirrors[at], new Map(collection.entries()), `seed ${seed}: changes of ${collection.name}`);
      }
    }
  }
});

Deno.test("Engine.settle() reruns what changed and what fetched it, and nothing else", () => {
  const engine = new Engine();
  const pods = engine.source<{ node: string }>("pods"), nodes = engine.source<{ zone: string }>("nodes");
  const runs: string[] = [];
  const zones = engine.derive("zones", pods, (pod, fetch) => {
    runs.push(pod.node);
    return fetch.one(nodes, pod.node)?.zone ?? "none";
  });
  const told: string[] = [];
  engine.subscribe(zones, (changes) => told.push(...changes.map(({ key, after }) => `${key}=${after}`)));
  for (const name of ["p1", "p2", "p3"]) pods.write(name, { node: name === "p3" ? "n2" : "n1" });
  engine.settle();
  assertEquals(told.splice(0), ["p1=none", "p2=none", "p3=none"]);
  runs.length = 0;
  nodes.write("n1", { zone: "z" });
  engine.settle();
  assertEquals([runs, told.splice(0)], [["n1", "n1"], ["p1=z", "p2=z"]]);
  runs.length = 0;
  nodes.write("n1", { zone: "z" });
  pods.write("p1", { node: "n1" });
  engine.settle();
  assertEquals([runs, told], [[], []]);
});

Deno.test("Engine: a value that changes and changes back within a batch is no change", () => {
  const engine = new Engine(), source = engine.source<number>("numbers");
  const told: unknown[] = [];
  source.write("a", 1);
  engine.settle();
  engine.subscribe(source, (changes) => told.push(changes));
  source.write("a", 2);
  source.write("a", undefined);
  source.write("a", 1);
  engine.settle();
  assertEquals(told, []);
});

Deno.test("Engine: an output key passes from one item to another, but two items never share one", () => {
  const engine = new Engine(), source = engine.source<string>("names");
  const outputs = engine.deriveMany("outputs", source, (name) => [[name, name.length] as const]);
  source.write("a", "shared");
  engine.settle();
  source.write("a", "other");
  source.write("b", "shared");
  engine.settle();
  assertEquals([...outputs.entries()].sort(), [["other", 5], ["shared", 6]]);
  source.write("a", "shared");
  assertThrows(() => engine.settle(), AssertionError, "one item alone yields shared");
});

Deno.test("Engine: a transform that fetches other things than before is rerun for those, and no longer for the old", () => {
  const engine = new Engine();
  const choices = engine.source<readonly string[]>("choices"), values = engine.source<number>("values");
  let runs = 0;
  const sums = engine.derive("sums", choices, (names, fetch) => {
    runs++;
    return names.reduce((sum, name) => sum + (fetch.one(values, name) ?? 0), 0);
  });
  const write = (change: () => void): [runs: number, sum: number | undefined] => {
    runs = 0;
    change();
    engine.settle();
    return [runs, sums.get("it")];
  };
  write(() => ["a", "b", "c", "d"].forEach((name, at) => values.write(name, 10 ** at)));
  assertEquals(write(() => choices.write("it", ["a", "b"])), [1, 11]);
  assertEquals(write(() => choices.write("it", ["a", "c", "a", "c"])), [1, 202]);
  assertEquals(write(() => values.write("b", 20)), [0, 202], "left");
  assertEquals(write(() => values.write("c", 200)), [1, 402], "entered");
  assertEquals(write(() => choices.write("it", ["a"])), [1, 1], "a shorter run of the same");
  assertEquals(write(() => values.write("c", 300)), [0, 1]);
  choices.write("other", ["a"]);
  assertEquals(write(() => choices.write("it", undefined)), [1, undefined], "one came, one went");
  assertEquals(write(() => values.write("a", 2)), [1, undefined], "only the other is left");
  assertEquals(sums.get("other"), 2);
});

Deno.test("Engine: every item of a collection that fetched a cell is rerun when it changes, and only then (CP-217)", () => {
  const engine = new Engine(), factor = engine.cell("factor", { by: 2 });
  const numbers = engine.source<number>("numbers");
  const products = engine.derive("products", numbers, (it, fetch) => it * fetch.value(factor).by);
  const byParity = engine.index(numbers, "by parity", (it) => [String(it % 2)]);
  const groups = engine.group("groups", byParity, (items, fetch) => items.length * fetch.value(factor).by);
  [1, 2, 3].forEach((it) => numbers.write(`n${it}`, it));
  engine.settle();
  const state = () => [...products.entries(), ...groups.entries()].map(([, it]) => it);
  assertEquals(state(), [2, 4, 6, 4, 2]);
  const before = engine.runCount;
  factor.write({ by: 2 });
  engine.settle();
  assertEquals(engine.runCount, before);
  factor.write({ by: 3 });
  engine.settle();
  assertEquals([state(), engine.runCount - before], [[3, 6, 9, 6, 3], 5]);
});
