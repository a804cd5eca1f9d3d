/** The worker's byte buffers: one place to receive, stages to send from, iovecs. All in the arena, all bounded. */
import type { Memory } from "../../os/api.ts";
import { PagePool } from "./page_pool.ts";

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
/** What nobody took for so long goes back to the kernel, some of it each time: below half a millisecond. */
const GIVE_BACK_MS = 10_000, STAGES_GIVEN_MAX = 4, CHUNKS_GIVEN_MAX = 64;

/** Buffers shared by all connections of a worker; nothing in them outlives a turn, stages in use excepted. */
export class Buffers {
  readonly memory: Memory;
  readonly receiveAt: number;
  readonly scatterAt: number;
  readonly gatherAt: number;
  readonly scratchAt: number;
  readonly #stages: PagePool;
  readonly #stagesMax: number;
  readonly #chunks: PagePool;
  #giveBackAtMs = 0;

  /** @param limits How many sessions can have unsent records in the arena at once, and how many chunks there are. */
  constructor(memory: Memory, limits: { stagesMax: number; chunksMax: number }) {
    this.memory = memory;
    this.#stagesMax = limits.stagesMax;
    this.#stages = new PagePool(memory, STAGE_BYTES, limits.stagesMax);
    this.#chunks = new PagePool(memory, CHUNK_BYTES, limits.chunksMax);
    this.receiveAt = memory.allocate(RECEIVE_BYTES + 64, 4096);
    this.scatterAt = memory.allocate(IOVEC_BYTES * (STAGE_RECORDS + 1));
    this.gatherAt = memory.allocate(IOVEC_BYTES * GATHER_MAX);
    this.scratchAt = memory.allocate(SCRATCH_BYTES, 4096);
  }

  /** A stage, most recently used first, so that few are ever touched. @returns -1 when all are taken. */
  acquireStage(): number {
    return this.#stages.acquire();
  }

  releaseStage(stage: number): void {
    this.#stages.release(stage);
  }

  /** A chunk for bytes that wait. @returns -1 when all are taken. */
  acquireChunk(): number {
    return this.#chunks.acquire();
  }

  releaseChunk(chunk: number): void {
    this.#chunks.release(chunk);
  }

  /** Chunks that tunnels hold. */
  get chunksTaken(): number {
    return this.#chunks.taken;
  }

  /** Stages that sessions hold. */
  get stagesTaken(): number {
    return this.#stages.taken;
  }

  /** Whether so few stages are left that whoever cannot send must not keep one. */
  get scarce(): boolean {
    return this.#stages.left < this.#stagesMax >> 1;
  }

  /** Once a turn: a burst's memory does not stay for good. */
  giveBack(nowMs: number): void {
    if (nowMs < this.#giveBackAtMs) return;
    this.#giveBackAtMs = nowMs + GIVE_BACK_MS;
    this.#stages.giveBack(STAGES_GIVEN_MAX);
    this.#chunks.giveBack(CHUNKS_GIVEN_MAX);
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
