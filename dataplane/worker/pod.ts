/** An enrolled pod as one worker knows it: namespace, identity, listeners, and the sessions made for it. */
import type { Rows } from "../../base/shm/rows.ts";
import type { Fd, TlsIdentity } from "../../os/api.ts";
import type { Identity } from "../../mesh/identity.ts";
import { POD } from "../tables/layout.ts";
import { HbonePool } from "./hbone_pool.ts";
import type { ServerSession } from "./inbound_hbone.ts";
import type { Listener, Parked } from "./listener.ts";
import type { Shard } from "./shard.ts";
import type { PodShare } from "./shared_pod.ts";

/** One SPIFFE identity of the node, shared by all pods that have it. */
export class PodIdentity {
  readonly row: number;
  readonly uri: string;
  readonly identity: Identity;
  /** undefined until a certificate came. */
  tls: TlsIdentity | undefined = undefined;
  /** Why there is none, once the agent gave up for now. */
  failure: string | undefined = undefined;

  constructor(row: number, uri: string, identity: Identity) {
    this.row = row;
    this.uri = uri;
    this.identity = identity;
  }
}

/** Stands for an identity that is not known yet: whoever needs it waits. */
export function unknownIdentity(): PodIdentity {
  return new PodIdentity(-1, "", { trustDomain: "", namespace: "", serviceAccount: "" });
}

export class Pod {
  readonly row: number;
  readonly epoch: number;
  /** -1: the process's own namespace. */
  readonly netnsFd: Fd;
  /** Changes once the pod's workload is known, and with its trust domain. */
  identity: PodIdentity;
  /** Listeners are transparent, so source addresses can be kept (ZT-050, ZT-094). */
  readonly transparent: boolean;
  /** The proxy itself (ZT-005). */
  readonly own: boolean;
  /** null: the namespace is the pod's alone. */
  readonly share: PodShare | null;
  readonly pool: HbonePool;
  readonly listeners: Listener[] = [];
  readonly sessions = new Set<ServerSession>();
  /** Accepted, and waiting for the workload or the certificate. */
  readonly parked = new Set<Parked>();
  removed = false;
  readonly #rows: Rows<"pod">;

  constructor(
    shard: Shard,
    options: {
      row: number;
      epoch: number;
      netnsFd: Fd;
      identity: PodIdentity;
      transparent: boolean;
      own: boolean;
      share: PodShare | null;
    },
  ) {
    this.row = options.row;
    this.epoch = options.epoch;
    this.netnsFd = options.netnsFd;
    this.identity = options.identity;
    this.transparent = options.transparent;
    this.own = options.own;
    this.share = options.share;
    this.pool = new HbonePool(shard, this);
    this.#rows = shard.tables.pods;
  }

  /** Descriptor of the map that says what captured connections were meant for; -1: rules redirect, and the kernel itself knows. */
  get redirectedMap(): Fd {
    return this.#rows.load(this.row, POD.byTuple) - 1;
  }

  get cookieLow(): number {
    return this.#rows.get(this.row, POD.cookieLow);
  }

  get cookieHigh(): number {
    return this.#rows.get(this.row, POD.cookieHigh);
  }
}
