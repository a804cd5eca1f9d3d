/** An inbound session against a client written by hand: what we announce, what we answer, what we do not put up with. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { formatIp } from "../../base/address.ts";
import { setSocketFlag } from "../../os/libc_cold.ts";
import { CLIENT_PREFACE, FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { ascii, frame, hex } from "../../wire/h2/testing.ts";
import { AccessKind } from "../tables/access.ts";
import { ResponseFlag, WORKER } from "../tables/layout.ts";
import { policyOf } from "../tables/testing.ts";
import { concat, connectFrame, H2Peer, word } from "./h2_peer_testing.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import { authority as meshAuthority } from "./testing.ts";

import { client, CONNECT_METHOD, field, withInbound } from "./inbound_testing.ts";
const { DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE } = FrameType;
const { END_STREAM, END_HEADERS, PADDED, ACK } = FrameFlag;
const SOL_SOCKET = 1, SO_SNDBUF = 7;

Deno.test("a server session announces exactly its settings and window, and acknowledges ours (ZT-061)", () =>
  withInbound(({ peer: open }) => {
    const peer = open();
    peer.expect(SETTINGS, 0);
    peer.expect(WINDOW_UPDATE, 0);
    const acknowledgement = peer.expect(SETTINGS, 0);
    assertEquals([acknowledgement.flags, acknowledgement.payload.length], [ACK, 0]);
    const again = open(), first = again.expect(SETTINGS, 0), second = again.expect(WINDOW_UPDATE, 0);
    assertEquals(first.flags, 0);
    assertEquals(first.payload.toHex(), "0003000000c8" + "000400400000" + "000500100000" + "000600010000");
    assertEquals(second.payload.toHex(), (16_711_681).toString(16).padStart(8, "0"));
  }));

Deno.test("a CONNECT is answered with 200 once the application is there, and carries bytes both ways (ZT-059)", () =>
  withInbound(({ rig, peer: open, tunnel }) => {
    const peer = open(), application = tunnel(peer, 1);
    peer.send(frame(DATA, 0, 1, ascii("hello")), frame(DATA, PADDED, 1, hex("02 21 0000")));
    let got = "";
    rig.until("it arrives", () => (got += new TextDecoder().decode(application.read())) === "hello!");
    application.write(ascii("answer") as Uint8Array<ArrayBuffer>);
    assertEquals(new TextDecoder().decode(peer.expect(DATA, 1).payload), "answer");
    peer.send(frame(DATA, END_STREAM, 1));
    rig.until("the end arrives", () => (application.read(), application.ended));
    application.finish();
    const last = peer.expect(DATA, 1);
    assertEquals([last.flags & END_STREAM, last.payload.length], [END_STREAM, 0]);
    rig.until("the connection is over", () => rig.shards[0]!.connectionCount === 0);
    assertEquals(peer.frames.filter(({ type }) => type === RST_STREAM), []);
    assertEquals(rig.records(0).map((it) => [it.kind, it.flag, it.receivedBytes, it.sentBytes]), [
      [AccessKind.COMPLETE, ResponseFlag.NONE, 6, 6],
    ]);
  }));

Deno.test("every refused request gets its status, END_STREAM and RST_STREAM(NO_ERROR); the session stays (ZT-060)", () =>
  withInbound(({ rig, ip, authority, peer: open, tunnel }) => {
    const peer = open(), closed = new Server(freshIp());
    closed.close();
    const address = formatIp(...ip);
    const cases: [string, Uint8Array, string][] = [
      [
        "another method",
        concat(field(":method", "GET"), field(":scheme", "http"), field(":path", "/"), field(":authority", authority)),
        "400",
      ],
      ["no port", concat(CONNECT_METHOD, field(":authority", address)), "400"],
      ["no number", concat(CONNECT_METHOD, field(":authority", `${address}:http`)), "400"],
      ["another address", concat(CONNECT_METHOD, field(":authority", "10.1.2.3:80")), "400"],
      ["an unknown name", concat(CONNECT_METHOD, field(":authority", "nobody.example:80")), "503"],
      ["a reserved port", concat(CONNECT_METHOD, field(":authority", `${address}:15008`)), "503"],
      ["nobody listens", concat(CONNECT_METHOD, field(":authority", `${address}:${closed.port}`)), "503"],
    ];
    let streamId = 1;
    for (const [name, block, status] of cases) {
      for (const flags of [0, END_STREAM]) {
        peer.send(frame(HEADERS, END_HEADERS | flags, streamId, block));
        assertEquals(peer.answer(streamId), { headers: [`:status: ${status}`], ended: true }, name);
        if (flags === 0) assertEquals(peer.reset(streamId), "NO_ERROR", name);
        streamId += 2;
      }
    }
    tunnel(peer, streamId).close;
    assertEquals(peer.frames.filter(({ type }) => type === RST_STREAM || type === GOAWAY), []);
    const counted = rig.records(0).filter(({ kind }) => kind === AccessKind.COMPLETE);
    assertEquals(counted.map(({ flag }) => flag), [ResponseFlag.CONNECT, ResponseFlag.CONNECT]);
  }));

Deno.test("a request that policy denies gets 401, is counted, and reaches no application (ZT-060, ZT-107)", () =>
  withInbound(({ rig, authority, application, peer: open }) => {
    const peer = open();
    peer.send(connectFrame(1, authority));
    assertEquals(peer.answer(1), { headers: [":status: 401"], ended: true });
    assertEquals(peer.reset(1), "NO_ERROR");
    assertEquals(application.accept(), undefined);
    assertEquals(rig.records(0).map(({ kind, flag, error }) => [kind, flag, error]), [[
      AccessKind.COMPLETE,
      ResponseFlag.DENY,
      "connection closed due to policy rejection: explicitly denied by: default/no-client",
    ]]);
  }, (rig) => rig.mesh.putPolicy(denyClient())));

function denyClient() {
  const none = {
    namespaces: [],
    notNamespaces: [],
    principals: [],
    notPrincipals: [],
    serviceAccounts: [{ namespace: "default", serviceAccount: "client" }],
    notServiceAccounts: [],
    sourceIps: [],
    notSourceIps: [],
    destinationIps: [],
    notDestinationIps: [],
    destinationPorts: [],
    notDestinationPorts: [],
  };
  return policyOf("default/no-client", { scope: 1, action: 1, rules: [{ clauses: [[none]] }] });
}

Deno.test("a new DENY cuts the open connections it refuses with CANCEL, and no others (ZT-120, ZT-068)", () =>
  withInbound(({ rig, peer: open, tunnel }) => {
    const peer = open(), application = tunnel(peer, 1);
    rig.mesh.putPolicy(
      policyOf("elsewhere/no-client", { ...denyClient(), key: "elsewhere/no-client", namespace: "elsewhere" }),
    );
    rig.publish();
    for (let turn = 0; turn < 5; turn++) rig.turn();
    peer.send(frame(DATA, 0, 1, ascii("still")));
    rig.until("bytes pass", () => (application.read(), application.receivedBytes === 5));
    rig.mesh.putPolicy(denyClient());
    rig.publish();
    assertEquals(peer.reset(1), "CANCEL");
    rig.until("the application is closed", () => (application.read(), application.ended || application.error !== 0));
    const [record] = rig.records(0);
    assertEquals(record!.flag, ResponseFlag.DENY);
    assertMatch(record!.error!, /^connection closed due to policy change/);
    assertEquals(peer.over, false);
  }));

Deno.test("RST_STREAM with NO_ERROR, CANCEL or STREAM_CLOSED is a clean end, any other an error (ZT-067)", () =>
  withInbound(({ rig, peer: open, tunnel }) => {
    const peer = open();
    for (const [at, code] of [0, 8, 5, 2, 11].entries()) {
      const streamId = 1 + 2 * at, application = tunnel(peer, streamId);
      peer.send(frame(DATA, 0, streamId, ascii("last words")), frame(RST_STREAM, 0, streamId, word(code)));
      rig.until(
        "the application sees the end",
        () => (application.read(), application.ended || application.error !== 0),
      );
      assertEquals(application.receivedBytes, 10);
      rig.until("the connection is over", () => rig.shards[0]!.connectionCount === 0);
      const [record] = rig.records(0);
      const clean = code === 0 || code === 8 || code === 5;
      assertEquals(record!.flag, clean ? ResponseFlag.NONE : ResponseFlag.CONNECT, `code ${code}`);
    }
  }));

Deno.test("an application's reset reaches the peer as END_STREAM (ZT-066)", () =>
  withInbound(({ rig, authority, application, peer: open }) => {
    const peer = open();
    peer.send(connectFrame(1, authority));
    let arrived: Socket | undefined;
    rig.until("the application is connected to", () => (arrived = application.accept()) !== undefined);
    peer.answer(1);
    peer.send(frame(DATA, 0, 1, ascii("unread")));
    for (let turn = 0; turn < 3; turn++) rig.turn();
    arrived!.abort();
    assertEquals(peer.expect(DATA, 1).flags & END_STREAM, END_STREAM);
    peer.send(frame(DATA, 0, 1, ascii("to nobody")));
    rig.until("the connection is over", () => rig.shards[0]!.connectionCount === 0);
    assertEquals(rig.records(0).map(({ flag }) => flag), [ResponseFlag.NONE]);
  }));

Deno.test("a peer that asks and never reads is cut off, with bounded memory", () =>
  withInbound(({ rig, ip, tunnel }) => {
    const peer = H2Peer.dial(rig, ip, client).greet();
    tunnel(peer, 1);
    const pings = concat(...Array.from({ length: 200 }, () => frame(PING, 0, 0, new Uint8Array(8))));
    let asked = 0;
    for (let round = 0; round < 4_000 && rig.shards[0]!.connectionCount > 0; round++) {
      const sent = peer.tls.write(pings); // And no read.
      if (sent < 0) break;
      asked += sent;
      rig.pass(1_000 / 5, 200); // As fast as the budget of oddities allows, or faster.
    }
    assert(asked > 0);
    assertEquals(rig.shards[0]!.connectionCount, 0);
  }));

Deno.test("a preface that is wrong, in pieces or cut off ends or waits", () =>
  withInbound(({ rig, ip }) => {
    const wrong = H2Peer.dial(rig, ip, client);
    wrong.send(ascii("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    assertEquals(wrong.ending(), "");
    const almost = H2Peer.dial(rig, ip, client);
    almost.send(CLIENT_PREFACE.subarray(0, 23), ascii("x"));
    assertEquals(almost.ending(), "");
    const pieces = H2Peer.dial(rig, ip, client);
    for (const byte of CLIENT_PREFACE) pieces.send(Uint8Array.of(byte));
    pieces.send(frame(SETTINGS, 0, 0));
    pieces.next("an acknowledgement", ({ type, flags }) => type === SETTINGS && flags === ACK);
    const [first, second] = rig.records(0);
    assertEquals([first!.error, second!.error], Array(2).fill("not HTTP/2: wrong client preface"));
  }));

Deno.test("a silent peer is let go: without TLS after 10 s, without an answer to PING after 30 s (ZT-063)", () =>
  withInbound(({ rig, ip, pod, tunnel, peer: open }) => {
    const mute = Socket.connect(ip, 15008);
    rig.until("it is accepted", () => pod.sessions.size === 1);
    rig.pass(9_000);
    assertEquals(pod.sessions.size, 1);
    rig.pass(2_000);
    assertEquals(pod.sessions.size, 0);
    mute.close();
    assertEquals(rig.records(0).map(({ error }) => error), ["TLS handshake timed out"]);

    const lively = open();
    tunnel(lively, 1);
    for (let round = 0; round < 6; round++) { // A minute of answered PINGs, each 10 s after the last answer.
      rig.pass(9_000);
      lively.poll();
      assertEquals(lively.frames.filter(({ type }) => type === PING), [], `round ${round}`);
      rig.pass(1_200, 100);
      const ping = lively.expect(PING, 0);
      assertEquals(ping.flags, 0);
      lively.send(frame(PING, ACK, 0, ping.payload));
      for (let turn = 0; turn < 3; turn++) rig.turn();
    }
    rig.pass(29_000);
    assertEquals(pod.sessions.size, 1);
    rig.pass(2_500);
    assertEquals(pod.sessions.size, 0);
    assertEquals(lively.ending(), "NO_ERROR");
  }));

Deno.test("garbage in place of TLS costs the one connection and is logged", () =>
  withInbound(({ rig, ip, pod }) => {
    for (
      const bytes of [
        ascii("GET / HTTP/1.1\r\n\r\n"),
        new Uint8Array(3000).fill(0xff),
        hex("16 03 01 00 05 01 00 00 01 00"),
      ]
    ) {
      const socket = Socket.connect(ip, 15008);
      socket.write(bytes as Uint8Array<ArrayBuffer>);
      rig.until("it is closed", () => (socket.read(), socket.ended || socket.error !== 0));
      socket.close();
    }
    assertEquals(pod.sessions.size, 0);
    for (const { error, kind } of rig.records(0)) {
      assertEquals(kind, AccessKind.EARLY);
      assertMatch(error!, /^TLS handshake failed: error:/);
    }
  }));

Deno.test("clients of other trust domains or without a certificate get no tunnel (ZT-083)", async () => {
  const foreign = await meshAuthority.issue(["spiffe://other.domain/ns/default/sa/client"]);
  const nameless = await meshAuthority.issue([]);
  await withInbound(({ rig, ip, application }) => {
    for (const leaf of [foreign, nameless]) {
      const peer = H2Peer.dial(rig, ip, leaf).greet();
      assertEquals(peer.ending(), "");
      const [record] = rig.records(0);
      assertMatch(record!.error!, /^the peer's certificate has no SPIFFE name in trust domain cluster.local/);
    }
    const bare = H2Peer.dial(rig, ip, { ...client, chain: client.chain }, { leaf: undefined });
    bare.ending();
    assertMatch(rig.records(0)[0]!.error!, /peer did not return a certificate/);
    assertEquals(application.accept(), undefined);
    assertEquals(rig.tables.workers.getF64(0, WORKER.handshakeFailures), 3);
  });
});

Deno.test("a client's GOAWAY lets its streams run on, and ends the session with the last (ZT-073)", () =>
  withInbound(({ rig, pod, peer: open, tunnel }) => {
    const peer = open(), application = tunnel(peer, 1);
    peer.send(frame(GOAWAY, 0, 0, concat(word(0), word(0))));
    peer.send(frame(DATA, END_STREAM, 1, ascii("last")));
    rig.until("bytes pass", () => (application.read(), application.ended));
    application.write(ascii("answer") as Uint8Array<ArrayBuffer>);
    application.finish();
    assertEquals(new TextDecoder().decode(peer.expect(DATA, 1).payload), "answer");
    assertEquals(peer.ending(), "NO_ERROR");
    rig.until("the session is over", () => pod.sessions.size === 0);
    const idle = open();
    idle.send(frame(GOAWAY, 0, 0, concat(word(0), word(0))));
    assertEquals(idle.ending(), "NO_ERROR");
    rig.until("the session is over", () => pod.sessions.size === 0);
    const stubborn = open(); // Hears the goodbye and stays.
    stubborn.send(frame(GOAWAY, 0, 0, concat(word(0), word(0))));
    for (let turn = 0; turn < 5; turn++) rig.turn();
    assertEquals(pod.sessions.size, 1);
    rig.pass(5_100);
    assertEquals(pod.sessions.size, 0);
  }));

Deno.test("trailers end a stream after the bytes that came with them (RFC 9113 §8.1)", () =>
  withInbound(({ rig, peer: open, tunnel }) => {
    const peer = open(), application = tunnel(peer, 1);
    peer.send(frame(DATA, 0, 1, ascii("last")), frame(HEADERS, END_HEADERS | END_STREAM, 1, field("a", "b")));
    rig.until("the end arrives", () => (application.read(), application.ended));
    assertEquals(application.receivedBytes, 4);
  }));

Deno.test("a session that closes with its last stream has sent all of it, however slowly the peer reads (ZT-076)", () =>
  withInbound(({ rig, ip, pod, tunnel }) => {
    for (let size = 150_000; size < 3_000_000; size = Math.floor(size * 2.3)) {
      const peer = H2Peer.dial(rig, ip, client).greet(concat(hex("0004"), word(0x7fff_ffff)));
      for (const fd of rig.systems[0]!.owned) setSocketFlag(fd, SOL_SOCKET, SO_SNDBUF, 32_768); // So that it blocks.
      peer.send(frame(WINDOW_UPDATE, 0, 0, word(0x7000_0000)));
      const application = tunnel(peer, 1), body = new Uint8Array(size);
      peer.send(frame(DATA, END_STREAM, 1), frame(GOAWAY, 0, 0, concat(word(0), word(0))));
      for (let written = 0, turn = 0; written < size || turn++ < 5;) {
        const sent = application.write(body.subarray(written));
        written += sent;
        if (written === size) application.finish();
        rig.turn();
        if (sent === 0 && written < size) peer.poll();
      }
      let got = 0, ended = false;
      rig.until(`all ${size} bytes arrive`, () => {
        peer.poll();
        for (const { type, payload, flags } of peer.frames.splice(0)) {
          if (type !== DATA) continue;
          got += payload.length;
          ended ||= (flags & END_STREAM) !== 0;
        }
        return ended || peer.over;
      });
      assertEquals([got, ended], [size, true]);
      rig.until("the session is gone", () => (peer.poll(), pod.sessions.size === 0));
    }
  }));
