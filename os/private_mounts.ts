/** Mounts that only the calling thread and the programs it starts see. */
import * as libc from "./libc_cold.ts";

const NAME_SERVICES = "/etc/nsswitch.conf", NOTHING = "/dev/null";

/**
 * From here on the thread has mounts of its own, in which no name service is configured: a program that it starts inside
 * a half-built pod asks no network for a name (CNI-141). There is no way back; it is for a thread that does nothing else.
 * @returns What could not be done, as a phrase; undefined when all was.
 */
export function maskNameServices(): string | undefined {
  const unshared = libc.unshare(libc.CLONE_NEWNS); // It gives the thread a working folder and root of its own as well.
  if (unshared < 0) return `a mount namespace: ${libc.errnoName(unshared)}`;
  const apart = libc.mount("none", "/", "none", libc.MS.PRIVATE | libc.MS.REC);
  if (apart < 0) {
    const slave = libc.mount("none", "/", "none", libc.MS.SLAVE | libc.MS.REC); // Some systems refuse private mounts.
    if (slave < 0) return `private mounts: ${libc.errnoName(apart)}, then ${libc.errnoName(slave)}`;
  }
  const masked = libc.mount(NOTHING, NAME_SERVICES, "none", libc.MS.BIND);
  if (masked < 0 && masked !== -libc.Errno.ENOENT) return `an empty ${NAME_SERVICES}: ${libc.errnoName(masked)}`;
  return undefined;
}
