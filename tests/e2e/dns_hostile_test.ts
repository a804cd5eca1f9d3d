/** Pods and nameservers that send what they should not, too much of it, or too slowly: DNS goes on for everyone else. */
import { assertEquals } from "@std/assert";
import { parseIp } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { TCP_CONNECTIONS_MAX } from "../../dataplane/agent/dns/tcp_listener.ts";
import { a, nameserver, queryBytes, recordsOf, type Zone } from "../../dataplane/agent/dns/testing.ts";
import { withLength } from "../../wire/dns/message_writer.ts";
import { bindInet, receiveFrom, sendTo } from "../../os/inet.ts";
import * as libc from "../../os/libc_cold.ts";
import { withinNetns } from "../../os/netns.ts";
import { READABLE } from "../../os/poller.ts";
import { Bench, POD, UPSTREAM } from "./dns_bench.ts";
import { RawSocket } from "./raw_socket.ts";

const NOTHING: Zone = new Map();
const WEB = queryBytes("web", "A"), WEB_ANSWER = ["web A 10.96.0.10"];
const DNS_PORT = 15053, WAIT_MS = 60_000;

function send(socket: RawSocket, bytes: Uint8Array<ArrayBuffer>): void {
  assertEquals(libc.send(socket.fd, bytes), bytes.length);
}

/** What arrives next, without blocking this thread, which the proxy needs; empty at the end of a stream or when it is reset. */
async function receive(socket: RawSocket): Promise<Uint8Array> {
  assert(await libc.waitFor(socket.fd, libc.POLL.IN, WAIT_MS), "something arrives");
  const target = new Uint8Array(65_536);
  return target.slice(0, Math.max(0, libc.receive(socket.fd, target, libc.MSG.DONTWAIT)));
}

