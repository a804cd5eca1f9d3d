/** The root that all replicas share: found, or made by whoever is first (CP-501, CP-502), and renewed in time (CP-503). */
import { chain, MeshError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type KubeApi, KubeError, KubeUnreachable } from "../../kube/api.ts";
import { type KeyMaterial, makeRoot, type MaterialTexts, renewRoot, type RootKey } from "./key_material.ts";
import { CA_SECRET, CACERTS_SECRET, SecretStore, type StoredCa } from "./secret_store.ts";

export interface SelfSignedOptions {
  readonly api: KubeApi;
  readonly namespace: string;
  readonly organisation: string;
  readonly key: RootKey;
  readonly rsaBits: number;
  readonly lifeMs: number;
  /** USE_CACERTS_FOR_SELF_SIGNED_CA: a new root is stored as `cacerts`, where an operator's would be. */
  readonly asCacerts: boolean;
  /** The last part of its life, of 0 to 1, in which a root is renewed. */
  readonly graceShare: number;
  readonly now: () => number;
  readonly log: Logger;
  /** Waits; false once the signal is aborted. */
  readonly pause: (ms: number, signal: AbortSignal) => Promise<boolean>;
}

const OPEN_MS_MAX = 20 * 60_000; // CP-502
const FIRST_RETRY_MS = 500;
const RETRY_MS_MAX = 60_000;
const ATTEMPTS_MAX = 5; // of a renewal that others are quicker with

export class SelfSignedCa {
  readonly #options: SelfSignedOptions;
  readonly #store: SecretStore;
  #name = CA_SECRET;

  constructor(options: SelfSignedOptions) {
    this.#options = options;
    this.#store = new SecretStore(options.api, options.namespace);
  }

  /** Finds the root, or makes it. @throws MeshError AMB0212 if what is there cannot be used, AMB0251 if the API server does not let us */
  async open(signal: AbortSignal): Promise<KeyMaterial> {
    const { now, log, pause } = this.#options, deadlineMs = now() + OPEN_MS_MAX;
    for (let waitMs = FIRST_RETRY_MS;; waitMs = Math.min(waitMs * 2, RETRY_MS_MAX)) {
      try {
        const found = await this.#find();
        // One that is merely due is renewed later, so that a start does not hang on being let to write.
        const ended = found !== undefined && found.material.signer.notAfter.getTime() <= now();
        if (found !== undefined) return (ended ? await this.#renewedIfDue(found) : found).material;
        await this.#make();
        continue; // Read back: the winner's is the one.
      } catch (cause) {
        if (!(cause instanceof KubeError) && !(cause instanceof KubeUnreachable)) throw cause;
        if (now() + waitMs > deadlineMs || !(await pause(waitMs, signal))) {
          throw new MeshError("AMB0251", "the CA's root can neither be read from a Secret nor be stored in one", {
            remedy: `let istiod get, create and update Secrets in namespace ${this.#options.namespace}`,
            cause,
          });
        }
        log.warn("the CA's root cannot be read or stored yet", { error: chain(cause), retryMs: waitMs });
      }
    }
  }

  /**
   * Looks at the Secret and renews the root if it is due.
   * @returns What to use instead of `current`, undefined if nothing has changed. @throws MeshError, KubeError, KubeUnreachable
   */
  async check(current: KeyMaterial): Promise<KeyMaterial | undefined> {
    const found = await this.#store.load(this.#name, this.#options.now());
    if (found === undefined) {
      throw new MeshError("AMB0252", `${this.#store.where(this.#name)}, which holds the CA's root, is gone`, {
        remedy: "restore it before any istiod restarts: one that finds none makes a new root",
      });
    }
    const { material } = await this.#renewedIfDue(found);
    return material.rootsPem === current.rootsPem ? undefined : material;
  }

  /** `istio-ca-secret` goes first whatever is asked for, so that a setting that changes does not change the root (CP-501). */
  async #find(): Promise<StoredCa | undefined> {
    for (const name of this.#options.asCacerts ? [CA_SECRET, CACERTS_SECRET] : [CA_SECRET]) {
      const found = await this.#store.load(name, this.#options.now());
      if (found === undefined) continue;
      this.#name = name;
      this.#options.log.info("the CA's root is read from a Secret", { secret: this.#store.where(name) });
      return found;
    }
    return undefined;
  }

  async #make(): Promise<void> {
    const { now, asCacerts, log } = this.#options, name = asCacerts ? CACERTS_SECRET : CA_SECRET;
    const texts = await makeRoot({ ...this.#options, nowMs: now() });
    const won = await this.#store.create(name, texts);
    const secret = this.#store.where(name);
    log.info(won ? "a root was made for the CA" : "another istiod has made the CA's root", { secret });
  }

  async #renewedIfDue(stored: StoredCa): Promise<StoredCa> {
    let found = stored;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      if (!this.#isDue(found.material)) return found;
      const { now, lifeMs, log } = this.#options;
      const cert = await renewRoot(found.material, { nowMs: now(), lifeMs });
      const texts: MaterialTexts = { ...found.texts, cert, roots: cert };
      const stored = await this.#store.renew(this.#name, found, texts);
      if (stored) log.info("the CA's root is renewed, with its key", { secret: this.#store.where(this.#name) });
      const again = await this.#store.load(this.#name, now()); // What counts is what is stored.
      if (again === undefined) return found;
      found = again;
    }
    return found;
  }

  #isDue({ signer }: KeyMaterial): boolean {
    const endsMs = signer.notAfter.getTime(), lifeMs = endsMs - signer.notBefore.getTime();
    return endsMs - this.#options.now() <= lifeMs * this.#options.graceShare;
  }
}
