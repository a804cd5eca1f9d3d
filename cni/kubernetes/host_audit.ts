/** The host's own rules and the probes' set: written at the start, and looked at ever after (CNI-097, CNI-185, CNI-188). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { pause } from "../../base/waiting.ts";
import type { NodeProbes, ProbedAddress } from "../redirection/redirection.ts";
import type { Repair } from "./pod_news.ts";

const TRIES = 10, PAUSE_MS = 2_000; // CNI-185

export interface HostAuditOptions {
  /** The addresses that must be in the sets: those of all enrolled pods. */
  readonly wanted: () => readonly ProbedAddress[];
  /** Whether an entry is of a pod that this node has. */
  readonly isPod: (uid: string) => boolean;
  readonly repaired: (what: Repair) => void;
  readonly log: Logger;
}

/** Writes the host's rules, again and again if need be. Throws MeshError after the last try: the node cannot be served (CNI-018). */
export async function ensureHostRules(
  probes: Pick<NodeProbes, "ensure">,
  { signal, log, pauseMs = PAUSE_MS }: { signal: AbortSignal; log: Logger; pauseMs?: number },
): Promise<void> {
  for (let attempt = 1;; attempt++) {
    try {
      return await probes.ensure();
    } catch (error) {
      if (!(error instanceof MeshError) || attempt === TRIES) throw error;
      log.warn("host rules not written", { attempt, error: chain(error) });
    }
    if (!await pause(pauseMs, signal)) signal.throwIfAborted();
  }
}

/** One look after the other, however many are asked for. */
export class HostAudit {
  readonly #probes: NodeProbes;
  readonly #options: HostAuditOptions;
  #looking: Promise<void> = Promise.resolve();
  #again = false;

  constructor(probes: NodeProbes, options: HostAuditOptions) {
    this.#probes = probes;
    this.#options = options;
  }

  /** Resolves when a look that began after this call is done. A failure is logged: the next look tries again. */
  look(): Promise<void> {
    if (this.#again) return this.#looking; // One is waiting to begin.
    this.#again = true;
    return this.#looking = this.#looking.then(() => {
      this.#again = false;
      return this.#look();
    });
  }

  async #look(): Promise<void> {
    const { log, repaired } = this.#options;
    try {
      const differences = await this.#probes.check();
      if (differences.length > 0) {
        await this.#probes.ensure();
        log.warn("host rules repaired", { found: differences.join("; ") });
        repaired("host_rules");
      }
      await this.#correctSets();
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      log.error("host rules not checked", { error: chain(error) });
    }
  }

  async #correctSets(): Promise<void> {
    const { log, repaired, wanted, isPod } = this.#options;
    const present = await this.#probes.addresses();
    const owners = new Map(present.map(({ ip, uid }) => [ip, uid]));
    const missing = wanted().filter(({ ip, uid }) => owners.get(ip) !== uid);
    const stale = present.filter(({ ip, uid }) => !isPod(uid) && missing.every((it) => it.ip !== ip));
    if (missing.length === 0 && stale.length === 0) return;
    await this.#probes.add(missing);
    await this.#probes.remove(stale);
    log.warn("probe set repaired", { missing: missing.length, stale: stale.length });
    repaired("probe_set");
  }
}
