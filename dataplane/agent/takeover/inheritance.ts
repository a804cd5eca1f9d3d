/** What a successor does before it asks for connections: every pod known, its certificate there, the mesh published. */
import type { Logger } from "../../../base/log.ts";
import type { Tables } from "../../tables/handles.ts";
import { IDENTITY, IdentityState, POD } from "../../tables/layout.ts";
import type { Pods } from "../pods.ts";
import type { Publisher } from "../publisher.ts";
import type { ZdsClient } from "../zds_client.ts";
import type { OfferedPod } from "./client.ts";

/** A certificate that is later than this comes when it comes: open connections need none. */
const READY_TIMEOUT_MS = 10_000, LOOK_MS = 5;

export interface InheritanceOptions {
  readonly tables: Tables;
  readonly pods: Pods;
  readonly zds: ZdsClient;
  readonly publisher: Publisher;
  readonly log: Logger;
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
      const { uid, info, netns, transparent } = pod;
      if (this.#known.has(uid)) netns[Symbol.dispose]();
      else {
        await pods.adoptPod({ uid, netnsFd: netns.fd, info }, transparent);
        zds.adopt(uid, netns, info);
        this.#known.set(uid, pod);
      }
      rows.set(pod.row, pods.list().get(uid)!.row);
    }
    await this.#ready([...rows.values()]);
    return rows;
  };

  async #ready(rows: readonly number[]): Promise<void> {
    const { publisher, log } = this.#options, deadline = performance.now() + READY_TIMEOUT_MS;
    while (!rows.every((row) => this.#certified(row))) {
      if (performance.now() > deadline) {
        log.warn("some pods have no certificate yet; new connections of theirs will wait");
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    await publisher.published();
  }

  /** Whether there is word of a certificate, good or bad. */
  #certified(row: number): boolean {
    const { pods, identities } = this.#options.tables, identity = pods.getI32(row, POD.identityRow);
    if (identity < 0) return false;
    const state = identities.load(identity, IDENTITY.state);
    return state === IdentityState.READY || state === IdentityState.FAILED;
  }
}
