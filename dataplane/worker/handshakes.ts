/** Inbound TLS handshakes under way: anybody may begin one, so that only so many are kept, and the oldest gives way. */

/**
 * An honest handshake takes milliseconds. Whoever opens more than this and says nothing loses those that have waited
 * longest, and keeps nobody out: at ten thousand a second each still has a fifth of a second.
 */
const HANDSHAKES_MAX = 2_048;

/** A session that has not proved anything yet. */
export interface Unproven {
  /** Ends; it calls {@link Handshakes.end}. */
  giveWay(): void;
}

export class Handshakes {
  /** In the order in which they began. */
  readonly #underWay = new Set<Unproven>();

  get count(): number {
    return this.#underWay.size;
  }

  begin(session: Unproven): void {
    if (this.#underWay.size >= HANDSHAKES_MAX) {
      const [oldest] = this.#underWay;
      oldest!.giveWay();
    }
    this.#underWay.add(session);
  }

  /** It is through, or has failed. Safe to call twice. */
  end(session: Unproven): void {
    this.#underWay.delete(session);
  }
}
