/** Plugged-in CA files, reloaded while we run: a new intermediate, a root bundle that overlaps the old one, revocation lists (CP-504, CP-511). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { KeyMaterial } from "./key_material.ts";
import { pause } from "../../base/waiting.ts";
import { loadPluggedIn, PLUGGED_IN_FILES, readRevocations } from "./plugged_in.ts";
import { checkRevocations } from "./revocations.ts";

export interface MaterialWatchOptions {
  readonly folder: string;
  /** What is in use at the start. */
  readonly material: KeyMaterial;
  /** Undefined: revocation lists are none of our business. */
  readonly revocationsPem: string | undefined;
  /** ISTIO_MULTIROOT_MESH: whether the root bundle may change at all. */
  readonly multiRoot: boolean;
  /** Takes new material into use. */
  readonly onChange: (material: KeyMaterial) => Promise<void>;
  readonly onRevocations: (pem: string) => Promise<void>;
  readonly log: Logger;
  readonly intervalMs?: number;
}

// Polled, not watched: a mounted Secret changes by a renamed link, which a watch of its files does not see.
const INTERVAL_MS = 1_000; // eight calls of stat(2)

/** Looks at the folder until the signal. What cannot be used is said once and tried again, and what is in use stays. */
export async function watchMaterial(options: MaterialWatchOptions, signal: AbortSignal): Promise<void> {
  const { folder, log, intervalMs = INTERVAL_MS } = options, trouble = new Trouble(log);
  let current = options.material, revocations = options.revocationsPem;
  let taken = ""; // Looked at once more: it may have changed since it was loaded.
  while (await pause(intervalMs, signal)) {
    const signature = await signatureOf(folder);
    if (signature === taken) continue;
    const material = await trouble.unlessUnusable("CA files", () => takeMaterial(options, current));
    current = material ?? current;
    taken = material === undefined ? "" : signature;
    if (revocations === undefined) continue;
    const before = revocations;
    const lists = await trouble.unlessUnusable("CRL file", () => takeRevocations(options, before));
    revocations = lists ?? before;
    if (lists === undefined) taken = "";
  }
}

/** What is wrong with the files, said once for as long as it is the same. */
class Trouble {
  readonly #log: Logger;
  readonly #said = new Map<string, string>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /** @returns undefined if they cannot be used. */
  async unlessUnusable<T>(what: string, take: () => Promise<T>): Promise<T | undefined> {
    try {
      const value = await take();
      this.#said.delete(what);
      return value;
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      const text = chain(error);
      if (this.#said.get(what) !== text) {
        this.#log.error(`${what} not reloaded; the old ones stay in use`, { error: text, remedy: error.remedy });
      }
      this.#said.set(what, text);
      return undefined;
    }
  }
}

async function takeMaterial({ folder, multiRoot, onChange, log }: MaterialWatchOptions, current: KeyMaterial) {
  const next = await loadPluggedIn(folder, Date.now());
  if (same(current, next)) return current;
  checkRoots(folder, { current, next, multiRoot });
  await onChange(next);
  log.info("CA files reloaded", { folder, signer: next.signer.subject, roots: next.roots.length });
  return next;
}

/** @throws MeshError AMB0216, AMB0253 */
function checkRoots(
  folder: string,
  { current, next, multiRoot }: { current: KeyMaterial; next: KeyMaterial; multiRoot: boolean },
): void {
  if (!overlap(current, next)) {
    throw new MeshError("AMB0216", `the new root bundle in ${folder} has no root in common with the one in use`, {
      remedy: "first add the new root to the old bundle, then change the intermediate, then drop the old root",
    });
  }
  if (!multiRoot && !(contains(current, next) && contains(next, current))) {
    throw new MeshError("AMB0253", `the root bundle in ${folder} has changed, and this mesh has but one root`, {
      remedy: "set ISTIO_MULTIROOT_MESH=true on every istiod, then change the bundle in steps that overlap",
    });
  }
}

async function takeRevocations({ folder, onRevocations, log }: MaterialWatchOptions, current: string) {
  const pem = await readRevocations(folder);
  if (pem === current) return current;
  checkRevocations(pem, folder);
  await onRevocations(pem);
  log.info("CRL file reloaded", { folder, bytes: pem.length });
  return pem;
}

function same(old: KeyMaterial, next: KeyMaterial): boolean {
  const chains = [old, next].map(({ intermediatesPem, rootsPem }) => intermediatesPem.join("") + rootsPem);
  return old.signer.equal(next.signer) && chains[0] === chains[1];
}

/** Whether one bundle contains the other, so that both sides of every connection share a root while certificates change. */
function overlap(old: KeyMaterial, next: KeyMaterial): boolean {
  return contains(old, next) || contains(next, old);
}

function contains(outer: KeyMaterial, inner: KeyMaterial): boolean {
  return inner.roots.every((root) => outer.roots.some((it) => it.equal(root)));
}

/** Changes whenever a file does. A file that is missing for a moment, or cannot be looked at, is a state of its own. */
async function signatureOf(folder: string): Promise<string> {
  const parts: string[] = [];
  for (const name of PLUGGED_IN_FILES) {
    try {
      const { mtime, size, ino } = await Deno.stat(`${folder}/${name}`);
      parts.push(`${mtime?.getTime()}/${size}/${ino}`);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      parts.push(error.name); // Whoever reads the file says what is wrong with it.
    }
  }
  return parts.join();
}
