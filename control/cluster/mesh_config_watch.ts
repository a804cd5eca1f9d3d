/**
 * The mesh's settings of a cluster, live (CP-026): a mounted file if there was one at the start, else a ConfigMap; with a
 * shared ConfigMap underneath. An edit that cannot be read keeps what held before; at the start nothing does.
 */
import type { Logger } from "../../base/log.ts";
import { pause } from "../../base/waiting.ts";
import type { Informer, InformerChange, KubeApi, KubeObject } from "../../kube/api.ts";
import { startInformer } from "../../kube/informer.ts";
import { CONFIG_MAPS } from "../../kube/resource_types.ts";
import { readMeshConfig } from "../decode/mesh_config.ts";
import { MESH_CONFIG_KEY, type MeshConfigObject, type ObjectChange } from "../objects.ts";
import type { KindStatus } from "./kind_watch.ts";

export interface MeshConfigOptions {
  readonly api: KubeApi;
  readonly namespace: string;
  /** The ConfigMap: {@link configMapName}. */
  readonly name: string;
  /** A ConfigMap whose settings hold where the other names none (SHARED_MESH_CONFIG); empty: there is none. */
  readonly sharedName: string;
  /** Read in place of the ConfigMap if it is there at the start. */
  readonly file: string;
  readonly onChange: (change: ObjectChange) => void;
  readonly log: Logger;
  readonly pollMs?: number;
  /** How the file is read; Deno's own way if not given. */
  readonly readFile?: (path: string) => Promise<string>;
}

const POLL_MS = 2_000; // A mounted ConfigMap changes by a renamed link, which a watch of the file does not see.
const KEY = "mesh";

/** What the ConfigMap is called (CP-026). */
export function configMapName(revision: string): string {
  return revision === "" || revision === "default" ? "istio" : `istio-${revision}`;
}

/** One place where settings may stand. */
interface Place {
  /** Whether it has been looked at. */
  known: boolean;
  /** Empty: nothing stands there. */
  text: string;
}

export class MeshConfigWatch {
  readonly #options: MeshConfigOptions;
  readonly #main: Place = { known: false, text: "" };
  readonly #shared: Place;
  readonly #informers: Informer[] = [];
  readonly #settled = Promise.withResolvers<void>();
  #current: MeshConfigObject | undefined;
  #fromFile = false;
  #read = "";
  #stopped: Promise<unknown> = Promise.resolve();

  constructor(options: MeshConfigOptions) {
    this.#options = options;
    this.#shared = { known: options.sharedName === "", text: "" };
  }

  /** Follows the settings until the signal. @returns Once it is known which place they are read from. */
  async start(signal: AbortSignal): Promise<void> {
    const { name, sharedName, file, log, namespace } = this.#options;
    signal.addEventListener("abort", () => this.#settled.reject(signal.reason), { once: true });
    this.#settled.promise.catch(() => {}); // Who waits for it sees the rejection; nobody has to.
    const text = await this.#readIfThere(file);
    this.#fromFile = text !== undefined;
    log.info("the mesh's settings", this.#fromFile ? { file } : { configMap: `${namespace}/${name}` });
    if (sharedName !== "") this.#follow(sharedName, this.#shared, signal);
    if (text === undefined) this.#follow(name, this.#main, signal);
    else {
      this.#take(this.#main, text);
      this.#stopped = this.#poll(signal);
    }
  }

  /** Resolves once settings are in force, rejects with the signal's reason. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  get stopped(): Promise<void> {
    return Promise.all([this.#stopped, ...this.#informers.map((it) => it.stopped)]).then(() => {});
  }

  /** Why the settings cannot be followed now. */
  trouble(): KindStatus["trouble"] {
    return this.#informers.map((it) => it.status().trouble).find((it) => it !== undefined);
  }

  /** Whether settings are in force. */
  get known(): boolean {
    return this.#current !== undefined;
  }

  #follow(name: string, place: Place, signal: AbortSignal): void {
    const { api, namespace, log } = this.#options;
    const onChange = (changes: readonly InformerChange[]) => {
      const change = changes.findLast((it) => it.name === name);
      if (change !== undefined) this.#take(place, textOf(change.object));
    };
    const scope = { namespace, fieldSelector: `metadata.name=${name}` };
    const informer = startInformer(api, CONFIG_MAPS, scope, { onChange, log }, signal);
    this.#informers.push(informer);
    informer.synced.then(() => this.#take(place, place.text), () => {}); // Rejected only by the signal.
  }

  async #poll(signal: AbortSignal): Promise<void> {
    const { file, log, pollMs = POLL_MS } = this.#options;
    let missed = false, last: string | undefined;
    while (await pause(pollMs, signal)) {
      const { text, trouble } = await this.#tryToRead(file), settled = text === last;
      last = text;
      if (text === undefined) {
        // Gone for a moment while the mount changes, or for good: either way no settings were written.
        if (!missed) log.warn("the mesh's settings are gone; those from before stay", { file, trouble });
        missed = true;
      } else {
        missed = false;
        if (settled) this.#take(this.#main, text); // Else somebody may be writing it: half of it means something else.
      }
    }
  }

  #take(place: Place, text: string): void {
    place.known = true;
    place.text = text;
    if (!this.#main.known || !this.#shared.known) return;
    const both = JSON.stringify([this.#main.text, this.#shared.text]);
    if (this.#read !== both) this.#decide(both);
  }

  #decide(both: string): void {
    const { onChange, log } = this.#options;
    this.#read = both;
    const { object, refusals } = readMeshConfig({ mesh: this.#main.text, shared: this.#shared.text }, this.#current);
    const kept = this.#current === undefined ? "istiod does not get ready" : "its value from before stays";
    for (const { field, reason } of refusals) log.error("mesh setting refused", { field, reason, consequence: kept });
    if (object === undefined) return;
    this.#current = object;
    onChange({ kind: "MeshConfig", key: MESH_CONFIG_KEY, object });
    this.#settled.resolve();
  }

  /** A file's text, or why there is none. */
  async #tryToRead(path: string): Promise<{ readonly text?: string; readonly trouble: string }> {
    try {
      const text = await this.#readIfThere(path);
      return text === undefined ? { trouble: "no such file" } : { text, trouble: "" };
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      return { trouble: error.message };
    }
  }

  async #readIfThere(path: string): Promise<string | undefined> {
    try {
      return await (this.#options.readFile ?? Deno.readTextFile)(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
      throw error;
    }
  }
}

/** Empty if the ConfigMap is gone, or says nothing. */
function textOf(object: KubeObject | undefined): string {
  const text = (object?.data as Readonly<Record<string, unknown>> | null | undefined)?.[KEY];
  return typeof text === "string" ? text : "";
}
