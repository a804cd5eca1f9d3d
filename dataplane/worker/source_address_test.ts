/** Which source address the sockets that we make for a pod have. */
import { assertEquals } from "@std/assert";
import { type IpWords } from "../../base/address.ts";
import { withInbound } from "./inbound_testing.ts";
import { connectFrame } from "./h2_peer_testing.ts";
import { ListenerKind } from "./listener.ts";
import type { Pod } from "./pod.ts";
import { freshIp, Server } from "./loopback_testing.ts";
import type { Rig } from "./testing.ts";

/** Source addresses that the worker binds from now on. */
function bound(rig: Rig): IpWords[] {
  const os = rig.systems[0]!, before = os.bindSource.bind(os), seen: IpWords[] = [];
  os.bindSource = (fd, word0, word1, word2, word3) => {
    seen.push([word0, word1, word2, word3]);
    return before(fd, word0, word1, word2, word3);
  };
  rig.atEnd(() => os.bindSource = before);
  return seen;
}

const LOOPBACK: IpWords = [0, 0, 0xffff, 0x7f000001];

function setTransparent(pod: Pod, transparent: boolean): void {
  (pod as { transparent: boolean }).transparent = transparent;
}

Deno.test("inbound keeps the client's address where listeners are transparent, and towards itself never (ZT-050, ZT-094)", () =>
  withInbound(({ rig, pod, ip, arrive, authority, peer: open }) => {
    const seen = bound(rig), target = new Server(freshIp()), self = new Server(LOOPBACK);
    for (const server of [target, self]) rig.atEnd(() => server.close());
    for (const transparent of [true, false]) {
      setTransparent(pod, transparent);
      rig.capture(0, pod, ListenerKind.PLAINTEXT, { ip: target.ip, port: target.port });
      assertEquals(seen.splice(0), transparent ? [LOOPBACK] : []);
      rig.capture(0, pod, ListenerKind.PLAINTEXT, { ip: LOOPBACK, port: self.port }); // From itself to itself.
      assertEquals(seen.splice(0), []);
      open().send(connectFrame(1, authority));
      arrive();
      assertEquals(seen.splice(0), transparent ? [LOOPBACK] : []);
    }
    assertEquals(ip.length, 4);
  }));

Deno.test("outbound binds no source address, for plain TCP and for sessions (ZT-048)", () =>
  withInbound(({ rig, pod }) => {
    const seen = bound(rig), target = new Server(freshIp()), upstream = new Server(freshIp(), 15008);
    for (const server of [target, upstream]) rig.atEnd(() => server.close());
    rig.addWorkload("upstream", upstream.ip);
    rig.publish();
    setTransparent(pod, true);
    rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: target.ip, port: target.port });
    rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: upstream.ip, port: 80 });
    for (const server of [target, upstream]) {
      rig.until("it is connected to", () => {
        const socket = server.accept();
        socket?.close();
        return socket !== undefined;
      });
    }
    assertEquals(seen, []);
  }));
