/** A worker hands everything to another, as a process does to its successor: no byte is lost, doubled or sealed twice. */
import { assert, assertEquals } from "@std/assert";
import type { IpWords } from "../../../base/address.ts";
import { AccessKind } from "../../tables/access.ts";
import { ResponseFlag } from "../../tables/layout.ts";
import { randomOf } from "../../tables/testing.ts";
import { Flow } from "../flow_testing.ts";
import { ListenerKind } from "../listener.ts";
import type { Pod } from "../pod.ts";
import { freshIp, placeOf, Server, type Socket } from "../loopback_testing.ts";
import { authority, issue, Rig } from "../testing.ts";
import { Adoption } from "./read_state.ts";
import { Handover } from "./write_state.ts";

const CLIENT_URI = "spiffe://cluster.local/ns/default/sa/client",
  SERVER_URI = "spiffe://cluster.local/ns/default/sa/server";
placeOf(3); // Four workers' memory, made before any test: OpenSSL's callbacks stay.
const leaves = { client: await issue(CLIENT_URI), server: await issue(SERVER_URI) };

interface Scene {
  readonly rig: Rig;
  readonly serverIp: IpWords;
  readonly application: Server;
  /** A new connection from the client's application, at whichever worker serves its pod now. */
  open(): Socket;
  /** Its other end. */
  arrive(): Socket;
  /** The client's node (0) or the server's (1) is taken over by the other worker of that node. */
  swap(node: 0 | 1, outcome?: "taken" | "refused"): ReturnType<Rig["takeOver"]>;
  /** Who serves a node now. */
  workerOf(node: 0 | 1): number;
  podOf(node: 0 | 1): Pod;
}

/** A client's node (workers 0 and 2 in turn) and a server's node (1 and 3). */
function withNodes(
  body: (scene: Scene) => void | Promise<void>,
  options: ConstructorParameters<typeof Rig>[1] = {},
): Promise<void> {
  return Rig.with(4, (rig) => {
    const clientIp = freshIp(), serverIp = freshIp();
    rig.addWorkload("client", clientIp);
    rig.addWorkload("server", serverIp);
    const hbone = { [ListenerKind.HBONE]: new Server(serverIp, 15008).fd };
    const pods = [
      rig.addPod(0, clientIp, CLIENT_URI),
      rig.addPod(1, serverIp, SERVER_URI, hbone),
      rig.addPod(2, clientIp, CLIENT_URI),
      rig.addPod(3, serverIp, SERVER_URI),
    ];
    for (const [worker, pod] of pods.entries()) {
      rig.certify(worker, pod, worker % 2 === 0 ? leaves.client : leaves.server);
    }
    rig.publish();
    const application = new Server(serverIp);
    rig.atEnd(() => application.close());
    const current = [0, 1];
    return body({
      rig,
      serverIp,
      application,
      open: () =>
        rig.capture(current[0]!, pods[current[0]!]!, ListenerKind.OUTBOUND, { ip: serverIp, port: application.port }),
      arrive() {
        let arrived: Socket | undefined;
        rig.until("the application is connected to", () => (arrived = application.accept()) !== undefined);
        rig.atEnd(() => arrived!.close());
        return arrived!;
      },
      swap(node, outcome = "taken") {
        const from = current[node]!, to = (from + 2) % 4;
        if (outcome === "taken") current[node] = to;
        return rig.takeOver(from, to, new Map([[pods[from]!.row, pods[to]!]]), outcome);
      },
      workerOf: (node) => current[node]!,
      podOf: (node) => pods[current[node]!]!,
    });
  }, options);
}

const text = (value: string) => new TextEncoder().encode(value);

function expectText(rig: Rig, socket: Socket, expected: string): void {
  let got = "";
  rig.until(`${expected} comes`, () => (got += new TextDecoder().decode(socket.read())).length >= expected.length);
  assertEquals(got, expected);
}

function expectAllOver(rig: Rig): void {
  rig.until("all connections are over", () => rig.shards.every((shard) => shard.connectionCount === 0));
}

