/** JSON merge patches and JSON patches, applied as the API server does, for the API in memory. */
import { equal } from "@std/assert";

type Fields = Record<string, unknown>;

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A copy of the target with a merge patch applied (RFC 7386 §2): null takes a field away, a list replaces a list. */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isFields(patch)) return structuredClone(patch);
  const result: Fields = isFields(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = mergePatch(result[name], value);
  }
  return result;
}

interface Operation {
  readonly op: string;
  readonly path: string;
  readonly from?: string;
  readonly value?: unknown;
}

/** Why a JSON patch does not fit the object. */
export class PatchError extends Error {
  override readonly name = "PatchError";
}

function steps(pointer: string): string[] {
  if (pointer === "") return [];
  if (!pointer.startsWith("/")) throw new PatchError(`"${pointer}" is no path`);
  return pointer.slice(1).split("/").map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
}

function child(parent: unknown, step: string): unknown {
  if (Array.isArray(parent) && /^\d+$/.test(step) && Number(step) < parent.length) return parent[Number(step)];
  if (isFields(parent) && Object.hasOwn(parent, step)) return parent[step];
  throw new PatchError(`nothing is at "${step}"`);
}

function read(root: unknown, path: readonly string[]): unknown {
  return path.reduce(child, root);
}

function write(root: unknown, path: readonly string[], value: unknown, insert: boolean): unknown {
  const last = path.at(-1);
  if (last === undefined) return value;
  const parent = read(root, path.slice(0, -1));
  if (Array.isArray(parent)) {
    const row = last === "-" ? parent.length : Number(last);
    if (!Number.isInteger(row) || row < 0 || row > parent.length) throw new PatchError(`no element is at "${last}"`);
    parent.splice(row, insert ? 0 : 1, value);
  } else if (isFields(parent)) parent[last] = value;
  else throw new PatchError(`nothing holds "${last}"`);
  return root;
}

function remove(root: unknown, path: readonly string[]): void {
  const last = path.at(-1) ?? "";
  const parent = read(root, path.slice(0, -1));
  child(parent, last);
  if (Array.isArray(parent)) parent.splice(Number(last), 1);
  else delete (parent as Fields)[last];
}

/** As the API server tests: what is not there is null. */
function readOrNull(root: unknown, path: readonly string[]): unknown {
  let at = root;
  for (const step of path) {
    if (!isFields(at) && !Array.isArray(at)) return null;
    at = (at as Fields)[step] ?? null;
  }
  return at;
}

/** A copy of the target with a JSON patch applied (RFC 6902 §4). @throws PatchError if a path or a test does not hold. */
export function jsonPatch(target: unknown, patch: readonly unknown[]): unknown {
  let root = structuredClone(target);
  for (const { op, path, from, value } of patch as readonly Operation[]) {
    const at = steps(path);
    if (op === "test") {
      if (!equal(readOrNull(root, at), value)) throw new PatchError(`the value at "${path}" is another`);
    } else if (op === "remove") remove(root, at);
    else if (op === "add") root = write(root, at, structuredClone(value), true);
    else if (op === "replace") {
      read(root, at);
      root = write(root, at, structuredClone(value), false);
    } else if (op === "copy" || op === "move") {
      const source = steps(from ?? ""), moved = structuredClone(read(root, source));
      if (op === "move") remove(root, source);
      root = write(root, at, moved, true);
    } else throw new PatchError(`"${op}" is no operation`);
  }
  return root;
}
