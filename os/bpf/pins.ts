/** Names in a bpffs: what is pinned there outlives the process that made it. */
import * as libc from "../libc_cold.ts";
import { accepted, Attributes, bpf, Command } from "./kernel.ts";

/** Gives an object a name. Throws AMB7150, also when the name is taken. */
export function pin(fd: number, path: string): void {
  accepted(
    bpf(Command.PIN, new Attributes(16).pointer(0, libc.cString(path)).u32(8, fd)),
    `pin a BPF object as ${path}`,
  );
}

/** @returns A descriptor of the object, which the caller closes, or undefined when there is none of the name. Throws AMB7150. */
export function openPinned(path: string): number | undefined {
  const result = bpf(Command.GET_PINNED, new Attributes(16).pointer(0, libc.cString(path)));
  if (result === -libc.Errno.ENOENT) return undefined;
  return accepted(result, `open the pinned BPF object ${path}`);
}

/** Mounts a bpffs. @returns 0 or -errno. */
export function mountBpffs(folder: string): number {
  return libc.mount("bpf", folder, "bpf", 0);
}
