/** The calls of the hot path: what they return, what they write, and that an error is its number. */
import { assert, assertEquals } from "@std/assert";
import { IPV4_MAPPED_WORD, type IpWords } from "../base/address.ts";
import { Arena } from "./arena.ts";
import * as cold from "./libc_cold.ts";
import { EAGAIN, EINPROGRESS, ENOTCONN, EPIPE, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, LinuxOs } from "./libc.ts";

const arena = new Arena(1 << 20, { hugePages: false });
const os = new LinuxOs(arena);
const AT = arena.allocate(65_536), IOVECS = arena.allocate(256), EVENTS = arena.allocate(12 * 8);
const ECONNREFUSED = 111, ECONNRESET = 104, EBADF = 9, ENOENT = 2;
const LOOPBACK: IpWords = [0, 0, IPV4_MAPPED_WORD, 0x7f000001];
/** Above every limit of descriptors. */
const NOBODYS = 0x3fffffff;
const SOL_SOCKET = 1, SOL_TCP = 6, SO_KEEPALIVE = 9, SO_RCVBUF = 8, SO_SNDBUF = 7, TCP_NODELAY = 1, TCP_CONGESTION = 13;

const address = (at: number) => arena.base + at;
const congestionOf = (fd: number) => {
  const target = new Uint8Array(16);
  assertEquals(cold.getSocketOption(fd, SOL_TCP, TCP_CONGESTION, target) >= 0, true);
  return new TextDecoder().decode(target).split("\0")[0];
};
const flagOf = (fd: number, level: number, name: number) => {
  const value = new Int32Array(1);
  cold.getSocketOption(fd, level, name, new Uint8Array(value.buffer));
  return value[0];
};

/** A listener on 127.0.0.1 or ::1. */
function listen(ipv6: boolean): { fd: number; port: number; ip: IpWords } {
  const fd = cold.socket(ipv6 ? cold.AF.INET6 : cold.AF.INET, cold.SOCK.STREAM | cold.SOCK.NONBLOCK, 0);
  const sockaddr = new Uint8Array(ipv6 ? 28 : 16);
  sockaddr[0] = ipv6 ? cold.AF.INET6 : cold.AF.INET;
  if (ipv6) sockaddr[23] = 1;
  else sockaddr.set([127, 0, 0, 1], 4);
  assertEquals(cold.bind(fd, sockaddr), 0);
  cold.listen(fd, 8);
  assertEquals(os.localAddress(fd), 0);
  return { fd, port: os.addressWords[4]!, ip: [...os.addressWords.subarray(0, 4)] as unknown as IpWords };
}

/** Both ends of a TCP connection over loopback, by the calls under test. Whoever asks closes them. */
function connect(ipv6 = false): [one: number, other: number] {
  const listener = listen(ipv6);
  const one = os.openStream(ipv6, 0, true);
  const outcome = os.connect(one, ...listener.ip, listener.port);
  assert(outcome === 0 || outcome === -EINPROGRESS, `connect: ${outcome}`);
  const other = os.accept(listener.fd);
  assert(other > 0, `accept: ${other}`);
  cold.close(listener.fd);
  return [one, other];
}

/** The same, closed when the body is through. */
function connected(body: (one: number, other: number) => void, ipv6 = false): void {
  const ends = connect(ipv6);
  try {
    body(...ends);
  } finally {
    for (const fd of ends) cold.close(fd);
  }
}

Deno.test("accept(), peerAddress() and localAddress() find addresses of both families (ZT-014)", () => {
  for (const ipv6 of [false, true]) {
    const listener = listen(ipv6), ip = ipv6 ? [0, 0, 0, 1] : [...LOOPBACK];
    assertEquals(os.accept(listener.fd), -EAGAIN);
    const one = os.openStream(ipv6, 0, false);
    os.connect(one, ip[0]!, ip[1]!, ip[2]!, ip[3]!, listener.port);
    const other = os.accept(listener.fd);
    const accepted = [...os.addressWords];
    assertEquals(os.localAddress(one), 0);
    assertEquals([...os.addressWords], accepted);
    assertEquals(os.peerAddress(other), 0);
    assertEquals([...os.addressWords], accepted);
    assertEquals(accepted.slice(0, 4), ip);
    assertEquals(os.localAddress(other), 0);
    assertEquals([...os.addressWords], [...ip, listener.port]);
    for (const fd of [one, other, listener.fd]) cold.close(fd);
  }
});

