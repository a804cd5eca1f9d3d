import { assertEquals, assertRejects } from "@std/assert";
import { parseIp } from "../base/address.ts";
import { bindInet, connectInet, connectOutcome, receiveFrom, sendTo, socketAddress } from "./inet.ts";
import * as libc from "./libc_cold.ts";
import { Poller, READABLE, type Watched, WRITABLE } from "./poller.ts";
import { closeFd, createEventFd, signalEventFd } from "./sockets.ts";

const LOOPBACK = parseIp("127.0.0.1")!;
const drain = (fd: number) => libc.read(fd, new Uint8Array(8));

function portOf(fd: number): number {
  const target = new Uint8Array(28);
  libc.socketName(fd, target, false);
  return (target[2]! << 8) | target[3]!;
}

Deno.test("Poller calls back for what is ready, as long as it is, and no more once a watch has ended", async () => {
  await using poller = new Poller();
  const fd = createEventFd(), twice = Promise.withResolvers<void>();
  let calls = 0;
  const watched = poller.watch(fd, READABLE, (events) => {
    assertEquals(events, READABLE);
    if (++calls === 2) twice.resolve(); // It was not read the first time: it is ready still.
  });
  signalEventFd(fd);
  await twice.promise;
  watched.end();
  watched.end();
  const other = createEventFd(), seen = Promise.withResolvers<void>();
  const last = poller.watch(other, READABLE, () => seen.resolve());
  signalEventFd(other);
  await seen.promise;
  assertEquals(calls, 2);
  last.end();
  closeFd(fd);
  closeFd(other);
});

Deno.test("Poller asks again for what is wanted, and for nothing when nothing is", async () => {
  await using poller = new Poller();
  const quiet = createEventFd(), awake = createEventFd();
  let calls = 0;
  const first = poller.watch(quiet, READABLE, () => {
    calls++;
    drain(quiet);
    done.resolve();
  });
  const done = Promise.withResolvers<void>(), turn = Promise.withResolvers<void>();
  first.want(0);
  signalEventFd(quiet);
  const second = poller.watch(awake, READABLE, () => {
    drain(awake);
    turn.resolve();
  });
  signalEventFd(awake);
  await turn.promise;
  assertEquals(calls, 0);
  first.want(READABLE);
  await done.promise;
  assertEquals(calls, 1);
  first.end();
  second.end();
  closeFd(quiet);
  closeFd(awake);
});

Deno.test("Poller forgets a watch that another callback of the same turn ended", async () => {
  await using poller = new Poller();
  const fds = [createEventFd(), createEventFd()], done = Promise.withResolvers<void>();
  const watches: Watched[] = [];
  let calls = 0;
  for (const fd of fds) {
    signalEventFd(fd);
    watches.push(poller.watch(fd, READABLE, () => {
      calls++;
      for (const watched of watches) watched.end();
      done.resolve();
    }));
  }
  await done.promise;
  for (const fd of fds) closeFd(fd);
  assertEquals(calls, 1);
});

Deno.test("Poller tells of a callback that throws, and lets go of its descriptors all the same", async () => {
  const poller = new Poller(), fd = createEventFd();
  poller.watch(fd, READABLE, () => {
    throw new RangeError("ours");
  });
  signalEventFd(fd);
  await assertRejects(() => poller.done, RangeError, "ours");
  await assertRejects(() => poller[Symbol.asyncDispose](), RangeError);
  closeFd(fd);
});

Deno.test("datagrams go to and fro with their addresses, and show when they were cut", async () => {
  await using poller = new Poller();
  const server = bindInet(LOOPBACK, 0, { transport: "udp", mark: 0, reusePort: false });
  const client = connectInet(LOOPBACK, portOf(server), { transport: "udp", mark: 0 });
  assertEquals([server >= 0, client >= 0, receiveFrom(server, new Uint8Array(4)).count], [
    true,
    true,
    -libc.Errno.EAGAIN,
  ]);
  const arrived = Promise.withResolvers<void>();
  const watched = poller.watch(server, READABLE, () => arrived.resolve());
  libc.send(client, Uint8Array.of(1, 2, 3, 4, 5, 6));
  await arrived.promise;
  const target = new Uint8Array(4), { count, source, sourcePort } = receiveFrom(server, target);
  assertEquals([count, target, sourcePort], [6, Uint8Array.of(1, 2, 3, 4), portOf(client)]);
  assertEquals(source, socketAddress(LOOPBACK, portOf(client)));
  assertEquals(sendTo(server, Uint8Array.of(7), source), 1);
  assertEquals(libc.receive(client, target), 1);
  watched.end();
  closeFd(server);
  closeFd(client);
});

Deno.test("a connect that is refused says so once it is over", async () => {
  await using poller = new Poller();
  const listener = bindInet(LOOPBACK, 0, { transport: "tcp", mark: 0, reusePort: false }), port = portOf(listener);
  for (const expected of [0, -libc.Errno.ECONNREFUSED]) {
    const fd = connectInet(LOOPBACK, port, { transport: "tcp", mark: 0 });
    if (fd < 0) assertEquals(fd, expected); // Loopback may answer at once.
    else {
      const over = Promise.withResolvers<void>(), watched = poller.watch(fd, WRITABLE, () => over.resolve());
      await over.promise;
      assertEquals(connectOutcome(fd), expected);
      watched.end();
      closeFd(fd);
    }
    if (expected === 0) closeFd(listener);
  }
  assertEquals(
    bindInet(parseIp("192.0.2.1")!, 0, { transport: "udp", mark: 0, reusePort: false }),
    -99,
    "EADDRNOTAVAIL",
  );
});