/** What every connection ended with, at all workers. */
const endings = (rig: Rig) =>
  rig.shards.flatMap((_, worker) => rig.records(worker)).map(({ kind, flag, error }) => [kind, flag, error]);
const GOOD = [AccessKind.COMPLETE, ResponseFlag.NONE, undefined];

for (const seed of [1, 2, 3]) {
  Deno.test(`twenty and more takeovers under load, others refused: every byte arrives, over many keys (seed ${seed})`, () =>
    withNodes(({ rig, open, arrive, swap }) => {
      const random = randomOf(seed), flows: Flow[] = [];
      for (let tunnel = 0; tunnel < 6; tunnel++) {
        const client = open(), server = arrive();
        flows.push(new Flow(client, server, 1_000_003 * tunnel, (tunnel === 0 ? 30 : 3) << 20, random));
        flows.push(new Flow(server, client, 77_777 * tunnel + 5, (tunnel === 1 ? 20 : 2) << 20, random));
      }
      const started = performance.now();
      let taken = 0, carried = 0;
      while (!flows.every((flow) => flow.done)) {
        assert(performance.now() - started < 180_000, "it ends in time");
        for (const flow of flows) flow.step();
        rig.turn();
        if (random(2) !== 0) continue;
        const outcome = random(4) === 0 ? "refused" : "taken",
          { connections, left } = swap(random(2) as 0 | 1, outcome);
        assertEquals(left, 0);
        if (outcome === "taken") taken++;
        carried += connections;
      }
      assert(taken >= 20 && carried >= 60, `${taken} takeovers of ${carried} connections`);
      expectAllOver(rig);
      assertEquals(endings(rig), new Array(12).fill(GOOD));
    }, { recordsPerKey: 50 }));
}

Deno.test("what an application does not read, half-closed, is handed over and read by it later", () =>
  withNodes(({ rig, open, arrive, swap }) => {
    const random = randomOf(9), client = open(), server = arrive();
    const out = new Flow(client, server, 7, 3 << 20, random);
    for (let turns = 0; turns < 400; turns++) {
      out.send();
      rig.turn();
    }
    for (const node of [1, 0, 1, 0] as const) swap(node);
    server.write(text("later"));
    expectText(rig, client, "later");
    rig.until("all of it is read", () => (out.step(), out.done));
    server.finish();
    rig.until("the end arrives", () => (client.read(), client.ended));
    expectAllOver(rig);
    assertEquals(endings(rig), [GOOD, GOOD]);
  }));

Deno.test("newcomers wait in the kernel's queue and are the successor's; its counters and records go on", () =>
  withNodes(({ rig, open, arrive, swap, workerOf }) => {
    const client = open(), server = arrive();
    client.write(text("one"));
    expectText(rig, server, "one");
    assertEquals(swap(0), { sessions: 1, connections: 1, left: 0, settling: 0 });
    const second = open(); // On the session that was handed over, or on a new one: either is right.
    const listening = swap(1);
    assertEquals(listening.left, 0);
    second.write(text("two"));
    const other = arrive();
    expectText(rig, other, "two");
    client.write(text("three"));
    expectText(rig, server, "three");
    for (const socket of [client, second]) socket.finish();
    for (const socket of [server, other]) socket.finish();
    expectAllOver(rig);
    const records = rig.records(workerOf(0));
    assertEquals(records.map((it) => it.receivedBytes).sort(), [3, 8], "bytes before the takeover count (ZT-203)");
    assertEquals(records.map((it) => it.kind), [AccessKind.COMPLETE, AccessKind.COMPLETE]);
    assertEquals([rig.records(0), rig.records(1)], [[], []], "who handed over records nothing");
  }));

Deno.test("a connection that waits for its session is dialled anew by the successor", () =>
  withNodes(({ rig, open, arrive, swap }) => {
    const client = open(); // Its session has not even connected.
    assertEquals(swap(0), { sessions: 0, connections: 1, left: 0, settling: 0 });
    client.write(text("hello"));
    const server = arrive();
    expectText(rig, server, "hello");
    client.finish();
    server.finish();
    expectAllOver(rig);
  }));

