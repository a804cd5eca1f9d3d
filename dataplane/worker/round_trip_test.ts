/** Two workers, one of the client's node and one of the server's: bytes from application to application through HBONE. */
import { assert, assertEquals } from "@std/assert";
import type { IpWords } from "../../base/address.ts";
import { setSocketFlag } from "../../os/libc_cold.ts";
import { AccessKind } from "../tables/access.ts";
import { Direction, POD, PodState, ResponseFlag, WORKER } from "../tables/layout.ts";
import { randomOf, serviceOf } from "../tables/testing.ts";
import { ListenerKind } from "./listener.ts";
import type { Pod } from "./pod.ts";
import { freshIp, host, Server, Socket } from "./loopback_testing.ts";
import { issue, Rig } from "./testing.ts";
import { Flow } from "./flow_testing.ts";

const CLIENT_URI = "spiffe://cluster.local/ns/default/sa/client",
  SERVER_URI = "spiffe://cluster.local/ns/default/sa/server";
const leaves = { client: await issue(CLIENT_URI), server: await issue(SERVER_URI) };

const SOL_SOCKET = 1, SO_SNDBUF = 7;

interface Pair {
  readonly rig: Rig;
  readonly client: Pod;
  readonly server: Pod;
  readonly serverIp: IpWords;
  /** Where the server's application listens. */
  readonly application: Server;
  /** A new connection from the client's application. */
  open(): Socket;
  /** Its other end at the server's application. */
  arrive(): Socket;
}

/** A client's node (worker 0) and a server's node (worker 1), ready to carry. */
function withPair(body: (pair: Pair) => void, options: { streamsPerSessionMax?: number; recordsPerKey?: number } = {}) {
  return Rig.with(2, (rig) => {
    const clientIp = freshIp(), serverIp = freshIp();
    rig.addWorkload("client", clientIp);
    rig.addWorkload("server", serverIp);
    const client = rig.addPod(0, clientIp, CLIENT_URI);
    const server = rig.addPod(1, serverIp, SERVER_URI, { [ListenerKind.HBONE]: new Server(serverIp, 15008).fd });
    rig.certify(0, client, leaves.client);
    rig.certify(1, server, leaves.server);
    rig.publish();
    const application = new Server(serverIp);
    rig.atEnd(() => application.close());
    const pair: Pair = {
      rig,
      client,
      server,
      serverIp,
      application,
      open: () => rig.capture(0, client, ListenerKind.OUTBOUND, { ip: serverIp, port: application.port }),
      arrive() {
        let arrived: Socket | undefined;
        rig.until("the application is connected to", () => (arrived = application.accept()) !== undefined);
        rig.atEnd(() => arrived!.close());
        return arrived!;
      },
    };
    body(pair);
  }, options);
}

const text = (value: string) => new TextEncoder().encode(value);

/** Reads until so many bytes have come. */
function readAll(rig: Rig, socket: Socket, bytes: number): string {
  let got = "";
  rig.until(`${bytes} bytes come`, () => {
    got += new TextDecoder().decode(socket.read());
    return got.length >= bytes;
  });
  return got;
}

Deno.test("a connection goes through HBONE and back, and each side may end first (ZT-065)", () =>
  withPair(({ rig, open, arrive }) => {
    for (const first of ["client", "server"]) {
      const client = open(), server = arrive();
      client.write(text("ping"));
      assertEquals(readAll(rig, server, 4), "ping");
      const sockets = [[0, Direction.OUTBOUND], [1, Direction.INBOUND]].map(([worker, direction]) =>
        rig.tables.workers.getF64At(worker!, WORKER.socketsOpen, direction!)
      );
      assertEquals(sockets, [1, 1], "one captured connection, one session for all tunnels (ZT-198)");
      const [one, other] = first === "client" ? [client, server] : [server, client];
      one.finish();
      rig.until("the end arrives", () => (other.read(), other.ended));
      other.write(text("still here"));
      assertEquals(readAll(rig, one, 10), "still here");
      other.finish();
      rig.until("the other end arrives", () => (one.read(), one.ended));
      rig.until("both connections are over", () => rig.shards.every((shard) => shard.connectionCount === 0));
      assertEquals([one.error, other.error], [0, 0]);
    }
    for (const worker of [0, 1]) {
      const records = rig.records(worker);
      assertEquals(records.map(({ kind, flag, error }) => [kind, flag, error]), [
        [AccessKind.COMPLETE, ResponseFlag.NONE, undefined],
        [AccessKind.COMPLETE, ResponseFlag.NONE, undefined],
      ]);
      assertEquals(records.map((it) => [it.direction, it.receivedBytes, it.sentBytes]), [
        [worker === 0 ? Direction.OUTBOUND : Direction.INBOUND, 4, 10],
        [worker === 0 ? Direction.OUTBOUND : Direction.INBOUND, 14, 0],
      ]);
    }
    assertEquals(rig.shards[0]!.pods.values().next().value!.pool.sessionCount, 1, "both went through one session");
  }));

