import { assertEquals } from "@std/assert";
import { assert } from "../base/assert.ts";
import { Logger } from "../base/log.ts";
import * as libc from "../os/libc_cold.ts";
import { HeldSockets, POD_SOCKETS_MAX } from "./held_sockets.ts";

const silent = new Logger("zds", { sink: () => {} });
/** What a descriptor of ours was when it was made: a number alone may be another test file's by the time that we look. */
const made = new Map<number, string>();

/** `socket:[INODE]`, or undefined if the number is not in use. */
function nameOf(fd: number): string | undefined {
  try {
    return Deno.readLinkSync(`/proc/self/fd/${fd}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

const isOpen = (fd: number) => nameOf(fd) === made.get(fd);

function some(count: number): number[] {
  return Array.from({ length: count }, () => {
    const fd = libc.socket(libc.AF.INET, libc.SOCK.STREAM, 0);
    made.set(fd, nameOf(fd)!);
    return fd;
  });
}

async function until(claim: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 2_000;
  while (!condition()) {
    assert(performance.now() < deadline, claim);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

Deno.test("HeldSockets closes what is replaced, what belongs to a pod that went, and what is too many", () => {
  using held = new HeldSockets({ log: silent });
  const first = some(2), second = some(3), many = some(POD_SOCKETS_MAX + 2);
  held.replace("a", first);
  held.replace("a", second);
  assertEquals([first.some(isOpen), second.every(isOpen), held.of("a")], [false, true, second]);
  held.drop("a");
  assertEquals([second.some(isOpen), held.of("a")], [false, []]);
  held.replace("b", many);
  assertEquals(held.of("b"), many.slice(0, POD_SOCKETS_MAX));
  assertEquals(many.slice(POD_SOCKETS_MAX).some(isOpen), false);
});

Deno.test("HeldSockets has room for another pod's sockets, or says that it has none", () => {
  using held = new HeldSockets({ log: silent, socketsMax: POD_SOCKETS_MAX + 1 });
  held.replace("a", some(1));
  assertEquals(held.hasRoom, true);
  held.replace("b", some(1));
  assertEquals(held.hasRoom, false);
  held.drop("a");
  assertEquals(held.hasRoom, true);
});

Deno.test("HeldSockets lets go of all a while after the last ztunnel, unless one comes back", async () => {
  using held = new HeldSockets({ log: silent, holdMs: 20 });
  const fds = some(2);
  held.replace("a", fds);
  held.startClock();
  held.stopClock();
  held.startClock();
  assertEquals(fds.every(isOpen), true);
  await until("nobody waits for ever", () => held.of("a").length === 0);
  assertEquals(fds.some(isOpen), false);
});