for (const node of [0, 1] as const) {
  Deno.test(`a session that was taken over is cut when a list names its peer (${node === 0 ? "client" : "server"})`, () =>
    withNodes(async ({ rig, open, arrive, swap, workerOf }) => {
      const client = open(), server = arrive();
      client.write(text("ping"));
      expectText(rig, server, "ping");
      for (let round = 0; round < 3; round++) swap(node);
      await rig.revoke(workerOf(node), await authority.revoke([]));
      server.write(text("pong"));
      expectText(rig, client, "pong");
      const peer = node === 0 ? leaves.server : leaves.client;
      await rig.revoke(workerOf(node), await authority.revoke([peer.serial!]));
      rig.until("both are cut", () => [client, server].every((it) => (it.read(), it.ended || it.error !== 0)));
      const ends = rig.records(workerOf(node)).filter(({ kind }) => kind === AccessKind.COMPLETE);
      assertEquals(ends.map(({ flag }) => flag), [ResponseFlag.CERT_REVOKED]);
      for (const socket of [client, server]) socket.close();
      expectAllOver(rig);
    }));
}

Deno.test("a state that was changed on its way is refused or carried, and never a mistake of ours", () =>
  withNodes(({ rig, open, arrive, workerOf, podOf }) => {
    const client = open(), server = arrive(), random = randomOf(5);
    client.write(text("ping"));
    expectText(rig, server, "ping");
    for (const node of [0, 1] as const) {
      const from = workerOf(node), to = from + 2, target = rig.shards[to]!, systems = rig.systems;
      const handover = new Handover(rig.shards[from]!), bytes = handover.encode();
      const pods = new Map([[podOf(node).row, target.pods.values().next().value!]]);
      const read = (changed: Uint8Array, count = handover.handles.length, known = pods) => {
        const handles = Array.from(
          { length: count },
          (_, at) => systems[to]!.duplicate(handover.handles[at] ?? handover.handles[0]!, systems[from]!),
        );
        const outcome = Adoption.read(target, changed, handles, known);
        if (typeof outcome !== "string") outcome.discard();
        return outcome;
      };
      for (let cut = 0; cut < bytes.length; cut++) assertEquals(read(bytes.subarray(0, cut)), "the state is malformed");
      assertEquals(read(bytes, handover.handles.length - 1), "a descriptor belongs to one connection");
      assertEquals(read(bytes, handover.handles.length + 1), "every descriptor belongs to something");
      assertEquals(read(bytes, handover.handles.length, new Map()), "every connection is of a known pod");
      assert(typeof read(bytes) !== "string", "as it is, it is taken");
      for (let round = 0; round < 3_000; round++) {
        const changed = bytes.slice();
        for (let left = 1 + random(3); left > 0; left--) changed[random(bytes.length)] = random(256);
        read(changed);
      }
    }
    for (const socket of [client, server]) socket.finish();
    expectAllOver(rig);
  }));

for (const node of [0, 1] as const) {
  const side = node === 0 ? "we dialled" : "dialled us";
  Deno.test(`a session whose peer no list can name serves its streams, and no new ones: the next is judged (who ${side})`, () =>
    withNodes(({ rig, open, arrive, swap, podOf }) => {
      const client = open(), server = arrive();
      for (const session of [...podOf(node).pool.sessions(), ...podOf(node).sessions]) {
        rig.shards[node]!.revocations.forget(session); // As with a predecessor that has no lists.
        session.peerPath!.free();
        session.peerPath = null;
      }
      swap(node);
      client.write(text("on"));
      expectText(rig, server, "on");
      rig.until("the dialling side knows", () => [...podOf(0).pool.sessions()].every((it) => !it.hasRoom));
      const later = open(), other = arrive();
      later.write(text("later"));
      expectText(rig, other, "later");
      const sessions = [...podOf(0).pool.sessions()];
      assertEquals(sessions.map((it) => [it.hasRoom, it.tunnels.size]), [[false, 1], [true, 1]]);
      for (const it of [client, server, later, other]) it.finish();
      expectAllOver(rig);
      assert(rig.shards.every((shard) => shard.revocations.count <= 1), "the first is over with its stream");
    }));
}
