/** Responses of upstreams, kept as long as their TTLs allow, for one pod: what one may learn another need not. */
import type { Response } from "../../../wire/dns/message.ts";

/** A response, and when it came. */
export interface KeptResponse {
  readonly bytes: Uint8Array;
  readonly response: Response;
  readonly receivedAtMs: number;
}

interface Entry extends KeptResponse {
  readonly untilMs: number;
}

/** RFC 8767 §4 advises a week at most, RFC 2308 §5 three hours for what is not there; a day is what resolvers do. */
const KEEP_S_MAX = 86_400;

export interface CacheLimits {
  readonly entriesMax: number;
  readonly bytesMax: number;
}

/** The least recently used goes first when there is no room. */
export class ResponseCache {
  readonly #limits: CacheLimits;
  /** From the least to the most recently used. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;

  constructor(limits: CacheLimits) {
    this.#limits = limits;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** @param seconds for how long, from its arrival on; 0: not at all. */
  put(key: string, kept: KeptResponse, seconds: number): void {
    this.#remove(key);
    if (seconds <= 0 || kept.bytes.length > this.#limits.bytesMax) return;
    this.#entries.set(key, { ...kept, untilMs: kept.receivedAtMs + Math.min(seconds, KEEP_S_MAX) * 1_000 });
    this.#bytes += kept.bytes.length;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#limits.bytesMax && this.#entries.size <= this.#limits.entriesMax) break;
      this.#remove(oldest);
    }
  }

  get(key: string, nowMs: number): KeptResponse | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    if (entry.untilMs <= nowMs) {
      this.#remove(key);
      return undefined;
    }
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry;
  }

  #remove(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#bytes -= entry.bytes.length;
  }
}
