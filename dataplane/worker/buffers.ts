/** The worker's byte buffers: one place to receive, stages to send from, iovecs. All in the arena, all bounded. */
import { assert } from "../../base/assert.ts";
import type { Memory } from "../../os/api.ts";

/** Content of a TLS record (RFC 8446 §5.1). */
export const CONTENT_BYTES_MAX = 16384;
export const RECORD_HEADER_BYTES = 5;
/** A full record of ours: header, content, type byte, tag. */
export const RECORD_BYTES_MAX = RECORD_HEADER_BYTES + CONTENT_BYTES_MAX + 1 + 16;
/** The largest record that RFC 8446 §5.2 lets a peer send. */
export const PEER_RECORD_BYTES_MAX = RECORD_HEADER_BYTES + CONTENT_BYTES_MAX + 256;

/** Records per stage: one write(2) of 1 MiB. 96 gain nothing measurable, 16 cost the sender a tenth more CPU (decision 10). */
const STAGE_RECORDS = 64;
export const STAGE_BYTES = STAGE_RECORDS * RECORD_BYTES_MAX;
/** Records per receive: what is opened and passed on stays in the core's own cache; 64 cost a tenth more (decision 10). */
const RECEIVE_RECORDS = 16;
/** One receive, and the rest of a record carried over from the last. */
export const RECEIVE_BYTES = RECEIVE_RECORDS * RECORD_BYTES_MAX + PEER_RECORD_BYTES_MAX;
/** Iovecs of one scattered write to an application. */
export const GATHER_MAX = 512; // below IOV_MAX, 1024
const IOVEC_BYTES = 16;
export const SCRATCH_BYTES = 65536;
/** What an application does not take is kept in pieces of this size: two records' worth, so little is wasted. */
export const CHUNK_BYTES = 32768;

/** Buffers shared by all connections of a worker; nothing in them outlives a turn, stages in use excepted. */
export class Buffers {
  readonly memory: Memory;
  readonly receiveAt: number;
  readonly scatterAt: number;
  readonly gatherAt: number;
  readonly scratchAt: number;
  readonly #freeStages: number[] = [];
  readonly #stagesMax: number;
  #stageCount = 0;
  readonly #freeChunks: number[] = [];
  readonly #chunksMax: number;
  #chunkCount = 0;

  /** @param limits How many sessions can have unsent records in the arena at once, and how many chunks there are. */
  constructor(memory: Memory, limits: { stagesMax: number; chunksMax: number }) {
    this.memory = memory;
    this.#stagesMax = limits.stagesMax;
    this.#chunksMax = limits.chunksMax;
    this.receiveAt = memory.allocate(RECEIVE_BYTES + 64, 4096);
    this.scatterAt = memory.allocate(IOVEC_BYTES * (STAGE_RECORDS + 1));
    this.gatherAt = memory.allocate(IOVEC_BYTES * GATHER_MAX);
    this.scratchAt = memory.allocate(SCRATCH_BYTES, 4096);
  }

  /** A stage, most recently used first, so that few are ever touched. @returns -1 when all are taken. */
  acquireStage(): number {
    if (this.#freeStages.length > 0) return this.#freeStages.pop()!;
    if (this.#stageCount === this.#stagesMax) return -1;
    this.#stageCount++;
    return this.memory.allocate(STAGE_BYTES, 4096);
  }

  releaseStage(stage: number): void {
    assert(this.#freeStages.length < this.#stageCount, "a stage is released once");
    this.#freeStages.push(stage);
  }

  /** A chunk for bytes that wait. @returns -1 when all are taken. */
  acquireChunk(): number {
    if (this.#freeChunks.length > 0) return this.#freeChunks.pop()!;
    if (this.#chunkCount === this.#chunksMax) return -1;
    this.#chunkCount++;
    return this.memory.allocate(CHUNK_BYTES, 4096);
  }

  releaseChunk(chunk: number): void {
    assert(this.#freeChunks.length < this.#chunkCount, "a chunk is released once");
    this.#freeChunks.push(chunk);
  }

  /** Chunks that tunnels hold. */
  get chunksTaken(): number {
    return this.#chunkCount - this.#freeChunks.length;
  }

  /** Stages that sessions hold. */
  get stagesTaken(): number {
    return this.#stageCount - this.#freeStages.length;
  }

  /** Whether so few stages are left that whoever cannot send must not keep one. */
  get scarce(): boolean {
    return this.#stagesMax - this.#stageCount + this.#freeStages.length < this.#stagesMax >> 1;
  }

  /** Writes a struct iovec (16 bytes) at `at`. */
  setIovec(at: number, address: number, bytes: number): void {
    const word = at >> 2, u32 = this.memory.u32;
    u32[word] = address;
    u32[word + 1] = 0;
    u32[word + 2] = bytes;
    u32[word + 3] = 0;
  }
}
