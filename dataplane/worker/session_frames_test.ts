/** Frames that an inbound session does not put up with, floods of them, and the windows of both directions. */
import { assert, assertEquals } from "@std/assert";
import { setSocketFlag } from "../../os/libc_cold.ts";
import { FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { ascii, frame, hex } from "../../wire/h2/testing.ts";
import { WORKER } from "../tables/layout.ts";
import { concat, connectBlock, connectFrame, word } from "./h2_peer_testing.ts";
import { Socket } from "./loopback_testing.ts";

import { CONNECT_METHOD, field, withInbound } from "./inbound_testing.ts";
const { DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION, PRIORITY, PUSH_PROMISE } =
  FrameType;
const { END_STREAM, END_HEADERS, PADDED, ACK } = FrameFlag;
const STREAM_WINDOW = 4 << 20;
const SOL_SOCKET = 1, SO_SNDBUF = 7, SO_RCVBUF = 8;

/** What ends a session, and with which error: sent after a greeting, and a tunnel on stream 1. */
const CONNECTION_ERRORS: [string, Uint8Array, string][] = [
  ["DATA on stream 0", frame(DATA, 0, 0, ascii("x")), "PROTOCOL_ERROR"],
  ["DATA on an idle stream", frame(DATA, 0, 3, ascii("x")), "PROTOCOL_ERROR"],
  ["DATA on an even stream", frame(DATA, 0, 2, ascii("x")), "PROTOCOL_ERROR"],
  ["DATA with more padding than payload", frame(DATA, PADDED, 1, hex("02 00")), "PROTOCOL_ERROR"],
  ["padded DATA without its length", frame(DATA, PADDED, 1), "FRAME_SIZE_ERROR"],
  ["HEADERS on stream 0", frame(HEADERS, END_HEADERS, 0, connectBlock("a:1")), "PROTOCOL_ERROR"],
  ["HEADERS on an even stream", frame(HEADERS, END_HEADERS, 4, connectBlock("a:1")), "PROTOCOL_ERROR"],
  ["HEADERS with more padding than payload", frame(HEADERS, END_HEADERS | PADDED, 3, hex("09 00")), "PROTOCOL_ERROR"],
  ["HEADERS with half a priority", frame(HEADERS, END_HEADERS | 0x20, 3, hex("00000000")), "FRAME_SIZE_ERROR"],
  ["a block that does not decode", frame(HEADERS, END_HEADERS, 3, hex("ff ff ff ff ff")), "COMPRESSION_ERROR"],
  ["an index beyond the tables", frame(HEADERS, END_HEADERS, 3, hex("fe")), "COMPRESSION_ERROR"],
  ["a table size beyond ours", frame(HEADERS, END_HEADERS, 3, hex("3f e2 1f")), "COMPRESSION_ERROR"],
  ["CONTINUATION out of the blue", frame(CONTINUATION, END_HEADERS, 1), "PROTOCOL_ERROR"],
  [
    "CONTINUATION on another stream",
    concat(frame(HEADERS, 0, 3), frame(CONTINUATION, END_HEADERS, 5)),
    "PROTOCOL_ERROR",
  ],
  [
    "a frame inside a header block",
    concat(frame(HEADERS, 0, 3), frame(PING, 0, 0, new Uint8Array(8))),
    "PROTOCOL_ERROR",
  ],
  ["DATA inside a header block", concat(frame(HEADERS, 0, 3), frame(DATA, 0, 1, ascii("x"))), "PROTOCOL_ERROR"],
  ["an unknown frame inside a header block", concat(frame(HEADERS, 0, 3), frame(0x77, 0, 0)), "PROTOCOL_ERROR"],
  ["PRIORITY of four bytes", frame(PRIORITY, 0, 1, new Uint8Array(4)), "FRAME_SIZE_ERROR"],
  ["PRIORITY on stream 0", frame(PRIORITY, 0, 0, new Uint8Array(5)), "PROTOCOL_ERROR"],
  ["RST_STREAM of three bytes", frame(RST_STREAM, 0, 1, new Uint8Array(3)), "FRAME_SIZE_ERROR"],
  ["RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, word(8)), "PROTOCOL_ERROR"],
  ["RST_STREAM on an idle stream", frame(RST_STREAM, 0, 9, word(8)), "PROTOCOL_ERROR"],
  ["SETTINGS on a stream", frame(SETTINGS, 0, 1), "PROTOCOL_ERROR"],
  ["SETTINGS of five bytes", frame(SETTINGS, 0, 0, new Uint8Array(5)), "FRAME_SIZE_ERROR"],
  ["an acknowledgement with payload", frame(SETTINGS, ACK, 0, new Uint8Array(6)), "FRAME_SIZE_ERROR"],
  ["ENABLE_PUSH 2", frame(SETTINGS, 0, 0, hex("0002 00000002")), "PROTOCOL_ERROR"],
  ["a window of 2^31", frame(SETTINGS, 0, 0, hex("0004 80000000")), "FLOW_CONTROL_ERROR"],
  ["a frame size below the least", frame(SETTINGS, 0, 0, hex("0005 00003fff")), "PROTOCOL_ERROR"],
  ["a frame size above the largest", frame(SETTINGS, 0, 0, hex("0005 01000000")), "PROTOCOL_ERROR"],
  ["PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, hex("00000002 82")), "PROTOCOL_ERROR"],
  ["PING of seven bytes", frame(PING, 0, 0, new Uint8Array(7)), "FRAME_SIZE_ERROR"],
  ["PING on a stream", frame(PING, 0, 1, new Uint8Array(8)), "PROTOCOL_ERROR"],
  ["GOAWAY of seven bytes", frame(GOAWAY, 0, 0, new Uint8Array(7)), "FRAME_SIZE_ERROR"],
  ["GOAWAY on a stream", frame(GOAWAY, 0, 1, new Uint8Array(8)), "PROTOCOL_ERROR"],
  ["WINDOW_UPDATE of three bytes", frame(WINDOW_UPDATE, 0, 0, new Uint8Array(3)), "FRAME_SIZE_ERROR"],
  ["WINDOW_UPDATE of 0 for the session", frame(WINDOW_UPDATE, 0, 0, word(0)), "PROTOCOL_ERROR"],
  ["WINDOW_UPDATE past 2^31-1", frame(WINDOW_UPDATE, 0, 0, word(0x7fffffff)), "FLOW_CONTROL_ERROR"],
  ["WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 7, word(1)), "PROTOCOL_ERROR"],
  [
    "an initial window that overflows a stream's",
    concat(
      frame(WINDOW_UPDATE, 0, 1, word(0x7fffffff - 65_535)),
      frame(SETTINGS, 0, 0, hex("0004 00010000")),
    ),
    "FLOW_CONTROL_ERROR",
  ],
  ["a frame beyond what we announced", hex("100001 00 00 00000001"), "FRAME_SIZE_ERROR"],
  ["HEADERS beyond any list of ours", hex("020000 01 04 00000003"), "ENHANCE_YOUR_CALM"],
  ["DATA after END_STREAM", concat(frame(DATA, END_STREAM, 1), frame(DATA, 0, 1, ascii("x"))), "STREAM_CLOSED"],
];

Deno.test("a session ends with the right error for every broken rule, and leaves nothing (RFC 9113 §6)", () =>
  withInbound(({ rig, peer: open, tunnel }) => {
    for (const [name, bytes, error] of CONNECTION_ERRORS) {
      const peer = open(), application = tunnel(peer, 1);
      peer.send(bytes);
      assertEquals(peer.ending(), error, name);
      rig.until("the application is closed", () => (application.read(), application.ended || application.error !== 0));
      assertEquals(rig.shards[0]!.connectionCount, 0, name);
    }
    assertEquals(rig.tables.workers.getF64(0, WORKER.glitches), CONNECTION_ERRORS.length);
    assertEquals(rig.tables.workers.getF64(0, WORKER.downstreamSessions), 0);
  }));

/** What ends a stream alone. */
const STREAM_ERRORS: [string, Uint8Array, string][] = [
  ["WINDOW_UPDATE of 0", frame(WINDOW_UPDATE, 0, 1, word(0)), "PROTOCOL_ERROR"],
  ["WINDOW_UPDATE past 2^31-1", frame(WINDOW_UPDATE, 0, 1, word(0x7fffffff)), "FLOW_CONTROL_ERROR"],
  ["trailers that do not end the stream", frame(HEADERS, END_HEADERS, 1, field("a", "b")), "PROTOCOL_ERROR"],
];

Deno.test("a stream's own error resets it and leaves the others alone (RFC 9113 §5.4.2)", () =>
  withInbound(({ rig, peer: open, tunnel }) => {
    for (const [name, bytes, error] of STREAM_ERRORS) {
      const peer = open(), broken = tunnel(peer, 1), other = tunnel(peer, 3);
      peer.send(bytes);
      assertEquals(peer.reset(1), error, name);
      rig.until("its application is closed", () => (broken.read(), broken.ended || broken.error !== 0));
      peer.send(frame(DATA, 0, 3, ascii("fine")));
      rig.until("the other carries on", () => (other.read(), other.receivedBytes === 4));
    }
    const malformed = open();
    malformed.send(frame(HEADERS, END_HEADERS, 1, concat(CONNECT_METHOD, field("Upper", "x"))));
    assertEquals(malformed.reset(1), "PROTOCOL_ERROR");
  }));

Deno.test("what means nothing to us is passed over: unknown frames, PRIORITY, unknown settings (RFC 9113 §5.5)", () =>
  withInbound(({ rig, peer: open, tunnel }) => {
    const peer = open(), application = tunnel(peer, 1);
    peer.send(
      frame(0x2a, 0xff, 0, new Uint8Array(100_000)),
      frame(0xff, 0, 12, ascii("x")),
      frame(PRIORITY, 0, 9, new Uint8Array(5)),
      frame(SETTINGS, 0, 0, hex("00ff 00000001 0001 00000000")),
      frame(DATA, 0, 1, ascii("after")),
    );
    rig.until("bytes pass", () => (application.read(), application.receivedBytes === 5));
    assertEquals(peer.over, false);
  }));

const NOT_CONNECT = concat(
  field(":method", "GET"),
  field(":scheme", "http"),
  field(":path", "/"),
  field(":authority", "a:1"),
);

/** Legal, but nobody needs thousands of them: all but the last are answered with ENHANCE_YOUR_CALM at some point. */
const FLOODS: [string, (streamId: number) => Uint8Array][] = [
  ["PING", () => frame(PING, 0, 0, new Uint8Array(8))],
  ["SETTINGS", () => frame(SETTINGS, 0, 0)],
  ["empty DATA", () => frame(DATA, 0, 1)],
  ["PRIORITY", () => frame(PRIORITY, 0, 1, new Uint8Array(5))],
  ["unknown frames", () => frame(0xaa, 0, 0)],
  ["streams opened and reset", (id) => concat(connectFrame(id, "127.0.0.1:1"), frame(RST_STREAM, 0, id, word(8)))],
  ["malformed requests", (id) => frame(HEADERS, END_HEADERS, id, field("UPPER", "x"))],
  ["requests that are no CONNECT", (id) => frame(HEADERS, END_HEADERS | END_STREAM, id, NOT_CONNECT)],
  ["trailers of streams that are gone", () => frame(HEADERS, END_HEADERS | END_STREAM, 1, field("a", "b"))],
];

Deno.test("a flood of what is legal but useless ends with ENHANCE_YOUR_CALM, in bounded memory", () =>
  withInbound(({ rig, peer: open, tunnel }) => {
    for (const [name, make] of FLOODS) {
      const peer = open();
      if (name !== "trailers of streams that are gone") tunnel(peer, 1);
      else {
        peer.send(frame(HEADERS, END_HEADERS, 1, CONNECT_METHOD));
        peer.expect(RST_STREAM, 1);
      }
      for (let round = 0; round < 60 && !peer.over; round++) {
        peer.send(...Array.from({ length: 100 }, (_, at) => make(3 + 2 * (round * 100 + at))));
        peer.poll();
      }
      assertEquals(peer.ending(), "ENHANCE_YOUR_CALM", name);
    }
    rig.until("no connection is left", () => rig.shards[0]!.connectionCount === 0);
  }));

Deno.test("a header block in endless CONTINUATIONs is cut off, full or empty (CVE-2024-27316 and its kin)", () =>
  withInbound(({ peer: open }) => {
    const full = open();
    full.send(frame(HEADERS, 0, 1, connectBlock("a:1")));
    for (let round = 0; round < 20 && !full.over; round++) full.send(frame(CONTINUATION, 0, 1, new Uint8Array(16_000)));
    assertEquals(full.ending(), "ENHANCE_YOUR_CALM");
    const empty = open();
    empty.send(frame(HEADERS, 0, 1, connectBlock("a:1")));
    for (let round = 0; round < 60 && !empty.over; round++) {
      empty.send(...Array.from({ length: 100 }, () => frame(CONTINUATION, 0, 1)));
      empty.poll();
    }
    assertEquals(empty.ending(), "ENHANCE_YOUR_CALM");
  }));

Deno.test("a list that unfolds beyond 64 KiB is refused with 400, however small its block (HPACK bomb)", () =>
  withInbound(({ peer: open, tunnel }) => {
    const peer = open();
    const entry = concat(
      Uint8Array.of(0x40, 1),
      ascii("b"),
      Uint8Array.of(0x7f, 0xa1, 0x1e),
      new Uint8Array(4000).fill(0x61),
    );
    const block = concat(CONNECT_METHOD, field(":authority", "127.0.0.1:1"), entry, new Uint8Array(16_000).fill(0xbe));
    peer.send(frame(HEADERS, END_HEADERS, 1, block));
    assertEquals(peer.answer(1), { headers: [":status: 400"], ended: true });
    tunnel(peer, 3);
  }));

Deno.test("a peer that wants a smaller header table hears first that none is used (RFC 9113 §4.3.1)", () =>
  withInbound(({ peer: open, authority, arrive }) => {
    const peer = open();
    peer.send(frame(SETTINGS, 0, 0, hex("0001 00000000")));
    for (const streamId of [1, 3]) {
      peer.send(connectFrame(streamId, authority));
      arrive();
      assertEquals(peer.expect(HEADERS, streamId).payload[0] === 0x20, streamId === 1);
    }
  }));

Deno.test("more streams than announced are refused, not served (ZT-061)", () =>
  withInbound(({ rig, authority, application, peer: open }) => {
    const peer = open(), arrived: Socket[] = [];
    for (let streamId = 1; streamId <= 401; streamId += 2) peer.send(connectFrame(streamId, authority));
    assertEquals(peer.reset(401), "REFUSED_STREAM");
    rig.until("200 are served", () => {
      const socket = application.accept();
      if (socket !== undefined) arrived.push(socket);
      return arrived.length === 200;
    });
    for (const socket of arrived) socket.close();
    for (let turn = 0; turn < 5; turn++) rig.turn();
    assertEquals(application.accept(), undefined);
  }));

Deno.test("a peer that overruns a stream's window ends its session with FLOW_CONTROL_ERROR; a full one is fine", () =>
  withInbound(({ rig, peer: open, tunnel }) => {
    const peer = open(), application = tunnel(peer, 1), chunk = new Uint8Array(16_384);
    let sent = 0;
    for (; sent < STREAM_WINDOW; sent += chunk.length) peer.send(frame(DATA, 0, 1, chunk));
    for (let turn = 0; turn < 20; turn++) rig.turn();
    peer.poll();
    assertEquals(peer.over, false);
    const granted = peer.frames.filter(({ type, streamId }) => type === WINDOW_UPDATE && streamId === 1);
    let window = 0;
    for (const { payload } of granted) window += new DataView(payload.buffer).getUint32(0);
    for (; sent < STREAM_WINDOW + window; sent += chunk.length) peer.send(frame(DATA, 0, 1, chunk));
    peer.send(...Array.from({ length: 600 }, () => frame(DATA, 0, 1, chunk))); // 9 MiB that nobody granted.
    assertEquals(peer.ending(), "FLOW_CONTROL_ERROR");
    rig.until("the application is closed", () => (application.read(), application.ended || application.error !== 0));
    assert(application.receivedBytes <= sent, "no byte beyond the window reached the application");
  }));

Deno.test("our bytes stay within the windows that the peer grants (RFC 9113 §6.9)", () =>
  withInbound(({ rig, tunnel, peer: open }) => {
    const peer = open();
    peer.send(frame(SETTINGS, 0, 0, concat(hex("0004"), word(1000))));
    const application = tunnel(peer, 1), body = new Uint8Array(200_000);
    let written = 0, got = 0;
    const step = () => {
      written += application.write(body.subarray(0, Math.min(body.length, 200_000 - written)));
      for (let turn = 0; turn < 3; turn++) rig.turn();
      peer.poll();
      for (const { type, payload } of peer.frames.splice(0)) if (type === DATA) got += payload.length;
    };
    step();
    assertEquals(got, 1000);
    peer.send(frame(WINDOW_UPDATE, 0, 1, word(1)));
    step();
    assertEquals(got, 1001);
    peer.send(frame(SETTINGS, 0, 0, concat(hex("0004"), word(0)))); // The window is -1000 now (§6.9.2).
    peer.send(frame(WINDOW_UPDATE, 0, 1, word(1000)));
    step();
    assertEquals(got, 1001);
    peer.send(frame(WINDOW_UPDATE, 0, 1, word(100_000)));
    for (let round = 0; round < 5; round++) step();
    assertEquals(got, 65_535, "the session's window holds where the stream's does not");
    peer.send(frame(WINDOW_UPDATE, 0, 0, word(1_000_000)));
    for (let round = 0; round < 5; round++) step();
    assertEquals(got, 1001 + 100_000);
  }));

Deno.test("when the worker has no memory left for what applications do not read, a stream ends, not the worker", () =>
  withInbound(({ rig, application: listener, peer: open, tunnel }) => {
    setSocketFlag(listener.fd, SOL_SOCKET, SO_RCVBUF, 4_096);
    const peer = open(), chunk = new Uint8Array(16_384), streams = [1, 3, 5];
    const applications = streams.map((streamId) => tunnel(peer, streamId));
    for (const fd of rig.systems[0]!.owned) setSocketFlag(fd, SOL_SOCKET, SO_SNDBUF, 16_384);
    for (let sent = 0; sent + chunk.length <= STREAM_WINDOW; sent += chunk.length) {
      for (const streamId of streams) peer.send(frame(DATA, 0, streamId, chunk));
    }
    const reset = peer.next("a reset", ({ type }) => type === RST_STREAM);
    assertEquals(reset.payload.toHex(), "0000000b", "ENHANCE_YOUR_CALM");
    assertEquals(peer.over, false);
    const alive = streams.indexOf(streams.find((it) => it !== reset.streamId)!);
    rig.until("another application goes on", () => {
      applications[alive]!.read();
      return applications[alive]!.receivedBytes > 100_000;
    });
    setSocketFlag(listener.fd, SOL_SOCKET, SO_RCVBUF, 1 << 20);
    for (const application of applications) application.close();
    rig.until(
      "all is over",
      () => rig.shards[0]!.connectionCount === 0 || (peer.send(frame(DATA, 0, streams[alive]!, chunk)), false),
    );
    // Every byte was credited again, wherever it ended: else a few such peers would shut the session for good.
    for (let round = 0; round < 6; round++) {
      const next = tunnel(peer, 9 + 2 * round);
      for (let sent = 0; sent + chunk.length <= STREAM_WINDOW; sent += chunk.length) {
        peer.send(frame(DATA, 0, 9 + 2 * round, chunk));
        next.read();
        rig.turn();
      }
      rig.until("all arrives", () => (next.read(), next.receivedBytes === STREAM_WINDOW));
    }
    assertEquals(peer.over, false);
  }));
