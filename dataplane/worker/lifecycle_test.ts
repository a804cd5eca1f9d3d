/** Pods that come, wait, change and go; relays; drain: what a worker does around its connections. */
import { assert, assertEquals } from "@std/assert";
import { formatIp, type IpWords } from "../../base/address.ts";
import { setSocketFlag } from "../../os/libc_cold.ts";
import { FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { ascii, frame } from "../../wire/h2/testing.ts";
import { AccessKind } from "../tables/access.ts";
import { putFailure } from "../tables/identities.ts";
import {
  CLOSE_REQUESTED,
  Command,
  CONNECTION,
  ConnectionState,
  Direction,
  ResponseFlag,
  WORKER,
} from "../tables/layout.ts";
import { policyOf, randomOf } from "../tables/testing.ts";
import { connectFrame, H2Peer } from "./h2_peer_testing.ts";
import { ListenerKind } from "./listener.ts";
import type { Pod } from "./pod.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import { issue, Rig } from "./testing.ts";

const { DATA, GOAWAY, HEADERS, RST_STREAM } = FrameType;
const SOL_SOCKET = 1, SO_SNDBUF = 7;
const URI = "spiffe://cluster.local/ns/default/sa/server", CLIENT_URI = "spiffe://cluster.local/ns/default/sa/client";
const own = await issue(URI), client = await issue(CLIENT_URI);
const bytesOf = (text: string) => ascii(text) as Uint8Array<ArrayBuffer>;
const over = (socket: Socket) => (socket.read(), socket.ended || socket.error !== 0);

/** Tells the workers which workload the pod is, as the agent does once it knows. */
function introduce(rig: Rig, pod: Pod, name: string, ip: IpWords): void {
  rig.addWorkload(name, ip);
  rig.mesh.pods.set(pod.row, `cluster//Pod/default/${name}`);
  rig.publish();
}

function arrival(rig: Rig, server: Server): Socket {
  let socket: Socket | undefined;
  rig.until("a connection arrives", () => (socket = server.accept()) !== undefined);
  rig.atEnd(() => socket!.close());
  return socket!;
}

Deno.test("connections wait for workload and certificate, and go on once both are there (ZT-016, ZT-082)", () =>
  Rig.with(1, (rig) => {
    const ip = freshIp(), target = new Server(freshIp());
    rig.atEnd(() => target.close());
    rig.publish();
    const pod = rig.addPod(0, ip, URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    const outbound = rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: target.ip, port: target.port });
    const inbound = rig.capture(0, pod, ListenerKind.PLAINTEXT, { ip: target.ip, port: target.port });
    const tls = Socket.connect(ip, 15008);
    rig.atEnd(() => tls.close());
    rig.until("all three wait", () => pod.parked.size === 3);
    introduce(rig, pod, "server", ip);
    rig.certify(0, pod, own);
    arrival(rig, target).finish();
    arrival(rig, target).finish();
    rig.until("nobody waits", () => pod.parked.size === 0 && pod.sessions.size === 1);
    rig.until("the ends arrive", () => over(outbound) && over(inbound));
  }));

Deno.test("plain TCP waits for its workload alone, not for a certificate that it does not use", () =>
  Rig.with(1, (rig) => {
    const ip = freshIp(), target = new Server(freshIp());
    rig.atEnd(() => target.close());
    rig.publish();
    const pod = rig.addPod(0, ip, URI);
    rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: target.ip, port: target.port });
    rig.capture(0, pod, ListenerKind.PLAINTEXT, { ip: target.ip, port: target.port });
    assertEquals(pod.parked.size, 2);
    introduce(rig, pod, "server", ip);
    arrival(rig, target);
    arrival(rig, target);
    assertEquals(pod.parked.size, 0);
  }));

Deno.test("what waits in vain is closed after 5 s and logged; more snapshots do not prolong it (ZT-016)", () =>
  Rig.with(1, (rig) => {
    const ip = freshIp(), serverIp = freshIp();
    rig.publish();
    const pod = rig.addPod(0, ip, CLIENT_URI);
    const early = rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: serverIp, port: 80 });
    rig.addWorkload("server", serverIp);
    introduce(rig, pod, "client", ip); // The workload is known now; the certificate stays away.
    for (let second = 0; second < 4; second++) {
      rig.addWorkload(`other-${second}`, freshIp());
      rig.publish();
      rig.pass(1_000);
      assertEquals(over(early), false, `after ${second + 1} s`);
    }
    rig.pass(1_500);
    rig.until("it is closed", () => over(early));
    const records = rig.records(0);
    assertEquals(records.map(({ kind, direction, flag }) => [kind, direction, flag]), [
      [AccessKind.EARLY, Direction.OUTBOUND, ResponseFlag.CONNECT],
    ]);
    assertEquals(records[0]!.error, "no certificate came within 5 s: sa.default (pod)");
    assertEquals(pod.parked.size, 0);
  }));

