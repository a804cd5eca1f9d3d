/** One mapping below 2 GiB: an address in it is a 31-bit number, so pointers cross FFI as plain `u32`. */
import { MeshError } from "../base/errors.ts";
import { assert } from "../base/assert.ts";
import type { Memory } from "./api.ts";

const PROT_READ_WRITE = 3;
const MAP_PRIVATE = 0x02, MAP_ANONYMOUS = 0x20, MAP_32BIT = 0x40, MAP_NORESERVE = 0x4000;
const MADV_DONTNEED = 4, MADV_HUGEPAGE = 14;
const HUGE_PAGE_BYTES = 2 << 20;

const libc = Deno.dlopen("libc.so.6", {
  mmap: {
    parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], // void *addr, size_t length, int prot, int flags, int fd, off_t offset
    result: "pointer",
  },
  munmap: { parameters: ["u32", "usize"], result: "i32" }, // void *addr, size_t length
  madvise: { parameters: ["u32", "u32", "i32"], result: "i32" }, // void *addr, size_t length, int advice
}).symbols;

/** Bump allocator over one low mapping; memory is taken for good and goes with the process, or by {@link unmap}. */
export class Arena implements Memory {
  readonly base: number;
  readonly sizeBytes: number;
  readonly u8: Uint8Array<ArrayBuffer>;
  readonly i32: Int32Array<ArrayBuffer>;
  readonly u32: Uint32Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  #used = 0;

  /** @param sizeBytes Address space, not resident memory: pages count once touched. `hugePages` asks for 2 MiB pages. */
  constructor(sizeBytes: number, options: { hugePages: boolean }) {
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT | MAP_NORESERVE;
    const pointer = libc.mmap(0n, BigInt(sizeBytes), PROT_READ_WRITE, flags, -1, 0n);
    const address = Number(Deno.UnsafePointer.value(pointer));
    if (address <= 0 || address + sizeBytes > 0x80000000) {
      throw new MeshError("AMB7051", `cannot map ${sizeBytes >>> 20} MiB below 2 GiB`, {
        remedy: "lower --worker-memory-mib or raise the memory limit of the process",
      });
    }
    this.base = address;
    this.sizeBytes = sizeBytes;
    if (options.hugePages) {
      const start = (address + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
      libc.madvise(start, sizeBytes - HUGE_PAGE_BYTES, MADV_HUGEPAGE); // Advice: where the kernel has none, small pages serve.
    }
    const buffer = Deno.UnsafePointerView.getArrayBuffer(pointer!, sizeBytes);
    this.u8 = new Uint8Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.view = new DataView(buffer);
  }

  allocate(bytes: number, alignment = 64): number {
    const offset = (this.#used + alignment - 1) & -alignment;
    assert(offset + bytes <= this.sizeBytes, "the arena holds what its owner planned to allocate");
    this.#used = offset + bytes;
    return offset;
  }

  discard(offset: number, bytes: number): void {
    libc.madvise(this.base + offset, bytes, MADV_DONTNEED);
  }

  /** Gives all of it back, for a thread that ends before its process does: nobody may touch it again. */
  unmap(): void {
    libc.munmap(this.base, BigInt(this.sizeBytes));
  }

  /** Bytes that can still be allocated. */
  get freeBytes(): number {
    return this.sizeBytes - this.#used;
  }
}
