/** Whatever one pod takes of what a worker has, the next one gets some, too. */
import { assert, assertEquals } from "@std/assert";
import { FairShare } from "./fair_share.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import type { Pod } from "./pod.ts";
import { Rig } from "./testing.ts";

Deno.test("FairShare leaves something to whoever comes after those that take all they can", () => {
  const share = new FairShare(1_000);
  const takeAll = (podRow: number) => {
    let taken = 0;
    for (; share.mayTake(podRow); taken++) share.take(podRow);
    return taken;
  };
  assertEquals([0, 1, 2, 3].map(takeAll), [750, 188, 47, 12]);
  assertEquals(share.taken, 997);
  share.give(0, 750);
  assertEquals([takeAll(3) > 500, share.mayTake(2)], [true, true]);
});

/** Two pods of one worker, and a listener that both reach in the clear. */
function withTwoPods(body: (rig: Rig, pods: readonly Pod[], target: Server) => void): Promise<void> {
  return Rig.with(1, (rig) => {
    const ips = [freshIp(), freshIp()];
    for (const [at, ip] of ips.entries()) rig.addWorkload(`client-${at}`, ip);
    rig.publish();
    const pods = ips.map((ip, at) => rig.addPod(0, ip, `spiffe://cluster.local/ns/default/sa/client-${at}`));
    rig.publish();
    const target = new Server(freshIp(), 0, 1_024);
    rig.atEnd(() => target.close());
    body(rig, pods, target);
  });
}

function openTo(rig: Rig, pod: Pod, { ip, port }: Server): Socket {
  return rig.capture(0, pod, ListenerKind.OUTBOUND, { ip, port });
}

Deno.test("a pod that opens connections without end keeps no other pod of its node from opening one", () =>
  withTwoPods((rig, [hoarder, other], target) => {
    const shard = rig.shards[0]!, rows = shard.connections.rowCount;
    for (let count = 0; count < rows; count++) openTo(rig, hoarder!, target);
    assertEquals(shard.connectionCount, rows * 3 / 4);
    const application = openTo(rig, other!, target);
    rig.until("all are connected", () => (rig.turn(), target.accept() === undefined));
    application.read();
    assertEquals([shard.connectionCount, application.ended, application.error], [rows * 3 / 4 + 1, false, 0]);
  }));

Deno.test("a pod that reads nothing of many connections is cut off before the worker's memory is gone", () =>
  withTwoPods((rig, [hoarder, other], target) => {
    const shard = rig.shards[0]!, { keptByRelays } = shard, page = new Uint8Array(262_144);
    // As if the pod had many more of them.
    keptByRelays.take(hoarder!.row, keptByRelays.limit * 3 / 4 - 1);
    const stuck = [openTo(rig, hoarder!, target), openTo(rig, hoarder!, target)];
    const servers: Socket[] = [];
    const fill = (count: number) =>
      rig.until("the servers are connected and have filled what there is", () => {
        const server = target.accept();
        if (server !== undefined) servers.push(server);
        return servers.length === count && servers.every((it) => it.write(page) < page.length || it.error !== 0);
      });
    fill(2);
    for (let turn = 0; turn < 50; turn++) {
      for (const server of servers) server.write(page);
      rig.turn();
    }
    assertEquals(shard.connectionCount, 1, "one keeps what is left, the other is cut off");
    const reader = openTo(rig, other!, target);
    fill(3);
    for (let turn = 0; turn < 50; turn++) {
      servers[2]!.write(page);
      rig.turn();
    }
    assertEquals(shard.connectionCount, 2, "another pod may be slow as ever");
    const before = reader.receivedBytes;
    rig.until("and gets its bytes", () => (reader.read(), reader.receivedBytes > before + 1_000_000));
    assert(rig.records(0).some(({ error }) => error === "no memory left for what is not read"));
    for (const socket of [...stuck, reader, ...servers]) socket.close();
    rig.until("all is over", () => shard.connectionCount === 0);
    keptByRelays.give(hoarder!.row, keptByRelays.limit * 3 / 4 - 1);
    assertEquals(keptByRelays.taken, 0);
  }));
