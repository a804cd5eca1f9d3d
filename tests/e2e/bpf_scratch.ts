/** Places for eBPF that a test has for itself: a bpffs of its own, and a cgroup of its own to be in. */
import { assert } from "@std/assert";
import * as libc from "../../os/libc_cold.ts";

const BURIAL_POLL_MS = 10, BURIAL_TRIES_MAX = 3_000;

/** A bpffs that is gone, with all its pins, when it is disposed of. */
export class PrivateBpffs implements Disposable {
  readonly folder = Deno.makeTempDirSync({ prefix: "ambit-bpffs-" });

  constructor() {
    const result = libc.mount("bpf", this.folder, "bpf", 0);
    if (result < 0) Deno.removeSync(this.folder);
    assert(result >= 0, `mounting a bpffs needs root: ${libc.errnoName(result)}`);
  }

  [Symbol.dispose](): void {
    libc.unmount(this.folder, libc.MNT_DETACH);
    Deno.removeSync(this.folder);
  }
}

/** Where the cgroup hierarchy of version 2 is mounted. */
export function cgroupRoot(): string {
  for (const line of Deno.readTextFileSync("/proc/self/mounts").split("\n")) {
    const [, path, type] = line.split(" ");
    if (type === "cgroup2") return path!;
  }
  throw new Error("no cgroup hierarchy of version 2 is mounted: mount -t cgroup2 none /sys/fs/cgroup");
}

/** The path of this process in the hierarchy of version 2, with `/` before. */
function ownCgroup(): string {
  return /^0::(.*)$/m.exec(Deno.readTextFileSync("/proc/self/cgroup"))![1]!;
}

let count = 0;

/** A cgroup that this process can enter, with all it starts from then on; left and removed when it is disposed of. */
export class ScratchCgroup implements Disposable {
  readonly path: string;
  readonly #home = `${cgroupRoot()}${ownCgroup()}`;

  constructor() {
    this.path = `${cgroupRoot()}/ambit-test-${Deno.pid}-${count++}`;
    Deno.mkdirSync(this.path);
  }

  /** Sockets that this process makes from now on are of this cgroup. */
  enter(): void {
    Deno.writeTextFileSync(`${this.path}/cgroup.procs`, `${Deno.pid}`);
  }

  [Symbol.dispose](): void {
    // Whoever is left in it goes where we came from: a cgroup with a process in it cannot be removed.
    for (const pid of Deno.readTextFileSync(`${this.path}/cgroup.procs`).split("\n").filter((it) => it !== "")) {
      try {
        Deno.writeTextFileSync(`${this.#home}/cgroup.procs`, pid);
      } catch (error) {
        if (!/ESRCH|No such process/.test(String(error))) throw error; // It has ended meanwhile.
      }
    }
    removeEmptied(this.path);
  }
}

/** EBUSY until the kernel has buried the last process. */
export function removeEmptied(path: string): void {
  for (let tries = 0;; tries++) {
    try {
      return Deno.removeSync(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      if (tries > BURIAL_TRIES_MAX) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, BURIAL_POLL_MS);
    }
  }
}

/** A descriptor of a folder. */
export function openFolder(path: string): { readonly fd: number } & Disposable {
  const fd = libc.open(path, libc.O.RDONLY);
  assert(fd >= 0, `cannot open ${path}: ${libc.errnoName(fd)}`);
  return { fd, [Symbol.dispose]: () => libc.close(fd) };
}
