/** The Kubernetes API as the rest of us sees it: types only. `client.ts` is the real one over HTTP, `testing.ts` one in memory. */
import type { Plain } from "../base/plain.ts";
import type { ProtoFields } from "./proto_fields.ts";

/** A kind as the API serves it. */
export interface ResourceType {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  /** The name in paths: `pods`. */
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
}

/** An object as the API server writes it, not decoded further. */
export interface KubeObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly resourceVersion?: string;
    readonly [key: string]: Plain | undefined;
  };
  readonly [key: string]: unknown;
}

/** Which objects of a type; the server filters. */
export interface Scope {
  /** Undefined: of all namespaces, or of none for a cluster-scoped type. */
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  /** Ask for PartialObjectMetadata alone: the objects then have no spec, data or status. */
  readonly metadataOnly?: boolean;
  /** What is read of an object: then no more need come of it, and it may come as protobuf. */
  readonly fields?: ProtoFields;
}

/** One object's place. The namespace is empty for cluster-scoped types. */
export interface ObjectPlace {
  readonly namespace: string;
  readonly name: string;
  /** `status` and the like: the object's part to act on. */
  readonly subresource?: string;
}

/** What the API server said no with. Thrown by every call; transport failures are {@link KubeUnreachable}. */
export class KubeError extends Error {
  override readonly name = "KubeError";
  /** HTTP status: 403, 404, 409, 410, 422, 429 … */
  readonly status: number;
  /** The Status object's reason: `AlreadyExists`, `Conflict`, `Expired`, `Forbidden`, `NotFound` …; empty if it gave none. */
  readonly reason: string;

  constructor(status: number, reason: string, message: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

/** No answer came: refused, timed out, cut, or not what an API server says. */
export class KubeUnreachable extends Error {
  override readonly name = "KubeUnreachable";
  /** Whether something came that cannot be read: a watch that goes on from there would miss it. */
  readonly undecodable: boolean;

  constructor(message: string, options: { cause?: unknown; undecodable?: boolean } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.undecodable = options.undecodable ?? false;
  }
}

export interface ListPage {
  readonly items: readonly KubeObject[];
  readonly resourceVersion: string;
  /** Empty on the last page. */
  readonly continueToken: string;
}

/** One event of a watch. An error event ends the watch by throwing KubeError (410 when the version is too old). */
export type WatchEvent =
  | { readonly type: "ADDED" | "MODIFIED" | "DELETED"; readonly object: KubeObject }
  /** `initialEventsEnd`: everything that was there when a streaming list began has been sent. */
  | { readonly type: "BOOKMARK"; readonly resourceVersion: string; readonly initialEventsEnd: boolean };

export interface WatchOptions {
  /** What to follow on from; empty: from what is there now, which is told first. */
  readonly resourceVersion: string;
  /** Whether it is a streaming list: what is there, a bookmark that says so, then what changes. */
  readonly initialEvents?: boolean;
  readonly signal: AbortSignal;
  /** Called when the server has accepted it, before any event. */
  readonly onOpen?: () => void;
}

/** Calls to one API server. Every call may throw KubeError or KubeUnreachable, and is bounded in time and bytes. */
export interface KubeApi {
  /** @returns undefined if it is not there. */
  get(type: ResourceType, place: ObjectPlace): Promise<KubeObject | undefined>;
  list(type: ResourceType, scope: Scope, page: { limit: number; continueToken?: string }): Promise<ListPage>;
  /** Ends when the server closes it or the signal is aborted. */
  watch(type: ResourceType, scope: Scope, options: WatchOptions): AsyncIterable<WatchEvent>;
  create(type: ResourceType, namespace: string, object: object, options?: { dryRun?: boolean }): Promise<KubeObject>;
  /** Guarded by the object's own resourceVersion: KubeError 409 if it has changed meanwhile. */
  replace(type: ResourceType, place: ObjectPlace, object: object): Promise<KubeObject>;
  /** Server-side apply. */
  apply(
    type: ResourceType,
    place: ObjectPlace,
    object: object,
    options: { fieldManager: string; force: boolean },
  ): Promise<KubeObject>;
  /** An array is a JSON patch, an object a merge patch. */
  patch(type: ResourceType, place: ObjectPlace, patch: object): Promise<KubeObject>;
  /** No error if it is not there. */
  delete(type: ResourceType, place: ObjectPlace, guard?: { uid?: string; resourceVersion?: string }): Promise<void>;
}

/** A change that an informer reports: the newest state of an object, or that it is gone. */
export interface InformerChange {
  readonly namespace: string;
  readonly name: string;
  /** Undefined: gone. */
  readonly object: KubeObject | undefined;
}

export interface InformerStatus {
  /** Whether the first list is complete and was reported. */
  readonly synced: boolean;
  /** Why it cannot list or watch now, with how long that has lasted; undefined while all is well. */
  readonly trouble: { readonly error: string; readonly status: number; readonly sinceMs: number } | undefined;
  readonly objects: number;
  /** Since the start: lists, watches opened, failures. */
  readonly lists: number;
  readonly watches: number;
  readonly failures: number;
}

/**
 * Follows all objects of a type (CP-101): list or streaming list, then watch; relists after 410 and reports only what
 * differs. It keeps no object, just who is there and in which version.
 */
export interface Informer {
  readonly type: ResourceType;
  status(): InformerStatus;
  /** Resolves once the first list has been reported, rejects with the signal's reason if that is aborted before. */
  readonly synced: Promise<void>;
  /** Resolves once it has ended after the signal. */
  readonly stopped: Promise<void>;
}