Deno.test("an application's reset is the end of its direction; the other direction goes on (ZT-066)", () =>
  withPair(({ rig, open, arrive }) => {
    const client = open(), server = arrive();
    client.write(text("ping"));
    assertEquals(readAll(rig, server, 4), "ping");
    server.write(text("unread")); // So that the client's close is a reset for sure.
    client.abort();
    rig.until("the server sees an end, not a reset", () => (server.read(), server.ended));
    assertEquals(server.error, 0);
    server.write(text("into the void"));
    rig.until("the write that fails ends it", () => rig.shards.every((shard) => shard.connectionCount === 0));
    assertEquals(rig.records(0).map(({ flag, error }) => [flag, error]), [[ResponseFlag.NONE, undefined]]);
  }));

Deno.test("an application that nobody listens for closes the caller, with the flag CONNECT at both ends (ZT-013, ZT-060)", () =>
  withPair(({ rig, client, serverIp }) => {
    const closed = new Server(freshIp());
    closed.close();
    const caller = rig.capture(0, client, ListenerKind.OUTBOUND, { ip: serverIp, port: closed.port });
    rig.until("the caller is closed", () => (caller.read(), caller.ended || caller.error !== 0));
    assertEquals(rig.records(0).map(({ flag, error }) => [flag, error]), [[
      ResponseFlag.CONNECT,
      "http status: 503 Service Unavailable",
    ]]);
    const [record] = rig.records(1);
    assertEquals(record!.flag, ResponseFlag.CONNECT);
    assertEquals(record!.error, "connect to the application failed (errno 111)");
  }));

Deno.test("many megabytes go through interleaved tunnels, both ways, whole and in order, over many keys", () =>
  withPair(({ rig, open, arrive }) => {
    const random = randomOf(7), flows: Flow[] = [];
    for (let tunnel = 0; tunnel < 5; tunnel++) {
      const client = open(), server = arrive();
      flows.push(new Flow(client, server, 1_000_003 * tunnel, (tunnel === 0 ? 40 : 3) << 20, random));
      flows.push(new Flow(server, client, 77_777 * tunnel + 5, (tunnel === 1 ? 24 : 2) << 20, random));
    }
    const started = performance.now();
    while (!flows.every((flow) => flow.done)) {
      assert(performance.now() - started < 180_000, "it ends in time");
      for (const flow of flows) flow.step();
      rig.turn();
    }
    rig.until("all connections are over", () => rig.shards.every((shard) => shard.connectionCount === 0));
    for (const worker of [0, 1]) for (const { flag } of rig.records(worker)) assertEquals(flag, ResponseFlag.NONE);
  }, { recordsPerKey: 100 }));

Deno.test("more blocked sessions than stages: what waits is held elsewhere, whole and in order", () =>
  withPair(({ rig, client, open, arrive }) => {
    const random = randomOf(21), flows: Flow[] = [];
    // Even if no application reads, what all of them are sent fits half of a worker's memory, 13 MiB: past that streams are reset.
    for (let tunnel = 0; tunnel < 40; tunnel++) {
      const one = open(), other = arrive();
      flows.push(new Flow(one, other, 31 * tunnel + 1, 100_000 + random(150_000), random));
      flows.push(new Flow(other, one, 7_919 * tunnel + 3, 100_000 + random(150_000), random));
    }
    assertEquals(client.pool.sessionCount, 40);
    for (const os of rig.systems) for (const fd of os.owned) setSocketFlag(fd, SOL_SOCKET, SO_SNDBUF, 8_192);
    const started = performance.now();
    let mostTaken = 0;
    while (!flows.every((flow) => flow.done)) {
      assert(performance.now() - started < 180_000, "it ends in time");
      for (const flow of flows) flow.step();
      const shard = rig.shards[random(2)]!; // The other one stands still, and its peers' sockets fill up.
      for (let turn = random(20); turn >= 0; turn--) {
        shard.reactor.turn();
        shard.refresh();
      }
      for (const { buffers } of rig.shards) mostTaken = Math.max(mostTaken, buffers.stagesTaken);
    }
    assert(mostTaken > 2 && mostTaken < 40, `${mostTaken} stages were taken at once, by 40 sessions`);
    rig.until("all connections are over", () => rig.shards.every((shard) => shard.connectionCount === 0));
  }, { streamsPerSessionMax: 1 }));

