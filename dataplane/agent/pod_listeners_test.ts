import { assert, assertEquals } from "@std/assert";
import { KEEPALIVE_DEFAULT } from "../../os/keepalive.ts";
import * as libc from "../../os/libc_cold.ts";
import { createAnonymousNetns, type Netns } from "../../os/netns.ts";
import { socketFacts } from "../../os/socket_facts.ts";
import { closeFd } from "../../os/sockets.ts";
import { KeptSockets } from "./kept_sockets.ts";
import { type ListenerSettings, openListeners } from "./pod_listeners.ts";

const F_DUPFD_CLOEXEC = 1030;
const SETTINGS: ListenerSettings = {
  workers: { count: 2 },
  packetMark: 1337,
  ipv6: true,
  reusePort: true,
  keepalive: true,
  keepaliveTimes: KEEPALIVE_DEFAULT,
  congestionControl: "",
  proxy: true,
  socks: false,
  originalSource: undefined,
};
const privileged = Deno.uid() === 0;

/** Sockets that a ztunnel opened in a namespace, and that outlive it: descriptors of whoever kept them. */
function outlived(netns: Netns, settings: ListenerSettings = SETTINGS): number[] {
  const fds = openListeners(settings, netns).flat().map(({ fd }) => fd);
  const kept = fds.map((fd) => libc.fcntl(fd, F_DUPFD_CLOEXEC, 0));
  fds.forEach(closeFd);
  return kept;
}

const duplicate = (fds: readonly number[]) => fds.map((fd) => libc.fcntl(fd, F_DUPFD_CLOEXEC, 0));
const portsOf = (fds: readonly number[]) => fds.map((fd) => socketFacts(fd)?.port);
/** Whether whoever keeps it still has a socket that listens. */
const listens = (fd: number) => socketFacts(fd) !== undefined;

function test(name: string, fn: (netns: Netns) => void): void {
  Deno.test({
    name,
    ignore: !privileged,
    fn() {
      using netns = createAnonymousNetns();
      fn(netns);
    },
  });
}

test("openListeners() takes back the sockets that outlived a ztunnel: nobody in their queues is lost", (netns) => {
  const held = outlived(netns), back = duplicate(held);
  using kept = new KeptSockets(back, { shared: false });
  const listeners = openListeners(SETTINGS, netns, { kept });
  assertEquals(listeners.map((own) => portsOf(own.map(({ fd }) => fd))), [[15001, 15008, 15006], [
    15001,
    15008,
    15006,
  ]]);
  assertEquals(listeners.flat().map(({ fd }) => fd).sort(), back.toSorted(), "the same, and none beside them");
  kept[Symbol.dispose]();
  assert(held.every(listens));
  [...held, ...listeners.flat().map(({ fd }) => fd)].forEach(closeFd);
});

test("openListeners() for more workers leaves some without, for fewer ends what would be left unserved", (netns) => {
  const held = outlived(netns), none = [-1, -1, -1];
  {
    using kept = new KeptSockets(duplicate(held), { shared: false });
    const more = openListeners({ ...SETTINGS, workers: { count: 3 } }, netns, { kept });
    assertEquals(more[2]!.map(({ fd }) => fd), none, "it gets connections from the others");
    more.flat().forEach(({ fd }) => fd >= 0 && closeFd(fd));
  }
  using kept = new KeptSockets(duplicate(held), { shared: false });
  const fewer = openListeners({ ...SETTINGS, workers: { count: 1 } }, netns, { kept });
  kept[Symbol.dispose]();
  assertEquals(held.filter(listens).length, 3, "one of each kind");
  [...held, ...fewer.flat().map(({ fd }) => fd)].forEach(closeFd);
});

test("openListeners() takes nothing that it would not open itself", (netns) => {
  using elsewhere = createAnonymousNetns();
  const foreign = outlived(elsewhere), unmarked = outlived(netns, { ...SETTINGS, packetMark: 0 });
  {
    using kept = new KeptSockets(duplicate([...foreign, ...unmarked]), { shared: false });
    const listeners = openListeners(SETTINGS, netns, { kept }), fds = listeners.flat().map(({ fd }) => fd);
    assertEquals(fds.map((fd) => socketFacts(fd)?.mark), fds.map(() => 1337));
    fds.forEach(closeFd);
  }
  assertEquals(unmarked.some(listens), false, "of this pod: nobody waits there for ever");
  [...foreign, ...unmarked].forEach(closeFd);
});

Deno.test("socketFacts() knows what is no socket that takes newcomers", () => {
  const file = Deno.makeTempFileSync(), fd = libc.open(file, libc.O.RDONLY);
  assertEquals(socketFacts(fd), undefined);
  libc.close(fd);
  Deno.removeSync(file);
  const unbound = libc.socket(libc.AF.INET, libc.SOCK.STREAM, 0);
  assertEquals(socketFacts(unbound), undefined);
  libc.close(unbound);
});
