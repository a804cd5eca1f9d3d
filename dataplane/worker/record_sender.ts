/** The sending half of a session: frames are laid into TLS records in place, many records leave in one write. */
import { assert } from "../../base/assert.ts";
import type { Os, RecordSealer, TrafficKeys } from "../../os/api.ts";
import { FRAME_HEADER_BYTES } from "../../wire/h2/frame_rules.ts";
import { writeDataHeader } from "../../wire/h2/frame_writers.ts";
import { type Buffers, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, SCRATCH_BYTES, STAGE_BYTES } from "./buffers.ts";

const EAGAIN = 11;
const APPLICATION_DATA = 23, HANDSHAKE = 22, ALERT = 21;
/** RFC 8446 §4.6.3: KeyUpdate, three bytes of length, update_not_requested. */
const KEY_UPDATE = Uint8Array.of(24, 0, 0, 1, 0);
/** From a record's start to the payload of the DATA frame in it. */
const PAYLOAD_AT = RECORD_HEADER_BYTES + FRAME_HEADER_BYTES;
const IOVEC_BYTES = 16;
/** RFC 8446 §5.5 allows about 2^24.5 full records under one AES-GCM key. */
export const RECORDS_PER_KEY_MAX = 1 << 23;

/** How far a key that cannot be changed is used up. */
export const KeyUse = {
  FRESH: 0,
  /** Half of {@link RECORDS_PER_KEY_MAX}: no new streams. */
  WORN: 1,
  /** All of it: the session ends. */
  SPENT: 2,
} as const;

/** {@link RecordSender.read}: nothing was read, because what was written before has not left yet. */
export const BLOCKED = -100_000;

/** One session's output. Owned and freed by its session. */
export class RecordSender {
  /** Records are waiting that the socket did not take; nothing can be added until it does. */
  blocked = false;
  /** The socket has failed; the session must end. */
  broken = false;
  /** Bytes that the last {@link read} asked for. */
  wantedBytes = 0;
  sentBytes = 0;
  /** A {@link KeyUse}; above FRESH with TLS 1.2 alone. */
  keyUse: number = KeyUse.FRESH;
  readonly #os: Os;
  readonly #buffers: Buffers;
  readonly #fd: number;
  readonly #sealer: RecordSealer;
  readonly #onStageShortage: () => void;
  readonly #recordsPerKey: number;
  /** Content of a full record; every full record is {@link RECORD_BYTES_MAX} long. */
  readonly #contentBytesMax: number;
  #stage = -1;
  /** Where the open record starts, and how much content it has. */
  #record = 0;
  #content = 0;
  #sendFrom = 0;
  /** Unsent bytes that were copied out of a stage, because stages were scarce. */
  #held: Uint8Array | null = null;
  #heldFrom = 0;

  constructor(os: Os, buffers: Buffers, fd: number, sealer: RecordSealer, options: {
    onStageShortage: () => void;
    recordsPerKey?: number;
  }) {
    this.#os = os;
    this.#buffers = buffers;
    this.#fd = fd;
    this.#sealer = sealer;
    this.#onStageShortage = options.onStageShortage;
    const recordsPerKey = options.recordsPerKey ?? RECORDS_PER_KEY_MAX;
    this.#recordsPerKey = sealer.tls12 ? recordsPerKey >> 1 : recordsPerKey;
    this.#contentBytesMax = sealer.contentBytesMax;
  }

