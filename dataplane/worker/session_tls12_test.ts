/** Sessions of TLS 1.2 (TLS12_ENABLED): what ends them, bytes both ways in both roles, one key, no takeover. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { formatIp } from "../../base/address.ts";
import { FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { ascii, frame, hex } from "../../wire/h2/testing.ts";
import { randomOf } from "../tables/testing.ts";
import { concat, connectFrame, H2Peer, word } from "./h2_peer_testing.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, placeOf, Server, type Socket } from "./loopback_testing.ts";
import type { Pod } from "./pod.ts";
import { authority, issue, Rig } from "./testing.ts";

const { DATA, HEADERS, GOAWAY, PING, WINDOW_UPDATE } = FrameType;
const { ACK, END_HEADERS, END_STREAM } = FrameFlag;
const ALERT = 21, HANDSHAKE = 22, APPLICATION = 23;
const CLIENT_URI = "spiffe://cluster.local/ns/default/sa/client",
  SERVER_URI = "spiffe://cluster.local/ns/default/sa/server";
const client = await issue(CLIENT_URI), own = await issue(SERVER_URI);
const rsa = await authority.issue([SERVER_URI], { rsa: true });
/** SETTINGS_INITIAL_WINDOW_SIZE as large as it may be, and what is added to the session's own window. */
const WIDE = hex("00047fffffff"), WIDER = word(0x7fffffff - 65_535);
const ECDSA_SUITES = ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"];
const RSA_SUITES = ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"];
placeOf(1); // Memory and callbacks that stay, made before any test.

interface Inbound {
  readonly rig: Rig;
  readonly pod: Pod;
  dial(ciphers?: string): H2Peer;
  /** A tunnel on this stream, the application's end of it. */
  tunnel(peer: H2Peer, streamId: number): Socket;
}

function withInbound(
  body: (inbound: Inbound) => void,
  { leaf = own, ...options }: { leaf?: typeof own; recordsPerKey?: number; tls12?: boolean } = {},
): Promise<void> {
  return Rig.with(1, (rig) => {
    const ip = freshIp();
    rig.addWorkload("server", ip);
    const pod = rig.addPod(0, ip, SERVER_URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.certify(0, pod, leaf);
    rig.publish();
    const listener = new Server(ip);
    rig.atEnd(() => listener.close());
    body({
      rig,
      pod,
      dial: (ciphers) => H2Peer.dial(rig, ip, client, { tls12Only: true, ciphers }),
      tunnel(peer, streamId) {
        peer.send(connectFrame(streamId, `${formatIp(...ip)}:${listener.port}`));
        let application: Socket | undefined;
        rig.until("the application is connected to", () => (application = listener.accept()) !== undefined);
        rig.atEnd(() => application!.close());
        assertEquals(peer.answer(streamId).headers, [":status: 200"]);
        return application!;
      },
    });
  }, { tls12: true, ...options });
}

const greet = (peer: H2Peer) => {
  peer.greet(WIDE).send(frame(WINDOW_UPDATE, 0, 0, WIDER));
  return peer;
};

const byteAt = (at: number) => (at * 31 + (at >> 10)) & 255;

/** Sends so many bytes each way at once, in pieces of any size, and looks at each that arrives. */
function exchange(rig: Rig, peer: H2Peer, streamId: number, application: Socket, bytes: number): void {
  const random = randomOf(bytes), body = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at++) body[at] = byteAt(at);
  let there = 0, back = 0, gotThere = 0, gotBack = 0;
  rig.until("all has passed both ways", () => {
    back += application.write(body.subarray(back, back + 1 + random(400_000)));
    if (there < bytes) {
      const piece = Math.min([1, 100, 16_384, 9_000][random(4)]!, bytes - there);
      peer.send(frame(DATA, 0, streamId, body.subarray(there, there + piece)));
      there += piece;
    }
    for (const byte of application.read()) assert(byte === byteAt(gotThere++), `byte ${gotThere} there`);
    peer.poll();
    for (const { type, payload } of peer.frames.splice(0)) {
      if (type === DATA) { for (const byte of payload) assert(byte === byteAt(gotBack++), `byte ${gotBack} back`); }
    }
    assertEquals(peer.tls.failure, "");
    return gotThere === bytes && gotBack === bytes;
  });
}