async function until(claim: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  while (!condition()) {
    assert(performance.now() < deadline, claim);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

const connect = (bench: Bench) => RawSocket.connect(bench.pod, UPSTREAM.ipv4, 53);

Deno.test("noise by UDP is refused or dropped, and the next query answered", async () => {
  await using bench = new Bench(NOTHING);
  using socket = RawSocket.connect(bench.pod, UPSTREAM.ipv4, 53, { transport: "udp" });
  let state = 1;
  for (let round = 0; round < 2_000; round++) {
    const noise = Uint8Array.from({ length: (state % 700) + 1 }, () => (state = (state * 48271) % 2147483647) & 255);
    libc.send(socket.fd, noise);
    if (round % 100 === 0) await new Promise((resolve) => setTimeout(resolve, 0)); // The proxy's turn.
  }
  assertEquals(recordsOf(await bench.ask(WEB)), WEB_ANSWER);
});

Deno.test("a datagram that claims to come from a DNS proxy is not answered: two could answer each other for ever", async () => {
  await using bench = new Bench(NOTHING);
  using reflected = RawSocket.listen(bench.pod, POD.ipv4, DNS_PORT, { transport: "udp" });
  reflected.connectTo(`127.0.0.1 ${DNS_PORT}`);
  send(reflected, WEB);
  assertEquals(recordsOf(await bench.ask(WEB)), WEB_ANSWER);
  assertEquals(libc.receive(reflected.fd, new Uint8Array(512), libc.MSG.DONTWAIT), -libc.Errno.EAGAIN);
});

Deno.test("queries on one TCP connection are all answered, also after the client has said that it sends no more", async () => {
  await using bench = new Bench(NOTHING);
  using socket = connect(bench);
  const one = withLength(WEB), COUNT = 40;
  const all = new Uint8Array(one.length * COUNT);
  for (let at = 0; at < COUNT; at++) all.set(one, at * one.length);
  for (const part of [all.subarray(0, 1), all.subarray(1, 77), all.subarray(77)]) send(socket, new Uint8Array(part));
  const library = Deno.dlopen("libc.so.6", { shutdown: { parameters: ["i32", "i32"], result: "i32" } });
  const SHUT_WR = 1, result = library.symbols.shutdown(socket.fd, SHUT_WR);
  library.close();
  assertEquals(result, 0);
  let bytes = new Uint8Array(0);
  for (let part = await receive(socket); part.length > 0; part = await receive(socket)) {
    bytes = Uint8Array.from([...bytes, ...part]);
  }
  const length = (bytes[0]! << 8) | bytes[1]!;
  assertEquals(bytes.length, COUNT * (length + 2));
  assertEquals(recordsOf(bytes.subarray(2, 2 + length)), WEB_ANSWER);
  await until("the proxy has closed it too", () => bench.proxy.connectionCount === 0);
});

Deno.test("a TCP connection with an impossible length is closed at once, one that completes nothing after five seconds (ZT-176)", async () => {
  await using bench = new Bench(NOTHING);
  for (const length of [0, 4_097, 65_535]) {
    using socket = connect(bench);
    send(socket, Uint8Array.of(length >> 8, length & 255, 1, 2, 3));
    assertEquals((await receive(socket)).length, 0, `length ${length}`);
  }
  using slow = connect(bench);
  const startedAtMs = performance.now();
  send(slow, withLength(WEB).slice(0, 5));
  await until("the proxy has it", () => bench.proxy.connectionCount === 1);
  assertEquals((await receive(slow)).length, 0);
  const seconds = (performance.now() - startedAtMs) / 1_000;
  assert(seconds > 4.9, `closed after ${seconds} s`);
});

Deno.test("connections beyond the limit are closed, those within it and UDP go on", async () => {
  await using bench = new Bench(NOTHING);
  using sockets = new DisposableStack();
  const opened: RawSocket[] = [];
  while (opened.length < TCP_CONNECTIONS_MAX) {
    opened.push(sockets.use(connect(bench)));
    await until("it is accepted", () => bench.proxy.connectionCount === opened.length);
  }
  using extra = connect(bench);
  assertEquals((await receive(extra)).length, 0);
  assertEquals(bench.proxy.connectionCount, TCP_CONNECTIONS_MAX);
  send(opened[0]!, withLength(WEB));
  assertEquals(recordsOf((await receive(opened[0]!)).subarray(2)), WEB_ANSWER);
  assertEquals(recordsOf(await bench.ask(WEB)), WEB_ANSWER);
  sockets.dispose();
  await until("all are closed", () => bench.proxy.connectionCount === 0);
});

Deno.test("a client that takes no answers is not read for ever: what waits for it is bounded", async () => {
  const large = Array.from({ length: 1_000 }, (_, at) => a("large.example", `198.18.${at >> 8}.${at & 255}`));
  await using bench = new Bench(new Map([["large.example a", large]]));
  using socket = connect(bench);
  const query = withLength(queryBytes("large.example", "A"));
  let sent = 0;
  for (let stuck = 0; stuck < 50; stuck++) {
    while (libc.send(socket.fd, query, libc.MSG.DONTWAIT) > 0) {
      assert(++sent < 2_000_000, "at some time no more is taken");
      stuck = 0;
    }
    await new Promise((resolve) => setTimeout(resolve, 5)); // Whoever is not read can send no more, however long it waits.
  }
  assertEquals(recordsOf(await bench.ask(WEB)), WEB_ANSWER);
  assertEquals([sent > 0, bench.proxy.connectionCount], [true, 1], "held back, not cut");
});

Deno.test("false responses from the nameserver's own address are passed over until the true one comes (ZT-186)", async () => {
  await using bench = new Bench(undefined);
  const fd = withinNetns(
    bench.upstream,
    () => bindInet(parseIp(UPSTREAM.ipv4)!, 53, { transport: "udp", mark: 0, reusePort: false }),
  );
  const asked: number[] = [];
  const honest = nameserver(new Map([["www.example a", [a("www.example", "192.0.2.1")]]]));
  const watched = bench.poller.watch(fd, READABLE, () => {
    const target = new Uint8Array(4_096), { count, source, sourcePort } = receiveFrom(fd, target);
    if (count <= 0) return;
    asked.push(sourcePort);
    const answer = honest(target.slice(0, count), false) as Uint8Array<ArrayBuffer>;
    const spoiled = (at: number) => Uint8Array.from(answer, (byte, index) => index === at ? byte ^ 1 : byte);
    for (const bytes of [spoiled(0), spoiled(1), spoiled(13), answer.slice(0, 20), new Uint8Array(3)]) {
      sendTo(fd, bytes, source);
    }
    sendTo(fd, answer, source);
  });
  try {
    assertEquals(recordsOf(await bench.ask(queryBytes("www.example", "A"))), ["www.example A 192.0.2.1"]);
    for (let at = 0; at < 7; at++) await bench.ask(queryBytes(`n${at}.example`, "A"));
    // Eight at least: on a busy machine one may be asked again. Ports are chosen by chance, two may be equal.
    assertEquals([asked.length >= 8, new Set(asked).size > 6], [true, true], "each from a port of its own");
  } finally {
    watched.end();
    libc.close(fd);
  }
});

Deno.test("without a nameserver that answers a query ends in SERVFAIL, at once where it is refused (ZT-186)", async () => {
  await using bench = new Bench(undefined);
  const bytes = await bench.ask(queryBytes("www.example", "A"));
  assertEquals(bytes[3]! & 15, 2);
});

Deno.test("a pod that leaves takes its sockets and its waiting queries along", async () => {
  await using bench = new Bench(undefined);
  using socket = RawSocket.connect(bench.pod, UPSTREAM.ipv4, 53, { transport: "udp" });
  bench.mesh.known = false;
  send(socket, WEB);
  await bench.turn();
  bench.proxy.deletePod("pod");
  libc.send(socket.fd, WEB);
  assert(await libc.waitFor(socket.fd, libc.POLL.IN, WAIT_MS), "the kernel says that nobody listens");
  assertEquals(libc.receive(socket.fd, new Uint8Array(512)), -libc.Errno.ECONNREFUSED);
});
