import { assertEquals } from "@std/assert";
import { WORKER } from "../tables/layout.ts";
import { Handshakes } from "./handshakes.ts";
import { withInbound } from "./inbound_testing.ts";
import { Socket } from "./loopback_testing.ts";

Deno.test("Handshakes keeps so many, and the oldest gives way to whoever comes", () => {
  const handshakes = new Handshakes(), gone: number[] = [];
  const sessions = Array.from({ length: 2_050 }, (_, at) => {
    const session = {
      giveWay() {
        gone.push(at);
        handshakes.end(session);
      },
    };
    return session;
  });
  for (const session of sessions.slice(0, 2_048)) handshakes.begin(session);
  assertEquals([handshakes.count, gone], [2_048, []]);
  handshakes.end(sessions[0]!); // It is through.
  handshakes.begin(sessions[2_048]!);
  assertEquals([handshakes.count, gone], [2_048, []]);
  handshakes.begin(sessions[2_049]!);
  assertEquals([handshakes.count, gone], [2_048, [1]]);
});

Deno.test("of the sessions that a worker may have one pod takes three quarters; the next is refused and counted", () =>
  withInbound(({ rig, pod, ip, peer }) => {
    peer().expect(4, 0); // A session that is open counts.
    const shard = rig.shards[0]!, most = shard.connections.rowCount * 3 / 4, silent: Socket[] = [];
    rig.atEnd(() => silent.forEach((socket) => socket.close()));
    const glitches = () => rig.tables.workers.getF64(0, WORKER.glitches), before = glitches();
    while (pod.sessions.size < most) {
      const count = pod.sessions.size;
      silent.push(Socket.connect(ip, 15008));
      rig.until("it is taken", () => pod.sessions.size > count);
    }
    assertEquals([glitches(), shard.handshakes.count], [before, most - 1]);
    const late = Socket.connect(ip, 15008);
    rig.atEnd(() => late.close());
    rig.until("one more is refused", () => (late.read(), late.ended || late.error !== 0));
    assertEquals([glitches(), pod.sessions.size], [before + 1, most]);
    rig.pass(11_000);
    assertEquals([pod.sessions.size, shard.handshakes.count], [1, 0]); // Who says nothing for ten seconds goes.
    peer().expect(4, 0);
  }));
