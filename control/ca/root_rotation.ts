/** Looks after the shared root on every replica: hourly, and first after a random part of an hour (CP-503). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";
import type { KeyMaterial } from "./key_material.ts";

export interface RootRotationOptions {
  readonly check: (current: KeyMaterial) => Promise<KeyMaterial | undefined>;
  /** What is in use at the start. */
  readonly material: KeyMaterial;
  /** Takes new material into use. */
  readonly onChange: (material: KeyMaterial) => Promise<void>;
  readonly intervalMs: number;
  /** Whether the first look waits a random part of the interval, so that replicas do not look together. */
  readonly jitter: boolean;
  /** From 0 up to 1. */
  readonly random: () => number;
  readonly log: Logger;
  readonly pause: (ms: number, signal: AbortSignal) => Promise<boolean>;
}

/** Runs until the signal. What fails is said, and what is in use stays. */
export async function rotateRoot(options: RootRotationOptions, signal: AbortSignal): Promise<void> {
  const { check, onChange, intervalMs, jitter, random, log, pause } = options;
  let current = options.material;
  for (let waitMs = jitter ? random() * intervalMs : intervalMs; await pause(waitMs, signal); waitMs = intervalMs) {
    try {
      const next = await check(current);
      if (next === undefined) continue;
      // Another key is another CA: what the old one signed is not believed by whoever has only the new root.
      const sameKey = await isSameKey(current, next);
      await onChange(next);
      current = next;
      const facts = { notAfter: next.signer.notAfter.toISOString(), sameKey };
      if (sameKey) log.info("the CA's root is replaced by a newer one", facts);
      else log.error("the CA's root is replaced by one of another key; certificates of the old one will fail", facts);
    } catch (error) {
      const ordinary = error instanceof MeshError || error instanceof KubeError || error instanceof KubeUnreachable;
      if (!ordinary) throw error;
      const remedy = error instanceof MeshError ? error.remedy : undefined;
      log.error("the CA's root could not be looked after; the one in use stays", { error: chain(error), remedy });
    }
  }
}

async function isSameKey(before: KeyMaterial, after: KeyMaterial): Promise<boolean> {
  const prints = await Promise.all([before, after].map(({ signer }) => signer.publicKey.getThumbprint("SHA-256")));
  return new Uint8Array(prints[0]!).toHex() === new Uint8Array(prints[1]!).toHex();
}
