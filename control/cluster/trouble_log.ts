/** Says which kinds cannot be watched, and what to do about it: once when it begins, once a minute while it lasts, once when it ends. */
import type { Logger } from "../../base/log.ts";
import type { InformerStatus, ResourceType } from "../../kube/api.ts";
import { resourceName } from "./kinds.ts";

/** How one watch fares. */
export interface WatchHealth {
  readonly type: ResourceType;
  /** Where it is watched; undefined: everywhere. */
  readonly namespace?: string;
  readonly trouble: InformerStatus["trouble"];
  /** What its trouble means for the mesh. */
  readonly consequence: string;
}

const AGAIN_MS = 60_000;
// A connection that is cut for a moment is no trouble: watches end and begin again all the time.
const PATIENCE_MS = 5_000;

export class TroubleLog {
  readonly #log: Logger;
  readonly #onTrouble: () => void;
  readonly #now: () => number;
  /** By resource: when it was last said. */
  readonly #said = new Map<string, number>();

  /** @param onTrouble called when the watch of a type gets into trouble. */
  constructor(log: Logger, onTrouble: () => void, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#onTrouble = onTrouble;
    this.#now = now;
  }

  /** Takes how the watch of a type fares now, and what follows from its trouble. */
  look({ type, namespace, trouble, consequence }: WatchHealth): void {
    const resource = resourceName(type), saidAtMs = this.#said.get(resource);
    if (trouble === undefined) {
      if (this.#said.delete(resource)) this.#log.info("kind can be watched again", { resource });
      return;
    }
    const { status, error, sinceMs } = trouble;
    if (status !== 403 && sinceMs < PATIENCE_MS) return;
    if (saidAtMs !== undefined && this.#now() - saidAtMs < AGAIN_MS) return;
    if (saidAtMs === undefined) this.#onTrouble();
    this.#said.set(resource, this.#now());
    const seconds = Math.round(sinceMs / 1_000);
    this.#log.error("kind cannot be watched", {
      resource,
      status,
      error,
      seconds,
      consequence,
      fix: fixOf(type, namespace, status),
    });
  }
}

/** What a person can do about an answer. */
function fixOf(type: ResourceType, namespace: string | undefined, status: number): string {
  const { group, plural } = type;
  if (status === 403) {
    const role = namespace === undefined ? "ClusterRole" : `Role in ${namespace}`;
    return `add to istiod's ${role}: {apiGroups: ["${group}"], resources: ["${plural}"], verbs: ["list", "watch"]}`;
  }
  if (status === 401) return "see that istiod's service account token is mounted and not expired";
  if (status === 404) return `install CRDs that serve ${resourceName(type)} in version ${type.version}`;
  return "see that the API server can be reached and is well";
}
