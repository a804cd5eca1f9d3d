/** What an application learns of a stream that was cut: a part of what was sent must not look like all of it. */
import { assertEquals } from "@std/assert";
import { FrameFlag, FrameType, H2Error } from "../../wire/h2/frame_rules.ts";
import { ascii, frame } from "../../wire/h2/testing.ts";
import { type H2Peer, word } from "./h2_peer_testing.ts";
import { type Inbound, withInbound } from "./inbound_testing.ts";
import type { Socket } from "./loopback_testing.ts";

const { DATA, GOAWAY, PUSH_PROMISE, RST_STREAM } = FrameType, { END_STREAM } = FrameFlag;
const ECONNRESET = 104;

const reset = (code: number) => (peer: H2Peer) => peer.send(frame(RST_STREAM, 0, 1, word(code)));

/** Sends six bytes, ends somehow. @returns Bytes that arrived, whether they seem to be all, and the errno if not. */
function outcomeOf({ rig, tunnel, peer: open }: Inbound, end: (peer: H2Peer) => void): readonly unknown[] {
  const peer = open(), application: Socket = tunnel(peer, 1);
  peer.send(frame(DATA, 0, 1, ascii("before")));
  end(peer);
  rig.until("the application learns of it", () => (application.read(), application.ended || application.error !== 0));
  return [application.receivedBytes, application.ended, application.error];
}

Deno.test("a stream whose session breaks off is a reset to the application, not an end: nobody can cut a message short unseen", () =>
  withInbound((inbound) => {
    const ways: readonly (readonly [name: string, end: (peer: H2Peer) => void])[] = [
      ["TCP ends without close_notify", (peer) => peer.socket.finish()],
      ["TCP is reset", (peer) => peer.socket.abort()],
      ["close_notify inside a stream", (peer) => peer.tls.shutdown()],
      ["a broken rule", (peer) => peer.send(frame(PUSH_PROMISE, 0, 1, word(2)))],
      ["a GOAWAY before", (peer) => (peer.send(frame(GOAWAY, 0, 0, new Uint8Array(8))), peer.socket.finish())],
      ["a reset of the stream for an error", reset(H2Error.INTERNAL_ERROR)],
    ];
    for (const [name, end] of ways) assertEquals(outcomeOf(inbound, end), [6, false, ECONNRESET], name);
  }));

Deno.test("a stream that ends in order is an end to the application, whatever becomes of the session (ZT-065, ZT-067)", () =>
  withInbound((inbound) => {
    const ways: readonly (readonly [name: string, end: (peer: H2Peer) => void])[] = [
      ["END_STREAM", (peer) => peer.send(frame(DATA, END_STREAM, 1))],
      ["END_STREAM, and the session breaks off", (peer) => {
        peer.send(frame(DATA, END_STREAM, 1));
        peer.socket.finish();
      }],
      ["CANCEL", reset(H2Error.CANCEL)],
      ["NO_ERROR", reset(H2Error.NO_ERROR)],
    ];
    for (const [name, end] of ways) assertEquals(outcomeOf(inbound, end), [6, true, 0], name);
  }));

Deno.test("bytes that an application has not read yet, of a stream that ended in order, do not turn into a short message when the session breaks", () =>
  withInbound(({ rig, tunnel, peer: open }) => {
    const peer = open(), application = tunnel(peer, 1), bytes = new Uint8Array(16_384);
    let sent = 0;
    // More than both socket buffers hold: the rest is kept by the worker.
    for (; rig.shards[0]!.buffers.chunksTaken < 4; sent += bytes.length) {
      peer.send(frame(DATA, 0, 1, bytes));
      rig.turn();
    }
    peer.send(frame(DATA, END_STREAM, 1));
    peer.socket.finish();
    rig.until("the connection is over", () => rig.shards[0]!.connectionCount === 0);
    rig.until("the application learns of it", () => (application.read(), application.ended || application.error !== 0));
    assertEquals([application.receivedBytes < sent, application.ended, application.error], [true, false, ECONNRESET]);
  }));
