/** One file's text to the objects it stands for, keeping what it stood for before wherever the new text is bad. Pure. */
import { keyOf, type KubernetesObject, type ObjectKey, objectKey } from "../objects.ts";
import { decodeObject, identify, kindOf } from "../decode/kinds.ts";
import { Field, FieldRefusal, formatPath, type PathSegment } from "../decode/field.ts";
import { Locator } from "./locate.ts";
import type { Plain } from "../../base/plain.ts";
import { type DocumentText, parseJson, parseYaml, splitDocuments, YamlRefusal } from "./yaml.ts";

/** A document, or a whole file, that is not in force as written. */
export interface Refusal {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** `spec.rules[0].from`; empty when it is not about one field. */
  readonly field: string;
  readonly reason: string;
  /** The object, where the document got so far as to say which. */
  readonly key: ObjectKey | undefined;
  /** Whether objects that this file gave before stay in force in place of it. */
  readonly previousKept: boolean;
}

/** An object and where it was read. */
export interface HeldObject {
  readonly object: KubernetesObject;
  readonly line: number;
}

export interface FileState {
  readonly held: ReadonlyMap<ObjectKey, HeldObject>;
  readonly refusals: readonly Refusal[];
  /** Kinds that are not read, each once; for the debug log. */
  readonly ignoredKinds: readonly string[];
}

export const EMPTY_FILE: FileState = { held: new Map(), refusals: [], ignoredKinds: [] };

// A document of 1 MiB is the most that an API server stores (etcd's limit is 1.5 MiB); a file may hold several.
export const FILE_BYTES_MAX = 4 * 1024 * 1024;
const DOCUMENTS_MAX = 20_000;
// Past this many refusals of one file the rest say nothing new.
const REFUSALS_MAX = 100;

interface Bad {
  readonly line: number;
  readonly path: readonly PathSegment[] | undefined;
  readonly reason: string;
  readonly key: ObjectKey | undefined;
}

type Reading =
  | { readonly kind: "object"; readonly object: KubernetesObject; readonly line: number }
  | { readonly kind: "ignored"; readonly name: string }
  | { readonly kind: "bad"; readonly bad: Bad };

/** Reads the file's bytes. Never throws for what is in them. */
export function readFileState(file: string, bytes: Uint8Array, previous: FileState): FileState {
  if (bytes.length > FILE_BYTES_MAX) {
    return unreadable(file, previous, `is larger than ${FILE_BYTES_MAX} bytes; split it`);
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return unreadable(file, previous, "is not UTF-8 text");
  }
  // A full disk, or a save under way, leaves nothing: that must not take policies away.
  if (text.trim() === "") return unreadable(file, previous, "is empty; delete the file to remove its objects");
  const json = file.endsWith(".json");
  const documents = json ? [{ text, line: 1 }] : splitDocuments(text);
  if (documents.length > DOCUMENTS_MAX) {
    return unreadable(file, previous, `holds more than ${DOCUMENTS_MAX} documents; split it`);
  }
  return settle(file, documents.flatMap((document) => readDocument(document, json)), previous);
}

/** The state of a file that cannot be read at all: everything it gave before stays. */
export function unreadable(file: string, previous: FileState, reason: string): FileState {
  const previousKept = previous.held.size > 0;
  const refusal: Refusal = { file, line: 1, field: "", reason, key: undefined, previousKept };
  return { held: previous.held, refusals: [refusal], ignoredKinds: [] };
}

function readDocument(document: DocumentText, json: boolean): Reading[] {
  let value: Plain;
  try {
    value = json ? parseJson(document.text) : parseYaml(document.text);
  } catch (error) {
    if (!(error instanceof YamlRefusal)) throw error;
    const line = document.line + error.line - 1;
    return [{ kind: "bad", bad: { line, path: undefined, reason: error.message, key: undefined } }];
  }
  const locator = new Locator(document.text, json);
  const locate = (path: readonly PathSegment[]) => document.line + locator.lineOf(path);
  const root = new Field(value);
  const items = listItems(root);
  return (items ?? [root]).map((item) => readObject(item, locate));
}

/** The items of a v1 List, as `kubectl get -o yaml` writes it; undefined if it is none. */
function listItems(root: Field): Field[] | undefined {
  const { value } = root;
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const { kind, apiVersion, items } = value as { readonly [key: string]: Plain };
  return kind === "List" && apiVersion === "v1" && Array.isArray(items) ? root.get("items").items() : undefined;
}

function readObject(field: Field, locate: (path: readonly PathSegment[]) => number): Reading {
  // Paths are told from the document's root, so that the line is found; a List's items begin with `items[n]`.
  let key: ObjectKey | undefined;
  try {
    const kind = kindOf(field.required());
    if (kind === undefined) return { kind: "ignored", name: field.get("kind").text() };
    const who = identify(field, kind);
    key = objectKey(kind, who.namespace, who.name);
    return { kind: "object", object: decodeObject(field, who), line: locate(field.path) };
  } catch (error) {
    if (!(error instanceof FieldRefusal)) throw error;
    const { path, message } = error;
    return { kind: "bad", bad: { line: locate(path), path, reason: message, key } };
  }
}

/** Puts the readings of one file together with what it stood for before. */
function settle(file: string, readings: readonly Reading[], previous: FileState): FileState {
  const held = new Map<ObjectKey, HeldObject>();
  const refusals: Refusal[] = [], ignoredKinds = new Set<string>();
  const refuse = (bad: Bad, previousKept: boolean) => {
    if (refusals.length >= REFUSALS_MAX) return;
    const { line, reason, key, path } = bad;
    refusals.push({ file, line, field: path === undefined ? "" : formatPath(path), reason, key, previousKept });
  };
  for (const reading of readings) {
    if (reading.kind === "ignored") ignoredKinds.add(reading.name.slice(0, 80));
    if (reading.kind !== "object") continue;
    const { object, line } = reading, key = keyOf(object), first = held.get(key);
    if (first === undefined) held.set(key, { object, line });
    else {refuse(
        { line, path: undefined, reason: `${key} stands already in line ${first.line} of this file`, key },
        false,
      );}
  }
  const bads = readings.flatMap((reading) => reading.kind === "bad" ? [reading.bad] : []);
  for (const bad of bads) {
    const before = bad.key === undefined || held.has(bad.key) ? undefined : previous.held.get(bad.key);
    if (before !== undefined) held.set(bad.key!, before); // Only a bad document with a key has a `before`.
  }
  // Nobody knows which object a document without a name was: while there is one, nothing of this file is taken away.
  const nameless = bads.some((bad) => bad.key === undefined);
  if (nameless) { for (const [key, before] of previous.held) if (!held.has(key)) held.set(key, before); }
  for (const bad of bads) {
    refuse(bad, bad.key === undefined ? previous.held.size > 0 : previous.held.has(bad.key));
  }
  return { held, refusals, ignoredKinds: [...ignoredKinds].sort() };
}
