/** Who owns which field, and server-side apply by that, for the API in memory. */
import { equal } from "@std/assert";
import type { ResourceType } from "./api.ts";

type Fields = Record<string, unknown>;
/** The fields of one manager, each the JSON of its path: names, and for an element of a keyed list its key as an object. */
export type FieldSet = ReadonlySet<string>;
/** Field sets by manager, operation and subresource. */
export type Owners = ReadonlyMap<string, FieldSet>;

type Step = string | { readonly [key: string]: unknown };

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Lists whose elements have a key, by the end of their path; all others are replaced as a whole. */
const KEYED: Readonly<Record<string, readonly string[]>> = {
  "status.conditions": ["type"],
  "parents.conditions": ["type"],
  "listeners.conditions": ["type"],
  "ancestors.conditions": ["type"],
  "spec.listeners": ["name"],
  "status.listeners": ["name"],
  "spec.containers": ["name"],
  "spec.initContainers": ["name"],
  "containers.env": ["name"],
  "containers.ports": ["containerPort", "protocol"],
  "containers.volumeMounts": ["mountPath"],
  "spec.volumes": ["name"],
  "metadata.ownerReferences": ["uid"],
};
/** Of the core kinds. */
const SERVICE_PORTS = ["port", "protocol"];

/** The names of the fields that tell a list's elements apart; undefined: the list is one value. */
function keysOf(type: ResourceType, path: readonly Step[]): readonly string[] | undefined {
  const names = path.filter((step) => typeof step === "string"), end = names.slice(-2).join(".");
  // The kinds of Istio declare their conditions as one value: whoever applies them applies them all.
  if (type.group.endsWith(".istio.io") && end === "status.conditions") return undefined;
  if (type.kind === "Service" && end === "spec.ports") return SERVICE_PORTS;
  if (type.kind === "Gateway" && type.group !== "gateway.networking.k8s.io") return undefined;
  return KEYED[end];
}

function keyOf(element: unknown, keys: readonly string[]): Step {
  const of = isFields(element) ? element : {};
  return Object.fromEntries(keys.map((key) => [key, of[key] ?? (key === "protocol" ? "TCP" : null)]));
}

const SERVERS_OWN = new Set(["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"]);

/** Calls `leaf` with each field that can be owned, and its value. */
function walk(type: ResourceType, value: unknown, path: Step[], leaf: (path: string, value: unknown) => void): void {
  const keys = Array.isArray(value) ? keysOf(type, path) : undefined;
  if (Array.isArray(value) && keys !== undefined && value.length > 0) {
    for (const element of value) {
      const at = [...path, keyOf(element, keys)];
      leaf(JSON.stringify(at), null); // The element itself is owned too: it goes with the last of its owners.
      walk(type, element, at, leaf);
    }
  } else if (isFields(value) && (path.length === 0 || Object.keys(value).length > 0)) {
    for (const [name, inner] of Object.entries(value)) {
      if (path.length === 0 && (name === "apiVersion" || name === "kind")) continue;
      if (
        path.length === 1 && path[0] === "metadata" &&
        (SERVERS_OWN.has(name) || name === "name" || name === "namespace")
      ) {
        continue;
      }
      walk(type, inner, [...path, name], leaf);
    }
  } else leaf(JSON.stringify(path), value);
}

function leavesOf(type: ResourceType, object: unknown): Map<string, unknown> {
  const leaves = new Map<string, unknown>();
  walk(type, object, [], (path, value) => leaves.set(path, value));
  return leaves;
}

function elementRow(list: readonly unknown[], step: Step): number {
  const wanted = step as Fields;
  return list.findIndex((element) => equal(keyOf(element, Object.keys(wanted)), wanted));
}

