/** The mesh's settings in force, for those who serve and sign: what the MeshConfig says, else what istiod was started with. */
import { EMPTY_MESH_CONFIG } from "./decode/mesh_config.ts";
import type { MeshConfigObject, ObjectChange } from "./objects.ts";

/** What is in force now; no field is empty that has a default. */
export type MeshSettingsNow = Omit<MeshConfigObject, "kind" | "meta">;

/** Settings that istiod was started with. */
export interface MeshDefaults {
  readonly trustDomain: string;
  readonly rootNamespace: string;
}

/** Follows the mesh's settings among the objects of a source; feed it with {@link apply} before whoever subscribed serves. */
export class MeshSettings {
  readonly #defaults: MeshDefaults;
  readonly #listeners = new Set<(now: MeshSettingsNow, before: MeshSettingsNow) => void>();
  #now: MeshSettingsNow;

  constructor(defaults: MeshDefaults) {
    this.#defaults = defaults;
    this.#now = inForce(undefined, defaults);
  }

  /** Frozen; another object after each change. */
  get now(): MeshSettingsNow {
    return this.#now;
  }

  /** Takes the MeshConfig among the changes, if there is one, and tells the subscribers. */
  apply(changes: readonly ObjectChange[]): void {
    const change = changes.findLast(({ kind }) => kind === "MeshConfig");
    if (change === undefined) return;
    const config = change.object?.kind === "MeshConfig" ? change.object : undefined, before = this.#now;
    this.#now = inForce(config, this.#defaults);
    for (const listener of [...this.#listeners]) listener(this.#now, before);
  }

  /** Calls back after each change, until the returned function is called. */
  subscribe(listener: (now: MeshSettingsNow, before: MeshSettingsNow) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}

function inForce(config: MeshConfigObject | undefined, defaults: MeshDefaults): MeshSettingsNow {
  const { kind: _kind, meta: _meta, ...written } = config ?? EMPTY_MESH_CONFIG;
  return Object.freeze({
    ...written,
    trustDomain: written.trustDomain || defaults.trustDomain,
    rootNamespace: written.rootNamespace || defaults.rootNamespace,
  });
}
