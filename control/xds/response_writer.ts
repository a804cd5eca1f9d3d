/** The way out of istiod on one stream: a response at a time, at its client's pace (CP-441). */
import type { GrpcCall } from "../grpc/call.ts";
import type { OutgoingMessage } from "../grpc/outgoing_message.ts";

/** A response on its way. */
export interface WrittenResponse {
  readonly message: OutgoingMessage;
  /** Called once its last byte has left for the client, which takes as long as the client does. */
  readonly onTaken?: () => void;
}

export class ResponseWriter {
  readonly #call: Pick<GrpcCall, "sendMessage">;
  readonly #next: () => WrittenResponse | undefined;
  readonly #onFailure: (error: unknown) => void;
  #writing = false;
  #ended = false;

  /**
   * @param next makes the next response, if one is due; it is asked whenever {@link pump} finds the way free.
   * @param onFailure hears what that threw, once: nothing is written any more. Whoever pumps hears nothing of it.
   */
  constructor(
    call: Pick<GrpcCall, "sendMessage">,
    next: () => WrittenResponse | undefined,
    onFailure: (error: unknown) => void,
  ) {
    this.#call = call;
    this.#next = next;
    this.#onFailure = onFailure;
  }

  /** Never throws: many streams are pumped one after the other, and none is to miss a change for another's sake. */
  pump(): void {
    if (this.#writing || this.#ended) return;
    try {
      const response = this.#next();
      if (response === undefined) return;
      this.#writing = true;
      this.#call.sendMessage(response.message, () => this.#onTaken(response));
    } catch (error) {
      this.#fail(error);
    }
  }

  #onTaken({ onTaken }: WrittenResponse): void {
    this.#writing = false;
    try {
      onTaken?.();
    } catch (error) {
      return this.#fail(error);
    }
    this.pump();
  }

  #fail(error: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onFailure(error);
  }

  /** Nothing is written any more. */
  end(): void {
    this.#ended = true;
  }
}
