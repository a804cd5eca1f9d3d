/** The gate's law: what it has told, put together, is what a gate with the same objects and selectors would tell at once. */
import { assertEquals } from "@std/assert";
import type { LabelSelector } from "../../kube/label_selector.ts";
import { type KubernetesObject, type ObjectChange, objectKey } from "../objects.ts";
import { NamespaceGate } from "./gate.ts";

const SEEDS = 300, STEPS = 60;

function randomOf(seed: number): (bound: number) => number {
  let state = seed * 2654435761 >>> 0;
  return (bound) => {
    state = Math.imul(state ^ state >>> 15, 2246822519) + 0x9e3779b9 >>> 0;
    return state % bound;
  };
}

function change(kind: "Namespace" | "Pod" | "Node", namespace: string, name: string, label?: string): ObjectChange {
  const key = objectKey(kind, namespace, name);
  if (label === undefined) return { kind, key, object: undefined };
  const meta = { name, namespace, labels: new Map([["mesh", label]]) };
  return { kind, key, object: { kind, meta } as unknown as KubernetesObject }; // The gate reads no more of it.
}

const selecting = (value: string): LabelSelector => ({ matchLabels: new Map([["mesh", value]]), matchExpressions: [] });

function told(into: Map<string, KubernetesObject>, changes: readonly ObjectChange[]): void {
  for (const { key, object } of changes) {
    if (object === undefined) into.delete(key);
    else into.set(key, object);
  }
}

Deno.test("NamespaceGate: whatever order changes, labels and selectors come in, the same objects count (CP-104, CP-105)", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = randomOf(seed), gate = new NamespaceGate();
    const everything = new Map<string, ObjectChange>(), mesh = new Map<string, KubernetesObject>();
    let selectors: readonly LabelSelector[] = [];
    told(mesh, [...gate.open()].flat());
    for (let step = 0; step < STEPS; step++) {
      const batch: ObjectChange[] = [], namespace = `n${random(3)}`, label = ["a", "b", undefined][random(3)];
      const dice = random(10);
      if (dice < 4) batch.push(change("Pod", namespace, `p${random(3)}`, label));
      else if (dice < 8) batch.push(change("Namespace", "", namespace, label));
      else if (dice < 9) batch.push(change("Node", "", "n", label), change("Pod", namespace, "p0", "a"));
      else {
        selectors = [[], [selecting("a")], [selecting("a"), selecting("b")]][random(3)]!;
        told(mesh, gate.select(selectors));
      }
      for (const it of batch) everything.set(it.key, it);
      told(mesh, gate.apply(batch));
    }
    const fresh = new NamespaceGate(), expected = new Map<string, KubernetesObject>();
    fresh.select(selectors);
    fresh.apply([...everything.values()].filter(({ object }) => object !== undefined));
    told(expected, [...fresh.open()].flat());
    assertEquals([...mesh.keys()].sort(), [...expected.keys()].sort(), `seed ${seed}`);
    for (const [key, object] of expected) assertEquals(mesh.get(key) === object, true, `seed ${seed}: ${key}`);
  }
});

Deno.test("NamespaceGate.open() gives what belongs to others last, and each as it is when its turn comes", () => {
  const gate = new NamespaceGate(), pods = Array.from({ length: 600 }, (_, at) => change("Pod", "n", `p${at}`, "a"));
  gate.apply([...pods, change("Node", "", "node", "a"), change("Namespace", "", "n", "a")]);
  const mesh = new Map<string, KubernetesObject>(), batches = gate.open();
  const first = batches.next().value as ObjectChange[];
  assertEquals(first.slice(0, 2).map(({ kind }) => kind).sort(), ["Namespace", "Node"]);
  told(mesh, first);
  const changed = change("Pod", "n", "p599", "b");
  told(mesh, gate.apply([changed, change("Pod", "n", "p598"), change("Pod", "n", "p0")]));
  told(mesh, [...batches].flat());
  assertEquals([mesh.size, mesh.has("Pod/n/p598"), mesh.has("Pod/n/p0")], [600, false, false]);
  assertEquals(mesh.get("Pod/n/p599"), changed.object);
});

Deno.test("NamespaceGate tells nothing before it is opened, and forgets a kind as if its objects were deleted", () => {
  const gate = new NamespaceGate();
  assertEquals(gate.apply([change("Pod", "n", "p", "a"), change("Namespace", "", "n", "a")]), []);
  assertEquals([...gate.open()].flat().length, 2);
  assertEquals(gate.forget("Pod"), [change("Pod", "n", "p")]);
  assertEquals(gate.objects().map(({ key }) => key), ["Namespace//n"]);
});
