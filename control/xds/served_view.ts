/** What streams are served of: the view they were given, and type istio.workload.Workload made of it (CP-421). */
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { type Resource, type ResourceChange, type ResourceView, WORKLOAD_TYPE_URL } from "./resources.ts";

/** The tag of `workload` in an Address (workload.proto): field 1, length-delimited. */
const WORKLOAD_TAG = 0x0a;

/** The message within an Address that is a workload, or undefined for a service. */
function bareWorkload(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes[0] !== WORKLOAD_TAG) return undefined;
  let at = 1;
  while ((bytes[at]! & 0x80) !== 0) at++; // The length, a varint; what follows is the whole rest.
  return bytes.subarray(at + 1);
}

/**
 * A view of addresses and policies with workloads beside them: each is the bare message out of its address, under the
 * same name, aliases and version, which changes when the content does.
 */
export class ServedView implements ResourceView {
  readonly #view: ResourceView;
  /** So that a workload is one object for as long as its address is. */
  readonly #workloads = new WeakMap<Resource, Resource>();

  /** Everything of a type, as long as a response holds it and nothing has changed. */
  readonly #everything = new Map<string, { generation: number; resources: WeakRef<readonly Resource[]> }>();

  constructor(view: ResourceView) {
    this.#view = view;
  }

  get generation(): number {
    return this.#view.generation;
  }

  /** All resources of a type, in one array for all who ask while nothing changes: it is encoded once (CP-658). */
  everything(typeUrl: string): readonly Resource[] {
    const generation = this.#view.generation, kept = this.#everything.get(typeUrl);
    const known = kept?.generation === generation ? kept.resources.deref() : undefined;
    if (known !== undefined) return known;
    const resources = [...this.all(typeUrl)];
    this.#everything.set(typeUrl, { generation, resources: new WeakRef(resources) });
    return resources;
  }

  *all(typeUrl: string): IterableIterator<Resource> {
    if (typeUrl !== WORKLOAD_TYPE_URL) return yield* this.#view.all(typeUrl);
    for (const address of this.#view.all(ADDRESS_TYPE_URL)) yield* this.#workloadsOf([address]);
  }

  lookup(typeUrl: string, name: string): readonly Resource[] {
    if (typeUrl !== WORKLOAD_TYPE_URL) return this.#view.lookup(typeUrl, name);
    return this.#workloadsOf(this.#view.lookup(ADDRESS_TYPE_URL, name));
  }

  workloadsOnNode(node: string, typeUrl: string): readonly Resource[] {
    if (typeUrl === ADDRESS_TYPE_URL) return this.#view.workloadsOnNode(node);
    return typeUrl === WORKLOAD_TYPE_URL ? this.#workloadsOf(this.#view.workloadsOnNode(node)) : [];
  }

  /** What a change of addresses is for those who watch workloads. Removed services stay named: clients ignore them (CP-451). */
  workloadChange({ updated, removed }: ResourceChange): ResourceChange {
    return { typeUrl: WORKLOAD_TYPE_URL, updated: this.#workloadsOf(updated), removed };
  }

  #workloadsOf(addresses: readonly Resource[]): Resource[] {
    const workloads: Resource[] = [];
    for (const address of addresses) {
      let workload = this.#workloads.get(address);
      if (workload === undefined) {
        const bytes = bareWorkload(address.bytes);
        if (bytes === undefined) continue;
        const { name, aliases, version } = address;
        this.#workloads.set(address, workload = { name, aliases, version, bytes });
      }
      workloads.push(workload);
    }
    return workloads;
  }
}
