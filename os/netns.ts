/** Network namespaces: open, create, delete, and run a synchronous piece of work inside one. */
import { assert } from "../base/assert.ts";
import { ignore, MeshError } from "../base/errors.ts";
import * as libc from "./libc_cold.ts";

/** Where iproute2 keeps named namespaces, and so do we. */
export const NAMED_NETNS_FOLDER = "/run/netns";

const OWN_PATH = "/proc/thread-self/ns/net"; // Not /proc/self: that is the first thread's, whichever thread asks.
const NS_GET_NSTYPE = 0xb703; // _IO(0xb7, 3), ioctl_nsfs(2)
const NAME_FORM = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/** An open network namespace. It lives at least as long as this handle; device and inode tell two apart. */
export class Netns implements Disposable {
  readonly fd: number;
  readonly device: number;
  readonly inode: number;
  #open = true;

  /** Takes over `fd`. Throws AMB7003, and closes it, if it is not a network namespace. */
  constructor(fd: number, source: string) {
    const type = libc.ioctl(fd, NS_GET_NSTYPE);
    if (type !== libc.CLONE_NEWNET) {
      libc.close(fd);
      throw new MeshError("AMB7003", `${source} is not a network namespace`, {
        remedy: "Name a file such as /run/netns/NAME or /proc/PID/ns/net.",
      });
    }
    const stat = Deno.statSync(`/proc/thread-self/fd/${fd}`);
    this.fd = fd;
    this.device = stat.dev;
    this.inode = stat.ino ?? 0;
  }

  /** Whether both handles mean the same namespace (ZT-165). */
  equals(other: Netns): boolean {
    return this.device === other.device && this.inode === other.inode;
  }

  /** A second handle, with a descriptor of its own. */
  duplicate(): Netns {
    return new Netns(this.duplicateFd(), `fd ${this.fd}`);
  }

  /** A second descriptor, for another thread to make a handle of; whoever gets it closes it. */
  duplicateFd(): number {
    const F_DUPFD_CLOEXEC = 1030;
    return checked(libc.fcntl(this.fd, F_DUPFD_CLOEXEC), "duplicate a network namespace");
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    libc.close(this.fd);
  }
}

function checked(result: number, doing: string, remedy = "Run with CAP_SYS_ADMIN, as root or in a user namespace.") {
  if (result >= 0) return result;
  throw new MeshError("AMB7001", `could not ${doing}: ${libc.errnoName(result)}`, { remedy });
}

/** That there is nothing of the name, or that the process has ended; anything else says nothing of that. */
const ABSENT: readonly number[] = [libc.Errno.ENOENT, libc.Errno.ENOTDIR, libc.Errno.ESRCH];

/** Opens `/run/netns/NAME`, `/proc/PID/ns/net` or another namespace file. Throws AMB7002 where none is, AMB7003, or AMB7272. */
export function openNetns(path: string): Netns {
  const fd = libc.open(path, libc.O.RDONLY | libc.O.NONBLOCK); // A pipe would have us wait until somebody writes to it.
  if (fd >= 0) return new Netns(fd, path);
  if (!ABSENT.includes(-fd)) {
    throw new MeshError("AMB7272", `network namespace ${path} cannot be looked at: ${libc.errnoName(fd)}`, {
      remedy: "See that the path is one, and that this process has descriptors left and the right to look there.",
    });
  }
  throw new MeshError("AMB7002", `cannot open network namespace ${path}: ${libc.errnoName(fd)}`, {
    remedy: "Check the path, and that the process or the named namespace still exists.",
  });
}

/** The namespace that the calling thread is in. */
export function ownNetns(): Netns {
  return openNetns(OWN_PATH);
}

/**
 * Runs `body` with the calling thread inside the namespace, and comes back on every way out. `body` must not be
 * asynchronous: whatever else this thread did meanwhile would happen in there too. If the way back fails the process
 * aborts, for nothing done afterwards could be trusted.
 */
export function withinNetns<T>(netns: Netns, body: () => T): T {
  using home = ownNetns();
  checked(libc.setns(netns.fd, libc.CLONE_NEWNET), "enter a network namespace");
  try {
    const result = body();
    assert(!(result instanceof Promise), "work inside a network namespace is synchronous");
    return result;
  } finally {
    if (libc.setns(home.fd, libc.CLONE_NEWNET) < 0) libc.abort();
  }
}

