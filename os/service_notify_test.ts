import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import * as libc from "./libc_cold.ts";
import { notifyReady } from "./service_notify.ts";

/** A socket as systemd binds it. */
function listen(path: string): number {
  const fd = libc.socket(libc.AF.UNIX, libc.SOCK.DGRAM | libc.SOCK.CLOEXEC | libc.SOCK.NONBLOCK, 0);
  const bytes = new TextEncoder().encode(path), address = new Uint8Array(2 + bytes.length + (path[0] === "@" ? 0 : 1));
  address[0] = libc.AF.UNIX;
  address.set(bytes, 2);
  if (path[0] === "@") address[2] = 0;
  assertEquals(libc.bind(fd, address), 0);
  return fd;
}

Deno.test("notifyReady() says so to a file's and to an abstract socket, and to nobody without one (CNI-277)", () => {
  const folder = Deno.makeTempDirSync();
  try {
    for (const path of [`${folder}/notify`, `@ambit-notify-${Deno.pid}`]) {
      const fd = listen(path), heard = new Uint8Array(64);
      notifyReady(path);
      const bytes = libc.receive(fd, heard);
      assertEquals(new TextDecoder().decode(heard.subarray(0, bytes)), "READY=1");
      libc.close(fd);
    }
    notifyReady("");
    for (const path of [`${folder}/none`, "relative", `/${"x".repeat(200)}`]) {
      assertEquals(assertThrows(() => notifyReady(path), MeshError).code, "AMB7169");
    }
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
