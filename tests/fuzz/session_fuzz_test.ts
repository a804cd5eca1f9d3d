/** Conversations that go wrong anywhere: mutated frames, hostile timing and closing, against real sessions of either side. */
import { assert, assertEquals } from "@std/assert";
import { formatIp } from "../../base/address.ts";
import { concat, connectBlock, H2Peer, word } from "../../dataplane/worker/h2_peer_testing.ts";
import { ListenerKind } from "../../dataplane/worker/listener.ts";
import { freshIp, Server, Socket } from "../../dataplane/worker/loopback_testing.ts";
import { issue, Rig } from "../../dataplane/worker/testing.ts";
import { CLIENT_PREFACE, FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { ascii, frame, hex, Seeded, seeds } from "../../wire/h2/testing.ts";

const { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION } =
  FrameType;
const { END_STREAM, END_HEADERS, PADDED } = FrameFlag;
const CLIENT_URI = "spiffe://cluster.local/ns/default/sa/client",
  SERVER_URI = "spiffe://cluster.local/ns/default/sa/server";
const client = await issue(CLIENT_URI), server = await issue(SERVER_URI);
const CONVERSATIONS = 12;

/** What a client might say, well-formed, in an order that makes sense. */
function clientSays(authority: string): Uint8Array[] {
  const connect = connectBlock(authority), half = connect.length >> 1;
  return [
    CLIENT_PREFACE,
    frame(SETTINGS, 0, 0, concat(hex("0004"), word(70_000), hex("0003"), word(50))),
    frame(WINDOW_UPDATE, 0, 0, word(1_000_000)),
    frame(HEADERS, END_HEADERS, 1, connect),
    frame(HEADERS, 0, 3, connect.subarray(0, half)),
    frame(CONTINUATION, END_HEADERS, 3, connect.subarray(half)),
    frame(DATA, 0, 1, ascii("hello")),
    frame(DATA, PADDED, 3, hex("03 616263 000000")),
    frame(PING, 0, 0, new Uint8Array(8)),
    frame(HEADERS, END_HEADERS | END_STREAM, 5, connect),
    frame(WINDOW_UPDATE, 0, 1, word(100_000)),
    frame(DATA, 0, 1, new Uint8Array(20_000)),
    frame(SETTINGS, 0, 0, concat(hex("0004"), word(10))),
    frame(RST_STREAM, 0, 3, word(8)),
    frame(PRIORITY, 0, 7, new Uint8Array(5)),
    frame(0x55, 3, 9, ascii("extension")),
    frame(HEADERS, END_HEADERS | END_STREAM, 1, hex("00 01 61 01 62")),
    frame(DATA, END_STREAM, 3),
    frame(GOAWAY, 0, 0, concat(word(0), word(0))),
  ];
}

/** What an upstream might say. */
function serverSays(): Uint8Array[] {
  return [
    frame(SETTINGS, 0, 0, concat(hex("0003"), word(100), hex("0004"), word(100_000))),
    frame(WINDOW_UPDATE, 0, 0, word(1_000_000)),
    frame(SETTINGS, FrameFlag.ACK, 0),
    frame(HEADERS, END_HEADERS, 1, hex("88")),
    frame(DATA, 0, 1, ascii("answer")),
    frame(HEADERS, END_HEADERS, 3, hex("0803313030")),
    frame(HEADERS, END_HEADERS, 3, hex("88")),
    frame(DATA, PADDED, 3, hex("03 616263 000000")),
    frame(PING, 0, 0, new Uint8Array(8)),
    frame(WINDOW_UPDATE, 0, 3, word(50_000)),
    frame(HEADERS, END_HEADERS | END_STREAM, 5, hex("0803353033")),
    frame(DATA, 0, 3, new Uint8Array(20_000)),
    frame(PUSH_PROMISE, END_HEADERS, 1, hex("00000002 82")),
    frame(RST_STREAM, 0, 3, word(0)),
    frame(HEADERS, END_HEADERS | END_STREAM, 1, hex("00 01 61 01 62")),
    frame(GOAWAY, 0, 0, concat(word(3), word(0))),
  ];
}

/** A frame of random kind, half of them legal in some place. */
function anyFrame(random: Seeded): Uint8Array {
  const lengths = [0, 1, 4, 5, 6, 8, 12, 100, 16_384, 20_000];
  const payload = new Uint8Array(lengths[random.next(lengths.length)]!);
  for (let at = 0; at < Math.min(payload.length, 64); at++) payload[at] = random.next(256);
  return frame(random.next(12), random.next(256), random.next(9), payload);
}

/** The same conversation with up to eight things wrong. */
function mutated(said: readonly Uint8Array[], random: Seeded): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = said.map((part) => part.slice());
  for (let change = random.next(9); change > 0; change--) {
    const at = 1 + random.next(parts.length - 1), other = 1 + random.next(parts.length - 1), part = parts[at]!;
    switch (random.next(8)) {
      case 0:
        parts.splice(at, 1);
        if (parts.length < 4) return concat(...parts);
        break;
      case 1:
        parts.splice(at, 0, parts[other]!.slice());
        break;
      case 2:
        [parts[at], parts[other]] = [parts[other]!, parts[at]!];
        break;
      case 3:
        parts.splice(at, 0, anyFrame(random));
        break;
      case 4:
        parts[at] = part.subarray(0, random.next(part.length + 1));
        break;
      case 5:
        if (part.length >= 9) part[random.next(9)] = random.next(256);
        break;
      case 6:
        if (part.length > 0) part[random.next(part.length)]! ^= 1 << random.next(8);
        break;
      default:
        parts.splice(at, 0, ...Array.from({ length: random.next(40) }, () => part));
    }
  }
  return concat(...parts);
}

