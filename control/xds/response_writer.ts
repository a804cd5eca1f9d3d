/** One stream's way out: a response at a time, the next one when the transport has taken the last (CP-441). */
import type { Buffer } from "node:buffer";
import type { AdsCall } from "./stream_gate.ts";

/** A response on its way. */
export interface WrittenResponse {
  readonly bytes: Buffer;
  /** Called once the transport has taken the last byte. */
  readonly onTaken?: () => void;
}

export class ResponseWriter {
  readonly #call: AdsCall;
  readonly #next: () => WrittenResponse | undefined;
  #writing = false;
  #ended = false;

  /** @param next makes the next response, if one is due; it is asked whenever {@link pump} finds the way free. */
  constructor(call: AdsCall, next: () => WrittenResponse | undefined) {
    this.#call = call;
    this.#next = next;
  }

  pump(): void {
    if (this.#writing || this.#ended) return;
    const response = this.#next();
    if (response === undefined) return;
    this.#writing = true;
    this.#call.write(response.bytes, (error?: Error | null) => {
      this.#writing = false;
      if (error) return this.end(); // Its stream is over; who watches the call hears of it.
      response.onTaken?.();
      this.pump();
    });
  }

  /** Nothing is written any more. */
  end(): void {
    this.#ended = true;
  }
}
