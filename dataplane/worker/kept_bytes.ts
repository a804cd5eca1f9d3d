/** Bytes of a stream that an application did not take yet: chunks of the worker's arena, in order, written out by vector. */
import { assert } from "../../base/assert.ts";
import type { Os } from "../../os/api.ts";
import { type Buffers, CHUNK_BYTES, SCRATCH_BYTES } from "./buffers.ts";
import type { FairShare } from "./fair_share.ts";

const EAGAIN = 11;
const IOVEC_BYTES = 16;
/** Chunks of one write: half a megabyte, more than a socket takes at once. */
const CHUNKS_PER_WRITE_MAX = 16;

/** A queue of bytes. Flow control bounds it: a peer sends no more than the stream's window. */
export class KeptBytes {
  /** Bytes that wait. */
  length = 0;
  readonly #buffers: Buffers;
  readonly #share: FairShare;
  readonly #podRow: number;
  /** Offsets in the arena. */
  readonly #chunks: number[] = [];
  #headFrom = 0;
  #tailEnd = CHUNK_BYTES;

  /** @param share of all chunks, in which those of the pod in `podRow` count. */
  constructor(buffers: Buffers, share: FairShare, podRow: number) {
    this.#buffers = buffers;
    this.#share = share;
    this.#podRow = podRow;
  }

  /**
   * Copies arena bytes [at, at + bytes) to the end. @param adopted another process has kept them so far.
   * @returns How many; fewer only when the worker has no chunks left, or the pod has its share of them.
   */
  append(at: number, bytes: number, adopted = false): number {
    const u8 = this.#buffers.memory.u8;
    let left = bytes;
    while (left > 0) {
      if (this.#tailEnd === CHUNK_BYTES) {
        const chunk = adopted || this.#share.mayTake(this.#podRow) ? this.#buffers.acquireChunk() : -1;
        if (chunk < 0) break;
        this.#share.take(this.#podRow);
        this.#chunks.push(chunk);
        this.#tailEnd = 0;
      }
      const piece = Math.min(left, CHUNK_BYTES - this.#tailEnd);
      const target = this.#chunks[this.#chunks.length - 1]! + this.#tailEnd;
      u8.copyWithin(target, at, at + piece);
      this.#tailEnd += piece;
      this.length += piece;
      at += piece;
      left -= piece;
    }
    return bytes - left;
  }

  /** Writes to a socket what it takes in one call. @returns Bytes (0: it takes none now), or -errno. */
  writeTo(os: Os, fd: number): number {
    assert(this.length > 0, "only what waits is written");
    const { memory, scatterAt } = this.#buffers, chunks = this.#chunks;
    const count = Math.min(chunks.length, CHUNKS_PER_WRITE_MAX);
    for (let index = 0; index < count; index++) {
      const from = index === 0 ? this.#headFrom : 0;
      const end = index === chunks.length - 1 ? this.#tailEnd : CHUNK_BYTES;
      this.#buffers.setIovec(scatterAt + IOVEC_BYTES * index, memory.base + chunks[index]! + from, end - from);
    }
    const sent = os.sendVector(fd, memory.base + scatterAt, count);
    if (sent === -EAGAIN) return 0;
    if (sent > 0) this.#drop(sent);
    return sent;
  }

  /** All that waits. A copy. */
  exportBytes(): Uint8Array {
    const bytes = new Uint8Array(this.length), chunks = this.#chunks, u8 = this.#buffers.memory.u8;
    let at = 0;
    for (let index = 0; index < chunks.length && at < bytes.length; index++) {
      const from = index === 0 ? this.#headFrom : 0;
      const end = index === chunks.length - 1 ? this.#tailEnd : CHUNK_BYTES;
      bytes.set(u8.subarray(chunks[index]! + from, chunks[index]! + end), at);
      at += end - from;
    }
    return bytes;
  }

  /** Takes over what another queue exported. @returns false if the worker has no memory for it. */
  importBytes(bytes: Uint8Array): boolean {
    const { memory, scratchAt } = this.#buffers;
    for (let from = 0; from < bytes.length; from += SCRATCH_BYTES) {
      const piece = bytes.subarray(from, from + SCRATCH_BYTES);
      memory.u8.set(piece, scratchAt);
      if (this.append(scratchAt, piece.length, true) < piece.length) return false;
    }
    return true;
  }

  #drop(bytes: number): void {
    this.length -= bytes;
    this.#headFrom += bytes;
    let whole = Math.floor(this.#headFrom / CHUNK_BYTES);
    if (this.length === 0) whole = this.#chunks.length;
    for (let index = 0; index < whole; index++) this.#buffers.releaseChunk(this.#chunks[index]!);
    this.#chunks.splice(0, whole);
    this.#share.give(this.#podRow, whole);
    this.#headFrom = this.length === 0 ? 0 : this.#headFrom - whole * CHUNK_BYTES;
    if (this.length === 0) this.#tailEnd = CHUNK_BYTES;
  }

  /** Gives all chunks back; the bytes are lost. */
  clear(): void {
    for (const chunk of this.#chunks) this.#buffers.releaseChunk(chunk);
    if (this.#chunks.length > 0) this.#share.give(this.#podRow, this.#chunks.length);
    this.#chunks.length = 0;
    this.length = 0;
    this.#headFrom = 0;
    this.#tailEnd = CHUNK_BYTES;
  }
}
