/** Listeners and eventfds that the agent makes. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { Arena } from "./arena.ts";
import { LinuxOs } from "./libc.ts";
import * as libc from "./libc_cold.ts";
import { closeFd, createEventFd, listenWildcard, signalEventFd } from "./sockets.ts";

const arena = new Arena(1 << 20, { hugePages: false });
const os = new LinuxOs(arena);
const PLAIN = { port: 0, ipv6: false, mark: 0, reusePort: false };

function portOf(fd: number): number {
  assertEquals(os.localAddress(fd), 0);
  return os.addressWords[4]!;
}

function connectTo(port: number, ipv6: boolean): number {
  const fd = os.openStream(ipv6, 0, false);
  const outcome = ipv6 ? os.connect(fd, 0, 0, 0, 1, port) : os.connect(fd, 0, 0, 0xffff, 0x7f000001, port);
  assert(outcome === 0 || outcome === -115, `connect: ${outcome}`);
  return fd;
}

Deno.test("listenWildcard() takes connections of both families on one socket (ZT-003)", () => {
  const { fd } = listenWildcard({ ...PLAIN, ipv6: true }), port = portOf(fd);
  for (const ipv6 of [false, true]) {
    const one = connectTo(port, ipv6), other = os.accept(fd);
    assert(other >= 0, `ipv6 ${ipv6}`);
    closeFd(one);
    closeFd(other);
  }
  closeFd(fd);
});

Deno.test("listenWildcard() says which port another process holds", () => {
  const { fd } = listenWildcard(PLAIN), port = portOf(fd);
  const error = assertThrows(() => listenWildcard({ ...PLAIN, port }), MeshError, `port ${port}`);
  assertEquals(error.code, "AMB7054");
  closeFd(fd);
});

Deno.test("listeners with reusePort share a port, one for each worker (ZT-049)", () => {
  const first = listenWildcard({ ...PLAIN, reusePort: true }).fd, port = portOf(first);
  const second = listenWildcard({ ...PLAIN, port, reusePort: true }).fd;
  assertEquals(portOf(second), port);
  closeFd(first);
  closeFd(second);
});

Deno.test("an eventfd wakes whoever waits for it, and is quiet once drained", () => {
  const fd = createEventFd(), poll = os.pollCreate(), events = arena.allocate(24);
  assertEquals(os.pollAdd(poll, fd, 1, 5), 0);
  assertEquals(os.wait(poll, arena.base + events, 2, 0), 0);
  signalEventFd(fd);
  signalEventFd(fd);
  assertEquals(os.wait(poll, arena.base + events, 2, 0), 1);
  os.drainEvent(fd);
  os.drainEvent(fd); // Nothing to drop: harmless.
  assertEquals(os.wait(poll, arena.base + events, 2, 0), 0);
  os.signalEvent(fd);
  assertEquals(os.wait(poll, arena.base + events, 2, 0), 1);
  closeFd(fd);
  closeFd(poll);
  closeFd(-1); // None: harmless.
  assert(libc.AF.INET === 2);
});
