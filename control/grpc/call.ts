/** One gRPC call as its handler sees it: messages in, messages out, and one end (gRPC over HTTP/2). */
import { MessageReader } from "../../wire/grpc/message_reader.ts";
import { type StatusName, trailerBlock } from "../../wire/grpc/status.ts";
import { writeField, writeResponseBlock } from "../../wire/h2/hpack_encoder.ts";
import type { RequestFields } from "../../wire/h2/request_fields.ts";
import { assert } from "../../base/assert.ts";
import type { Peer } from "./carrier.ts";
import type { MethodMetrics } from "./metrics.ts";
import { OutgoingMessage } from "./outgoing_message.ts";
import type { ServerStream, StreamSink } from "./server_stream.ts";

/** Takes what a client says. Nothing is called once the call is over. */
export interface CallSink {
  /** One message, its bytes borrowed for the call. */
  onMessage(message: Uint8Array): void;
  /** The client says no more. */
  onHalfClosed(): void;
}

/** What is known of a call before its handler has it. */
export interface CallFacts {
  readonly peer: Peer;
  readonly fields: RequestFields;
  /** The longest message that the method takes. */
  readonly messageBytesMax: number;
  readonly metrics: MethodMetrics;
}

/** The head of every response. No message is compressed, either way. */
const HEAD = responseHead();
const EARLY_BYTES = 4_096;

function responseHead(): Uint8Array {
  const target = new Uint8Array(128);
  let end = writeResponseBlock(target, 0, 200, "");
  end = writeField(target, end, "content-type", "application/grpc");
  return target.slice(0, writeField(target, end, "grpc-accept-encoding", "identity"));
}

export class GrpcCall implements StreamSink {
  readonly peer: Peer;
  readonly #stream: ServerStream;
  readonly #fields: RequestFields;
  readonly #metrics: MethodMetrics;
  readonly #reader: MessageReader;
  readonly #onOver: (() => void)[] = [];
  #sink: CallSink | undefined;
  /** What came before anybody read; its window stays shut, so that it is bounded. */
  #early = new Uint8Array(0);
  #earlyBytes = 0;
  #halfClosed = false;
  #over = false;
  /** Hears when the message under way has left; undefined if none is. */
  #taken: (() => void) | undefined;
  readonly #onMessage = (message: Uint8Array) => {
    this.#metrics.received();
    this.#sink!.onMessage(message);
    return !this.#over;
  };
  readonly #onTaken = () => {
    const taken = this.#taken!;
    this.#taken = undefined;
    taken();
  };
  #deadline: ReturnType<typeof setTimeout> | undefined;

  constructor(stream: ServerStream, { peer, fields, messageBytesMax, metrics }: CallFacts) {
    this.peer = peer;
    this.#stream = stream;
    this.#fields = fields;
    this.#metrics = metrics;
    this.#reader = new MessageReader(messageBytesMax);
    stream.sink = this;
  }

  /** Whether it has ended, for whichever reason. */
  get over(): boolean {
    return this.#over;
  }

  /** All values of a field of the request's head. */
  values(name: string): readonly string[] {
    return this.#fields.all(name);
  }

  /** Calls back once when the call is over, however it ended: at once if it is. */
  whenOver(callback: () => void): void {
    if (this.#over) callback();
    else this.#onOver.push(callback);
  }

  /** Ends the call after so long. */
  setDeadline(ms: number): void {
    this.#deadline = setTimeout(() => this.finish("DEADLINE_EXCEEDED", "the call has taken too long"), ms);
  }

  /** Begins to read. */
  start(sink: CallSink): void {
    assert(this.#sink === undefined, "one reads a call");
    this.#sink = sink;
    const early = this.#early.subarray(0, this.#earlyBytes);
    this.#early = new Uint8Array(0);
    if (early.length > 0) this.#read(early, 0, early.length);
    if (this.#halfClosed) this.#endRead();
  }

  /** Sends a message of these bytes, as {@link sendMessage} does. */
  send(parts: readonly Uint8Array[], taken: () => void): void {
    this.sendMessage(new OutgoingMessage(parts), taken);
  }

  /**
   * Sends a message, which may be on its way on other calls too. One is under way at a time on each.
   * @param taken called once it has left for the client, which takes as long as the client does.
   */
  sendMessage(message: OutgoingMessage, taken: () => void): void {
    if (this.#over) return;
    assert(this.#taken === undefined, "one message is under way at a time");
    this.#taken = taken;
    if (!this.#stream.answered) this.#stream.sendHead(HEAD);
    this.#metrics.sent();
    this.#stream.sendMessage(message, this.#onTaken);
  }

  /** Ends the call. A message that is under way arrives if the status is OK. */
  finish(status: StatusName, details = ""): void {
    if (this.#over) return;
    if (!this.#stream.answered) this.#stream.sendHead(HEAD);
    this.#stream.sendTrailers(trailerBlock(status, details), status !== "OK");
    this.#leave(status);
  }

  onData(bytes: Uint8Array, start: number, end: number): void {
    if (this.#over) this.#stream.credit(end - start);
    else if (this.#sink === undefined) this.#keep(bytes, start, end);
    else this.#read(bytes, start, end);
  }

  onEnd(): void {
    this.#halfClosed = true;
    if (this.#sink !== undefined) this.#endRead();
  }

  onGone(): void {
    this.#leave("CANCELLED");
  }

  #keep(bytes: Uint8Array, start: number, end: number): void {
    const needed = this.#earlyBytes + end - start;
    if (needed > this.#early.length) {
      const grown = new Uint8Array(Math.max(needed, EARLY_BYTES, 2 * this.#early.length));
      grown.set(this.#early.subarray(0, this.#earlyBytes));
      this.#early = grown;
    }
    this.#early.set(bytes.subarray(start, end), this.#earlyBytes);
    this.#earlyBytes = needed;
  }

  #read(bytes: Uint8Array, start: number, end: number): void {
    const problem = this.#reader.receive(bytes, start, end, this.#onMessage);
    this.#stream.credit(end - start);
    if (problem !== undefined) this.finish(problem.status, problem.details);
  }

  #endRead(): void {
    if (this.#over) return;
    if (!this.#reader.betweenMessages) return this.finish("INTERNAL", "the request ends within a message");
    this.#sink!.onHalfClosed();
  }

  #leave(status: StatusName): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#deadline);
    this.#metrics.handled(status);
    for (const callback of this.#onOver) callback();
    this.#onOver.length = 0;
  }
}
