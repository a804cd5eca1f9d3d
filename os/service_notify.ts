/** Tells systemd that a service serves, by the datagram of sd_notify(3). */
import { MeshError } from "../base/errors.ts";
import * as libc from "./libc_cold.ts";

const PATH_BYTES_MAX = 107; // sun_path, unix(7)

/** Says READY=1 to the socket of NOTIFY_SOCKET, if there is one. Throws AMB7169 when systemd would wait in vain. */
export function notifyReady(socketPath: string | undefined = Deno.env.get("NOTIFY_SOCKET")): void {
  if (socketPath === undefined || socketPath === "") return;
  const path = new TextEncoder().encode(socketPath);
  if (path.length > PATH_BYTES_MAX || !/^[/@]/.test(socketPath)) throw failed(socketPath, "it is no socket's path");
  const address = new Uint8Array(2 + path.length + (socketPath.startsWith("@") ? 0 : 1));
  address[0] = libc.AF.UNIX;
  address.set(path, 2);
  if (socketPath.startsWith("@")) address[2] = 0; // A name without a file, unix(7).
  const fd = libc.socket(libc.AF.UNIX, libc.SOCK.DGRAM | libc.SOCK.CLOEXEC, 0);
  if (fd < 0) throw failed(socketPath, libc.errnoName(fd));
  try {
    const result = [() => libc.connect(fd, address), () => libc.send(fd, new TextEncoder().encode("READY=1"))]
      .map((step) => step()).find((it) => it < 0);
    if (result !== undefined) throw failed(socketPath, libc.errnoName(result));
  } finally {
    libc.close(fd);
  }
}

function failed(path: string, why: string): MeshError {
  return new MeshError("AMB7169", `cannot tell ${path} that the service serves: ${why}`, {
    remedy: "Unset NOTIFY_SOCKET where no systemd waits for it; else see that the unit has Type=notify.",
  });
}