/** A new namespace without a name: it disappears with its last descriptor, socket and process. */
export function createAnonymousNetns(): Netns {
  using home = ownNetns();
  checked(libc.unshare(libc.CLONE_NEWNET), "create a network namespace");
  try {
    return ownNetns();
  } finally {
    if (libc.setns(home.fd, libc.CLONE_NEWNET) < 0) libc.abort();
  }
}

/** A new namespace that `ip netns` knows too. Its loopback is down. Throws AMB7004 when the name is taken or malformed. */
export function createNamedNetns(name: string): Netns {
  const path = namedNetnsPath(name);
  shareFolder();
  const fd = libc.open(path, libc.O.RDONLY | libc.O.CREAT | libc.O.EXCL);
  if (fd < 0) {
    throw new MeshError("AMB7004", `cannot create network namespace ${name}: ${libc.errnoName(fd)}`, {
      remedy: fd === -libc.Errno.EEXIST
        ? "Choose another name, or delete the old one first."
        : `Make ${NAMED_NETNS_FOLDER} writable; in a user namespace mount a tmpfs over /run first.`,
    });
  }
  libc.close(fd);
  const netns = createAnonymousNetns();
  const result = libc.mount(`/proc/thread-self/fd/${netns.fd}`, path, "none", libc.MS.BIND);
  if (result < 0) {
    netns[Symbol.dispose]();
    ignore(libc.unlink(path), "the failed mount is what we report");
  }
  checked(result, `mount network namespace ${name}`);
  return netns;
}

/** Takes the name away; the namespace lives on while something uses it. @returns False when there was none. */
export function deleteNamedNetns(name: string): boolean {
  const path = namedNetnsPath(name);
  ignore(libc.unmount(path, libc.MNT_DETACH), "EINVAL: a name whose mount is gone; the unlink below decides");
  const result = libc.unlink(path);
  if (result === -libc.Errno.ENOENT) return false;
  checked(result, `delete network namespace ${name}`);
  return true;
}

/** `/run/netns/NAME`. Throws AMB7004 unless the name is 1 to 63 letters, digits, `.`, `_`, `-`. */
export function namedNetnsPath(name: string): string {
  if (NAME_FORM.test(name)) return `${NAMED_NETNS_FOLDER}/${name}`;
  throw new MeshError("AMB7004", `${JSON.stringify(name)} is not a name for a network namespace`, {
    remedy: "Use 1 to 63 letters, digits, dots, underscores or dashes, beginning with a letter or digit.",
  });
}

/** As iproute2 does: mounts made in the folder are to be seen in mount namespaces that were there before. */
function shareFolder(): void {
  Deno.mkdirSync(NAMED_NETNS_FOLDER, { recursive: true, mode: 0o755 });
  const share = () => libc.mount("none", NAMED_NETNS_FOLDER, "none", libc.MS.SHARED | libc.MS.REC);
  if (share() >= 0) return;
  checked(
    libc.mount(NAMED_NETNS_FOLDER, NAMED_NETNS_FOLDER, "none", libc.MS.BIND | libc.MS.REC),
    `make ${NAMED_NETNS_FOLDER} a mount`,
  );
  checked(share(), `share ${NAMED_NETNS_FOLDER}`);
}

/**
 * Writes `/proc/sys/PATH` as seen from inside the namespace, e.g. `net/ipv4/ip_forward`. Throws AMB7001.
 * @param root another place where /proc/sys is mounted, since a container's own is not to be written.
 */
export function writeSysctl(netns: Netns, path: string, value: string, root = "/proc/sys"): void {
  withinNetns(netns, () => {
    const fd = checked(
      libc.open(`${root}/${path}`, libc.O.WRONLY),
      `open sysctl ${path}`,
      "Run with CAP_SYS_ADMIN; in a container mount the node's /proc/sys/net at <host root>/proc/sys/net, to be written.",
    );
    const result = libc.write(fd, new TextEncoder().encode(value));
    libc.close(fd);
    checked(result, `write ${value} to sysctl ${path}`);
  });
}

/** Reads `/proc/sys/PATH` as seen from inside the namespace, trimmed. @returns undefined when the kernel has no such entry. */
export function readSysctl(netns: Netns, path: string): string | undefined {
  return withinNetns(netns, () => {
    const fd = libc.open(`/proc/sys/${path}`, libc.O.RDONLY);
    if (fd === -libc.Errno.ENOENT) return undefined;
    checked(fd, `open sysctl ${path}`);
    const target = new Uint8Array(4096); // a page: what the kernel's handlers fill at most
    const count = libc.read(fd, target);
    libc.close(fd);
    return new TextDecoder().decode(target.subarray(0, checked(count, `read sysctl ${path}`))).trim();
  });
}
