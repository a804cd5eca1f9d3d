/** Names in a bpffs: what is pinned there outlives the process that made it. */
import * as libc from "../libc_cold.ts";
import { accepted, Attributes, bpf, Command } from "./kernel.ts";

/** Gives an object a name. @returns False when the name is taken. Throws AMB7150. */
export function pin(fd: number, path: string): boolean {
  const result = bpf(Command.PIN, new Attributes(16).pointer(0, libc.cString(path)).u32(8, fd));
  if (result === -libc.Errno.EEXIST) return false;
  accepted(result, `pin a BPF object as ${path}`);
  return true;
}

/** @returns A descriptor of the object, which the caller closes, or undefined when there is none of the name. Throws AMB7150. */
export function openPinned(path: string): number | undefined {
  const result = bpf(Command.GET_PINNED, new Attributes(16).pointer(0, libc.cString(path)));
  if (result === -libc.Errno.ENOENT) return undefined;
  return accepted(result, `open the pinned BPF object ${path}`);
}

/** Takes a name away; the object lives on while something else holds it. */
export function unpin(path: string): void {
  libc.unlink(path); // ENOENT: what was to be achieved.
}