for (const [leaf, suites] of [[own, ECDSA_SUITES], [rsa, RSA_SUITES]] as const) {
  for (const ciphers of suites) {
    Deno.test(`a session of ${ciphers} carries bytes both ways, half-closes and ends (ZT-079, ZT-080)`, () =>
      withInbound(({ rig, pod, dial, tunnel }) => {
        const peer = greet(dial(ciphers));
        assertEquals([peer.tls.cipher, peer.tls.tls12], [ciphers, true]);
        const application = tunnel(peer, 1);
        exchange(rig, peer, 1, application, 3_000_003);
        peer.send(frame(DATA, END_STREAM, 1, ascii("last")));
        rig.until("the end arrives", () => (application.read(), application.ended));
        application.write(new Uint8Array([1, 2, 3]));
        application.finish();
        const last = peer.next("the end", (it) => it.type === DATA && (it.flags & END_STREAM) !== 0);
        assertEquals(last.streamId, 1);
        assertEquals(pod.sessions.size, 1);
        peer.tls.shutdown(); // close_notify
        peer.socket.finish();
        rig.until("the session is gone", () => pod.sessions.size === 0);
      }, { leaf }));
  }
}

/** What ends a session of TLS 1.2, and with which fatal alert. Made by a peer that has sealed nothing yet. */
const WRONG: [string, (peer: H2Peer) => Uint8Array, number][] = [
  ["a changed bit in the text", (peer) => flip(peer.seal(ascii("PRI "), APPLICATION), 14), 20],
  ["a changed bit in the tag", (peer) => flip(peer.seal(ascii("PRI "), APPLICATION), -1), 20],
  ["a changed nonce", (peer) => flip(peer.seal(ascii("PRI "), APPLICATION), 5), 20],
  ["data under another type", (peer) => retype(peer.seal(ascii("PRI "), APPLICATION), HANDSHAKE), 20],
  ["an alert made of data", (peer) => retype(peer.seal(hex("01 00"), APPLICATION), ALERT), 20],
  ["a record twice", (peer) => twice(peer.seal(ascii("P"), APPLICATION)), 20],
  ["a record of 23 bytes", () => hex("17 03 03 00 17" + "00".repeat(23)), 20],
  ["an empty record", () => hex("17 03 03 00 00"), 20],
  ["a length beyond the limit", () => hex("17 03 03 41 01"), 22],
  ["more content than allowed", () => hex("17 03 03 40 19" + "00".repeat(0x4019)), 20],
  ["change_cipher_spec in the open", () => hex("14 03 03 00 01 01"), 10],
  ["change_cipher_spec, sealed", (peer) => peer.seal(hex("01"), 20), 10],
  ["an alert in the open", () => hex("15 03 03 00 02 01 00"), 20],
  ["a ClientHello in the open", () => hex("16 03 03 00 04 01 00 00 00"), 20],
  ["a ClientHello, sealed: a renegotiation", (peer) => peer.seal(hex("01 000001 00"), HANDSHAKE), 10],
  ["HelloRequest", (peer) => peer.seal(hex("00 000000"), HANDSHAKE), 10],
  ["a KeyUpdate, which TLS 1.2 has not", (peer) => peer.seal(hex("18 000001 00"), HANDSHAKE), 10],
  ["a KeyUpdate that asks for one", (peer) => peer.seal(hex("18 000001 01"), HANDSHAKE), 10],
  ["a ticket", (peer) => peer.seal(hex("04 000001 00"), HANDSHAKE), 10],
  ["an empty handshake record", (peer) => peer.seal(new Uint8Array(0), HANDSHAKE), 10],
  ["an unknown content type", (peer) => peer.seal(ascii("x"), 99), 10],
  ["an alert of three bytes", (peer) => peer.seal(hex("01 00 00"), ALERT), 10],
  ["a record of TLS 1.1", (peer) => reversion(peer.seal(ascii("P"), APPLICATION)), 20],
];

function flip(bytes: Uint8Array, at: number): Uint8Array {
  bytes[at < 0 ? bytes.length + at : at]! ^= 1;
  return bytes;
}
function retype(bytes: Uint8Array, type: number): Uint8Array {
  bytes[0] = type;
  return bytes;
}
function reversion(bytes: Uint8Array): Uint8Array {
  bytes[2] = 2;
  return bytes;
}
function twice(bytes: Uint8Array): Uint8Array {
  return concat(bytes, bytes);
}

