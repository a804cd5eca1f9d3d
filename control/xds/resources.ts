/** What sessions serve: resources by type, and changes to them. The ambient index is one such view; tests have their own. */
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL } from "../../mesh/proto/workload_codec.ts";

/** A workload alone, without the Address around it (CP-421). */
export const WORKLOAD_TYPE_URL = "type.googleapis.com/istio.workload.Workload";

/** One resource, encoded once. The object's identity stands for its content: a change makes a new object. */
export interface Resource {
  readonly name: string;
  /** Other names a client may ask by (CP-418). */
  readonly aliases: readonly string[];
  /** The message without its Any. */
  readonly bytes: Uint8Array;
  /** Equal content, equal version (CP-415). */
  readonly version: string;
  /** The waypoints that an address refers to, by names under which those can be looked up; absent without any. */
  readonly waypoints?: readonly string[];
}

/** No resource, no name: one array for all, so that it is known to be empty. */
export const NONE: readonly never[] = Object.freeze([]);

/** The newest committed state. */
export interface ResourceView {
  /** Another number after each change of what is served. */
  readonly generation: number;
  all(typeUrl: string): Iterable<Resource>;
  /** All that a name stands for: its resource, those it is an alias of, and a service's workloads (CP-418). */
  lookup(typeUrl: string, name: string): readonly Resource[];
  /** The workloads of a node, as addresses: an on-demand client has those of its own node unasked (CP-419). */
  workloadsOnNode(node: string, typeUrl?: string): readonly Resource[];
}

/** What changed of one type. A removed name may be one the client never had. */
export interface ResourceChange {
  readonly typeUrl: string;
  readonly updated: readonly Resource[];
  readonly removed: readonly string[];
  /**
   * By the name of what changed, the waypoints it referred to before or refers to now (CP-424): whom else the change may
   * concern. What refers to none, before and after, is left out.
   */
  readonly waypoints?: ReadonlyMap<string, readonly string[]>;
}

/** The types served, with the names that metrics use for them. */
export const SERVED_TYPES: ReadonlyMap<string, string> = new Map([
  [ADDRESS_TYPE_URL, "wds"],
  [WORKLOAD_TYPE_URL, "wds"],
  [AUTHORIZATION_TYPE_URL, "wads"],
]);
