/** An API server in memory for tests: objects, versions, watches and field managers as the real one has them, and knobs for its bad days. */
import { equal } from "@std/assert";
import {
  type KubeApi,
  KubeError,
  type KubeObject,
  KubeUnreachable,
  type ListPage,
  type ObjectPlace,
  type ResourceType,
  type Scope,
  type WatchEvent,
  type WatchOptions,
} from "./api.ts";
import { applyIntent, type Owners, ownersAfterUpdate } from "./apply_testing.ts";
import { jsonPatch, mergePatch, PatchError } from "./patch_testing.ts";
import { parseFieldSelector, parseLabelSelector, SelectorError, type Selects, shownBy } from "./selectors_testing.ts";
import { type StoredChange, Watcher } from "./watchers_testing.ts";

export type KubeVerb = "get" | "list" | "watch" | "create" | "replace" | "apply" | "patch" | "delete";

/** One call that was made, refused ones included. */
export interface KubeCall {
  readonly verb: KubeVerb;
  readonly type: ResourceType;
  readonly namespace: string;
  /** Empty for lists and watches. */
  readonly name: string;
  readonly subresource: string;
}

/** Which calls a fault meets; what is left out matches all. */
export interface CallFilter {
  readonly verb?: KubeVerb;
  readonly type?: ResourceType;
  /** How many calls; 1 unless told, Infinity until it is lifted. */
  readonly times?: number;
}

interface Stored {
  readonly object: KubeObject;
  readonly owners: Owners;
}

interface Fault {
  readonly filter: CallFilter;
  readonly error: Error;
  left: number;
}

/** All objects of one type. */
class Shelf {
  readonly objects = new Map<string, Stored>();
  history: StoredChange[] = [];
  readonly watchers = new Set<Watcher>();
}

type Fields = Record<string, unknown>;

/** Kinds whose status is not a part of its own; all others have it, so that it is written by `status` alone. */
const WITHOUT_STATUS = new Set([
  "ConfigMap",
  "Secret",
  "Event",
  "EndpointSlice",
  "Lease",
  "ServiceAccount",
  "ValidatingWebhookConfiguration",
  "MutatingWebhookConfiguration",
  "ClusterTrustBundle",
  "ReferenceGrant",
]);

/** The manager that calls other than `apply` write as. */
const WRITER = "ambit";

function shelfKey(type: ResourceType): string {
  return `${type.group}/${type.plural}`;
}

function placeKey(namespace: string, name: string): string {
  return `${namespace}/${name}`;
}

function ownerKey(manager: string, operation: "Apply" | "Update", subresource: string | undefined): string {
  return `${manager} ${operation} ${subresource ?? ""}`;
}

export class InMemoryKubeApi implements KubeApi {
  readonly calls: KubeCall[] = [];
  /** While true nothing answers, and no watch stays open. */
  #unreachable = false;
  #version = 1;
  #oldest = 0;
  #uids = 0;
  #held = false;
  readonly #now: () => Date;
  readonly #streamingLists: "served" | "error-event" | "invalid";
  readonly #shelves = new Map<string, Shelf>();
  readonly #pages = new Map<string, { readonly rest: readonly KubeObject[]; readonly version: string }>();
  readonly #unserved = new Set<string>();
  readonly #faults = new Set<Fault>();
  readonly #answers = new Map<string, (object: KubeObject) => KubeObject>();
  #admission: ((verb: KubeVerb, type: ResourceType, object: KubeObject) => KubeError | undefined) | undefined;

  /** @param options `streamingLists` as servers without them answer: with an error event, or with 422. */
  constructor(options: { now?: () => Date; streamingLists?: "served" | "error-event" | "invalid" } = {}) {
    this.#now = options.now ?? (() => new Date());
    this.#streamingLists = options.streamingLists ?? "served";
  }

  // What a test arranges and looks at: no fault meets these, and they may write every part of an object at once.

  /** Stores an object as it is, status included, whether it is there or not. @returns as it is stored. */
  put(type: ResourceType, object: object): KubeObject {
    const given = structuredClone(object) as KubeObject, namespace = given.metadata.namespace ?? "";
    const before = this.#shelf(type).objects.get(placeKey(namespace, given.metadata.name));
    const owners = before?.owners ?? new Map(); // Nobody's fields: anyone may apply them, and many objects stay light.
    return this.#store(type, before, { ...given, apiVersion: apiVersionOf(type), kind: type.kind }, owners);
  }

