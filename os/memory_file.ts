/** Files that are memory alone (memfd_create(2)): what is in them cannot change once they are sealed, and goes with its last descriptor. */
import { assert } from "../base/assert.ts";
import { MeshError } from "../base/errors.ts";
import * as libc from "./libc_cold.ts";

const library = Deno.dlopen("libc.so.6", {
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" }, // const char *name, unsigned int flags
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" }, // int fd, off_t offset, int whence
  pread: { parameters: ["i32", "buffer", "u32", "i64"], result: "i32" }, // int fd, void *buf, size_t count, off_t offset
}).symbols;

const MFD_CLOEXEC = 1, MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033, F_SEAL_SEAL = 1, F_SEAL_SHRINK = 2, F_SEAL_GROW = 4, F_SEAL_WRITE = 8;
const SEEK_END = 2;
/** No worker's state is larger: its arena holds less. */
const BYTES_MAX = 1 << 30;

/** A sealed file of these bytes. @returns Its descriptor, which the caller closes. @throws MeshError AMB7070 */
export function createMemoryFile(name: string, bytes: Uint8Array<ArrayBuffer>): number {
  const fd = library.memfd_create(libc.cString(name), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) throw noMemory();
  for (let at = 0; at < bytes.length;) {
    const written = libc.write(fd, bytes.subarray(at));
    if (written <= 0) {
      libc.close(fd);
      throw noMemory();
    }
    at += written;
  }
  const sealed = libc.fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
  assert(sealed === 0, "a memory file of ours takes its seals");
  return fd;
}

/** All bytes of a file from its beginning, wherever its offset stands. @returns undefined for what is no file, or too large. */
export function readMemoryFile(fd: number): Uint8Array<ArrayBuffer> | undefined {
  const size = Number(library.lseek(fd, 0n, SEEK_END));
  if (size < 0 || size > BYTES_MAX) return undefined;
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size;) {
    const got = library.pread(fd, bytes.subarray(at), size - at, BigInt(at));
    if (got <= 0) return undefined;
    at += got;
  }
  return bytes;
}

function noMemory(): MeshError {
  return new MeshError("AMB7070", "the kernel gives no memory for a file", {
    remedy: "see how much memory the node has left, and the limits of ztunnel's container",
  });
}
