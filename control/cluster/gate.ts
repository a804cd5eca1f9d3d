/** All objects of one cluster, and which of them count: those of the namespaces that discovery selectors let in (CP-104). */
import { anySelectorMatches } from "../../kube/label_selector.ts";
import type { LabelSelector } from "../../kube/label_selector.ts";
import { type KubernetesObject, type ObjectChange, type ObjectKey, objectKey } from "../objects.ts";

const BATCH_OBJECTS = 500; // Some 50 ms of derivation: between two the process answers probes and keeps its leases.
/** Kinds that come last: most of a mesh are pods, and what they belong to is known then. */
const RANK: Readonly<Record<string, number>> = { EndpointSlice: 1, WorkloadEntry: 1, Pod: 2 };

/** What stands in the gate of one namespace. */
interface Room {
  readonly objects: Map<ObjectKey, KubernetesObject>;
  open: boolean;
}

/**
 * Takes every change of the cluster and gives those that count. While it is closed it gives none; opening it gives all
 * there is, what others are derived with first, so that most is worked out once.
 */
export class NamespaceGate {
  readonly #rooms = new Map<string, Room>();
  #selectors: readonly LabelSelector[] = [];
  #open = false;

  /** Takes changes. @returns Those that count, with what a namespace's new labels bring and take. */
  apply(changes: readonly ObjectChange[]): ObjectChange[] {
    const passing: ObjectChange[] = [];
    for (const change of changes) {
      const namespace = change.key.split("/")[1]!, room = this.#roomOf(namespace);
      if (change.object === undefined) room.objects.delete(change.key);
      else room.objects.set(change.key, change.object);
      if (room.open && this.#open) passing.push(change);
      if (room.objects.size === 0) this.#rooms.delete(namespace);
      if (change.kind === "Namespace") passing.push(...this.#judge(change.key.slice("Namespace//".length)));
    }
    return passing;
  }

  /** Takes new selectors. @returns What they bring and take. */
  select(selectors: readonly LabelSelector[]): ObjectChange[] {
    this.#selectors = selectors;
    return [...this.#rooms.keys()].flatMap((namespace) => this.#judge(namespace));
  }

  /**
   * Lets changes through from here on. @returns Everything that counts, in batches, each as it is when it is asked for:
   * what changes between two of them is told by {@link apply} as any change.
   */
  *open(): Generator<ObjectChange[]> {
    this.#open = true;
    const places = [...this.#rooms].flatMap(([namespace, { objects }]) =>
      [...objects].map(([key, { kind }]) => ({ namespace, key, rank: RANK[kind] ?? 0 }))
    ).sort((one, other) => one.rank - other.rank);
    for (let at = 0; at < places.length; at += BATCH_OBJECTS) {
      yield places.slice(at, at + BATCH_OBJECTS).flatMap(({ namespace, key }) => {
        const room = this.#rooms.get(namespace), object = room?.open === true ? room.objects.get(key) : undefined;
        return object === undefined ? [] : [{ kind: object.kind, key, object }];
      });
    }
  }

  /** Everything that counts now, as changes. */
  objects(): ObjectChange[] {
    const all: ObjectChange[] = [];
    for (const room of this.#rooms.values()) if (room.open) all.push(...arrivals(room));
    return all;
  }

  /** Takes everything of a kind away, as if each object were deleted. */
  forget(kind: string): ObjectChange[] {
    const gone: ObjectChange[] = [];
    for (const { objects } of this.#rooms.values()) {
      for (const [key, object] of objects) {
        if (object.kind === kind) gone.push({ kind: object.kind, key, object: undefined });
      }
    }
    return this.apply(gone);
  }

  /** Whether a namespace is there, and let in. */
  admits(namespace: string): boolean {
    return this.#namespaceIsIn(namespace);
  }

  #roomOf(namespace: string): Room {
    const found = this.#rooms.get(namespace);
    if (found !== undefined) return found;
    // Cluster-scoped kinds, Namespaces among them, always count.
    const room = { objects: new Map(), open: namespace === "" || this.#namespaceIsIn(namespace) };
    this.#rooms.set(namespace, room);
    return room;
  }

  #namespaceIsIn(namespace: string): boolean {
    if (this.#selectors.length === 0) return true;
    // An object may be told of before its namespace: it waits for the labels.
    const object = this.#rooms.get("")?.objects.get(objectKey("Namespace", "", namespace));
    return object !== undefined && anySelectorMatches(this.#selectors, object.meta.labels);
  }

  #judge(namespace: string): ObjectChange[] {
    const room = this.#rooms.get(namespace);
    if (room === undefined || namespace === "") return [];
    const open = this.#namespaceIsIn(namespace);
    if (room.open === open) return [];
    room.open = open;
    if (!this.#open) return [];
    return open ? arrivals(room) : arrivals(room).map((change) => ({ ...change, object: undefined }));
  }
}

function arrivals({ objects }: Room): ObjectChange[] {
  return [...objects].map(([key, object]) => ({ kind: object.kind, key, object }));
}
