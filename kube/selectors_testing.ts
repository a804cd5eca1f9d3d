/** Label and field selectors as the API server reads them, for what has to judge objects without it. */
import type { KubeObject, Scope } from "./api.ts";

/** Whether an object is selected. */
export type Selects = (object: KubeObject) => boolean;

/** Why a selector cannot be read. */
export class SelectorError extends Error {
  override readonly name = "SelectorError";
}

const NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?";
const KEY = new RegExp(`^(${NAME}/)?${NAME}$`);
const SET = /^(\S+)\s+(in|notin)\s+\(([^()]*)\)$/;
const PAIR = /^([^=!\s]+)\s*(==|=|!=)\s*([^=!\s]*)$/;

/** The parts between commas that stand outside parentheses. */
function parts(text: string): string[] {
  return text.split(/,(?![^()]*\))/).map((part) => part.trim());
}

function key(text: string): string {
  if (!KEY.test(text)) throw new SelectorError(`"${text}" is no label's name`);
  return text;
}

type Labels = Readonly<Record<string, unknown>>;

function requirement(text: string): (labels: Labels) => boolean {
  const set = SET.exec(text);
  if (set !== null) {
    const name = key(set[1]!), values = new Set(set[3]!.split(",").map((value) => value.trim()));
    const inside = (labels: Labels) => Object.hasOwn(labels, name) && values.has(labels[name] as string);
    return set[2] === "in" ? inside : (labels) => !inside(labels);
  }
  const pair = PAIR.exec(text);
  if (pair !== null) {
    const name = key(pair[1]!), value = pair[3]!, negative = pair[2] === "!=";
    return (labels) => (Object.hasOwn(labels, name) && labels[name] === value) !== negative;
  }
  if (text.startsWith("!")) {
    const name = key(text.slice(1).trim());
    return (labels) => !Object.hasOwn(labels, name);
  }
  const name = key(text);
  return (labels) => Object.hasOwn(labels, name);
}

/** Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`. @throws SelectorError. */
export function parseLabelSelector(text: string): Selects {
  if (text.trim() === "") return () => true;
  const requirements = parts(text).map(requirement);
  return (object) => {
    const labels = (object.metadata.labels ?? {}) as Labels;
    return requirements.every((holds) => holds(labels));
  };
}

function valueAt(object: unknown, path: readonly string[]): string {
  let at: unknown = object;
  for (const name of path) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, name)) return "";
    at = (at as Record<string, unknown>)[name];
  }
  return at === undefined || at === null ? "" : String(at);
}

/** Reads `metadata.name=a,status.phase!=Failed`. The API server knows only some fields of a kind; here any will do. @throws SelectorError. */
export function parseFieldSelector(text: string): Selects {
  if (text.trim() === "") return () => true;
  const requirements = parts(text).map((part) => {
    const pair = PAIR.exec(part);
    if (pair === null) throw new SelectorError(`"${part}" is no condition of a field`);
    return { path: pair[1]!.split("."), value: pair[3]!, negative: pair[2] === "!=" };
  });
  return (object) => requirements.every(({ path, value, negative }) => (valueAt(object, path) === value) !== negative);
}

/** Of metadata alone nothing else is there: who reads more finds out. */
export function shownBy({ metadataOnly }: Scope, object: KubeObject): KubeObject {
  if (metadataOnly !== true) return object;
  return { apiVersion: "meta.k8s.io/v1", kind: "PartialObjectMetadata", metadata: object.metadata };
}