Deno.test("an application that does not read costs bounded memory and stops nobody else (ZT-061, ZT-062)", () =>
  withPair(({ rig, open, arrive }) => {
    const slow = open(), slowEnd = arrive(), quick = open(), quickEnd = arrive();
    const chunk = new Uint8Array(1 << 20);
    let pushed = 0;
    for (let turn = 0, still = 0; still < 50; turn++) {
      const sent = slow.write(chunk);
      pushed += sent;
      still = sent === 0 ? still + 1 : 0;
      rig.turn();
      assert(pushed < 64 << 20, "a reader that stands still holds its sender up");
    }
    assert(pushed > 4 << 20, `the window was used: ${pushed}`);
    for (let round = 0; round < 5; round++) {
      quick.write(text("hello"));
      assertEquals(readAll(rig, quickEnd, 5), "hello");
    }
    rig.until("the slow one gets all in the end", () => {
      slowEnd.read();
      return slowEnd.receivedBytes === pushed;
    });
    slow.finish();
    quick.finish();
    rig.until("their ends arrive", () => (slowEnd.read(), quickEnd.read(), slowEnd.ended && quickEnd.ended));
    slowEnd.finish();
    quickEnd.finish();
    rig.until("all is over", () => rig.shards.every((shard) => shard.connectionCount === 0));
  }));

Deno.test("sequential connections share a session, concurrent ones beyond its limit get another (ZT-071)", () =>
  withPair(({ rig, client, open, arrive }) => {
    const ends: Socket[] = [];
    for (let tunnel = 0; tunnel < 7; tunnel++) {
      ends.push(open(), arrive());
    }
    assertEquals(client.pool.sessionCount, 3);
    for (const end of ends) end.finish();
    rig.until("all is over", () => rig.shards.every((shard) => shard.connectionCount === 0));
    open();
    arrive().finish();
    assertEquals(client.pool.sessionCount, 3, "a place that got free is taken again");
  }, { streamsPerSessionMax: 3 }));

Deno.test("sessions are shared by what asks for the same identities at the same address, of one pod, and by nothing else (ZT-070)", () =>
  withPair(({ rig, client, serverIp, application, arrive }) => {
    const vip = freshIp(), other = freshIp();
    const address = (ip: IpWords) => [{ network: "", ip, prefixLength: undefined }];
    const ports = [{ servicePort: 80, targetPort: application.port }];
    const services = new Map([["default/named", []], ["default/plain", []]]);
    rig.addWorkload("server", serverIp, { services });
    rig.mesh.putService(serviceOf("default", "plain", { addresses: address(other), ports }));
    rig.mesh.putService(
      serviceOf("default", "named", {
        addresses: address(vip),
        ports,
        subjectAltNames: ["spiffe://cluster.local/ns/default/sa/more"],
      }),
    );
    rig.addWorkload("second", freshIp());
    rig.publish();
    const second = rig.addPod(
      0,
      rig.mesh.workloads.get("cluster//Pod/default/second")!.resource.addresses[0]!,
      CLIENT_URI,
    );
    rig.publish();
    const through = (pod: Pod, ip: IpWords, port: number) => {
      rig.capture(0, pod, ListenerKind.OUTBOUND, { ip, port });
      arrive();
      return [client.pool.sessionCount, second.pool.sessionCount];
    };
    assertEquals(through(client, serverIp, application.port), [1, 0]);
    assertEquals(through(client, other, 80), [1, 0]); // The same workload by a service: the same key.
    assertEquals(through(client, vip, 80), [2, 0]); // This service accepts one identity more.
    assertEquals(through(client, vip, 80), [2, 0]);
    assertEquals(through(second, serverIp, application.port), [2, 1]); // Of equal identity, and yet another pod.
  }));

Deno.test("a pod that goes takes its connections and sessions with it, at once (ZT-075, ZT-169, ZT-228)", () =>
  withPair(({ rig, client, server, open, arrive }) => {
    const one = open(), oneEnd = arrive();
    rig.removePod(server);
    rig.until("both applications are closed", () => {
      one.read();
      oneEnd.read();
      return (one.ended || one.error !== 0) && (oneEnd.ended || oneEnd.error !== 0);
    });
    rig.until("the session is gone", () => client.pool.sessionCount === 0);
    assertEquals(rig.leftovers(1), "");
  }));

