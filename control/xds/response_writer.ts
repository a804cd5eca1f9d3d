/** The way out of istiod on one stream: a response at a time, at its client's pace (CP-441). */
import type { GrpcCall } from "../grpc/call.ts";
import type { OutgoingMessage } from "../grpc/outgoing_message.ts";

/** A response on its way; whoever makes it may note more in it. */
export interface WrittenResponse {
  readonly message: OutgoingMessage;
}

/** Where a stream's responses come from. */
export interface ResponseSource<R extends WrittenResponse> {
  /** Makes the next response, if one is due; it is asked whenever {@link ResponseWriter.pump} finds the way free. */
  next(): R | undefined;
  /** Called once a response's last byte has left for the client, which takes as long as the client does. */
  onTaken?(response: R): void;
  /** Hears what the others threw, once: nothing is written any more. Whoever pumps hears nothing of it. */
  onFailure(error: unknown): void;
}

export class ResponseWriter<R extends WrittenResponse> {
  readonly #call: Pick<GrpcCall, "sendMessage">;
  readonly #source: ResponseSource<R>;
  #writing: R | undefined;
  #ended = false;
  /** One for all responses: thousands of streams are sent one, many times a second. */
  readonly #onSent = () => this.#sent();

  constructor(call: Pick<GrpcCall, "sendMessage">, source: ResponseSource<R>) {
    this.#call = call;
    this.#source = source;
  }

  /** Never throws: many streams are pumped one after the other, and none is to miss a change for another's sake. */
  pump(): void {
    if (this.#writing !== undefined || this.#ended) return;
    try {
      this.#writing = this.#source.next();
      if (this.#writing !== undefined) this.#call.sendMessage(this.#writing.message, this.#onSent);
    } catch (error) {
      this.#fail(error);
    }
  }

  #sent(): void {
    const response = this.#writing!;
    this.#writing = undefined;
    try {
      this.#source.onTaken?.(response);
    } catch (error) {
      return this.#fail(error);
    }
    this.pump();
  }

  #fail(error: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#source.onFailure(error);
  }

  /** Nothing is written any more. */
  end(): void {
    this.#ended = true;
  }
}
