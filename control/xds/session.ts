/** One client's delta stream as a state machine: requests and changes go in, responses come out. No I/O, no clock (CP section 5). */
import { assert } from "../../base/assert.ts";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import type { DeltaDiscoveryRequest } from "../../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";
import { NONE, type Resource, type ResourceChange, SERVED_TYPES, WORKLOAD_TYPE_URL } from "./resources.ts";
import type { ServedView } from "./served_view.ts";
import { type TakenChanges, WaitingChanges } from "./waiting_changes.ts";

/** What a response says, its resources still shared with every other stream. */
export interface ResponseBody {
  readonly typeUrl: string;
  readonly resources: readonly Resource[];
  readonly removed: readonly string[];
  /** Whether a request asked for it; otherwise it is a push. */
  readonly answers: boolean;
}

/** A response to send. */
export interface Outgoing extends ResponseBody {
  readonly nonce: string;
}

/** What a request was, for counters and logs. */
export type RequestOutcome = "answered" | "acknowledged" | "rejected" | "stale" | "unknown-type";

/** A question not answered yet; further ones of its type merge into it. */
interface Question {
  /** Names asked for; unused by a wildcard watch, whose answer is everything. */
  readonly names: Set<string>;
  /** What the client says it holds. */
  readonly versions: Map<string, string>;
}

/** What one stream watches of one type, and how far it has come. */
interface Watch {
  readonly typeUrl: string;
  readonly wildcard: boolean;
  /** Subscribed names; stays empty for a wildcard watch (CP-417). */
  readonly names: Set<string>;
  readonly waiting: WaitingChanges;
  question: Question | undefined;
  sentNonce: string;
  acknowledgedNonce: string;
  /** Whether the last response was acknowledged or rejected. */
  settled: boolean;
  /** Text of the last NACK, until an ACK (CP-020). */
  lastError: string;
}

/** A watch's state for the debug page (CP-018). */
export interface WatchStatus {
  readonly typeUrl: string;
  readonly wildcard: boolean;
  readonly names: number;
  readonly waiting: number;
  readonly sentNonce: string;
  readonly acknowledgedNonce: string;
  readonly lastError: string;
}

const WILDCARD = "*";
/** What a response may weigh before it is cut in two: under the 200 MiB that clients accept (CP-450). */
const RESPONSE_BYTES_MAX = 128 * 1024 * 1024;
/** Names one stream may subscribe to, or say that it holds; more are refused by ending the stream. */
const NAMES_MAX = 1_000_000;
const LAST_ERROR_LENGTH_MAX = 4_096;

export interface DeltaSessionOptions {
  readonly view: ServedView;
  /** A string that no other response of this stream has; on other streams it may stand for the same body. */
  readonly nextNonce: (body: ResponseBody) => string;
  /** The client's node; empty if it does not say. */
  readonly node: string;
  /** Whether the client is one that enforces policies, and so asks for them: no address is told to it before that. */
  readonly enforces?: boolean;
  /** The policies that have changed in the view and are not pushed yet; none unless said. */
  readonly gathering?: () => Iterable<Resource>;
  /** For tests; {@link RESPONSE_BYTES_MAX} otherwise. */
  readonly responseBytesMax?: number;
  /** For tests; {@link NAMES_MAX} otherwise. */
  readonly namesMax?: number;
}

export class DeltaSession {
  readonly #view: ServedView;
  readonly #nextNonce: (body: ResponseBody) => string;
  readonly #node: string;
  readonly #responseBytesMax: number;
  readonly #namesMax: number;
  readonly #watches = new Map<string, Watch>();
  /** The same in the order of their first request, which is the order in which questions are answered. */
  readonly #inOrder: Watch[] = [];
  /** Those of them that are of addresses. */
  #ofAddresses: readonly Watch[] = NONE;
  readonly #gathering: () => Iterable<Resource>;
  /** Of those that gathered, what this client was told ahead of their push. */
  readonly #toldAhead = new WeakSet<Resource>();
  /** Whether addresses and policies both are still to be asked for. */
  #expectsBoth: boolean;

  constructor(
    { view, nextNonce, node, enforces = false, gathering = () => NONE, ...bounds }: DeltaSessionOptions,
  ) {
    this.#view = view;
    this.#nextNonce = nextNonce;
    this.#node = node;
    this.#expectsBoth = enforces;
    this.#gathering = gathering;
    this.#responseBytesMax = bounds.responseBytesMax ?? RESPONSE_BYTES_MAX;
    this.#namesMax = bounds.namesMax ?? NAMES_MAX;
  }