/** Takes a field away, and what is empty without it. */
function take(parent: unknown, path: readonly Step[]): void {
  const [step, ...rest] = path;
  if (step === undefined) return;
  if (typeof step === "string") {
    if (!isFields(parent) || !Object.hasOwn(parent, step)) return;
    const inner = parent[step];
    if (rest.length === 0) delete parent[step];
    else {
      take(inner, rest);
      if ((isFields(inner) && Object.keys(inner).length === 0) || (Array.isArray(inner) && inner.length === 0)) {
        delete parent[step];
      }
    }
    return;
  }
  if (!Array.isArray(parent)) return;
  const row = elementRow(parent, step);
  if (row < 0) return;
  if (rest.length === 0) parent.splice(row, 1);
  else take(parent[row], rest);
}

function merge(type: ResourceType, live: unknown, applied: unknown, path: Step[]): unknown {
  if (isFields(applied)) {
    const result: Fields = isFields(live) ? live : {};
    for (const [name, value] of Object.entries(applied)) {
      result[name] = merge(type, result[name], value, [...path, name]);
    }
    return result;
  }
  const keys = Array.isArray(applied) ? keysOf(type, path) : undefined;
  if (!Array.isArray(applied) || keys === undefined) return structuredClone(applied);
  const result = Array.isArray(live) ? live : [];
  for (const element of applied) {
    const key = keyOf(element, keys), row = elementRow(result, key);
    if (row < 0) result.push(structuredClone(element));
    else result[row] = merge(type, result[row], element, [...path, key]);
  }
  return result;
}

/** What an apply comes to: the object and its owners afterwards, or the fields that others own with another value. */
export type Applied = { readonly object: unknown; readonly owners: Owners } | { readonly conflicts: readonly string[] };

/** Server-side apply of a manager's whole intent: what it no longer names, and nobody else owns, goes. Pure. */
export function applyIntent(
  type: ResourceType,
  before: { readonly object: unknown; readonly owners: Owners },
  intent: unknown,
  options: { readonly manager: string; readonly force: boolean },
): Applied {
  const live = leavesOf(type, before.object), wanted = leavesOf(type, intent);
  const differs = [...wanted].filter(([path, value]) => !equal(live.get(path), value)).map(([path]) => path);
  const conflicts = differs.filter((path) =>
    live.has(path) && [...before.owners].some(([manager, set]) => manager !== options.manager && set.has(path))
  );
  if (conflicts.length > 0 && !options.force) return { conflicts };
  const owners = new Map<string, FieldSet>();
  const lost = new Set(differs);
  for (const [manager, set] of before.owners) {
    if (manager === options.manager) continue;
    const kept = new Set([...set].filter((path) => !lost.has(path)));
    if (kept.size > 0) owners.set(manager, kept);
  }
  const dropped = [...before.owners.get(options.manager) ?? []].filter((path) =>
    !wanted.has(path) && ![...owners.values()].some((set) => set.has(path))
  );
  const object = structuredClone(before.object);
  // The shortest path first: an element goes with its key, before its fields.
  for (const path of dropped.toSorted((a, b) => a.length - b.length)) take(object, JSON.parse(path) as Step[]);
  owners.set(options.manager, new Set(wanted.keys()));
  return { object: merge(type, object, intent, []), owners };
}

/** Who owns what after an object was written as a whole: what changed is the writer's alone. Pure. */
export function ownersAfterUpdate(
  type: ResourceType,
  before: { readonly object: unknown; readonly owners: Owners },
  after: unknown,
  writer: string,
): Owners {
  const old = leavesOf(type, before.object), now = leavesOf(type, after), owners = new Map<string, FieldSet>();
  const changed = new Set(
    [...now].filter(([path, value]) => !old.has(path) || !equal(old.get(path), value)).map(([path]) => path),
  );
  for (const [manager, set] of before.owners) {
    const kept = new Set([...set].filter((path) => now.has(path) && !changed.has(path)));
    if (kept.size > 0) owners.set(manager, kept);
  }
  if (changed.size > 0) owners.set(writer, new Set([...owners.get(writer) ?? [], ...changed]));
  return owners;
}
