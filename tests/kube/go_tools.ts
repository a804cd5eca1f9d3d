/** Programs built by go from modules that are pinned, into a cache folder, by whoever comes first. */
import { MeshError } from "../../base/errors.ts";

export const KUBERNETES_VERSION = "1.34.4";
const VERSION_PACKAGE = "k8s.io/component-base/version";

/** Where built programs are kept. */
export function cacheFolder(name: string): string {
  const base = Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME") ?? "/tmp"}/.cache`;
  return `${base}/ambit/${name}`;
}

/** The linker's flags that have a part of Kubernetes say its version. */
export function versionFlags(): string {
  const [major, minor] = KUBERNETES_VERSION.split(".");
  const stamps = { gitVersion: `v${KUBERNETES_VERSION}`, gitMajor: major, gitMinor: minor };
  const flags = Object.entries(stamps).map(([name, value]) => `-X ${VERSION_PACKAGE}.${name}=${value}`);
  return `-s -w ${flags.join(" ")}`;
}

export interface BuiltOnce {
  /** What it is made of, with a slash at its end. */
  readonly source: string;
  /** The files in it whose change makes it stale. */
  readonly marked: readonly string[];
  readonly cache: string;
  /** For whoever waits: what is built, and how long it takes. */
  readonly what: string;
  readonly build: () => Promise<void>;
}

/** Builds unless what lies in the cache folder was made of the same source. The caller holds the folder's lock. */
export async function buildOnce({ source, marked, cache, what, build }: BuiltOnce): Promise<void> {
  const texts = await Promise.all(marked.map((name) => Deno.readTextFile(`${source}${name}`)));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(texts.join("\0")));
  const mark = new Uint8Array(digest).toHex(), path = `${cache}/source`;
  if (await exists(path) && await Deno.readTextFile(path) === mark) return;
  say(`building ${what} into ${cache}: 2 to 15 minutes, once`);
  const startedAt = performance.now();
  await build();
  await Deno.writeTextFile(path, mark);
  say(`built in ${((performance.now() - startedAt) / 1_000).toFixed(0)} s`);
}

/** Has go do something in a module's folder. @returns What it printed. @throws MeshError AMB0280. */
export async function go(
  args: readonly string[],
  folder: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<string> {
  const remedy =
    "Install go 1.24 or later, and let it reach its module proxy; or name ready programs by AMBIT_KUBE_BIN.";
  // Set by whoever runs us for work of his own, it would change what is built.
  const env = { GOFLAGS: "-buildvcs=false", ...environment };
  try {
    return await output("go", args, { cwd: folder, env });
  } catch (cause) {
    throw new MeshError("AMB0280", `cannot get the parts of Kubernetes: go ${args[0]}`, { remedy, cause });
  }
}

/** Runs a command to its end. @returns What it printed. @throws Error with the end of what it complained of. */
export async function output(
  command: string,
  args: readonly string[],
  options: Deno.CommandOptions = {},
): Promise<string> {
  const { success, code, stdout, stderr } = await new Deno.Command(command, { args: [...args], ...options }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  if (success) return text(stdout);
  throw new Error(`${command} ended with status ${code}: ${text(stderr).trim().slice(-2_000)}`);
}

/** Opens and locks a file; whoever else wants it waits until this is disposed. */
export async function lockedFile(path: string): Promise<Disposable> {
  const file = await Deno.open(path, { create: true, write: true });
  await file.lock(true);
  return { [Symbol.dispose]: () => file.close() };
}

export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Tells whoever waits. */
export function say(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`));
}