  /** Whether something is held for a client that is yet to ask for policies, or for addresses. */
  get expectsBoth(): boolean {
    return this.#expectsBoth;
  }

  /** The client has had its time: it is answered in what it asks, whatever it does not ask. */
  expectNoMore(): void {
    this.#expectsBoth = false;
  }

  /** Takes one request. Never throws; a question it asks is answered by {@link next}. */
  receive(request: DeltaDiscoveryRequest): RequestOutcome {
    if (!SERVED_TYPES.has(request.typeUrl)) return "unknown-type"; // CP-413
    const watch = this.#watches.get(request.typeUrl);
    if (request.errorDetail !== undefined) { // CP-407: kept, counted, not answered.
      if (watch !== undefined) watch.lastError = request.errorDetail.message.slice(0, LAST_ERROR_LENGTH_MAX);
      if (watch?.sentNonce === request.responseNonce) watch.settled = true;
      return "rejected";
    }
    if (watch === undefined) {
      const opened = openWatch(request);
      this.#watches.set(request.typeUrl, opened);
      this.#inOrder.push(opened);
      this.#ofAddresses = [ADDRESS_TYPE_URL, WORKLOAD_TYPE_URL].flatMap((typeUrl) => this.#watches.get(typeUrl) ?? []);
      if (this.#watches.has(AUTHORIZATION_TYPE_URL) && this.#addressWatches().length > 0) this.#expectsBoth = false;
      ask(opened, request);
      return "answered";
    }
    const { responseNonce, resourceNamesSubscribe, resourceNamesUnsubscribe } = request;
    if (responseNonce !== "" && responseNonce !== watch.sentNonce) return "stale"; // CP-408
    if (responseNonce !== "") {
      watch.acknowledgedNonce = responseNonce;
      watch.settled = true;
      watch.lastError = "";
      if (resourceNamesSubscribe.length + resourceNamesUnsubscribe.length === 0) return "acknowledged"; // CP-409
    }
    ask(watch, request);
    return "answered";
  }

  /** Whether the client has asked for a type. */
  watches(typeUrl: string): boolean {
    return this.#watches.has(typeUrl);
  }

  /** Merges a change into what waits for this client. */
  push(change: ResourceChange): void {
    const watch = this.#watches.get(change.typeUrl);
    if (watch === undefined) return;
    if (watch.wildcard) {
      watch.waiting.add(change);
      return;
    }
    for (const name of change.removed) if (watch.names.has(name)) watch.waiting.set(name, undefined);
    const local = new Set(this.#localTo(watch));
    for (const resource of change.updated) {
      const named = watch.names.has(resource.name) || resource.aliases.some((alias) => watch.names.has(alias));
      if (named || local.has(resource)) watch.waiting.set(resource.name, resource);
    }
  }

  /**
   * The next response to send, if any: answers first (CP-442), then what waits, in an order that leaves no policy gap.
   * A type's next response waits until its last one is acknowledged or rejected: so a client that does not keep up costs
   * one response a type and its distinct names, whatever the transport buffers (CP-441, CP-443).
   */
  next(): Outgoing | undefined {
    // CP-427: a policy arrives before the workload that names it, and leaves after the workload has stopped doing so.
    const policies = this.#watches.get(AUTHORIZATION_TYPE_URL), ahead = this.#policiesAreAhead(policies);
    for (const watch of this.#inOrder) {
      if (watch.question === undefined || !watch.settled || (watch !== policies && !ahead)) continue;
      return this.#answer(watch, watch.question);
    }
    if (policies !== undefined && policies.waiting.hasUpdates()) {
      return this.#drain(policies, { updates: true, removals: false });
    }
    // By a client that has not acknowledged, or of which more is expected: then the removals wait too.
    let held = this.#expectsBoth;
    for (const watch of this.#addressWatches()) {
      if (watch.question !== undefined) held = true;
      if (watch.waiting.size === 0) continue;
      if (watch.settled && ahead) return this.#drain(watch, { updates: true, removals: true });
      held = true;
    }
    if (held) return undefined;
    return policies === undefined ? undefined : this.#drain(policies, { updates: false, removals: true });
  }

  #addressWatches(): readonly Watch[] {
    return this.#ofAddresses;
  }

  /**
   * Whether the client was sent every policy that an address of the newest state may be under. An answer is of that state,
   * also where the change that made it still gathers: the policies among it then go ahead of their push.
   */
  #policiesAreAhead(policies: Watch | undefined): boolean {
    if (policies === undefined) return !this.#expectsBoth;
    if (policies.question !== undefined) return false;
    const asked = this.#addressWatches().some((watch) => watch.question !== undefined);
    if (asked && policies.wildcard) {
      for (const policy of this.#gathering()) {
        if (this.#toldAhead.has(policy)) continue;
        this.#toldAhead.add(policy);
        policies.waiting.set(policy.name, policy);
      }
    }
    return !policies.waiting.hasUpdates();
  }

  /** Everything of a type that this client watches, as it is now. */
  watched(typeUrl: string): readonly Resource[] {
    const watch = this.#watches.get(typeUrl);
    if (watch === undefined) return [];
    if (watch.wildcard) return this.#view.everything(typeUrl);
    const found = new Set<Resource>(this.#localTo(watch));
    for (const name of watch.names) for (const resource of this.#view.lookup(typeUrl, name)) found.add(resource);
    return [...found];
  }

  /** Whether a change waits that was not sent yet. */
  get waiting(): boolean {
    for (const { waiting } of this.#inOrder) if (waiting.size > 0) return true;
    return false;
  }

  /** Whether every response was acknowledged or rejected. */
  get settled(): boolean {
    for (const { settled } of this.#inOrder) if (!settled) return false;
    return true;
  }

  /** Whether it holds of a type whose last response is neither acknowledged nor rejected yet. */
  someUnsettled(holds: (typeUrl: string) => boolean): boolean {
    for (const { settled, typeUrl } of this.#inOrder) if (!settled && holds(typeUrl)) return true;
    return false;
  }

  /** Whether the stream asked for more names than one stream may, or says that it holds more. */
  get exhausted(): boolean {
    for (const { names, question } of this.#inOrder) {
      if (names.size > this.#namesMax || (question?.versions.size ?? 0) > this.#namesMax) return true;
    }
    return false;
  }

  /** State of every watch. */
  status(): WatchStatus[] {
    return this.#inOrder.map((watch) => ({
      typeUrl: watch.typeUrl,
      wildcard: watch.wildcard,
      names: watch.names.size,
      waiting: watch.waiting.size,
      sentNonce: watch.sentNonce,
      acknowledgedNonce: watch.acknowledgedNonce,
      lastError: watch.lastError,
    }));
  }

  #answer(watch: Watch, question: Question): Outgoing {
    watch.question = undefined;
    const body = watch.wildcard ? this.#everything(watch, question) : this.#named(watch, question);
    if (watch.typeUrl !== AUTHORIZATION_TYPE_URL || body.removed.length === 0 || this.#holdsNoAddresses()) {
      return this.#respond(watch, { ...body, answers: true });
    }
    // What it holds of workloads may name the policies that are gone, until it is told of these workloads as they are now.
    for (const name of body.removed) watch.waiting.set(name, undefined);
    return this.#respond(watch, { resources: body.resources, removed: NONE, answers: true });
  }

  /** Whether the client has, and is expected to have, policies alone. */
  #holdsNoAddresses(): boolean {
    return !this.#expectsBoth && this.#addressWatches().length === 0;
  }

  /** All that is not known to the client in its version, and what it holds that is gone (CP-415). */
  #everything(watch: Watch, { versions }: Question): TakenChanges {
    watch.waiting.clear(); // All of it is older than, or in, what is sent now.
    const all = this.#view.everything(watch.typeUrl);
    if (versions.size === 0) return { resources: all, removed: NONE };
    const resources: Resource[] = [];
    let known = 0;
    for (const resource of all) {
      const version = versions.get(resource.name);
      if (version !== undefined) known++;
      if (version !== resource.version) resources.push(resource);
    }
    const changed = resources.length === 0 ? NONE : resources;
    if (known === versions.size) return { resources: changed, removed: NONE }; // The usual reconnect: no second pass.
    const gone = new Set(versions.keys());
    for (const { name } of all) gone.delete(name);
    return { resources: changed, removed: [...gone].sort() };
  }

  /**
   * What the question's names stand for (CP-419), and names that are no resource's: those that stand for nothing, and
   * aliases. Upstream leaves the latter out; but its ztunnel waits until the very name that it asked for arrives or is
   * removed, and asks for addresses by alias: told of the resource alone, its connection would wait for ever.
   */
  #named(watch: Watch, { names, versions }: Question): TakenChanges {
    const found = new Map<string, Resource>(), removed: string[] = [];
    for (const name of names) {
      const resources = this.#view.lookup(watch.typeUrl, name);
      for (const resource of resources) found.set(resource.name, resource);
      if (!resources.some((resource) => resource.name === name)) removed.push(name);
    }
    // The opening of an on-demand watch names nothing, and gets nothing (CP-405).
    if (names.size > 0) { for (const resource of this.#localTo(watch)) found.set(resource.name, resource); }
    for (const name of [...found.keys(), ...removed]) watch.waiting.delete(name);
    for (const name of found.keys()) watch.names.add(name); // CP-420: so that its later changes arrive.
    const resources = [...found.values()].filter(({ name, version }) => versions.get(name) !== version);
    return { resources, removed: removed.sort() };
  }

  /** What a watch gets for the node its client is on. */
  #localTo(watch: Watch): readonly Resource[] {
    const local = watch.typeUrl === ADDRESS_TYPE_URL || watch.typeUrl === WORKLOAD_TYPE_URL;
    return local && this.#node !== "" ? this.#view.workloadsOnNode(this.#node, watch.typeUrl) : [];
  }

  #drain(watch: Watch, part: { updates: boolean; removals: boolean }): Outgoing | undefined {
    if (!watch.settled) return undefined;
    const { resources, removed } = watch.waiting.take(part);
    if (resources.length + removed.length === 0) return undefined; // CP-411: a push of nothing is not sent.
    if (!watch.wildcard) { for (const resource of resources) watch.names.add(resource.name); }
    return this.#respond(watch, { resources, removed, answers: false });
  }