Deno.test("more sessions than stages: each that has nothing to send holds none", () =>
  Rig.with(2, async (rig) => {
    const clientIp = freshIp();
    rig.addWorkload("client", clientIp);
    const client = rig.addPod(0, clientIp, CLIENT_URI);
    rig.certify(0, client, leaves.client);
    const count = 60; // Above the 48 stages of a worker.
    const applications: Server[] = [];
    const leaf = await issue(SERVER_URI);
    const ip = freshIp();
    rig.addWorkload("server", ip);
    const pod = rig.addPod(1, ip, SERVER_URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.certify(1, pod, leaf);
    rig.publish();
    const application = new Server(ip);
    applications.push(application);
    rig.atEnd(() => application.close());
    const ends: [Socket, Socket][] = [];
    const chunk = new Uint8Array(16_384 - 9); // All that the first read asks for, so that a second one finds nothing.
    for (let session = 0; session < count; session++) {
      const caller = rig.capture(0, client, ListenerKind.OUTBOUND, { ip, port: application.port });
      let arrived: Socket | undefined;
      rig.until("it arrives", () => (arrived = application.accept()) !== undefined);
      rig.atEnd(() => arrived!.close());
      ends.push([caller, arrived!]);
      for (const [from, to] of [[caller, arrived!], [arrived!, caller]] as const) {
        const sent = from.write(chunk), before = to.receivedBytes;
        rig.until("the bytes arrive", () => (to.read(), to.receivedBytes - before === sent));
      }
    }
    assertEquals(client.pool.sessionCount, count);
    for (let turn = 0; turn < 3; turn++) rig.turn();
    assertEquals(rig.shards.map((shard) => shard.buffers.stagesTaken), [0, 0]);
  }, { streamsPerSessionMax: 1 }));

for (
  const uri of [
    "spiffe://cluster.local/ns/default/sa/impostor",
    "spiffe://other.example/ns/default/sa/server", // The trust domain is part of the name (ZT-086).
  ]
) {
  Deno.test(`the certificate says who is asked: ${uri} is not believed to be the server (ZT-085, ZT-086)`, async () => {
    await believes(await issue(uri), uri);
  });
}

async function believes(impostor: Awaited<ReturnType<typeof issue>>, uri: string): Promise<void> {
  await Rig.with(2, (rig) => {
    const clientIp = freshIp(), serverIp = freshIp();
    rig.addWorkload("client", clientIp);
    rig.addWorkload("server", serverIp);
    const client = rig.addPod(0, clientIp, CLIENT_URI);
    const server = rig.addPod(1, serverIp, SERVER_URI, { [ListenerKind.HBONE]: new Server(serverIp, 15008).fd });
    rig.certify(0, client, leaves.client);
    rig.certify(1, server, impostor);
    rig.publish();
    const caller = rig.capture(0, client, ListenerKind.OUTBOUND, { ip: serverIp, port: 80 });
    rig.until("the caller is closed", () => (caller.read(), caller.ended || caller.error !== 0));
    assertEquals(rig.records(0).map(({ error }) => error), [
      `identity verification error: peer did not present the expected SAN (${SERVER_URI}), got ${uri}`,
    ]);
    rig.until("the server's session is gone", () => server.sessions.size === 0);
  });
  assert(host.memory.base > 0);
}

Deno.test("a connection that comes over from another worker before word of its pod waits for it; of an unknown pod it is closed", () =>
  Rig.with(1, (rig) => {
    const ip = freshIp(), row = 0, epoch = 1, shard = rig.shards[0]!;
    rig.addWorkload("client", ip);
    rig.publish();
    for (const announced of [false, true]) {
      if (announced) { // The agent has written the row, and told the other worker first.
        rig.tables.pods.set(row, POD.epoch, epoch);
        rig.tables.pods.store(row, POD.state, PodState.ACTIVE);
      }
      const listener = new Server(freshIp());
      const application = Socket.connect(listener.ip, listener.port);
      rig.atEnd(() => application.close());
      const accepted = listener.accept()!;
      listener.close();
      rig.handOver(0, ListenerKind.OUTBOUND, { row, epoch }, accepted.fd);
      for (let turn = 0; turn < 3; turn++) rig.turn();
      application.read();
      assertEquals(application.ended, !announced);
    }
    const pod = rig.addPod(0, ip, CLIENT_URI);
    assertEquals(pod.parked.size + shard.connectionCount, 1, "it is taken up with its pod");
  }));
