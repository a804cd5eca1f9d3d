/** The events of a watch out of its bytes, however they are cut: lines of JSON, or frames of protobuf. */
import { KubeUnreachable, type WatchEvent } from "./api.ts";
import { readWatchEvent, watchEventOf } from "./decode.ts";
import { FrameCutter } from "./frames.ts";
import { LineCutter } from "./lines.ts";
import { readProtoEvent } from "./proto_answers.ts";
import type { ProtoFields } from "./proto_fields.ts";

export interface EventReader {
  /** Bytes of an event that is not whole yet. */
  readonly pendingBytes: number;
  /** The events that these bytes complete. @throws KubeError for an error event, KubeUnreachable. */
  push(bytes: Uint8Array): Iterable<WatchEvent>;
}

export class LineEventReader implements EventReader {
  readonly #cutter: LineCutter;

  constructor(lineBytesMax: number) {
    this.#cutter = new LineCutter(lineBytesMax);
  }

  get pendingBytes(): number {
    return this.#cutter.pendingBytes;
  }

  *push(bytes: Uint8Array): Generator<WatchEvent> {
    for (const line of readable(this.#cutter.push(bytes))) if (line !== "") yield readWatchEvent(line);
  }
}

export class ProtoEventReader implements EventReader {
  readonly #cutter: FrameCutter;
  readonly #fields: ProtoFields;

  constructor(fields: ProtoFields, frameBytesMax: number) {
    this.#cutter = new FrameCutter(frameBytesMax);
    this.#fields = fields;
  }

  get pendingBytes(): number {
    return this.#cutter.pendingBytes;
  }

  *push(bytes: Uint8Array): Generator<WatchEvent> {
    for (const event of readable(this.#plain(bytes))) yield watchEventOf(event);
  }

  *#plain(bytes: Uint8Array): Generator<unknown> {
    for (const frame of this.#cutter.push(bytes)) yield readProtoEvent(frame, this.#fields);
  }
}

function* readable<T>(parts: Iterable<T>): Generator<T> {
  try {
    yield* parts;
  } catch (error) {
    if (!(error instanceof RangeError) && !(error instanceof TypeError)) throw error;
    throw new KubeUnreachable(`a watch that cannot be read: ${error.message}`, { undecodable: true });
  }
}
