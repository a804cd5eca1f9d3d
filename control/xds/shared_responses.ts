/**
 * Pushes that many streams are sent alike: whoever is sent one first makes its nonce and its message, the others take them
 * (CP-412, CP-658). A nonce then stands for one body on as many streams, and on each of them it is used once.
 */
import type { OutgoingMessage } from "../grpc/outgoing_message.ts";
import type { ResponseEncoder } from "./response.ts";
import type { Outgoing, ResponseBody } from "./session.ts";

/** Of one type, the last push; another one of these arrays is the same push. */
interface Shared extends Pick<ResponseBody, "resources" | "removed"> {
  readonly nonce: string;
  message: OutgoingMessage | undefined;
}

/** A message that is kept until the next push: those of single changes are, a whole mesh is not. */
const KEPT_BYTES_MAX = 1024 * 1024;

export class SharedResponses {
  readonly #encoder: ResponseEncoder;
  readonly #startedAt: string;
  readonly #nonceSuffix = crypto.randomUUID(); // Nonces of another replica or an earlier run are never ours (CP-412).
  readonly #last = new Map<string, Shared>();
  #nonces = 0;
  #pushes = 0;
  #version: string;

  constructor(encoder: ResponseEncoder, startedAt: string) {
    this.#encoder = encoder;
    this.#startedAt = startedAt;
    this.#version = `${startedAt}/0`;
  }

  /** A push begins: from here on the same arrays are another push, should they come again. */
  begin(): void {
    this.#version = `${this.#startedAt}/${++this.#pushes}`;
    this.#last.clear();
  }

  /** A nonce that no response has. */
  nextNonce(): string {
    return `${++this.#nonces}-${this.#nonceSuffix}`;
  }

  /** The nonce of a response that a stream is about to be sent. Answers are each for one stream. */
  nonceOf({ typeUrl, resources, removed, answers }: ResponseBody): string {
    if (answers) return this.nextNonce();
    const last = this.#last.get(typeUrl);
    if (last?.resources === resources && last.removed === removed) return last.nonce;
    const nonce = this.nextNonce();
    this.#last.set(typeUrl, { resources, removed, nonce, message: undefined });
    return nonce;
  }

  /** The message of a response with a nonce of {@link nonceOf}. */
  messageOf(outgoing: Outgoing): OutgoingMessage {
    const { typeUrl, nonce } = outgoing, last = this.#last.get(typeUrl), shared = last?.nonce === nonce;
    if (shared && last.message !== undefined) return last.message;
    const message = this.#encoder.encode(outgoing, this.#version);
    if (shared && message.byteLength <= KEPT_BYTES_MAX) last.message = message;
    else if (shared) this.#last.delete(typeUrl);
    return message;
  }

  /** The answer to a tool. */
  debugMessage(answer: Parameters<ResponseEncoder["encodeDebug"]>[0]): OutgoingMessage {
    return this.#encoder.encodeDebug(answer, this.#version);
  }
}
