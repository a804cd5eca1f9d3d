/** The status of objects as the API server has it now. It is no input of the mesh, so it stays out of the objects that the mesh is derived from. */
import type { KubeObject } from "../../kube/api.ts";
import { type ObjectKey, objectKey } from "../objects.ts";
import { statusKind } from "./status_kinds.ts";

export interface MirroredStatus {
  readonly resourceVersion: string;
  /** As written; undefined if the object has none. */
  readonly status: unknown;
}

/** Filled by the source of objects, before the index hears of the same change. */
export class StatusMirror {
  readonly #statuses = new Map<ObjectKey, MirroredStatus>();

  /** Takes note of an object's newest state, or that it is gone. Kinds whose status is none of ours are passed over. */
  note(
    kind: string,
    place: { readonly namespace: string; readonly name: string },
    object: KubeObject | undefined,
  ): void {
    if (statusKind(kind) === undefined) return;
    const key = objectKey(kind, place.namespace, place.name);
    if (object === undefined) this.#statuses.delete(key);
    else this.#statuses.set(key, { resourceVersion: object.metadata.resourceVersion ?? "", status: object["status"] });
  }

  /** Undefined: no such object. */
  get(key: ObjectKey): MirroredStatus | undefined {
    return this.#statuses.get(key);
  }

  get size(): number {
    return this.#statuses.size;
  }
}
