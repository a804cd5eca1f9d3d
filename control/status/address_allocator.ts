/** Gives the hosts of ServiceEntries addresses, in their status, while this istiod leads (CP-240). */
import { isFields } from "../../base/plain.ts";
import type { Logger } from "../../base/log.ts";
import { type KubeApi, KubeError, type KubeObject } from "../../kube/api.ts";
import { SERVICE_ENTRIES } from "../../kube/resource_types.ts";
import type { Collection } from "../collect/store.ts";
import { keyOf, type ObjectChange, type ObjectKey, type ServiceEntryObject } from "../objects.ts";
import { AddressBook, type HostAddress } from "./address_book.ts";
import { type Clock, SYSTEM_CLOCK } from "./clock.ts";
import type { ControllerMetrics } from "./controller_metrics.ts";
import type { StatusMirror } from "./status_mirror.ts";
import { WorkQueue } from "./work_queue.ts";

export interface AddressAllocatorOptions {
  readonly api: KubeApi;
  /** All of them, whatever their revision: addresses are the whole mesh's. */
  readonly entries: Collection<ServiceEntryObject>;
  readonly mirror: StatusMirror;
  /** What addresses are taken from, one of each for a host. */
  readonly prefixes: readonly string[];
  readonly metrics: ControllerMetrics;
  readonly log: Logger;
  readonly clock?: Clock;
}

const NAME = "addresses";

export class AddressAllocator {
  readonly #options: AddressAllocatorOptions;
  readonly #book: AddressBook;
  #queue: WorkQueue | undefined;
  /** Prefixes of which it was said, in this term, that they are used up. */
  #saidExhausted = new Set<string>();
  /** Entries with a host that got none. */
  readonly #waiting = new Set<ObjectKey>();

  /** @throws MeshError AMB0260 if a prefix is none. */
  constructor(options: AddressAllocatorOptions) {
    this.#options = options;
    this.#book = new AddressBook(options.prefixes);
    options.metrics.watchQueue(NAME, () => this.#queue?.size ?? 0);
  }

  /** For metrics: addresses in use, by prefix. */
  used(): readonly (readonly [prefix: string, count: number])[] {
    return this.#book.used();
  }

  /** To be called with every batch of changes. */
  changed(changes: readonly ObjectChange[]): void {
    if (this.#queue === undefined) return;
    for (const { kind, key } of changes) if (kind === "ServiceEntry") this.#queue.add(key);
  }

  /** The leader's work. */
  async lead(signal: AbortSignal): Promise<void> {
    const { entries, metrics, log, clock = SYSTEM_CLOCK } = this.#options;
    const reconcile = (key: string): Promise<void> => this.#reconcile(queue, key);
    const queue: WorkQueue = new WorkQueue({ name: NAME, reconcile, metrics, log, clock });
    const all = [...entries.entries()].map(([, entry]) => entry);
    // Before the first is served: what is in use must be known, or it would be given out again.
    this.#book.rebuild(all);
    this.#saidExhausted = new Set();
    this.#waiting.clear();
    for (const entry of all) queue.add(keyOf(entry));
    this.#queue = queue;
    await queue.run(signal);
    if (this.#queue === queue) this.#queue = undefined;
  }

  async #reconcile(queue: WorkQueue, key: ObjectKey): Promise<void> {
    const { entries, mirror } = this.#options, entry = entries.get(key);
    if (entry === undefined) {
      this.#book.forget(key);
      this.#waiting.delete(key);
      for (const other of this.#waiting) queue.add(other); // One of them may have what it left.
      return;
    }
    const { addresses, displaced, exhausted } = this.#book.assign(entry);
    for (const other of displaced) {
      this.#options.log.warn("two ServiceEntries have one address; the later gets another", {
        kept: key,
        moved: other,
      });
      queue.add(other);
    }
    for (const prefix of exhausted) this.#sayExhausted(prefix, key);
    if (exhausted.length > 0) this.#waiting.add(key);
    else this.#waiting.delete(key);
    if (sameAddresses(entry.allocated, addresses)) return;
    try {
      await this.#write(entry, addresses, mirror.get(key)?.status);
    } catch (error) {
      if (!(error instanceof KubeError && (error.status === 422 || error.status === 409))) throw error;
      this.#options.metrics.wrote(NAME, "conflict"); // Its status is not what we saw.
      await this.#writeOnFresh(entry, addresses);
    }
  }

  async #writeOnFresh(entry: ServiceEntryObject, addresses: readonly HostAddress[]): Promise<void> {
    const { namespace, name } = entry.meta;
    const object = await this.#options.api.get(SERVICE_ENTRIES, { namespace, name });
    if (object === undefined || sameAddresses(writtenAddresses(object), addresses)) return;
    await this.#write(entry, addresses, object["status"]);
  }

  async #write({ meta }: ServiceEntryObject, addresses: readonly HostAddress[], status: unknown): Promise<void> {
    const place = { namespace: meta.namespace, name: meta.name, subresource: "status" };
    await this.#options.api.patch(SERVICE_ENTRIES, place, addressPatch(addresses, status));
    this.#options.metrics.wrote(NAME, "written");
    const { namespace, name } = meta;
    this.#options.log.debug("addresses assigned", { namespace, name, count: addresses.length });
  }

  #sayExhausted(prefix: string, entry: ObjectKey): void {
    if (this.#saidExhausted.has(prefix)) return;
    this.#saidExhausted.add(prefix);
    this.#options.log.error("no address is left for ServiceEntries", { prefix, entry });
  }
}

/** A JSON patch that holds only if the status still is what was seen. */
function addressPatch(addresses: readonly HostAddress[], status: unknown): readonly object[] {
  const path = "/status/addresses", value = addresses.map(({ value, host }) => ({ value, host }));
  if (!isFields(status)) {
    return [{ op: "test", path: "/status", value: null }, { op: "add", path: "/status", value: { addresses: value } }];
  }
  const seen = status["addresses"];
  return [
    { op: "test", path, value: seen ?? null },
    { op: seen === undefined || seen === null ? "add" : "replace", path, value },
  ];
}

function writtenAddresses(object: KubeObject): readonly HostAddress[] {
  const status = object["status"], list = isFields(status) ? status["addresses"] : undefined;
  return Array.isArray(list) ? list.filter(isFields) as unknown as readonly HostAddress[] : [];
}

function sameAddresses(left: readonly HostAddress[], right: readonly HostAddress[]): boolean {
  return left.length === right.length &&
    left.every(({ value, host }, at) => value === right[at]!.value && host === right[at]!.host);
}