Deno.test("a connection of a pod that nobody knows is closed after 5 s, and the log says which pod (ZT-016)", () =>
  Rig.with(1, (rig) => {
    rig.publish();
    const pod = rig.addPod(0, freshIp(), undefined);
    const unknown = rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: freshIp(), port: 80 });
    rig.pass(4_500);
    assertEquals(over(unknown), false);
    rig.pass(1_000);
    rig.until("it is closed", () => over(unknown));
    assertEquals(rig.records(0).map(({ kind, error }) => [kind, error]), [
      [AccessKind.EARLY, "failed to fetch information about local workload: sa.default (pod)"],
    ]);
  }));

Deno.test("without a certificate for good, HBONE is refused and plain TCP goes on (ZT-174)", () =>
  Rig.with(1, (rig) => {
    const ip = freshIp(), serverIp = freshIp(), target = new Server(freshIp());
    rig.atEnd(() => target.close());
    rig.addWorkload("client", ip);
    rig.addWorkload("server", serverIp);
    const pod = rig.addPod(0, ip, CLIENT_URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.publish();
    const waiting = rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: serverIp, port: 80 });
    putFailure(rig.tables.identities, pod.identity.row, "the CA is gone");
    rig.command(0, Command.IDENTITY_CHANGED, pod.identity.row, 0, 0);
    rig.until("the waiting one is closed", () => over(waiting));
    assertEquals(rig.records(0).map(({ flag, error }) => [flag, error]), [[
      ResponseFlag.IDENTITY_ERROR,
      "the CA is gone",
    ]]);
    const tls = Socket.connect(ip, 15008);
    rig.until("TLS is closed", () => over(tls));
    tls.close();
    rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: target.ip, port: target.port });
    arrival(rig, target);
  }));

Deno.test("a new certificate is used by the next handshake; open sessions keep theirs (ZT-160)", async () => {
  const renewed = await issue(URI);
  await Rig.with(1, (rig) => {
    const ip = freshIp();
    rig.addWorkload("server", ip);
    const pod = rig.addPod(0, ip, URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.certify(0, pod, own);
    rig.publish();
    const before = H2Peer.dial(rig, ip, client).greet();
    before.expect(FrameType.SETTINGS, 0);
    rig.certify(0, pod, renewed);
    const after = H2Peer.dial(rig, ip, client).greet();
    after.expect(FrameType.SETTINGS, 0);
    before.send(frame(FrameType.PING, 0, 0, new Uint8Array(8)));
    before.expect(FrameType.PING, 0);
    assertEquals(pod.sessions.size, 2);
  });
});

interface Relayed {
  readonly rig: Rig;
  readonly pod: Pod;
  readonly ip: IpWords;
  readonly target: Server;
  open(kind: ListenerKind): Socket;
}

function withRelays(body: (relayed: Relayed) => void): Promise<void> {
  return Rig.with(1, (rig) => {
    const ip = freshIp(), target = new Server(freshIp());
    rig.atEnd(() => target.close());
    rig.addWorkload("server", ip);
    const pod = rig.addPod(0, ip, URI);
    rig.publish();
    const open = (kind: ListenerKind) => rig.capture(0, pod, kind, { ip: target.ip, port: target.port });
    body({ rig, pod, ip, target, open });
  });
}

Deno.test("relays carry bytes both ways, and each side may end first (ZT-020, ZT-065, ZT-100)", () =>
  withRelays(({ rig, target, open }) => {
    for (const kind of [ListenerKind.OUTBOUND, ListenerKind.PLAINTEXT] as const) {
      for (const first of ["caller", "target"]) {
        const caller = open(kind);
        caller.write(bytesOf("early"));
        const end = arrival(rig, target);
        rig.until("it arrives", () => (end.read(), end.receivedBytes === 5));
        const [one, other] = first === "caller" ? [caller, end] : [end, caller];
        one.finish();
        rig.until("the end arrives", () => over(other));
        const before = one.receivedBytes;
        other.write(bytesOf("more"));
        rig.until("it arrives", () => (one.read(), one.receivedBytes === before + 4));
        other.finish();
        rig.until("it is over", () => over(one) && rig.shards[0]!.connectionCount === 0);
        assertEquals([one.error, other.error], [0, 0]);
        const direction = kind === ListenerKind.OUTBOUND ? Direction.OUTBOUND : Direction.INBOUND;
        const [received, sent] = first === "caller" ? [5, 4] : [9, 0];
        assertEquals(rig.records(0).map((it) => [it.kind, it.direction, it.flag, it.receivedBytes, it.sentBytes]), [
          [AccessKind.COMPLETE, direction, ResponseFlag.NONE, received, sent],
        ]);
      }
    }
  }));

Deno.test("a relay holds up a sender whose reader stands still, and loses nothing", () =>
  withRelays(({ rig, target, open }) => {
    const caller = open(ListenerKind.OUTBOUND), end = arrival(rig, target), random = randomOf(9);
    const chunk = new Uint8Array(500_000);
    let pushed = 0;
    for (let still = 0; still < 30;) {
      for (let at = 0; at < chunk.length; at++) chunk[at] = (pushed + at) * 13 & 255;
      const sent = caller.write(chunk);
      pushed += sent;
      still = sent === 0 ? still + 1 : 0;
      rig.turn();
      assert(pushed < 64 << 20, "the sender is held up");
    }
    caller.finish();
    let got = 0;
    rig.until("all arrives", () => {
      for (const byte of end.read(1 + random(300_000))) {
        if (byte !== (got++ * 13 & 255)) throw new Error(`byte ${got - 1} is another`);
      }
      return end.ended;
    });
    assertEquals(got, pushed);
  }));

Deno.test("a relay that finds nobody, or nobody in 10 s, closes the caller with the flag CONNECT (ZT-051)", () =>
  withRelays(({ rig, pod, ip }) => {
    const nobody = new Server(freshIp()), full = new Server(freshIp(), 0, 0);
    nobody.close();
    const fillers = Array.from({ length: 3 }, () => Socket.connect(full.ip, full.port));
    const refused = rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: nobody.ip, port: nobody.port });
    rig.until("it is closed", () => over(refused));
    const swallowed = rig.capture(0, pod, ListenerKind.PLAINTEXT, { ip: full.ip, port: full.port });
    rig.pass(9_500);
    assertEquals(over(swallowed), false);
    rig.pass(1_000);
    rig.until("it is closed", () => over(swallowed));
    assertEquals(rig.records(0).map(({ flag, error }) => [flag, error]), [
      [ResponseFlag.CONNECT, "connect failed (errno 111)"],
      [ResponseFlag.CONNECT, "connection timed out"],
    ]);
    for (const filler of fillers) filler.close();
    full.close();
    assert(formatIp(...ip) !== "");
  }));

