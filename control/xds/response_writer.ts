/** The ways out of istiod: a response at a time for each stream, and not too many large ones at once over all of them (CP-441, CP-658). */
import type { ResponseMessage } from "./response.ts";
import type { AdsCall } from "./stream_gate.ts";

/** A response on its way. */
export interface WrittenResponse {
  readonly message: ResponseMessage;
  /** Whose acknowledgement says that its client has it; undefined if none is to be expected. */
  readonly typeUrl?: string;
  /** Called once the transport has taken the last byte: it may hold it for long, since it takes whatever it is given. */
  readonly onTaken?: () => void;
}

/** What is small goes at once: pushes must not wait for the first state of others. */
const LARGE_BYTES = 256 * 1024;

export interface WriteBudgetOptions {
  /** Bytes of large responses that transports may hold at once; a single larger one goes alone. */
  readonly bytesMax: number;
  /** What is not acknowledged by then counts no longer: a client that does not read holds up nobody else (CP-443). */
  readonly holdMsMax: number;
  /** Calls back once after so many milliseconds. @returns What cancels it. */
  readonly schedule: (callback: () => void, ms: number) => () => void;
}

/**
 * How much the transports may hold of large responses. Every client of a storm is owed the whole mesh: each copy costs its
 * size until it is sent, where the response that waits costs nothing, since its bytes are shared. The transport says that
 * it has written what it only holds, so that acknowledgements alone tell.
 */
export class WriteBudget {
  readonly #options: WriteBudgetOptions;
  readonly #waiting = new Set<() => void>();
  #bytes = 0;

  constructor(options: WriteBudgetOptions) {
    this.#options = options;
  }

  /** Calls `go` when there is room, at once if there is. @returns What cancels it while it waits. */
  enter(go: () => void): () => void {
    if (this.#bytes < this.#options.bytesMax && this.#waiting.size === 0) {
      go();
      return () => {};
    }
    this.#waiting.add(go);
    return () => void this.#waiting.delete(go);
  }

  /** Counts bytes from here on. @returns What to call when its client has them; their time may run out before. */
  hold(bytes: number): () => void {
    this.#bytes += bytes;
    let held = true;
    const release = () => {
      if (!held) return;
      held = false;
      cancel();
      this.#bytes -= bytes;
      while (this.#bytes < this.#options.bytesMax) {
        const [next] = this.#waiting;
        if (next === undefined) return;
        this.#waiting.delete(next);
        next();
      }
    };
    const cancel = this.#options.schedule(release, this.#options.holdMsMax);
    return release;
  }
}

export class ResponseWriter {
  readonly #call: AdsCall;
  readonly #budget: WriteBudget;
  readonly #next: () => WrittenResponse | undefined;
  #writing = false;
  #ended = false;
  #leaveQueue = () => {};
  /** By type, what ends the holding of its last large response. */
  readonly #held = new Map<string, () => void>();

  /** @param next makes the next response, if one is due; it is asked whenever {@link pump} finds the way free. */
  constructor(call: AdsCall, budget: WriteBudget, next: () => WrittenResponse | undefined) {
    this.#call = call;
    this.#budget = budget;
    this.#next = next;
  }

  pump(): void {
    if (this.#writing || this.#ended) return;
    const response = this.#next();
    if (response === undefined) return;
    this.#writing = true;
    if (response.message.byteLength < LARGE_BYTES) this.#write(response);
    else this.#leaveQueue = this.#budget.enter(() => this.#writeLarge(response));
  }

  #writeLarge(response: WrittenResponse): void {
    this.#held.set(response.typeUrl ?? "", this.#budget.hold(response.message.byteLength));
    this.#write(response);
  }

  /** The client has said that it has the last response of a type. */
  settled(typeUrl: string): void {
    this.#held.get(typeUrl)?.();
    this.#held.delete(typeUrl);
  }

  #write({ message, onTaken }: WrittenResponse): void {
    this.#call.write(message, (error?: Error | null) => {
      this.#writing = false;
      this.settled("");
      if (error) return this.end(); // Its stream is over; who watches the call hears of it.
      onTaken?.();
      this.pump();
    });
  }

  /** Nothing is written any more. */
  end(): void {
    this.#ended = true;
    this.#leaveQueue();
    for (const typeUrl of [...this.#held.keys()]) this.settled(typeUrl);
  }
}