  /**
   * Room for `bytes` of frames (at most a record's content) in the open record.
   * @returns Where to write them; {@link commit} follows. -1 when blocked.
   */
  reserve(bytes: number): number {
    if (this.blocked || this.broken) return -1;
    if (this.#stage < 0 && !this.#open()) return -1;
    if (this.#contentBytesMax - this.#content < bytes) {
      this.#closeRecord();
      if (this.#record + RECORD_BYTES_MAX > this.#stage + STAGE_BYTES) {
        this.flush();
        if (this.blocked || this.broken || !this.#open()) return -1;
      }
    }
    return this.#record + RECORD_HEADER_BYTES + this.#content;
  }

  /** Adds what was written at the place that {@link reserve} gave. */
  commit(bytes: number): void {
    this.#content += bytes;
    assert(this.#content <= this.#contentBytesMax, "what is committed was reserved");
  }

  /**
   * Reads from an application's socket straight into DATA frames.
   * @param bulk Spread over all records that still fit in the stage, instead of the open one.
   * @returns Bytes, 0 at the end of the stream, -errno, or {@link BLOCKED}.
   */
  read(fd: number, streamId: number, bytesMax: number, bulk: boolean): number {
    const at = this.reserve(bulk ? 1024 : 256);
    if (at < 0) return BLOCKED;
    const os = this.#os, memory = os.memory, buffers = this.#buffers;
    const payloadBytesMax = this.#contentBytesMax - FRAME_HEADER_BYTES;
    const room = payloadBytesMax - this.#content;
    const first = room < bytesMax ? room : bytesMax;
    let wanted = first, got: number;
    if (bulk && first === room) {
      buffers.setIovec(buffers.scatterAt, memory.base + at + FRAME_HEADER_BYTES, first);
      let count = 1;
      let payload = this.#record + RECORD_BYTES_MAX + PAYLOAD_AT; // The open record will be full.
      const end = this.#stage + STAGE_BYTES;
      while (payload - PAYLOAD_AT + RECORD_BYTES_MAX <= end && wanted < bytesMax) {
        const next = payloadBytesMax < bytesMax - wanted ? payloadBytesMax : bytesMax - wanted;
        buffers.setIovec(buffers.scatterAt + IOVEC_BYTES * count, memory.base + payload, next);
        wanted += next;
        count++;
        payload += RECORD_BYTES_MAX;
      }
      got = os.receiveVector(fd, memory.base + buffers.scatterAt, count);
    } else got = os.receive(fd, memory.base + at + FRAME_HEADER_BYTES, first);
    this.wantedBytes = wanted;
    if (got <= 0) {
      this.#closeUnused(); // Nobody asks for a flush now: an idle session must not sit on a stage.
      return got;
    }
    let rest = got, frameAt = at, space = first;
    for (;;) {
      const payload = rest < space ? rest : space;
      writeDataHeader(memory.u8, frameAt, streamId, payload, false);
      this.#content += FRAME_HEADER_BYTES + payload;
      rest -= payload;
      if (rest === 0) break;
      this.#closeRecord();
      frameAt = this.#record + RECORD_HEADER_BYTES;
      space = payloadBytesMax;
    }
    return got;
  }

  /** Whether something waits for a flush. */
  get unsent(): boolean {
    return this.#stage >= 0 && !this.blocked;
  }

  /** Whether the stage is nearly full, so that sending now costs no extra call. */
  get nearlyFull(): boolean {
    return this.#stage >= 0 && this.#record + 4 * RECORD_BYTES_MAX > this.#stage + STAGE_BYTES;
  }

  /** Seals and sends what is there. Sets {@link blocked} or {@link broken} when the socket does not take it all. */
  flush(): void {
    if (this.#stage < 0 || this.blocked) return;
    this.#closeRecord();
    this.#send();
  }

  /** The socket can take more. @returns Whether everything has left and frames can be added again. */
  onWritable(): boolean {
    if (!this.blocked) return true;
    if (this.#held !== null) this.#sendHeld();
    else this.#send();
    return !this.blocked;
  }

  /** Seals an alert behind all that is there; {@link flush} follows (RFC 8446 §6). Best effort: a blocked session says nothing. */
  alert(level: number, description: number): void {
    if (this.reserve(0) < 0) return;
    this.#closeRecord();
    if (this.#record + RECORD_BYTES_MAX > this.#stage + STAGE_BYTES) return;
    const u8 = this.#os.memory.u8;
    u8[this.#record + RECORD_HEADER_BYTES] = level;
    u8[this.#record + RECORD_HEADER_BYTES + 1] = description;
    this.#record += this.#sealer.seal(this.#record, 2, ALERT);
  }

  /** Moves to a new key; said to the peer in a record of its own (RFC 8446 §4.6.3). @returns false when blocked: ask again. */
  updateKey(): boolean {
    assert(!this.#sealer.tls12, "TLS 1.2 has one key");
    if (this.reserve(0) < 0) return false;
    this.#closeRecord();
    if (this.#record + 2 * RECORD_BYTES_MAX > this.#stage + STAGE_BYTES) {
      this.flush();
      if (this.blocked || this.broken || !this.#open()) return false;
    }
    this.#sealKeyUpdate();
    return true;
  }

  /** Keys, and sealed bytes that the socket did not take. Copies; everything written must have been flushed. */
  exportState(): { readonly keys: TrafficKeys; readonly unsent: Uint8Array } {
    assert(
      this.#content === 0 && (this.blocked || this.#stage < 0),
      "what was written is sealed before it is exported",
    );
    const unsent = this.#held !== null
      ? this.#held.slice(this.#heldFrom)
      : this.#stage >= 0
      ? this.#os.memory.u8.slice(this.#sendFrom, this.#record)
      : new Uint8Array(0);
    return { keys: this.#sealer.exportKeys(), unsent };
  }

  /** Goes on with sealed bytes that another sender could not get rid of. Right after construction. */
  importUnsent(unsent: Uint8Array): void {
    if (unsent.length === 0) return;
    this.#held = unsent.slice();
    this.#heldFrom = 0;
    this.blocked = true;
  }

  free(): void {
    if (this.#stage >= 0) this.#buffers.releaseStage(this.#stage);
    this.#stage = -1;
    this.#held = null;
    this.broken = true;
    this.#sealer.free();
  }

  #open(): boolean {
    let stage = this.#buffers.acquireStage();
    if (stage < 0) {
      this.#onStageShortage(); // Others flush now; whoever cannot send copies out and gives its stage back.
      // A session that broke over it may have passed its tunnels on to this one: it is open by now, or worse.
      if (this.#stage >= 0 || this.blocked || this.broken) return this.#stage >= 0 && !this.blocked && !this.broken;
      stage = this.#buffers.acquireStage();
      assert(stage >= 0, "a flush of all sessions frees stages");
    }
    this.#stage = stage;
    this.#record = stage;
    this.#sendFrom = stage;
    this.#content = 0;
    if (this.#sealer.sealedCount >= this.#recordsPerKey) this.#onKeyUsed();
    return true;
  }

  /** Gives the stage back if nothing was written to it. */
  #closeUnused(): void {
    if (this.#content > 0 || this.#record !== this.#stage) return;
    this.#buffers.releaseStage(this.#stage);
    this.#stage = -1;
  }

  #onKeyUsed(): void {
    if (!this.#sealer.tls12) this.#sealKeyUpdate();
    else this.keyUse = this.#sealer.sealedCount >= 2 * this.#recordsPerKey ? KeyUse.SPENT : KeyUse.WORN;
  }

  #sealKeyUpdate(): void {
    assert(this.#content === 0, "a key changes between records");
    this.#os.memory.u8.set(KEY_UPDATE, this.#record + RECORD_HEADER_BYTES);
    this.#record += this.#sealer.seal(this.#record, KEY_UPDATE.length, HANDSHAKE);
    this.#sealer.nextKey();
  }

  #closeRecord(): void {
    if (this.#content === 0) return;
    this.#record += this.#sealer.seal(this.#record, this.#content, APPLICATION_DATA);
    this.#content = 0;
  }

  #send(): void {
    const os = this.#os, buffers = this.#buffers;
    const bytes = this.#record - this.#sendFrom;
    const sent = bytes === 0 ? 0 : os.send(this.#fd, os.memory.base + this.#sendFrom, bytes);
    if (sent > 0) this.sentBytes += sent;
    if (sent !== bytes) {
      if (sent < 0 && sent !== -EAGAIN) {
        this.broken = true;
        this.blocked = false; // Nothing waits any more: onWritable has to report it.
      } else {
        this.blocked = true;
        if (sent > 0) this.#sendFrom += sent;
        if (!buffers.scarce) return;
        this.#held = os.memory.u8.slice(this.#sendFrom, this.#record);
        this.#heldFrom = 0;
      }
    } else this.blocked = false;
    buffers.releaseStage(this.#stage);
    this.#stage = -1;
  }

  #sendHeld(): void {
    const os = this.#os, held = this.#held!, buffers = this.#buffers, scratch = buffers.scratchAt;
    while (this.#heldFrom < held.length) {
      const part = held.subarray(this.#heldFrom, this.#heldFrom + SCRATCH_BYTES);
      os.memory.u8.set(part, scratch);
      const sent = os.send(this.#fd, os.memory.base + scratch, part.length);
      if (sent < 0) {
        if (sent === -EAGAIN) return;
        this.broken = true;
        break;
      }
      this.sentBytes += sent;
      this.#heldFrom += sent;
      if (sent < part.length) return;
    }
    this.#held = null;
    this.blocked = false;
  }
}
