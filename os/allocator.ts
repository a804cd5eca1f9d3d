/** The C library's allocator: OpenSSL and the runtime itself use it from every thread. */
const libc = Deno.dlopen("libc.so.6", {
  mallopt: { parameters: ["i32", "i32"], result: "i32" }, // int param, int value
  malloc_trim: { parameters: ["usize"], result: "i32" }, // size_t pad
}).symbols;

const M_ARENA_MAX = -8;

/** Bounds how many heaps threads spread over; each keeps what it once held. Before the threads start. */
export function limitHeaps(max: number): void {
  libc.mallopt(M_ARENA_MAX, max);
}

/** Gives free pages back to the kernel. Takes a millisecond or two, for which it holds the heaps' locks one by one. */
export function returnFreeMemory(): void {
  libc.malloc_trim(0n);
}
