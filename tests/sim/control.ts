/** The control plane of a run: its model of the mesh, served by real delta sessions to the real client of each node. */
import { Debouncer } from "../../control/xds/debounce.ts";
import type { Resource, ResourceChange, ResourceView } from "../../control/xds/resources.ts";
import { ServedView } from "../../control/xds/served_view.ts";
import { SERVED_TYPES } from "../../control/xds/resources.ts";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { ControlLink } from "./control_link.ts";
import type { Kernel } from "./kernel.ts";
import type { SimNode } from "./node.ts";
import type { PolicyFact } from "./policies.ts";

/** A resource, and what the run knows of it. */
export interface ModelResource extends Resource {
  /** Nobody can decode it. */
  readonly bad: boolean;
  /** What a policy says. */
  readonly fact: PolicyFact | undefined;
}

/** Bytes that are no message: a field whose length runs past the end. */
const NO_MESSAGE = Uint8Array.of(0x0a, 0x7f, 1, 2, 3);

export class SimControl implements ResourceView {
  readonly kernel: Kernel;
  /** How much a response may hold before the rest waits for the next. */
  readonly responseBytesMax: number;
  readonly #model = new Map([...SERVED_TYPES.keys()].map((type) => [type, new Map<string, ModelResource>()]));
  readonly #facts = new Map<string, PolicyFact>();
  readonly #links: ControlLink[] = [];
  /** How long a message takes at most. */
  delayMsMax = 0;
  readonly #debouncer: Debouncer;
  /** What sessions are served of. */
  readonly served = new ServedView(this);
  generation = 0;
  #downUntilMs = 0;
  #epoch = 0;
  #count = 0;
  #waits = false;
  /** The number of the last version of all policies, and of the last that sessions have been told of. */
  policyVersion = 0;
  pushedPolicyVersion = 0;

  constructor(kernel: Kernel) {
    this.kernel = kernel;
    const { chance } = kernel, quietMs = chance.pick([0, 5, 100]);
    this.responseBytesMax = chance.pick([1, 200, 2_000, 1 << 20]);
    this.#debouncer = new Debouncer({
      quietMs,
      idleQuietMs: Math.min(quietMs, 10),
      maxMs: 300,
      now: () => kernel.nowMs,
      schedule: (callback, ms) => {
        let cancelled = false;
        kernel.after(ms, () => cancelled || callback());
        return () => cancelled = true;
      },
      flush: (changes) => this.#push(changes),
    });
  }

  isBad(bytes: Uint8Array): boolean {
    return bytes.join() === NO_MESSAGE.join();
  }

  /** What the policy of a version says. */
  factOf(version: string): PolicyFact | undefined {
    return this.#facts.get(version);
  }

  get links(): readonly ControlLink[] {
    return this.#links;
  }

  // ---- the model

  /** Makes a resource what `bytes` says; the same bytes again are no change. */
  put(typeUrl: string, name: string, bytes: Uint8Array, fact?: PolicyFact): void {
    this.#set(typeUrl, { name, bytes, fact, bad: false });
  }

  /** Makes a resource something that no client can take. */
  spoil(typeUrl: string, name: string): void {
    this.#set(typeUrl, { name, bytes: NO_MESSAGE, fact: undefined, bad: true });
  }

  remove(typeUrl: string, name: string): void {
    if (!this.#of(typeUrl).delete(name)) return;
    this.generation++;
    this.#change({ typeUrl, updated: [], removed: [name] });
  }

  /** The resources of a type as they should be everywhere. */
  *of(typeUrl: string): Iterable<ModelResource> {
    yield* this.#of(typeUrl).values();
  }

  all(typeUrl: string): Iterable<Resource> {
    return this.#of(typeUrl).values();
  }

  lookup(typeUrl: string, name: string): readonly Resource[] {
    const found = this.#of(typeUrl).get(name);
    return found === undefined ? [] : [found];
  }

  workloadsOnNode(): readonly Resource[] {
    return [];
  }

  #of(typeUrl: string): Map<string, ModelResource> {
    return this.#model.get(typeUrl)!;
  }

  #set(typeUrl: string, { name, bytes, fact, bad }: Omit<ModelResource, "version" | "aliases">): void {
    const before = this.#of(typeUrl).get(name);
    if (before !== undefined && before.bytes.join() === bytes.join()) return;
    const resource = { name, aliases: [], bytes, version: this.#nextVersion(), fact, bad };
    this.#of(typeUrl).set(name, resource);
    this.generation++;
    if (fact !== undefined) this.#facts.set(resource.version, fact);
    this.#change({ typeUrl, updated: [resource], removed: [] });
  }

  #nextVersion(): string {
    return `${this.#epoch}-${++this.#count}`;
  }

  #change(change: ResourceChange): void {
    if (this.down) return; // It reads everything anew when it is back.
    this.#waits = true;
    this.#debouncer.add(change);
  }

  /** What of a type waits for the next push. */
  gathering(typeUrl: string): Iterable<Resource> {
    return this.#debouncer.gathering(typeUrl);
  }

  #push(changes: readonly ResourceChange[]): void {
    if (this.down) return;
    this.#waits = false;
    this.pushedPolicyVersion = this.policyVersion;
    for (const link of this.#links) link.push(changes);
  }

  // ---- its life

  get down(): boolean {
    return this.kernel.nowMs < this.#downUntilMs;
  }

  /** Adds a node, which connects at once. */
  serve(node: SimNode): ControlLink {
    const link = new ControlLink(this, node);
    this.#links.push(link);
    link.connect();
    return link;
  }

  /** Ends for a while. It comes back with nonces of its own, and with the same versions or others. */
  restart(forMs: number): void {
    this.#downUntilMs = this.kernel.nowMs + forMs;
    this.#epoch++;
    this.#waits = false;
    for (const link of this.#links) link.lose();
    if (this.kernel.chance.often(50)) return;
    for (const resources of this.#model.values()) {
      for (const [name, resource] of resources) {
        const version = this.#nextVersion();
        resources.set(name, { ...resource, version });
        if (resource.fact !== undefined) this.#facts.set(version, resource.fact);
      }
    }
  }

  nextNonce(): string {
    return `nonce-${this.#epoch}-${++this.#count}`;
  }

  /** Whether a node has all that there is, as far as control plane and stream go. */
  settledWith(link: ControlLink): boolean {
    return !this.#waits && link.idle;
  }

  /** The version of all policies that a stream has said completely once this response is applied; undefined: none. */
  saidBy(link: ControlLink, answers: boolean): number | undefined {
    return link.waitingOf(AUTHORIZATION_TYPE_URL) > 0
      ? undefined
      : answers
      ? this.policyVersion
      : this.pushedPolicyVersion;
  }
}