  #respond(watch: Watch, whole: TakenChanges & { answers: boolean }): Outgoing {
    const { resources, removed } = this.#cut(watch, whole), { typeUrl } = watch, { answers } = whole;
    const nonce = this.#nextNonce({ typeUrl, resources, removed, answers });
    assert(nonce !== "" && nonce !== watch.sentNonce, "each response has a nonce of its own (CP-412)");
    watch.sentNonce = nonce;
    watch.settled = false;
    return { typeUrl, nonce, resources, removed, answers };
  }

  /**
   * As much as one response may weigh. The rest waits as a push would, unless something newer waits already; and what is
   * removed leaves with the last part: a policy must not go before the one that replaces it has come.
   */
  #cut(watch: Watch, whole: TakenChanges): TakenChanges {
    let bytes = 0, count = 0;
    while (count < whole.resources.length && (count === 0 || bytes < this.#responseBytesMax)) {
      bytes += whole.resources[count++]!.bytes.length;
    }
    if (count === whole.resources.length) return whole;
    const { waiting } = watch;
    for (const resource of whole.resources.slice(count)) {
      if (!waiting.has(resource.name)) waiting.set(resource.name, resource);
    }
    for (const name of whole.removed) if (!waiting.has(name)) waiting.set(name, undefined);
    return { resources: whole.resources.slice(0, count), removed: NONE };
  }
}

