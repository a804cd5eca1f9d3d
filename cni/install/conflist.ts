/** Our entry in the node's CNI configuration: put in, found again, taken out (CNI-036 to CNI-042). Pure: texts in, texts out. */
import { isFields } from "../../base/plain.ts";

type Json = { readonly [key: string]: unknown };

export const PLUGIN_TYPE = "istio-cni";
const FIRST_VERSION = "0.3.0";
/** What a configuration file without a list becomes part of (CNI-038). */
const LIST_NAME = "k8s-pod-network", LIST_VERSION = "0.3.1";

/** A configuration file of the node. */
export interface ConfFile {
  readonly name: string;
  readonly text: string;
}

/** What a file holds: a list of plugins, or one. */
type Parsed = { readonly list: Json & { readonly plugins: readonly Json[] } } | { readonly single: Json };

function parse({ name, text }: ConfFile): Parsed | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
  if (!isFields(value)) return undefined;
  if (name.endsWith(".conf")) {
    return typeof value.type === "string" && value.type !== "" ? { single: value } : undefined;
  }
  if (!name.endsWith(".conflist")) return undefined;
  const { plugins } = value;
  const fine = typeof value.name === "string" && Array.isArray(plugins) && plugins.length > 0 &&
    plugins.every(isFields);
  return fine ? { list: value as Json & { plugins: readonly Json[] } } : undefined;
}

/** The files that the runtime can use, in the order in which it looks (CNI-036). */
export function usableFiles(files: readonly ConfFile[]): ConfFile[] {
  return files.filter((file) => parse(file) !== undefined).sort((one, other) => one.name < other.name ? -1 : 1);
}

/** Our plugin's entry: only what it is told, without versions, which are the list's (CNI-006). */
export function pluginEntry(settings: Json): Json {
  return { ...settings, type: PLUGIN_TYPE };
}

/**
 * The file with our plugin as its last, all else kept, and the name that it then has: a single configuration becomes a
 * list (CNI-037, CNI-038). @returns undefined when the file is not usable.
 */
export function withPlugin(file: ConfFile, entry: Json): ConfFile | undefined {
  const parsed = parse(file);
  if (parsed === undefined) return undefined;
  if ("list" in parsed) {
    const plugins = [...parsed.list.plugins.filter(({ type }) => type !== PLUGIN_TYPE), entry];
    return { name: file.name, text: format({ ...parsed.list, plugins }) };
  }
  const { cniVersion, ...old } = parsed.single;
  // A plugin of before the lists is spoken to as the oldest list is; a later one keeps its version.
  const version = typeof cniVersion === "string" && atLeast(cniVersion, FIRST_VERSION) ? cniVersion : LIST_VERSION;
  const list = { name: LIST_NAME, cniVersion: version, plugins: [old, entry] };
  return { name: `${file.name}list`, text: format(list) };
}

/** The file without our plugin; undefined when it would hold none then, or is not usable. */
export function withoutPlugin(file: ConfFile): ConfFile | undefined {
  const parsed = parse(file);
  if (parsed === undefined || "single" in parsed) return undefined;
  const plugins = parsed.list.plugins.filter(({ type }) => type !== PLUGIN_TYPE);
  return plugins.length === 0 ? undefined : { name: file.name, text: format({ ...parsed.list, plugins }) };
}

/** Whether our plugin is in the file. */
export function hasPlugin(file: ConfFile): boolean {
  const parsed = parse(file);
  if (parsed === undefined) return false;
  return "list" in parsed
    ? parsed.list.plugins.some(({ type }) => type === PLUGIN_TYPE)
    : parsed.single.type === PLUGIN_TYPE;
}

/** The types of a file's plugins, in the order in which they are called. */
export function pluginTypes(file: ConfFile): string[] {
  const parsed = parse(file);
  const plugins = parsed === undefined ? [] : "list" in parsed ? parsed.list.plugins : [parsed.single];
  return plugins.map(({ type }) => String(type));
}

/** What we write in a file of our own: the primary's plugins and ours, under the primary's name (CNI-040). */
export interface OwnedOptions {
  readonly name: string;
  readonly entry: Json;
}

/** The list that stands before the primary one and does all that it does. @returns undefined when that is not usable. */
export function ownedFile(primary: ConfFile, { name, entry }: OwnedOptions): ConfFile | undefined {
  const merged = withPlugin(primary, entry);
  return merged === undefined ? undefined : { name, text: merged.text };
}

/** Our plugin alone, for a runtime that calls several configurations by itself, as Multus does (CNI-042). */
export function standaloneFile({ name, entry }: OwnedOptions): ConfFile {
  return { name, text: format({ cniVersion: LIST_VERSION, ipam: {}, dns: {}, ...entry }) };
}

/** The file that all others are measured by: the first, or the second where the first is ours (CNI-040). */
export function primaryFile(files: readonly ConfFile[], ownName: string | undefined): ConfFile | undefined {
  return usableFiles(files).find(({ name }) => name !== ownName);
}

/** Why the node's configuration is not what we would write now; undefined when it is (CNI-041). */
export function problemOf(
  files: readonly ConfFile[],
  { ownName, entry }: { readonly ownName: string | undefined; readonly entry: Json },
): string | undefined {
  const primary = primaryFile(files, ownName);
  if (primary === undefined) return "there is no CNI configuration to be chained to";
  const wanted = ownName === undefined ? withPlugin(primary, entry)! : ownedFile(primary, { name: ownName, entry })!;
  const first = usableFiles(files)[0]!;
  if (first.name !== wanted.name) return `${first.name} comes before ${wanted.name}`;
  if (sameContent(first.text, wanted.text)) return undefined;
  return hasPlugin(first)
    ? `${first.name} differs from what it is made of`
    : `${first.name} does not name ${PLUGIN_TYPE}`;
}

function sameContent(one: string, other: string): boolean {
  return format(JSON.parse(one)) === format(JSON.parse(other));
}

function atLeast(version: string, other: string): boolean {
  const [left, right] = [version, other].map((text) => text.split(".").map(Number));
  for (let at = 0; at < 3; at++) {
    const difference = (left![at] ?? 0) - (right![at] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}

/** Two spaces, sorted keys, a newline at the end (CNI-037). */
function format(value: Json): string {
  return `${JSON.stringify(sorted(value), undefined, 2)}\n`;
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isFields(value)) return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}
