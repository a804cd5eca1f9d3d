import { assertEquals } from "@std/assert";
import { Arena } from "../../os/arena.ts";
import { LinuxOs } from "../../os/libc.ts";
import { closeFd, createEventFd, signalEventFd } from "../../os/sockets.ts";
import { POLL_IN, Reactor } from "./reactor.ts";

const READY = 10, SERVED_MAX = 4;

Deno.test("what few of many ready descriptors write leaves before the others are served, and all are served in turn", () => {
  const os = new LinuxOs(new Arena(1 << 20, { hugePages: false })), reactor = new Reactor(os);
  const fds = Array.from({ length: READY }, () => createEventFd());
  const served = new Set<number>(), before: number[] = [];
  const session = { onFlush: () => void before.push(served.size) };
  for (const fd of fds) {
    signalEventFd(fd); // Nobody reads it: it is ready in every turn.
    reactor.watch(fd, POLL_IN, {
      onEvents() {
        served.add(fd);
        reactor.flushLater(session);
      },
    });
  }
  let wentOn = false;
  reactor.resumeLater({ onResume: () => void (wentOn = true) });
  reactor.turn();
  assertEquals(before[0], SERVED_MAX);
  assertEquals(wentOn, true, "a turn ends, although there is always somebody ready");
  assertEquals(served.size, READY);
  for (const fd of fds) closeFd(fd);
});