Deno.test("a session of TLS 1.2 answers every wrong record with its fatal alert, and ends (RFC 5246 §6, §7)", () =>
  withInbound(({ pod, dial }) => {
    for (const [name, make, alert] of WRONG) {
      const peer = dial();
      peer.takeKeys();
      peer.sendRaw(make(peer));
      peer.ending();
      assertEquals(peer.alerts, [`2,${alert}`], name);
      assertEquals(pod.sessions.size, 0, name);
    }
  }));

Deno.test("records of TLS 1.2 may come cut anywhere, and empty ones count as pieces (RFC 5246 §6.2.1)", () =>
  withInbound(({ rig, dial, tunnel }) => {
    const random = randomOf(5), peer = dial();
    peer.takeKeys();
    peer.sendRaw(peer.seal(ascii("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), APPLICATION));
    peer.send = (...parts) => { // From here every frame goes as records of any size, cut anywhere.
      const plain = concat(...parts), records: Uint8Array[] = [];
      for (let at = 0; at < plain.length;) {
        if (random(8) === 0) records.push(peer.seal(new Uint8Array(0), APPLICATION));
        const bytes = Math.min([1, 9, 100, 16_000][random(4)]!, plain.length - at);
        records.push(peer.seal(plain.subarray(at, at + bytes), APPLICATION));
        at += bytes;
      }
      const wire = concat(...records);
      for (let at = 0; at < wire.length;) {
        at += peer.socket.write(wire.subarray(at, at + [1, 3, 13, 17_000][random(4)]!));
        rig.turn();
        peer.poll();
      }
    };
    peer.send(
      frame(FrameType.SETTINGS, 0, 0),
      frame(FrameType.SETTINGS, 0, 0, WIDE),
      frame(WINDOW_UPDATE, 0, 0, WIDER),
    );
    exchange(rig, peer, 1, tunnel(peer, 1), 200_001);
    assertEquals(peer.alerts, []);
  }));

Deno.test("a TLS 1.2 client of another trust domain gets no further than its handshake (ZT-083)", async () => {
  const foreign = await issue("spiffe://elsewhere/ns/default/sa/client");
  await Rig.with(1, (rig) => {
    const ip = freshIp();
    rig.addWorkload("server", ip);
    const pod = rig.addPod(0, ip, SERVER_URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.certify(0, pod, own);
    rig.publish();
    const peer = H2Peer.dial(rig, ip, foreign, { tls12Only: true });
    assertEquals(peer.ending(), "");
    assertMatch(peer.tls.failure, /end of the socket|unexpected eof/);
    assertEquals(pod.sessions.size, 0);
  }, { tls12: true });
});

Deno.test("one key lasts a session of TLS 1.2: half of it said with GOAWAY, all of it ends the session", () =>
  withInbound(({ rig, pod, dial, tunnel }) => {
    const peer = greet(dial()), first = tunnel(peer, 1);
    let sent = 0, got = 0, last = 0;
    const step = () => {
      sent += first.write(new Uint8Array(20_000));
      rig.turn();
      peer.poll();
      for (const { type, payload } of peer.frames) if (type === DATA) got += payload.length;
      const said = peer.frames.filter(({ type }) => type === GOAWAY);
      if (said.length > 0) last = said.length;
      const rest = peer.frames.filter(({ type }) => type !== DATA);
      peer.frames.splice(0, peer.frames.length, ...rest);
    };
    rig.until("the peer is told", () => (step(), last > 0));
    assert(got < 100 * 16_384 && got >= 40 * 1_000, `told after ${got} bytes`);
    const told = got;
    rig.until("the tunnel runs on", () => (step(), got > told + 100_000));
    assertEquals(pod.sessions.size, 1);
    rig.until("the session ends", () => (step(), pod.sessions.size === 0));
    assert(sent >= got);
    assertMatch(rig.records(0)[0]!.error!, /one key of a TLS 1\.2 session is used up/);
  }, { recordsPerKey: 100 }));

Deno.test("a worn session of TLS 1.2 without tunnels ends in order", () =>
  withInbound(({ rig, pod, dial, tunnel }) => {
    const peer = greet(dial()), application = tunnel(peer, 1);
    rig.until("the peer is told", () => {
      application.write(new Uint8Array(20_000));
      peer.poll();
      return peer.frames.some(({ type }) => type === GOAWAY);
    });
    const asked = peer.next("a PING", ({ type, flags }) => type === PING && (flags & ACK) === 0);
    peer.send(frame(PING, ACK, 0, asked.payload)); // From here no stream crosses.
    application.finish();
    peer.send(frame(DATA, END_STREAM, 1));
    assertEquals(peer.ending(), "NO_ERROR");
    rig.until("the session is gone", () => pod.sessions.size === 0);
    assertEquals([peer.tls.closed, peer.tls.failure], [true, ""]);
  }, { recordsPerKey: 200 }));

Deno.test("a takeover leaves sessions of TLS 1.2 where they are, and they go on there", () =>
  withInbound(({ rig, pod, dial, tunnel }) => {
    const peer = greet(dial()), application = tunnel(peer, 1);
    exchange(rig, peer, 1, application, 10_000);
    const counts = rig.takeOver(0, 0, new Map([[pod.row, pod]]), "refused");
    assertEquals([counts.sessions, counts.connections, counts.settling], [0, 0, 0]);
    assert(counts.left > 0);
    exchange(rig, peer, 1, application, 10_000);
  }));

interface Outbound {
  readonly rig: Rig;
  readonly pod: Pod;
  open(): Socket;
  accept(options?: { leaf?: typeof own; ciphers?: string }): H2Peer;
}

function withOutbound(body: (outbound: Outbound) => void, recordsPerKey?: number): Promise<void> {
  return Rig.with(1, (rig) => {
    const clientIp = freshIp(), ip = freshIp();
    rig.addWorkload("client", clientIp);
    rig.addWorkload("server", ip);
    const pod = rig.addPod(0, clientIp, CLIENT_URI);
    rig.certify(0, pod, client);
    rig.publish();
    const listener = new Server(ip, 15008);
    rig.atEnd(() => listener.close());
    body({
      rig,
      pod,
      open: () => rig.capture(0, pod, ListenerKind.OUTBOUND, { ip, port: 8080 }),
      accept({ leaf = own, ciphers } = {}) {
        let socket: Socket | undefined;
        rig.until("a session comes in", () => (socket = listener.accept()) !== undefined);
        const peer = new H2Peer(rig, socket!, { server: true, leaf, roots: own.roots, tls12Only: true, ciphers });
        peer.handshake();
        return greet(peer);
      },
    });
  }, { tls12: true, recordsPerKey });
}

/** Answers the CONNECT on this stream. */
function answer(peer: H2Peer, streamId: number): void {
  peer.expect(HEADERS, streamId);
  peer.send(frame(HEADERS, END_HEADERS, streamId, hex("88")));
}

for (const [leaf, suites] of [[own, ECDSA_SUITES], [rsa, RSA_SUITES]] as const) {
  Deno.test(`a session that we open speaks TLS 1.2 with ${suites.join(" and ")} to an upstream of no more (ZT-079)`, () =>
    withOutbound(({ rig, open, accept }) => {
      for (const ciphers of suites) {
        const application = open(), peer = accept({ leaf, ciphers });
        assertEquals([peer.tls.cipher, peer.tls.serverName], [ciphers, undefined]);
        answer(peer, 1);
        exchange(rig, peer, 1, application, 2_000_003);
        peer.tls.shutdown();
        peer.socket.finish();
        rig.until(
          "the application is closed",
          () => (application.read(), application.ended || application.error !== 0),
        );
      }
    }));
}

Deno.test("an upstream that renegotiates loses its session (RFC 5246 §7.4.1.1)", () =>
  withOutbound(({ rig, open, accept }) => {
    const application = open(), peer = accept();
    answer(peer, 1);
    peer.tls.renegotiate();
    rig.until("the application is closed", () => (application.read(), application.ended || application.error !== 0));
    peer.poll();
    assertMatch(rig.records(0)[0]!.error!, /a renegotiation/);
  }));

Deno.test("a worn session that we opened takes no new tunnel: the next one dials", () =>
  withOutbound(({ rig, pod, open, accept }) => {
    const application = open(), peer = accept();
    answer(peer, 1);
    const [worn] = pod.pool.sessions();
    rig.until("half of its key is used", () => {
      application.write(new Uint8Array(20_000));
      peer.poll();
      return worn!.goingAway;
    });
    const second = open(), other = accept();
    answer(other, 1);
    assertEquals(pod.pool.sessionCount, 2);
    exchange(rig, other, 1, second, 5_000);
    peer.send(frame(DATA, 0, 1, ascii("still here")));
    rig.until("the first goes on", () => (application.read(), application.receivedBytes === 10));
  }, 1_000));
