/** Listeners and eventfds that the agent makes. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { Arena } from "./arena.ts";
import { LinuxOs } from "./libc.ts";
import * as libc from "./libc_cold.ts";
import { closeFd, createEventFd, listenWildcard, signalEventFd } from "./sockets.ts";

const arena = new Arena(1 << 20, { hugePages: false });
const os = new LinuxOs(arena);
const PLAIN = { port: 0, ipv6: false, mark: 0, reusePort: false, keepalive: false, congestionControl: "" };

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

const flagOf = (fd: number, level: number, name: number) => {
  const value = new Int32Array(1);
  libc.getSocketOption(fd, level, name, new Uint8Array(value.buffer));
  return value[0];
};
const SOL_SOCKET = 1, SO_MARK = 36, SOL_IP = 0, IP_TRANSPARENT = 19;

Deno.test({
  name: "listeners are transparent unless that is not wanted, and bear the mark (ZT-050, ZT-173)",
  ignore: Deno.uid() !== 0,
  fn() {
    for (const transparent of [undefined, true, false]) {
      const listening = listenWildcard({ ...PLAIN, mark: 1337, transparent });
      assertEquals(listening.transparent, transparent !== false);
      assertEquals(flagOf(listening.fd, SOL_IP, IP_TRANSPARENT), transparent === false ? 0 : 1);
      assertEquals(flagOf(listening.fd, SOL_SOCKET, SO_MARK), 1337);
      closeFd(listening.fd);
    }
    const fd = os.openStream(false, 1337, false);
    assertEquals(flagOf(fd, SOL_SOCKET, SO_MARK), 1337, "a socket that connects on behalf of a pod");
    closeFd(fd);
  },
});

Deno.test("listenWildcard() says which port another process holds", () => {
  const { fd } = listenWildcard(PLAIN), port = portOf(fd);
  const error = assertThrows(() => listenWildcard({ ...PLAIN, port }), MeshError, `port ${port}`);
  assertEquals(error.code, "AMB7054");
  closeFd(fd);
});

Deno.test("accepted sockets take TCP_NODELAY, keepalive and congestion control over from their listener (ZT-049)", () => {
  const options = (fd: number) =>
    [[6, 1], [1, 9], [6, 4], [6, 5], [6, 6]].map(([level, name]) => { // TCP_NODELAY, SO_KEEPALIVE, TCP_KEEPIDLE, …
      const value = new Uint8Array(4);
      libc.getSocketOption(fd, level!, name!, value);
      return new DataView(value.buffer).getInt32(0, true);
    });
  for (const keepalive of [true, false]) {
    const { fd } = listenWildcard({ ...PLAIN, keepalive, congestionControl: "reno" }),
      one = connectTo(portOf(fd), false);
    const other = os.accept(fd), congestion = new Uint8Array(16);
    assert(other >= 0);
    assertEquals(options(other).slice(0, 2), [1, keepalive ? 1 : 0]);
    if (keepalive) assertEquals(options(other).slice(2), [180, 180, 9]);
    libc.getSocketOption(other, 6, 13, congestion); // TCP_CONGESTION
    assertEquals(new TextDecoder().decode(congestion).split("\0")[0], "reno");
    for (const it of [fd, one, other]) closeFd(it);
  }
});

Deno.test("listenWildcard() refuses a congestion control that the kernel does not have", () => {
  const error = assertThrows(() => listenWildcard({ ...PLAIN, congestionControl: "no-such" }), MeshError);
  assertEquals(error.code, "AMB7054");
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
