/** The record layer of a session under a peer that makes its own records: alerts, keys, pieces, ends. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { formatIp } from "../../base/address.ts";
import { FrameType } from "../../wire/h2/frame_rules.ts";
import { ascii, frame, hex } from "../../wire/h2/testing.ts";
import { randomOf } from "../tables/testing.ts";
import { concat, connectFrame, H2Peer } from "./h2_peer_testing.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, type Socket } from "./loopback_testing.ts";
import { issue, Rig } from "./testing.ts";

const { DATA } = FrameType;
const HANDSHAKE = 22, ALERT = 21, APPLICATION = 23;
const SERVER_URI = "spiffe://cluster.local/ns/default/sa/server";
const client = await issue("spiffe://cluster.local/ns/default/sa/client"), own = await issue(SERVER_URI);

interface Scene {
  readonly rig: Rig;
  /** Sessions of the pod that are left. */
  sessions(): number;
  /** A session with a tunnel on stream 1. @returns It, and the application's end. */
  open(ciphers?: string): { peer: H2Peer; application: Socket };
}

function withServer(body: (scene: Scene) => void): Promise<void> {
  return Rig.with(1, (rig) => {
    const ip = freshIp();
    rig.addWorkload("server", ip);
    const pod = rig.addPod(0, ip, SERVER_URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.certify(0, pod, own);
    rig.publish();
    const listener = new Server(ip);
    rig.atEnd(() => listener.close());
    body({
      rig,
      sessions: () => pod.sessions.size,
      open(ciphers) {
        const peer = H2Peer.dial(rig, ip, client, { ciphers }).greet();
        peer.send(connectFrame(1, `${formatIp(...ip)}:${listener.port}`));
        let application: Socket | undefined;
        rig.until("the application is connected to", () => (application = listener.accept()) !== undefined);
        rig.atEnd(() => application!.close());
        assertEquals(peer.answer(1).headers, [":status: 200"]);
        return { peer, application: application! };
      },
    });
  });
}

/** A session whose records the test makes from now on; nothing has been sealed or opened by it before. */
function dialRaw(rig: Rig, ip: Parameters<typeof H2Peer.dial>[1]): H2Peer {
  const peer = H2Peer.dial(rig, ip, client);
  peer.takeKeys();
  return peer;
}

/** What ends a session, and with which fatal alert (RFC 8446 §6). Made by a peer that has sealed nothing yet. */
const WRONG: [string, (peer: H2Peer) => Uint8Array, number][] = [
  ["a changed bit in the text", (peer) => flip(peer.seal(ascii("PRI "), APPLICATION), 6), 20],
  ["a changed bit in the tag", (peer) => flip(peer.seal(ascii("PRI "), APPLICATION), -1), 20],
  ["a record twice", (peer) => twice(peer.seal(ascii("P"), APPLICATION)), 20],
  ["a record of 16 bytes", () => hex("17 03 03 00 10" + "00".repeat(16)), 20],
  ["an empty record", () => hex("17 03 03 00 00"), 20],
  ["a length beyond the limit", () => hex("17 03 03 41 01"), 22],
  ["nothing but padding", (peer) => peer.seal(new Uint8Array(100), 0), 10],
  ["no content and no type", (peer) => peer.seal(new Uint8Array(0), 0), 10],
  ["more content than allowed", (peer) => peer.seal(new Uint8Array(16_385).fill(1), APPLICATION), 22],
  ["an unknown content type", (peer) => peer.seal(ascii("x"), 99), 10],
  ["change_cipher_spec, sealed", (peer) => peer.seal(Uint8Array.of(1), 20), 10],
  ["change_cipher_spec in the open", () => hex("14 03 03 00 01 01"), 10],
  ["an alert in the open", () => hex("15 03 03 00 02 01 00"), 10],
  ["data in the open", () => hex("16 03 03 00 01 00"), 10],
  ["an empty handshake record", (peer) => peer.seal(new Uint8Array(0), HANDSHAKE), 10],
  ["a ClientHello after the handshake", (peer) => peer.seal(hex("01 000001 00"), HANDSHAKE), 10],
  ["a ticket from a client", (peer) => peer.seal(hex("04 000001 00"), HANDSHAKE), 10],
  ["KeyUpdate with more behind it", (peer) => peer.seal(hex("18 000001 00 18 000001 00"), HANDSHAKE), 10],
  ["KeyUpdate of two bytes", (peer) => peer.seal(hex("18 000002 0000"), HANDSHAKE), 50],
  [
    "data inside a handshake message",
    (peer) => concat(peer.seal(hex("18 0000"), HANDSHAKE), peer.seal(ascii("P"), APPLICATION)),
    10,
  ],
  ["an alert of three bytes", (peer) => peer.seal(hex("01 00 00"), ALERT), 10],
  ["an alert of one byte", (peer) => peer.seal(hex("01"), ALERT), 10],
];

function flip(bytes: Uint8Array, at: number): Uint8Array {
  bytes[at < 0 ? bytes.length + at : at]! ^= 1;
  return bytes;
}
function twice(bytes: Uint8Array): Uint8Array {
  return concat(bytes, bytes);
}

Deno.test("a session answers every wrong record with its fatal alert, and ends (RFC 8446 §5, §6)", () =>
  Rig.with(1, (rig) => {
    const ip = freshIp();
    rig.addWorkload("server", ip);
    const pod = rig.addPod(0, ip, SERVER_URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.certify(0, pod, own);
    rig.publish();
    for (const [name, make, alert] of WRONG) {
      const peer = dialRaw(rig, ip);
      peer.sendRaw(make(peer));
      peer.ending();
      assertEquals(peer.alerts, [`2,${alert}`], name);
      assertEquals(pod.sessions.size, 0, name);
    }
    assertEquals(rig.records(0).length, WRONG.length);
    const value = dialRaw(rig, ip); // Its place is an illegal_parameter; whichever alert, it is fatal.
    value.sendRaw(value.seal(hex("18 000001 02"), HANDSHAKE));
    value.ending();
    assertMatch(value.alerts.join(), /^2,(10|47|50)$/);
  }));

Deno.test("records and handshake messages may come in any pieces, padded, with keys changed in between (RFC 8446 §5.1)", () =>
  Rig.with(1, (rig) => {
    const ip = freshIp();
    rig.addWorkload("server", ip);
    const pod = rig.addPod(0, ip, SERVER_URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.certify(0, pod, own);
    rig.publish();
    const listener = new Server(ip);
    rig.atEnd(() => listener.close());
    const random = randomOf(3), peer = dialRaw(rig, ip);
    const preface = concat(ascii("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(FrameType.SETTINGS, 0, 0));
    const connect = connectFrame(1, `${formatIp(...ip)}:${listener.port}`);
    const body = new Uint8Array(300_000);
    for (let at = 0; at < body.length; at++) body[at] = (at * 7) & 255;
    const parts: Uint8Array[] = [preface, connect];
    for (let at = 0; at < body.length;) {
      const bytes = Math.min(1 + random(40_000), body.length - at);
      parts.push(frame(DATA, 0, 1, body.subarray(at, at + bytes)));
      at += bytes;
    }
    const plain = concat(...parts), records: Uint8Array[] = [];
    for (let at = 0; at < plain.length;) {
      const bytes = Math.min([1, 9, 100, 5_000, 16_000][random(5)]!, plain.length - at),
        piece = plain.subarray(at, at + bytes);
      const padding = random(3) === 0 ? random(200) : 0;
      if (padding === 0) records.push(peer.seal(piece, APPLICATION));
      else records.push(peer.seal(concat(piece, Uint8Array.of(APPLICATION), new Uint8Array(padding)), 0));
      at += bytes;
      if (random(6) > 0) continue;
      const update = hex("18 000001 0" + random(2));
      const cut = random(5);
      if (cut > 0) records.push(peer.seal(update.subarray(0, cut), HANDSHAKE));
      records.push(peer.seal(update.subarray(cut), HANDSHAKE));
      peer.sealer.nextKey();
    }
    const wire = concat(...records);
    let application: Socket | undefined, got = 0;
    for (let at = 0; at < wire.length;) {
      const bytes = Math.min([1, 3, 5, 100, 17_000, 60_000][random(6)]!, wire.length - at);
      at += peer.socket.write(wire.subarray(at, at + bytes));
      rig.turn();
      peer.poll();
      application ??= listener.accept();
      if (application === undefined) continue;
      for (const byte of application.read()) {
        assert(byte === (got++ * 7 & 255), `byte ${got - 1} is the one that was sent`);
      }
    }
    rig.until("all has arrived", () => {
      application ??= listener.accept();
      for (const byte of application?.read() ?? []) {
        assert(byte === (got++ * 7 & 255), "bytes are those that were sent");
      }
      return got === body.length;
    });
    assertEquals(peer.alerts, []);
    application!.close();
  }));

Deno.test("keys change on request of either side while bytes flow, many times, with both suites (RFC 8446 §4.6.3)", () =>
  withServer(({ rig, open }) => {
    for (const ciphers of ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"]) {
      const { peer, application } = open(ciphers);
      assertEquals(peer.tls.cipher, ciphers);
      let there = 0, back = 0;
      for (let round = 0; round < 50; round++) {
        peer.tls.keyUpdate(round % 2 === 0);
        peer.send(frame(DATA, 0, 1, ascii(`round ${round}`)));
        there += `round ${round}`.length;
        application.write(new Uint8Array(1000).fill(round));
        back += 1000;
        rig.until("bytes pass both ways", () => {
          application.read();
          peer.poll();
          return application.receivedBytes === there &&
            peer.frames.reduce((sum, it) => sum + (it.type === DATA ? it.payload.length : 0), 0) === back;
        });
        assertEquals(peer.tls.failure, "");
      }
    }
  }));

Deno.test("a flood of key updates, or of empty records, ends with ENHANCE_YOUR_CALM", () =>
  withServer(({ rig, open, sessions }) => {
    const { peer } = open();
    for (let round = 0; round < 3_000 && !peer.over; round++) {
      peer.tls.keyUpdate(true);
      peer.send(frame(DATA, 0, 1, ascii("x")));
      if (round % 50 === 0) peer.poll();
    }
    assertEquals(peer.ending(), "ENHANCE_YOUR_CALM");
    rig.until("the session is gone", () => sessions() === 0);
  }));

Deno.test("close_notify, a fatal alert, a cut record and a plain end all end the session; what came before is delivered (ZT-069)", () =>
  withServer(({ rig, open, sessions }) => {
    const endings: [string, (peer: H2Peer) => void, RegExp][] = [
      ["close_notify", (peer) => peer.tls.shutdown(), /^send: the peer closed the connection$/],
      ["the end of the stream", (peer) => peer.socket.finish(), /^send: the peer closed the connection$/],
      [
        "half a record",
        (peer) => (peer.socket.write(hex("17 03 03 00 40 00") as Uint8Array<ArrayBuffer>), peer.socket.finish()),
        /^send: the peer closed the connection$/,
      ],
    ];
    for (const [name, end, reason] of endings) {
      const { peer, application } = open();
      peer.send(frame(DATA, 0, 1, ascii("before")));
      end(peer);
      rig.until("the application is closed", () => (application.read(), application.ended || application.error !== 0));
      assertEquals(application.receivedBytes, 6, name);
      assertEquals(sessions(), 0, name);
      assertMatch(rig.records(0).at(-1)!.error!, reason, name);
    }
  }));