/** CP-405: wildcard iff `*` or nothing is subscribed, and `*` is not unsubscribed in the same request. */
function openWatch(request: DeltaDiscoveryRequest): Watch {
  const { typeUrl, resourceNamesSubscribe: subscribe, resourceNamesUnsubscribe: unsubscribe } = request;
  const wildcard = (subscribe.length === 0 || subscribe.includes(WILDCARD)) && !unsubscribe.includes(WILDCARD);
  return {
    typeUrl,
    wildcard,
    names: new Set(),
    waiting: new WaitingChanges(),
    question: undefined,
    sentNonce: "",
    acknowledgedNonce: "",
    settled: true,
    lastError: "",
  };
}

/** Applies a request's subscriptions and notes what it wants answered. */
function ask(watch: Watch, request: DeltaDiscoveryRequest): void {
  watch.question ??= { names: new Set(), versions: new Map() };
  const { names, versions } = watch.question;
  for (const [name, version] of request.initialResourceVersions) versions.set(name, version); // CP-406
  if (watch.wildcard) return;
  for (const name of [...request.resourceNamesSubscribe, ...request.initialResourceVersions.keys()]) {
    if (name === WILDCARD) continue;
    watch.names.add(name);
    names.add(name);
  }
  for (const name of request.resourceNamesUnsubscribe) {
    watch.names.delete(name);
    watch.waiting.delete(name);
    names.delete(name);
  }
}