Deno.test("our own ports are never connected to (ZT-015, ZT-101)", () =>
  withRelays(({ rig, pod, ip }) => {
    const loopback: IpWords = [0, 0, 0xffff, 0x7f000001];
    for (const [kind, to] of [[ListenerKind.OUTBOUND, loopback], [ListenerKind.PLAINTEXT, ip]] as const) {
      for (const port of [15001, 15006, 15008]) {
        const caller = rig.capture(0, pod, kind, { ip: to, port });
        rig.until("it is closed", () => over(caller));
      }
    }
    const records = rig.records(0);
    assertEquals(records.length, 6);
    for (const { kind, error } of records) {
      assertEquals([kind, error], [AccessKind.EARLY, "attempted recursive call to ourselves"]);
    }
  }));

const EVERYONE = policyOf("default/nobody", { scope: 1, action: 0, rules: [] }); // ALLOW that allows no one.

Deno.test("policy refuses plaintext before the application is touched, and cuts what is open (ZT-103, ZT-120)", () =>
  withRelays(({ rig, target, open }) => {
    const inbound = open(ListenerKind.PLAINTEXT), inboundEnd = arrival(rig, target);
    const outbound = open(ListenerKind.OUTBOUND), outboundEnd = arrival(rig, target);
    rig.mesh.putPolicy(EVERYONE);
    rig.publish();
    rig.until("the inbound one is cut", () => over(inbound) && over(inboundEnd));
    outbound.write(bytesOf("on"));
    rig.until("the outbound one carries on (ZT-122)", () => (outboundEnd.read(), outboundEnd.receivedBytes === 2));
    const late = open(ListenerKind.PLAINTEXT);
    rig.until("it is refused", () => over(late));
    assertEquals(target.accept(), undefined);
    assertEquals(rig.records(0).map(({ flag, error }) => [flag, error!.replace(/:.*/, "")]), [
      [ResponseFlag.DENY, "connection closed due to policy change"],
      [ResponseFlag.DENY, "connection closed due to policy rejection"],
    ]);
  }));

Deno.test("an operator may close one connection", () =>
  withRelays(({ rig, target, open }) => {
    const one = open(ListenerKind.OUTBOUND), oneEnd = arrival(rig, target);
    const other = open(ListenerKind.OUTBOUND), otherEnd = arrival(rig, target);
    const table = rig.tables.connections[0]!;
    rig.until("both are open", () => [0, 1].every((row) => table.load(row, CONNECTION.state) === ConnectionState.OPEN));
    table.or(0, CONNECTION.control, CLOSE_REQUESTED);
    rig.command(0, Command.CLOSE_CONNECTION, 0, table.get(0, CONNECTION.epoch));
    rig.until("it is closed", () => over(one) && over(oneEnd));
    other.write(bytesOf("on"));
    rig.until("the other carries on", () => (otherEnd.read(), otherEnd.receivedBytes === 2));
  }));