Deno.test("an IPv4 client of an IPv6 listener is seen by its IPv4 address (ZT-014)", () => {
  const fd = cold.socket(cold.AF.INET6, cold.SOCK.STREAM | cold.SOCK.NONBLOCK, 0);
  assertEquals(cold.bind(fd, Uint8Array.of(cold.AF.INET6, ...new Uint8Array(27))), 0);
  cold.listen(fd, 8);
  os.localAddress(fd);
  const port = os.addressWords[4]!, one = os.openStream(false, 0, false);
  os.connect(one, ...LOOPBACK, port);
  const other = os.accept(fd);
  assertEquals([...os.addressWords.subarray(0, 4)], [...LOOPBACK]);
  os.localAddress(other);
  assertEquals([...os.addressWords], [...LOOPBACK, port]);
  for (const it of [one, other, fd]) cold.close(it);
});

Deno.test("send() and receive() move bytes, say EAGAIN, the end, and errors by number", () =>
  connected((one, other) => {
    arena.u8.set([1, 2, 3, 4, 5], AT);
    assertEquals(os.receive(other, address(AT + 100), 10), -EAGAIN);
    assertEquals(os.send(one, address(AT), 5), 5);
    assertEquals(os.receive(other, address(AT + 100), 3), 3);
    assertEquals(os.receive(other, address(AT + 103), 10), 2);
    assertEquals([...arena.u8.subarray(AT + 100, AT + 105)], [1, 2, 3, 4, 5]);
    assertEquals(os.shutdownWrite(one), 0);
    assertEquals(os.receive(other, address(AT), 10), 0);
    assertEquals(os.send(one, address(AT), 1), -EPIPE); // And no SIGPIPE.
    assertEquals(os.send(other, address(AT), 5), 5);
    assertEquals(os.receive(-1, address(AT), 1), -EBADF);
  }));

Deno.test("receiveVector() and sendVector() walk their iovecs in order, and stop where the bytes do", () =>
  connected((one, other) => {
    const iovec = (index: number, at: number, bytes: number) => {
      arena.u32.set([address(at), 0, bytes, 0], (IOVECS >> 2) + 4 * index);
    };
    for (let at = 0; at < 10; at++) arena.u8[AT + at] = at;
    iovec(0, AT + 7, 3);
    iovec(1, AT, 4);
    assertEquals(os.sendVector(one, address(IOVECS), 2), 7);
    arena.u8.fill(99, AT + 100, AT + 120);
    iovec(0, AT + 110, 2);
    iovec(1, AT + 100, 8);
    assertEquals(os.receiveVector(other, address(IOVECS), 2), 7);
    assertEquals([...arena.u8.subarray(AT + 110, AT + 113)], [7, 8, 99]);
    assertEquals([...arena.u8.subarray(AT + 100, AT + 106)], [9, 0, 1, 2, 3, 99]);
    assertEquals(os.receiveVector(other, address(IOVECS), 2), -EAGAIN);
    cold.shutdown(other);
    assertEquals(os.receiveVector(other, address(IOVECS), 2), 0);
    assertEquals(os.sendVector(other, address(IOVECS), 1), -EPIPE); // SIGPIPE is ignored by the process.
  }));

Deno.test("a full socket takes a part, then says EAGAIN", () =>
  connected((one, other) => {
    cold.setSocketFlag(one, SOL_SOCKET, SO_SNDBUF, 8_192);
    cold.setSocketFlag(other, SOL_SOCKET, SO_RCVBUF, 8_192);
    let sent = 0, last = 0;
    for (let call = 0; call < 1_000 && last >= 0; call++) sent += Math.max(0, last = os.send(one, address(AT), 65_536));
    assertEquals(last, -EAGAIN);
    assert(sent > 0);
  }));

