import { assert } from "@std/assert";
import { limitHeaps, returnFreeMemory } from "./allocator.ts";

const libc = Deno.dlopen("libc.so.6", {
  malloc: { parameters: ["usize"], result: "usize" }, // size_t size
  free: { parameters: ["usize"], result: "void" }, // void *ptr
  memset: { parameters: ["usize", "i32", "usize"], result: "usize" }, // void *s, int c, size_t n
}).symbols;

function residentKib(): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(Deno.readTextFileSync("/proc/self/status"))![1]);
}

Deno.test("returnFreeMemory() gives pages back that free() kept", () => {
  limitHeaps(4);
  const bytes = 64n << 10n; // Below what the allocator maps one by one.
  const blocks = Array.from({ length: 1024 }, () => {
    const block = libc.malloc(bytes);
    libc.memset(block, 1, bytes);
    return block;
  });
  const pin = blocks.pop()!; // Keeps the heap's top in use, so that free() alone cannot shrink it.
  for (const block of blocks) libc.free(block);
  const before = residentKib();
  returnFreeMemory();
  assert(residentKib() < before - 16 * 1024, `from ${before} to ${residentKib()} KiB`);
  libc.free(pin);
});
