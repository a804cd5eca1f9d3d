/** Plugged-in CA files, reloaded while we run: a new intermediate, or a root bundle that overlaps the old one (CP-504). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type KeyMaterial, loadPluggedIn, PLUGGED_IN_FILES } from "./key_material.ts";

export interface MaterialWatchOptions {
  readonly folder: string;
  /** What is in use at the start. */
  readonly material: KeyMaterial;
  /** Takes new material into use. */
  readonly onChange: (material: KeyMaterial) => Promise<void>;
  readonly log: Logger;
  readonly intervalMs?: number;
}

// Polled, not watched: a mounted Secret changes by a renamed link, which a watch of its files does not see.
const INTERVAL_MS = 10_000;

/** Looks at the folder until the signal. What cannot be used is said once, and what is in use stays. */
export async function watchMaterial(options: MaterialWatchOptions, signal: AbortSignal): Promise<void> {
  const { folder, onChange, log, intervalMs = INTERVAL_MS } = options;
  let current = options.material, seen = ""; // Looked at once more: it may have changed since it was loaded.
  while (await pause(intervalMs, signal)) {
    const signature = await signatureOf(folder);
    if (signature === seen) continue;
    seen = signature;
    try {
      const next = await loadPluggedIn(folder, Date.now());
      if (same(current, next)) continue;
      if (!overlap(current, next)) {
        throw new MeshError("AMB0216", `the new root bundle in ${folder} has no root in common with the one in use`, {
          remedy: "first add the new root to the old bundle, then change the intermediate, then drop the old root",
        });
      }
      await onChange(next);
      current = next;
      log.info("CA files reloaded", { folder, signer: next.signer.subject, roots: next.roots.length });
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      log.error("CA files not reloaded; the old ones stay in use", { error: chain(error), remedy: error.remedy });
    }
  }
}

function same(old: KeyMaterial, next: KeyMaterial): boolean {
  const chains = [old, next].map(({ intermediatesPem, rootsPem }) => intermediatesPem.join("") + rootsPem);
  return old.signer.equal(next.signer) && chains[0] === chains[1];
}

/** Whether one bundle contains the other, so that both sides of every connection share a root while certificates change. */
function overlap(old: KeyMaterial, next: KeyMaterial): boolean {
  const contains = (outer: KeyMaterial, inner: KeyMaterial) =>
    inner.roots.every((root) => outer.roots.some((it) => it.equal(root)));
  return contains(old, next) || contains(next, old);
}

/** Changes whenever a file does. A file that is missing for a moment is a state of its own. */
async function signatureOf(folder: string): Promise<string> {
  const parts: string[] = [];
  for (const name of PLUGGED_IN_FILES) {
    try {
      const { mtime, size, ino } = await Deno.stat(`${folder}/${name}`);
      parts.push(`${mtime?.getTime()}/${size}/${ino}`);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      parts.push("none");
    }
  }
  return parts.join();
}

/** @returns False as soon as the signal is aborted. */
async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted) return false;
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(true), ms);
  const stop = () => {
    clearTimeout(timer);
    resolve(false);
  };
  signal.addEventListener("abort", stop, { once: true });
  const result = await promise;
  signal.removeEventListener("abort", stop);
  return result;
}