  /** Takes an object away, whatever finalizers it has. */
  remove(type: ResourceType, namespace: string, name: string): void {
    const stored = this.#shelf(type).objects.get(placeKey(namespace, name));
    if (stored !== undefined) this.#drop(type, stored);
  }

  object(type: ResourceType, namespace: string, name: string): KubeObject | undefined {
    return this.#shelf(type).objects.get(placeKey(namespace, name))?.object;
  }

  objects(type: ResourceType): readonly KubeObject[] {
    return [...this.#shelf(type).objects.values()].map((stored) => stored.object);
  }

  /** How many watches of a type are open. */
  watching(type: ResourceType): number {
    return this.#shelf(type).watchers.size;
  }

  /** The next calls that the filter matches throw this. @returns what lifts it. */
  fail(error: Error, filter: CallFilter = {}): () => void {
    const fault = { filter, error, left: filter.times ?? 1 };
    this.#faults.add(fault);
    return () => void this.#faults.delete(fault);
  }

  /** Calls for this type are answered with 403; open watches go on, as with the real one. @returns what lifts it. */
  deny(type: ResourceType, verb?: KubeVerb): () => void {
    return this.fail(new KubeError(403, "Forbidden", `${named(type)} is forbidden`), { type, verb, times: Infinity });
  }

  /** Whether the type exists here: a CRD comes or goes. Going takes its objects and ends its watches. */
  serve(type: ResourceType, served: boolean): void {
    if (served) this.#unserved.delete(shelfKey(type));
    else {
      this.#unserved.add(shelfKey(type));
      for (const stored of [...this.#shelf(type).objects.values()]) this.#drop(type, stored);
      this.cutWatches(undefined, type);
    }
  }

  set unreachable(unreachable: boolean) {
    this.#unreachable = unreachable;
    if (unreachable) this.cutWatches(new KubeUnreachable("the connection was cut"));
  }

  /** Forgets all older versions: watches from them, and pages begun before, get 410. */
  expireVersions(): void {
    this.#oldest = this.#version;
    for (const shelf of this.#shelves.values()) shelf.history = [];
    this.#pages.clear();
  }

  /** Open and new watches tell nothing until they are released. */
  holdWatches(held: boolean): void {
    this.#held = held;
    for (const shelf of this.#shelves.values()) for (const watcher of shelf.watchers) watcher.hold(held);
  }

  /** Ends open watches: quietly, as an API server does every few minutes, or with an error. */
  cutWatches(error?: Error, type?: ResourceType): void {
    const shelves = type === undefined ? [...this.#shelves.values()] : [this.#shelf(type)];
    for (const shelf of shelves) for (const watcher of shelf.watchers) watcher.end(error);
  }

  /** Sends every open watch a bookmark of the newest version. */
  bookmark(): void {
    const event = { type: "BOOKMARK", resourceVersion: String(this.#version), initialEventsEnd: false } as const;
    for (const shelf of this.#shelves.values()) for (const watcher of shelf.watchers) watcher.push(event);
  }

  /** Creates of this type are answered by a function and stored nowhere, as TokenReviews are. */
  answer(type: ResourceType, answer: (object: KubeObject) => KubeObject): void {
    this.#answers.set(shelfKey(type), answer);
  }

  /** Judges every write before it is stored, dry runs too, as an admission webhook does. */
  admit(judge: (verb: KubeVerb, type: ResourceType, object: KubeObject) => KubeError | undefined): void {
    this.#admission = judge;
  }

  // The API.

  async get(type: ResourceType, place: ObjectPlace): Promise<KubeObject | undefined> {
    await this.#arrive("get", type, place.namespace, place.name, place.subresource);
    return this.object(type, place.namespace, place.name);
  }

  async list(type: ResourceType, scope: Scope, page: { limit: number; continueToken?: string }): Promise<ListPage> {
    await this.#arrive("list", type, scope.namespace ?? "");
    const begun = page.continueToken === undefined || page.continueToken === ""
      ? { rest: this.#selected(type, scope), version: String(this.#version) }
      : this.#pages.get(page.continueToken);
    if (begun === undefined) throw new KubeError(410, "Expired", "the continue token is too old");
    const limit = page.limit > 0 ? page.limit : Infinity, rest = begun.rest.slice(limit);
    const continueToken = rest.length === 0 ? "" : `page-${this.#pages.size}-${begun.version}`;
    if (rest.length > 0) this.#pages.set(continueToken, { rest, version: begun.version });
    const items = begun.rest.slice(0, limit).map((object) => shownBy(scope, object));
    return { items, resourceVersion: begun.version, continueToken };
  }

  async *watch(
    type: ResourceType,
    scope: Scope,
    options: WatchOptions,
  ): AsyncGenerator<WatchEvent> {
    await this.#arrive("watch", type, scope.namespace ?? "");
    const streaming = options.initialEvents === true;
    if (streaming && this.#streamingLists === "invalid") {
      throw new KubeError(
        422,
        "Invalid",
        "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
      );
    }
    if (streaming && this.#streamingLists === "error-event") {
      throw new KubeError(500, "", "the storage does not support streaming lists");
    }
    const shelf = this.#shelf(type), watcher = new Watcher(selectsOf(scope), this.#held);
    const from = Number(options.resourceVersion === "" ? "0" : options.resourceVersion);
    if (streaming || from === 0) {
      for (const object of this.#selected(type, scope)) watcher.push({ type: "ADDED", object });
    } else if (from < this.#oldest) throw new KubeError(410, "Expired", `too old resource version: ${from}`);
    else for (const change of shelf.history) if (change.version > from) watcher.change(change);
    if (streaming) {
      watcher.push({ type: "BOOKMARK", resourceVersion: String(this.#version), initialEventsEnd: true });
    }
    shelf.watchers.add(watcher);
    options.onOpen?.();
    try {
      for await (const event of watcher.events(options.signal)) {
        yield event.type === "BOOKMARK" ? event : { ...event, object: shownBy(scope, event.object) };
      }
    } finally {
      shelf.watchers.delete(watcher);
    }
  }

  async create(
    type: ResourceType,
    namespace: string,
    object: object,
    options: { dryRun?: boolean } = {},
  ): Promise<KubeObject> {
    const given = structuredClone(object) as Fields & KubeObject;
    await this.#arrive("create", type, namespace, given.metadata.name ?? "");
    const answer = this.#answers.get(shelfKey(type));
    if (answer !== undefined) return answer(given);
    const prefix = given.metadata.generateName as string | undefined;
    const name = given.metadata.name ?? `${prefix}${(++this.#uids).toString(36).padStart(5, "0")}`;
    if (!WITHOUT_STATUS.has(type.kind)) delete given.status;
    const fresh = { ...given, metadata: { ...given.metadata, name, ...(namespace === "" ? {} : { namespace }) } };
    if (this.#shelf(type).objects.has(placeKey(namespace, name))) {
      throw new KubeError(409, "AlreadyExists", `${named(type)} "${name}" already exists`);
    }
    this.#judge("create", type, fresh);
    if (options.dryRun === true) return fresh;
    const owners = ownersAfterUpdate(type, { object: {}, owners: new Map() }, fresh, ownerKey(WRITER, "Update", ""));
    return this.#store(type, undefined, { ...fresh, apiVersion: apiVersionOf(type), kind: type.kind }, owners);
  }

  async replace(type: ResourceType, place: ObjectPlace, object: object): Promise<KubeObject> {
    await this.#arrive("replace", type, place.namespace, place.name, place.subresource);
    return this.#write("replace", type, place, structuredClone(object) as KubeObject);
  }

  async patch(type: ResourceType, place: ObjectPlace, patch: object): Promise<KubeObject> {
    await this.#arrive("patch", type, place.namespace, place.name, place.subresource);
    const { object } = this.#there(type, place);
    try {
      const patched = Array.isArray(patch) ? jsonPatch(object, patch) : mergePatch(object, patch);
      return this.#write("patch", type, place, structuredClone(patched) as KubeObject);
    } catch (error) {
      if (error instanceof PatchError) throw new KubeError(422, "Invalid", error.message);
      throw error;
    }
  }

  async apply(
    type: ResourceType,
    place: ObjectPlace,
    object: object,
    options: { fieldManager: string; force: boolean },
  ): Promise<KubeObject> {
    await this.#arrive("apply", type, place.namespace, place.name, place.subresource);
    const stored = place.subresource === undefined
      ? this.#shelf(type).objects.get(placeKey(place.namespace, place.name))
      : this.#there(type, place);
    const { metadata, status, ...rest } = structuredClone(object) as Fields & KubeObject;
    if (metadata?.managedFields !== undefined) {
      throw new KubeError(400, "BadRequest", "metadata.managedFields must be nil");
    }
    const version = metadata?.resourceVersion;
    if (version !== undefined && stored !== undefined && version !== stored.object.metadata.resourceVersion) {
      throw new KubeError(409, "Conflict", "the object has been modified");
    }
    const intent = place.subresource === "status"
      ? { ...(status === undefined ? {} : { status }) }
      : { ...rest, metadata, ...(WITHOUT_STATUS.has(type.kind) && status !== undefined ? { status } : {}) };
    const before = stored ?? { object: {}, owners: new Map() };
    const manager = ownerKey(options.fieldManager, "Apply", place.subresource);
    const applied = applyIntent(type, before, intent, { manager, force: options.force });
    if ("conflicts" in applied) {
      throw new KubeError(
        409,
        "Conflict",
        `Apply failed with ${applied.conflicts.length} conflicts: ${applied.conflicts.join(" ")}`,
      );
    }
    const after = applied.object as Fields & KubeObject;
    const place_ = { name: place.name, ...(place.namespace === "" ? {} : { namespace: place.namespace }) };
    const whole = {
      ...after,
      apiVersion: apiVersionOf(type),
      kind: type.kind,
      metadata: { ...after.metadata, ...place_ },
    };
    this.#judge("apply", type, whole);
    return this.#store(type, stored, whole, applied.owners);
  }

  async delete(
    type: ResourceType,
    place: ObjectPlace,
    guard: { uid?: string; resourceVersion?: string } = {},
  ): Promise<void> {
    await this.#arrive("delete", type, place.namespace, place.name, place.subresource);
    const stored = this.#shelf(type).objects.get(placeKey(place.namespace, place.name));
    if (stored === undefined) return;
    const { uid, resourceVersion, finalizers, deletionTimestamp } = stored.object.metadata;
    const wrong = (guard.uid !== undefined && guard.uid !== uid) ||
      (guard.resourceVersion !== undefined && guard.resourceVersion !== resourceVersion);
    if (wrong) throw new KubeError(409, "Conflict", "the object is another than the precondition names");
    if ((finalizers as readonly string[] | undefined ?? []).length === 0) this.#drop(type, stored);
    else if (deletionTimestamp === undefined) {
      const metadata = { ...stored.object.metadata, deletionTimestamp: this.#time() };
      this.#store(type, stored, { ...stored.object, metadata }, stored.owners);
    }
  }

  #shelf(type: ResourceType): Shelf {
    const key = shelfKey(type), shelf = this.#shelves.get(key) ?? new Shelf();
    this.#shelves.set(key, shelf);
    return shelf;
  }

  #time(): string {
    return this.#now().toISOString().replace(/\.\d+Z$/, "Z");
  }

  /** Counts a call, and lets it fail if it should. */
  async #arrive(verb: KubeVerb, type: ResourceType, namespace: string, name = "", subresource = ""): Promise<void> {
    this.calls.push({ verb, type, namespace, name, subresource });
    await Promise.resolve(); // No answer comes in the turn of its call.
    if (this.#unreachable) throw new KubeUnreachable("connection refused");
    for (const fault of this.#faults) {
      const { verb: only, type: of } = fault.filter;
      if (only !== undefined && only !== verb || of !== undefined && shelfKey(of) !== shelfKey(type)) continue;
      if (--fault.left <= 0) this.#faults.delete(fault);
      throw fault.error;
    }
    if (this.#unserved.has(shelfKey(type)) && verb !== "get" && verb !== "delete") {
      throw new KubeError(404, "NotFound", "the server could not find the requested resource");
    }
  }

  #judge(verb: KubeVerb, type: ResourceType, object: KubeObject): void {
    const refused = this.#admission?.(verb, type, object);
    if (refused !== undefined) throw refused;
  }

  #there(type: ResourceType, place: ObjectPlace): Stored {
    const stored = this.#shelf(type).objects.get(placeKey(place.namespace, place.name));
    if (stored === undefined) throw new KubeError(404, "NotFound", `${named(type)} "${place.name}" not found`);
    return stored;
  }

  #selected(type: ResourceType, scope: Scope): KubeObject[] {
    const selects = selectsOf(scope), entries = [...this.#shelf(type).objects];
    const found = entries.filter(([, { object }]) => selects(object));
    return found.sort(([a], [b]) => a < b ? -1 : 1).map(([, { object }]) => object);
  }

  /** A write of a whole object, or of its status alone. */
  #write(verb: KubeVerb, type: ResourceType, place: ObjectPlace, given: KubeObject): KubeObject {
    const stored = this.#there(type, place), before = stored.object;
    const version = given.metadata.resourceVersion;
    if (version !== undefined && version !== before.metadata.resourceVersion) {
      throw new KubeError(
        409,
        "Conflict",
        `the object has been modified; please apply your changes to the latest version`,
      );
    }
    const { status, ...rest } = given as Fields & KubeObject,
      { status: statusBefore, ...restBefore } = before as Fields & KubeObject;
    const object = WITHOUT_STATUS.has(type.kind)
      ? given
      : place.subresource === "status"
      ? { ...(type.kind === "Pod" ? { ...restBefore, metadata: given.metadata } : restBefore), ...withStatus(status) }
      : { ...rest, ...withStatus(statusBefore) };
    this.#judge(verb, type, object);
    const owners = ownersAfterUpdate(type, stored, object, ownerKey(WRITER, "Update", place.subresource));
    return this.#store(type, stored, object, owners);
  }

  #store(type: ResourceType, before: Stored | undefined, given: KubeObject, owners: Owners): KubeObject {
    const shelf = this.#shelf(type), was = before?.object.metadata;
    const { finalizers, deletionTimestamp } = given.metadata;
    if (
      deletionTimestamp !== undefined && before !== undefined && (finalizers as readonly string[] ?? []).length === 0
    ) {
      this.#drop(type, before);
      return given;
    }
    const metadata: KubeObject["metadata"] = {
      ...given.metadata,
      uid: was?.uid ?? given.metadata.uid ?? `00000000-0000-4000-8000-${(++this.#uids).toString(16).padStart(12, "0")}`,
      creationTimestamp: was?.creationTimestamp ?? given.metadata.creationTimestamp ?? this.#time(),
      ...(given.spec === undefined ? {} : { generation: generationOf(before?.object, given) }),
    };
    const same = before !== undefined &&
      equal({ ...given, metadata: { ...metadata, resourceVersion: "" } }, {
        ...before.object,
        metadata: { ...was, resourceVersion: "" },
      });
    const object = {
      ...given,
      metadata: { ...metadata, resourceVersion: same ? was!.resourceVersion : String(++this.#version) },
    };
    shelf.objects.set(placeKey(metadata.namespace ?? "", metadata.name), { object, owners });
    // What is the same as before is no change: no version, no event.
    if (!same) this.#tell(shelf, { version: this.#version, before: before?.object, after: object });
    return object;
  }

  #drop(type: ResourceType, stored: Stored): void {
    const shelf = this.#shelf(type), { namespace, name } = stored.object.metadata;
    shelf.objects.delete(placeKey(namespace ?? "", name));
    this.#tell(shelf, { version: ++this.#version, before: stored.object, after: undefined });
  }

  #tell(shelf: Shelf, change: StoredChange): void {
    shelf.history.push(change);
    for (const watcher of shelf.watchers) watcher.change(change);
  }
}

/** A write of a pod's status writes its annotations too, as with a real API server. */
function withStatus(status: unknown): { status?: unknown } {
  return status === undefined ? {} : { status };
}

function generationOf(before: KubeObject | undefined, after: KubeObject): number {
  const was = before?.metadata.generation as number | undefined ?? 0;
  return before !== undefined && equal(before.spec, after.spec) ? was : was + 1;
}

function apiVersionOf(type: ResourceType): string {
  return type.group === "" ? type.version : `${type.group}/${type.version}`;
}

function named(type: ResourceType): string {
  return type.group === "" ? type.plural : `${type.plural}.${type.group}`;
}

function selectsOf(scope: Scope): Selects {
  try {
    const byLabel = parseLabelSelector(scope.labelSelector ?? ""),
      byField = parseFieldSelector(scope.fieldSelector ?? "");
    return (object) =>
      (scope.namespace === undefined || scope.namespace === "" || object.metadata.namespace === scope.namespace) &&
      byLabel(object) && byField(object);
  } catch (error) {
    if (error instanceof SelectorError) throw new KubeError(400, "BadRequest", error.message);
    throw error;
  }
}
