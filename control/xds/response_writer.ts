/** The way out of istiod on one stream: a response at a time, at its client's pace (CP-441). */
import type { GrpcCall } from "../grpc/call.ts";
import type { ResponseMessage } from "./response.ts";

/** A response on its way. */
export interface WrittenResponse {
  readonly message: ResponseMessage;
  /** Called once its last byte has left for the client, which takes as long as the client does. */
  readonly onTaken?: () => void;
}

export class ResponseWriter {
  readonly #call: Pick<GrpcCall, "send">;
  readonly #next: () => WrittenResponse | undefined;
  #writing = false;
  #ended = false;

  /** @param next makes the next response, if one is due; it is asked whenever {@link pump} finds the way free. */
  constructor(call: Pick<GrpcCall, "send">, next: () => WrittenResponse | undefined) {
    this.#call = call;
    this.#next = next;
  }

  pump(): void {
    if (this.#writing || this.#ended) return;
    const response = this.#next();
    if (response === undefined) return;
    this.#writing = true;
    this.#call.send(response.message.parts, () => {
      this.#writing = false;
      response.onTaken?.();
      this.pump();
    });
  }

  /** Nothing is written any more. */
  end(): void {
    this.#ended = true;
  }
}