Deno.test("a pod that has its share of the connection table is refused the next connection, which is counted", () =>
  withRelays(({ rig, target, open }) => {
    const ends: Socket[] = [], most = rig.shards[0]!.connections.rowCount * 3 / 4;
    for (let at = 0; at < most; at++) {
      open(ListenerKind.OUTBOUND);
      ends.push(arrival(rig, target));
    }
    const beyond = open(ListenerKind.OUTBOUND);
    rig.until("it is closed", () => over(beyond));
    assertEquals(rig.tables.workers.getF64(0, WORKER.glitches), 1);
    ends[0]!.abort();
    rig.until("one is over", () => rig.shards[0]!.connectionCount < most);
  }));

/** A worker that serves one inbound tunnel, about to drain. */
function draining(body: (scene: { rig: Rig; peer: H2Peer; application: Socket; pod: Pod; ip: IpWords }) => void) {
  return Rig.with(1, (rig) => {
    const ip = freshIp();
    rig.addWorkload("server", ip);
    const pod = rig.addPod(0, ip, URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.certify(0, pod, own);
    rig.publish();
    const listener = new Server(ip);
    rig.atEnd(() => listener.close());
    const peer = H2Peer.dial(rig, ip, client).greet();
    peer.send(connectFrame(1, `${formatIp(...ip)}:${listener.port}`));
    const application = arrival(rig, listener);
    peer.expect(HEADERS, 1);
    rig.command(0, Command.DRAIN, 5_000);
    body({ rig, peer, application, pod, ip });
  });
}

Deno.test("a drain says GOAWAY, serves nothing new, lets streams end, then the session (ZT-076, ZT-224)", () =>
  draining(({ rig, peer, application, pod, ip }) => {
    const goaway = peer.expect(GOAWAY, 0);
    assertEquals(goaway.payload.toHex(), "7fffffff" + "00000000");
    const ping = peer.next("a PING", ({ type, flags }) => type === FrameType.PING && (flags & FrameFlag.ACK) === 0);
    peer.send(frame(FrameType.PING, FrameFlag.ACK, 0, ping.payload), connectFrame(3, "127.0.0.1:1"));
    assertEquals(peer.reset(3), "REFUSED_STREAM");
    const late = Socket.connect(ip, 15008);
    rig.until("a new TCP connection is refused", () => over(late));
    late.close();
    application.write(bytesOf("last"));
    application.finish();
    assertEquals(new TextDecoder().decode(peer.expect(DATA, 1).payload), "last");
    peer.send(frame(DATA, FrameFlag.END_STREAM, 1));
    rig.until("the application sees the end", () => over(application));
    assertEquals(peer.ending(), "NO_ERROR");
    rig.until("the session is gone", () => pod.sessions.size === 0);
    assertEquals(rig.records(0).map(({ flag }) => flag), [ResponseFlag.NONE]);
    rig.pass(5_100); // The deadline comes all the same.
  }));

Deno.test("a drain's deadline cuts what is left: no RST_STREAM, a FIN to the application (ZT-077)", () =>
  draining(({ rig, peer, application }) => {
    rig.pass(4_000);
    assertEquals(over(application), false);
    rig.pass(1_500);
    rig.until("the application is closed", () => over(application));
    assertEquals(application.error, 0);
    peer.ending();
    assertEquals(peer.frames.filter(({ type }) => type === RST_STREAM), []);
    assertEquals(rig.records(0).map(({ error }) => error), ["connection closed due to connection drain"]);
  }));

Deno.test("small buffers everywhere lose nothing of a relay's bytes", () =>
  withRelays(({ rig, target, open }) => {
    const caller = open(ListenerKind.PLAINTEXT), end = arrival(rig, target);
    for (const fd of rig.systems[0]!.owned) setSocketFlag(fd, SOL_SOCKET, SO_SNDBUF, 4_096);
    const body = new Uint8Array(400_000).map((_, at) => at * 11 & 255);
    let sent = 0, got = 0;
    rig.until("all arrives", () => {
      if (sent < body.length) sent += caller.write(body.subarray(sent));
      if (sent === body.length) caller.finish();
      for (const byte of end.read(3_000)) {
        if (byte !== (got++ * 11 & 255)) throw new Error(`byte ${got - 1} is another`);
      }
      return end.ended;
    });
    assertEquals(got, body.length);
  }));
