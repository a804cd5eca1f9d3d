/** Revocation over open sessions: judged when they open, and again whenever the lists change (ZT-089). */
import { Direction, WORKER } from "../tables/layout.ts";
import type { ContextHandle, PeerPath } from "../../os/api.ts";
import type { Resumable } from "./reactor.ts";
import { LogLevel, type Shard } from "./shard.ts";

const JUDGED_PER_TURN_MAX = 256;

/** A session with a verified peer. */
export interface Watched {
  readonly server: boolean;
  /** null: how the peer's certificate led to a root is not known, so that no list can end the session. */
  readonly peerPath: PeerPath | null;
  /** Ends the session; it calls {@link RevocationWatch.forget}. */
  revoke(): void;
}

export class RevocationWatch implements Resumable {
  readonly #shard: Shard;
  /** In the order in which they opened. */
  readonly #sessions = new Set<Watched>();
  /** Sessions that were not judged yet by the lists in force, or null when all were. */
  #round: Iterator<Watched> | null = null;
  #cutCount = 0;
  #forgedTold = 0;

  constructor(shard: Shard) {
    this.#shard = shard;
  }

  /** New lists: every open session is held against them, some each turn. */
  use(lists: ContextHandle): void {
    const { tls, reactor } = this.#shard;
    tls.revocation!.use(lists);
    this.#forgedTold = 0;
    if (this.#round === null) reactor.resumeLater(this);
    // Which session opens from here on is judged as it opens; iterating meets it once more, at most.
    this.#round = this.#sessions.values();
  }

  /** A handshake is through. @returns false if lists that came since its peer was verified name it. */
  admit(session: Watched): boolean {
    if (this.#shard.tls.revocation === null) return true;
    if (session.peerPath === null) {
      this.#count(WORKER.revocationUntracked, session);
      return true;
    }
    if (session.peerPath.revoked) {
      this.refused(session);
      return false;
    }
    this.#sessions.add(session);
    this.#tellForged();
    return true;
  }

  /** Counts a session that was refused, or is cut, for a revoked certificate. */
  refused(session: Watched): void {
    this.#count(WORKER.revocationRejections, session);
  }

  /** A session has ended. */
  forget(session: Watched): void {
    this.#sessions.delete(session);
  }

  /** Sessions that lists can end. */
  get count(): number {
    return this.#sessions.size;
  }

  onResume(): void {
    const round = this.#round;
    if (round === null) return;
    for (let left = JUDGED_PER_TURN_MAX; left > 0; left--) {
      const next = round.next();
      if (next.done === true) return this.#endRound();
      const session = next.value;
      if (session.peerPath === null || !session.peerPath.revoked) continue;
      this.refused(session);
      this.#cutCount++;
      session.revoke();
    }
    this.#shard.reactor.resumeLater(this);
  }

  #endRound(): void {
    this.#round = null;
    this.#tellForged();
    if (this.#cutCount === 0) return;
    this.#shard.report(LogLevel.WARN, `${this.#cutCount} open sessions cut: their peers' certificates are revoked`);
    this.#cutCount = 0;
  }

  #tellForged(): void {
    const { forgedCount } = this.#shard.tls.revocation!;
    if (forgedCount === this.#forgedTold) return;
    this.#forgedTold = forgedCount;
    this.#shard.report(
      LogLevel.WARN,
      "a revocation list names a peer's certificate, but the certificate's issuer did not sign it: it counts for nothing",
    );
  }

  #count(field: typeof WORKER.revocationUntracked, session: Watched): void {
    this.#shard.countByDirection(field, session.server ? Direction.INBOUND : Direction.OUTBOUND);
  }
}
