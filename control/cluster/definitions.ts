/** Which optional kinds a cluster has: told by its CRDs, of which nothing but the metadata is fetched (CP-100). */
import type { Logger } from "../../base/log.ts";
import type { Informer, InformerChange, KubeApi, KubeObject, ResourceType } from "../../kube/api.ts";
import { type InformerLimits, startInformer } from "../../kube/informer.ts";
import { CUSTOM_RESOURCE_DEFINITIONS } from "../../kube/resource_types.ts";
import { resourceName } from "./kinds.ts";
import { BUNDLE_VERSION, DEFINITION_FIELDS } from "./read_fields.ts";

/** `untold`: the API server does not let us see; whoever wants to know must ask for the kind itself. */
export type Presence = "present" | "absent" | "waiting" | "untold";

const GATEWAY_GROUP = "gateway.networking.k8s.io";
// Of this version on Gateways and GatewayClasses are served as v1.
const BUNDLE_MIN = [1, 0, 0] as const;

export interface DefinitionsOptions {
  readonly api: KubeApi;
  /** The kinds to know about. */
  readonly types: readonly ResourceType[];
  /** Called whenever {@link Definitions.presenceOf} may say something else. */
  readonly onChange: () => void;
  readonly log: Logger;
  readonly limits?: Partial<InformerLimits>;
}

export class Definitions {
  readonly #options: DefinitionsOptions;
  readonly #wanted: ReadonlySet<string>;
  readonly #present = new Set<string>();
  #informer: Informer | undefined;

  constructor(options: DefinitionsOptions) {
    this.#options = options;
    this.#wanted = new Set(options.types.map(resourceName));
  }

  /** Watches until the signal. @returns What resolves once that has ended. */
  start(signal: AbortSignal): Promise<void> {
    const { api, log, limits, onChange } = this.#options;
    const scope = { metadataOnly: true, fields: DEFINITION_FIELDS };
    const informer = this.#informer = startInformer(api, CUSTOM_RESOURCE_DEFINITIONS, scope, {
      onChange: (changes) => this.#take(changes),
      log,
      limits,
    }, signal);
    informer.synced.then(onChange, () => {}); // Rejected only by the signal: then nobody asks any more.
    return informer.stopped;
  }

  get informer(): Informer | undefined {
    return this.#informer;
  }

  presenceOf(type: ResourceType): Presence {
    if (this.#present.has(resourceName(type))) return "present";
    const status = this.#informer?.status();
    if (status?.synced === true) return "absent";
    return isRefusal(status?.trouble?.status) ? "untold" : "waiting";
  }

  #take(changes: readonly InformerChange[]): void {
    let differs = false;
    for (const { name, object } of changes) {
      if (!this.#wanted.has(name)) continue;
      const present = object !== undefined && this.#isRecent(name, object);
      if (present === this.#present.has(name)) continue;
      differs = true;
      if (present) this.#present.add(name);
      else this.#present.delete(name);
    }
    if (differs) this.#options.onChange();
  }

  #isRecent(name: string, object: KubeObject): boolean {
    const version = tooOldVersion(object);
    if (version === undefined) return true;
    const facts = { resource: name, version, minimum: GATEWAY_API_MIN };
    this.#options.log.warn("kind not read: its Gateway API is too old", facts);
    return false;
  }
}

export const GATEWAY_API_MIN = BUNDLE_MIN.join(".");

/**
 * Of a CRD of the Gateway API its version, if that is below {@link GATEWAY_API_MIN}: such a kind is not read. One of unknown
 * version is: without its Gateways traffic would pass waypoints by.
 */
export function tooOldVersion({ metadata }: KubeObject): string | undefined {
  if (!metadata.name.endsWith(`.${GATEWAY_GROUP}`)) return undefined;
  const annotations = metadata.annotations as Readonly<Record<string, unknown>> | null | undefined;
  const text = String(annotations?.[BUNDLE_VERSION] ?? ""), version = parseVersion(text);
  return version === undefined || !isBelow(version, BUNDLE_MIN) ? undefined : text.slice(0, 80);
}

/** Whether an API server's answer is a no that asking again soon does not change. */
export function isRefusal(status: number | undefined): boolean {
  return status === 401 || status === 403 || status === 404 || status === 405;
}

/** Release candidates count as the release. */
function parseVersion(text: string): readonly number[] | undefined {
  const match = /^v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:[-+].*)?$/.exec(text);
  return match?.slice(1).map(Number);
}

function isBelow(version: readonly number[], minimum: readonly number[]): boolean {
  for (const [at, least] of minimum.entries()) {
    if (version[at] !== least) return (version[at] ?? 0) < least;
  }
  return false;
}
