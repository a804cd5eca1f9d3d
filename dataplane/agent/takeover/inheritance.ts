/** What a successor does before it asks for connections: every pod known, its certificate there, the mesh published. */
import { MeshError } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import type { Tables } from "../../tables/handles.ts";
import { IDENTITY, IdentityState, POD } from "../../tables/layout.ts";
import { KeptSockets } from "../kept_sockets.ts";
import type { Pods } from "../pods.ts";
import type { Publisher } from "../publisher.ts";
import type { ZdsClient } from "../zds_client.ts";
import type { OfferedPod } from "./client.ts";

/** A certificate that only we lack by then calls the takeover off: new connections would fail that the predecessor serves. */
const READY_TIMEOUT_MS = 10_000, LOOK_MS = 5;

export interface InheritanceOptions {
  readonly tables: Tables;
  readonly pods: Pods;
  readonly zds: ZdsClient;
  readonly publisher: Publisher;
  readonly log: Logger;
  /** For tests. */
  readonly readyTimeoutMs?: number;
}

export class Inheritance {
  readonly #options: InheritanceOptions;
  readonly #known = new Map<string, OfferedPod>();

  constructor(options: InheritanceOptions) {
    this.#options = options;
  }

  /** Makes the pods that the predecessor offers ours, as far as they are not yet. @returns Rows of ours by its rows. */
  readonly prepare = async (offered: readonly OfferedPod[]): Promise<ReadonlyMap<number, number>> => {
    const { pods, zds } = this.#options, rows = new Map<number, number>();
    for (const [uid, known] of [...this.#known]) {
      if (offered.some((it) => it.uid === uid && it.netns.equals(known.netns))) continue;
      this.#known.delete(uid);
      await zds.disown(uid);
    }
    for (const pod of offered) {
      const { uid, info, netns, shared, transparent } = pod;
      using dnsSockets = new KeptSockets(pod.dnsSockets, { shared: true });
      if (this.#known.has(uid)) netns[Symbol.dispose]();
      else {
        await pods.adoptPod({ uid, netnsFd: netns.fd, info, shared }, transparent, dnsSockets);
        zds.adopt(uid, { netns, info, shared });
        this.#known.set(uid, pod);
      }
      rows.set(pod.row, pods.list().get(uid)!.row);
    }
    await this.#ready(offered.map(({ row, certified }) => ({ row: rows.get(row)!, certified })));
    return rows;
  };

  async #ready(rows: readonly { readonly row: number; readonly certified: boolean }[]): Promise<void> {
    const { publisher, log, readyTimeoutMs = READY_TIMEOUT_MS } = this.#options;
    const deadline = performance.now() + readyTimeoutMs;
    while (!rows.every(({ row, certified }) => this.#certified(row, certified))) {
      if (performance.now() > deadline) {
        const missing = rows.filter(({ row, certified }) => certified && !this.#certified(row, true)).length;
        if (missing > 0) {
          throw new MeshError(
            "AMB2425",
            `no certificate came in time for ${missing} pods that the predecessor has one for`,
            {
              remedy: "see that the CA answers, and start the successor again; the other ztunnel serves on",
            },
          );
        }
        log.warn("some pods have no certificate yet; new connections of theirs will wait");
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    await publisher.published();
  }

  /** Whether there is a certificate; where the predecessor has none either, word that there is none will do. */
  #certified(row: number, needed: boolean): boolean {
    const { pods, identities } = this.#options.tables, identity = pods.getI32(row, POD.identityRow);
    if (identity < 0) return false;
    const state = identities.load(identity, IDENTITY.state);
    return state === IdentityState.READY || (!needed && state === IdentityState.FAILED);
  }
}
