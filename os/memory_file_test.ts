import { assertEquals } from "@std/assert";
import * as libc from "./libc_cold.ts";
import { createMemoryFile, readMemoryFile } from "./memory_file.ts";

Deno.test("a memory file is read whole, again and again, and nobody changes it", () => {
  for (const size of [0, 1, 300_000]) {
    const bytes = Uint8Array.from({ length: size }, (_, at) => at * 7);
    const fd = createMemoryFile("test", bytes);
    assertEquals(readMemoryFile(fd), bytes);
    assertEquals(readMemoryFile(fd), bytes);
    assertEquals(libc.write(fd, Uint8Array.of(1)), -libc.Errno.EPERM, "sealed");
    libc.close(fd);
  }
});

Deno.test("readMemoryFile() reads no socket and no closed descriptor", () => {
  const pair = libc.socketpair(libc.AF.UNIX, libc.SOCK.STREAM) as readonly [number, number];
  assertEquals(readMemoryFile(pair[0]), undefined);
  for (const fd of pair) libc.close(fd);
  assertEquals(readMemoryFile(-1), undefined);
});