Deno.test("socketError() tells how a connect ended, once", () => {
  const listener = listen(false);
  cold.close(listener.fd);
  const one = os.openStream(false, 0, false);
  const outcome = os.connect(one, ...LOOPBACK, listener.port);
  assert(outcome === -EINPROGRESS || outcome === -ECONNREFUSED);
  assertEquals([os.socketError(one), os.socketError(one)], outcome === -EINPROGRESS ? [-ECONNREFUSED, 0] : [0, 0]);
  assertEquals(os.peerAddress(one), -ENOTCONN);
  cold.close(one);
});

Deno.test("abort() closes with a reset, close() with an end", () => {
  // Each number is closed once: a second close may meet what another test file of this process has opened meanwhile.
  for (const reset of [false, true]) {
    const [one, other] = connect();
    assertEquals(reset ? os.abort(one) : os.close(one), 0);
    assertEquals(os.receive(other, address(AT), 1), reset ? -ECONNRESET : 0);
    cold.close(other);
  }
  assertEquals(os.close(NOBODYS), -EBADF);
});

Deno.test("keepalive and user timeout are what the settings say (ZT-049)", () =>
  connected((one) => {
    const times = (fd: number) => [4, 5, 6, 18].map((name) => flagOf(fd, SOL_TCP, name)); // TCP_KEEP…, TCP_USER_TIMEOUT
    assertEquals(times(one), [180, 180, 9, 0]);
    const own = new LinuxOs(arena, { idleS: 20, intervalS: 7, retries: 3, userTimeoutMs: 41_000 });
    const fd = own.openStream(false, 0, true);
    assertEquals(times(fd), [20, 7, 3, 41_000]);
    cold.close(fd);
  }));

Deno.test("openStream() sets TCP_NODELAY, and keepalive where asked (ZT-049)", () =>
  connected((one) => {
    assertEquals([flagOf(one, SOL_TCP, TCP_NODELAY), flagOf(one, SOL_SOCKET, SO_KEEPALIVE)], [1, 1]);
  }));

Deno.test("setCongestionControl() takes a name, and fails for one that the kernel does not know", () =>
  connected((one) => {
    assertEquals(os.setCongestionControl(one, "reno"), 0);
    assertEquals(congestionOf(one), "reno");
    assertEquals(os.setCongestionControl(one, "no-such"), -ENOENT);
    assertEquals(congestionOf(one), "reno");
  }));

Deno.test("an epoll instance reports edges with the row they were added with", () =>
  connected((one, other) => {
    const poll = os.pollCreate();
    const wait = () => {
      const count = os.wait(poll, address(EVENTS), 8, 0);
      return Array.from(
        { length: count },
        (_, at) => [arena.i32[(EVENTS >> 2) + 3 * at], arena.i32[(EVENTS >> 2) + 3 * at + 1]],
      );
    };
    assertEquals(os.pollAdd(poll, other, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 77), 0);
    assertEquals(wait(), [[EPOLLOUT, 77]]);
    assertEquals(wait(), []);
    os.send(one, address(AT), 1);
    assertEquals(wait(), [[EPOLLIN | EPOLLOUT, 77]]);
    assertEquals(wait(), [], "an edge comes once");
    os.shutdownWrite(one);
    assertEquals(wait(), [[EPOLLIN | EPOLLOUT | EPOLLRDHUP, 77]]);
    assertEquals(os.pollChange(poll, other, EPOLLIN, 78), 0);
    assertEquals(wait(), [[EPOLLIN, 78]]);
    assertEquals(wait(), [[EPOLLIN, 78]], "a level stays");
    assert(os.pollAdd(poll, other, EPOLLIN, 1) < 0, "once per descriptor");

    cold.close(poll);
  }));

Deno.test("nowMs() and unixOffsetMs() add up to the wall clock", () => {
  assert(Math.abs(os.nowMs() + os.unixOffsetMs() - Date.now()) < 50);
  const words = new Set(Array.from({ length: 20 }, () => os.random32()));
  assert(words.size > 15 && [...words].every((word) => Number.isInteger(word) && word >= 0 && word < 2 ** 32));
});
