/** Memory of a worker: a plain buffer with an invented address, so that an address of another worker is found out. */
import type { Memory } from "../../os/api.ts";
import { hold } from "./chance.ts";

export class SimMemory implements Memory {
  readonly base: number;
  sizeBytes: number;
  readonly u8: Uint8Array<ArrayBuffer>;
  readonly i32: Int32Array<ArrayBuffer>;
  readonly u32: Uint32Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  #used = 64;

  constructor(base: number, sizeBytes: number) {
    const buffer = new ArrayBuffer(sizeBytes);
    this.base = base;
    this.sizeBytes = sizeBytes;
    this.u8 = new Uint8Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.view = new DataView(buffer);
  }

  allocate(bytes: number, alignment = 64): number {
    const offset = (this.#used + alignment - 1) & -alignment;
    hold(offset + bytes <= this.sizeBytes, "a worker stays within its memory");
    this.#used = offset + bytes;
    return offset;
  }

  discard(offset: number, bytes: number): void {
    hold(offset >= 64 && offset + bytes <= this.#used, "a worker gives back what is its own");
    this.u8.fill(0, offset, offset + bytes);
  }

  /** The offset of a range that a system call was given. */
  offsetOf(address: number, bytes: number): number {
    const offset = address - this.base;
    hold(bytes >= 0 && offset >= 64 && offset + bytes <= this.#used, "a system call stays within what was allocated");
    return offset;
  }

  /** For the next run, which may have less of it. */
  reset(sizeBytes: number): void {
    hold(sizeBytes <= this.u8.length, "a run has no more memory than there is");
    this.sizeBytes = sizeBytes;
    this.#used = 64;
  }
}