/** Says it in pieces, reads or not, and leaves in some way. */
function talk(rig: Rig, peer: H2Peer, bytes: Uint8Array<ArrayBuffer>, random: Seeded, act: () => void): void {
  const reads = random.next(4) > 0;
  for (let at = 0; at < bytes.length && !peer.over;) {
    const size = [1, 10, 1_000, 40_000][random.next(4)]!;
    const sent = peer.tls.write(bytes.subarray(at, at + size));
    if (sent < 0) break;
    at += sent;
    if (random.next(3) === 0) rig.turn();
    if (reads) peer.poll();
    act();
  }
  for (let turn = 0; turn < 6; turn++) {
    rig.turn();
    if (reads) peer.poll();
    act();
  }
  const way = random.next(3);
  if (way === 0) peer.tls.shutdown();
  if (way === 1) peer.socket.abort();
  else peer.socket.finish();
}

/** An application that does as it likes with whoever comes. */
function whimsical(rig: Rig, listener: Server, random: Seeded): { act: () => void; close: () => void } {
  let sockets: Socket[] = [];
  const drop = (socket: Socket) => {
    if (random.next(2) === 0) socket.abort();
    else socket.close();
    sockets = sockets.filter((it) => it !== socket);
  };
  return {
    act() {
      const arrived = listener.accept();
      if (arrived !== undefined) sockets.push(arrived);
      for (const socket of sockets) {
        const whim = random.next(12);
        if (whim < 5) socket.read();
        else if (whim < 8) socket.write(new Uint8Array(1 + random.next(30_000)));
        else if (whim === 8) socket.finish();
        else if (whim === 9) drop(socket);
      }
    },
    close() {
      for (const socket of sockets) socket.close();
      for (let late = listener.accept(); late !== undefined; late = listener.accept()) late.close();
      rig.turn();
    },
  };
}

Deno.test("an inbound session survives mutated conversations and leaves nothing, seeded", async () => {
  for (const seed of seeds(11)) {
    await Rig.with(1, (rig) => {
      const random = new Seeded(seed), ip = freshIp(), listener = new Server(ip);
      rig.atEnd(() => listener.close());
      rig.addWorkload("server", ip);
      const pod = rig.addPod(0, ip, SERVER_URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
      rig.certify(0, pod, server);
      rig.publish();
      for (let round = 0; round < CONVERSATIONS; round++) {
        const peer = H2Peer.dial(rig, ip, client), application = whimsical(rig, listener, random);
        talk(rig, peer, mutated(clientSays(`${formatIp(...ip)}:${listener.port}`), random), random, application.act);
        rig.until(`seed ${seed}, round ${round}: the session is gone`, () => {
          application.act();
          for (const os of rig.systems) os.aheadMs += 20; // A goodbye's wait passes.
          return pod.sessions.size === 0;
        });
        application.close();
        rig.until(`seed ${seed}, round ${round}: its connections are over`, () => {
          application.close();
          return rig.shards[0]!.connectionCount === 0;
        });
      }
    });
  }
});

Deno.test("an outbound session survives mutated answers and leaves nothing, seeded", async () => {
  for (const seed of seeds(17)) {
    await Rig.with(1, (rig) => {
      const random = new Seeded(seed), ip = freshIp(), clientIp = freshIp(), upstream = new Server(ip, 15008);
      rig.atEnd(() => upstream.close());
      rig.addWorkload("server", ip);
      rig.addWorkload("client", clientIp);
      const pod = rig.addPod(0, clientIp, CLIENT_URI);
      rig.certify(0, pod, client);
      rig.publish();
      for (let round = 0; round < CONVERSATIONS; round++) {
        const applications = Array.from({ length: 3 }, () => {
          const application = rig.capture(0, pod, ListenerKind.OUTBOUND, { ip, port: 80 });
          application.write(new Uint8Array(1 + random.next(100_000)));
          if (random.next(3) === 0) application.finish();
          return application;
        });
        let socket: Socket | undefined;
        rig.until("a session comes in", () => (socket = upstream.accept()) !== undefined);
        const peer = new H2Peer(rig, socket!, { server: true, leaf: server });
        peer.handshake();
        talk(rig, peer, mutated(serverSays(), random), random, () => {
          for (const application of applications) if (random.next(3) === 0) application.read();
        });
        rig.until(`seed ${seed}, round ${round}: the session is gone`, () => {
          for (const os of rig.systems) os.aheadMs += 20;
          upstream.accept()?.close(); // Whoever waited dials again, and finds nobody.
          return pod.pool.sessionCount === 0;
        });
        for (const application of applications) application.abort();
        rig.until(`seed ${seed}, round ${round}: all is over`, () => {
          upstream.accept()?.close();
          return rig.shards[0]!.connectionCount === 0;
        });
      }
      assertEquals(rig.leftovers(0), "");
      assert(rig.shards[0]!.reactor.turns > 0);
    });
  }
});
