/** The sending half of a connection: control frames at once, streams in turn, and never more than one write on its way. */
import { Buffer } from "node:buffer";
import * as frames from "../../wire/h2/frame_writers.ts";
import { AnnouncedSettings, WINDOW_BYTES_DEFAULT } from "../../wire/h2/settings.ts";
import type { Carrier } from "./carrier.ts";
import type { ServerStream } from "./server_stream.ts";

/** What is handed to the carrier in one write: several TLS records, yet little for each of many clients that do not read. */
const WRITE_BYTES_MAX = 128 * 1024;
const PAYLOAD_BYTES_MAX = 64 * 1024; // of a frame, should a client take more than the usual 16 KiB
const CUT_SHORT_MAX = 256; // streams that are remembered for what may still come of them
const NOTHING = new Uint8Array(0);
const NOBODY = () => {};
const CONTROL_BYTES_MAX = 64 * 1024; // answers that a client asks for but does not read
/** What a client may send on all streams together before somebody reads it. */
export const CONNECTION_WINDOW_BYTES = 1024 * 1024;

export abstract class ConnectionOutput {
  /** Streams that are not over on both sides, by id. */
  readonly streams = new Map<number, ServerStream>();
  readonly announced = new AnnouncedSettings();
  sendWindow = WINDOW_BYTES_DEFAULT;
  /** What the client may still send on all streams. */
  protected receiveWindow = WINDOW_BYTES_DEFAULT;
  /** Nothing is received or sent any more. */
  protected closed = false;
  /** It has said its last: what comes is not looked at. */
  protected ending = false;
  /** Frames of responses that were sent, of which a client may have had news. */
  protected framesSent = 0;
  /** Since when the carrier holds a write; 0 if it holds none. */
  protected writingSinceMs = 0;
  protected readonly carrier: Carrier;
  /** Now on a monotonic clock, never 0. */
  readonly now: () => number;
  #control = new Uint8Array(256);
  #controlBytes = 0;
  /** Streams with something to send, the next one first. */
  readonly #ready = new Set<ServerStream>();
  readonly #cutShort = new Set<number>();
  #flushDue = false;
  #credit = 0;
  /** Whom to tell when the carrier has taken what it holds: the first so many; the array is kept. */
  readonly #tellers: (() => void)[] = [];
  #tellerCount = 0;
  readonly #flushNow = () => {
    this.#flushDue = false;
    this.flush();
  };
  readonly #onTaken = () => {
    this.#flushDue = true; // Nothing that is said meanwhile needs a turn of its own.
    this.writingSinceMs = 0;
    const count = this.#tellerCount;
    this.#tellerCount = 0;
    for (let at = 0; at < count; at++) {
      const tell = this.#tellers[at]!;
      this.#tellers[at] = NOBODY;
      if (!this.closed) tell();
    }
    this.#flushNow();
  };

  constructor(carrier: Carrier, now: () => number) {
    this.carrier = carrier;
    this.now = now;
  }

  /** Ends the connection without further words, for what its log should say. */
  abstract die(reason: string): void;

  /** A stream has ended on both sides. */
  protected abstract onStreamGone(): void;

  /** The stream has something to send. */
  wake(stream: ServerStream): void {
    this.#ready.add(stream);
    this.flushSoon();
  }

  /** Every stream may have something to send: the connection's window was shut. */
  protected wakeWaiting(): void {
    for (const stream of this.streams.values()) if (stream.waiting) this.#ready.add(stream);
    this.flushSoon();
  }

  /** Tells the client that a stream is given up, and forgets it. */
  resetStream(stream: ServerStream, error: number): void {
    this.sendControl(13, (target, at) => frames.writeRstStream(target, at, stream.id, error));
    this.forget(stream);
  }

  /** The stream is over on both sides. */
  protected forget(stream: ServerStream): void {
    this.#ready.delete(stream);
    if (!stream.endReceived) this.#noteCutShort(stream.id);
    if (this.streams.delete(stream.id)) this.onStreamGone();
  }

  /** Whether we ended the stream of late, before its client had: what it sent until it knew is not its fault (RFC 9113 §5.1). */
  protected wasCutShort(streamId: number): boolean {
    return this.#cutShort.has(streamId);
  }

  #noteCutShort(streamId: number): void {
    this.#cutShort.add(streamId);
    if (this.#cutShort.size <= CUT_SHORT_MAX) return;
    for (const oldest of this.#cutShort) {
      this.#cutShort.delete(oldest);
      return;
    }
  }

  /** Lets the client send more on a stream; 0 is the connection. */
  openWindow(streamId: number, bytes: number): void {
    this.sendControl(13, (target, at) => frames.writeWindowUpdate(target, at, streamId, bytes));
  }

  /** Bytes of any stream were read, or thrown away. */
  creditConnection(bytes: number): void {
    this.#credit += bytes;
    if (this.#credit < CONNECTION_WINDOW_BYTES / 2) return;
    this.receiveWindow += this.#credit;
    this.openWindow(0, this.#credit);
    this.#credit = 0;
  }

  /** Puts a control frame in line. @param write writes at most `bytes`, from `at` on, and returns where it ended. */
  protected sendControl(bytes: number, write: (target: Uint8Array, at: number) => number): void {
    if (this.closed) return;
    const needed = this.#controlBytes + bytes;
    if (needed > CONTROL_BYTES_MAX) return this.die("it does not read what it asks for");
    if (needed > this.#control.length) {
      const grown = new Uint8Array(Math.max(needed, 2 * this.#control.length));
      grown.set(this.#control.subarray(0, this.#controlBytes));
      this.#control = grown;
    }
    this.#controlBytes = write(this.#control, this.#controlBytes);
    this.flushSoon();
  }

  /** Ends the carrier once all that waits has been handed to it. */
  protected endAfterFlush(): void {
    this.ending = true;
    this.flushSoon();
  }

  /** What is said in one turn of the event loop leaves in one write. */
  protected flushSoon(): void {
    if (this.#flushDue || this.writingSinceMs !== 0) return;
    this.#flushDue = true;
    queueMicrotask(this.#flushNow);
  }

  /** Says at once what waits to be said, as far as the carrier takes it. */
  flush(): void {
    if (this.closed || this.writingSinceMs !== 0) return;
    const nowMs = this.now(), bytes = this.#takeWhole(nowMs) ?? this.#gather(nowMs);
    if (bytes.length > 0) {
      this.writingSinceMs = nowMs;
      this.carrier.write(bytes, this.#onTaken);
    } else if (this.ending) {
      this.closed = true;
      this.carrier.end();
    }
  }

  /** The commonest thing to say: one message that goes whole, in the very bytes that other connections write. */
  #takeWhole(nowMs: number): Uint8Array | null {
    if (this.#controlBytes > 0 || this.#ready.size !== 1) return null;
    for (const stream of this.#ready) {
      const frames = stream.takeWhole(this.#payloadBytesMax, nowMs);
      if (frames === null) return null;
      this.#ready.delete(stream);
      this.framesSent++;
      this.#noteTaken(stream);
      return frames;
    }
    return null;
  }

  /** Control frames, then of the streams as much as may go and is handed on at once. */
  #gather(nowMs: number): Uint8Array {
    const bytes = this.#bytesToWrite(), controlBytes = this.#controlBytes;
    if (bytes === 0) return NOTHING;
    const target: Uint8Array = Buffer.allocUnsafe(bytes); // Small ones share a page of the runtime's.
    target.set(this.#control.subarray(0, controlBytes));
    this.#controlBytes = 0; // A stream that ends may have the connection say more, which leaves with the next write.
    const end = this.#writeStreams(target, controlBytes, nowMs);
    return end === target.length ? target : target.subarray(0, end);
  }

  #noteTaken(stream: ServerStream): void {
    const callback = stream.takeCallback();
    if (callback !== null) this.#tellers[this.#tellerCount++] = callback;
  }

  /** Streams in turn, a frame each, until there is no room or nothing to send. */
  #writeStreams(target: Uint8Array, at: number, nowMs: number): number {
    const payloadBytesMax = this.#payloadBytesMax;
    for (const stream of this.#ready) {
      const before = at;
      if (stream.canWrite(this.sendWindow)) at = stream.write(target, at, payloadBytesMax, nowMs);
      if (at > before) {
        this.framesSent++;
        this.#noteTaken(stream);
      }
      if (stream.endSent) {
        this.forget(stream);
        continue;
      }
      const more = stream.canWrite(this.sendWindow);
      if (more && at === before) break; // No room: it stays the first.
      this.#ready.delete(stream);
      if (more) this.#ready.add(stream); // To the end of the line, which this loop comes to.
    }
    return at;
  }

  #bytesToWrite(): number {
    let bytes = this.#controlBytes;
    for (const stream of this.#ready) {
      bytes += stream.writeBytesMax(this.sendWindow, this.#payloadBytesMax);
      if (bytes >= WRITE_BYTES_MAX) return Math.max(WRITE_BYTES_MAX, this.#controlBytes);
    }
    return bytes;
  }

  get #payloadBytesMax(): number {
    return Math.min(this.announced.payloadBytesMax, PAYLOAD_BYTES_MAX);
  }
}
