/**
 * A program: frees 64 MiB in pieces, gives free memory back, and prints the resident KiB before and after. A process by
 * itself, since what the threads of another ask for meanwhile would count.
 */
import { limitHeaps, returnFreeMemory } from "./allocator.ts";

const PIECE_BYTES = 64n << 10n; // Below what the allocator maps one by one.

const libc = Deno.dlopen("libc.so.6", {
  malloc: { parameters: ["usize"], result: "usize" }, // size_t size
  free: { parameters: ["usize"], result: "void" }, // void *ptr
  memset: { parameters: ["usize", "i32", "usize"], result: "usize" }, // void *s, int c, size_t n
}).symbols;

function residentKib(): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(Deno.readTextFileSync("/proc/self/status"))![1]);
}

if (import.meta.main) {
  limitHeaps(4);
  const pieces = Array.from({ length: 1024 }, () => {
    const piece = libc.malloc(PIECE_BYTES);
    libc.memset(piece, 1, PIECE_BYTES);
    return piece;
  });
  const pin = pieces.pop()!; // Keeps the heap's top in use, so that free() alone cannot shrink it.
  for (const piece of pieces) libc.free(piece);
  const before = residentKib();
  returnFreeMemory();
  await Deno.stdout.write(new TextEncoder().encode(JSON.stringify([before, residentKib()])));
  libc.free(pin);
}
