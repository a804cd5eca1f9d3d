/** Sessions that we open, against an upstream written by hand: what it hears, and what its answers do to the tunnels. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { formatIp, type IpWords } from "../../base/address.ts";
import { FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { ascii, frame, hex } from "../../wire/h2/testing.ts";
import { Command, ResponseFlag, WORKER } from "../tables/layout.ts";
import { concat, H2Peer, word } from "./h2_peer_testing.ts";
import { ListenerKind } from "./listener.ts";
import type { Pod } from "./pod.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import { issue, Rig } from "./testing.ts";

const { DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, PUSH_PROMISE } = FrameType;
const { END_STREAM, END_HEADERS, ACK } = FrameFlag;
const CLIENT_URI = "spiffe://cluster.local/ns/default/sa/client",
  SERVER_URI = "spiffe://cluster.local/ns/default/sa/server";
const own = await issue(CLIENT_URI), upstreamLeaf = await issue(SERVER_URI);
const OTHER_URI = "spiffe://cluster.local/ns/default/sa/renamed", renamed = await issue(OTHER_URI);
const OK = hex("88");

interface Outbound {
  readonly rig: Rig;
  readonly pod: Pod;
  readonly ip: IpWords;
  readonly listener: Server;
  /** A new connection of the application. */
  open(): Socket;
  /** The next session that comes in, after its TLS handshake; `settings` is our payload of SETTINGS. */
  accept(settings?: Uint8Array): H2Peer;
}

function withOutbound(body: (outbound: Outbound) => void, streamsPerSessionMax = 100): Promise<void> {
  return Rig.with(1, (rig) => {
    const clientIp = freshIp(), ip = freshIp();
    rig.addWorkload("client", clientIp, {
      canonicalName: "shop",
      canonicalRevision: "v1",
      workloadName: "client-workload",
      locality: { region: "r1", zone: "z1", subzone: "" },
      clusterId: "K1",
    });
    rig.addWorkload("server", ip);
    const pod = rig.addPod(0, clientIp, CLIENT_URI);
    rig.certify(0, pod, own);
    rig.publish();
    const listener = new Server(ip, 15008);
    rig.atEnd(() => listener.close());
    body({
      rig,
      pod,
      ip,
      listener,
      open: () => rig.capture(0, pod, ListenerKind.OUTBOUND, { ip, port: 8080 }),
      accept(settings = new Uint8Array(0)) {
        let socket: Socket | undefined;
        rig.until("a session comes in", () => (socket = listener.accept()) !== undefined);
        const peer = new H2Peer(rig, socket!, { server: true, leaf: upstreamLeaf, roots: own.roots, tickets: 2 });
        peer.handshake();
        return peer.greet(settings);
      },
    });
  }, { streamsPerSessionMax });
}

const closed = (rig: Rig, socket: Socket) =>
  rig.until("the application is closed", () => (socket.read(), socket.ended || socket.error !== 0));

Deno.test("a client session announces exactly its settings, window and CONNECT (ZT-052, ZT-054, ZT-055, ZT-057, ZT-061)", () =>
  withOutbound(({ ip, open, accept }) => {
    const application = open(), peer = accept();
    const settings = peer.expect(SETTINGS, 0), window = peer.expect(WINDOW_UPDATE, 0);
    assertEquals(settings.payload.toHex(), "000200000000" + "000400400000" + "000500100000" + "000600004000");
    assertEquals(window.payload.toHex(), (16_711_681).toString(16).padStart(8, "0"));
    const request = peer.frames.find(({ type }) => type === HEADERS) ?? peer.expect(HEADERS, 1);
    assertEquals([request.streamId, request.flags], [1, END_HEADERS]);
    peer.frames.unshift(request);
    const { headers } = peer.answer(1);
    assertEquals(headers.slice(0, 3), [
      ":method: CONNECT",
      `:authority: ${formatIp(...ip)}:8080`,
      "baggage: k8s.cluster.name=K1,k8s.namespace.name=default,k8s.deployment.name=client-workload,service.name=shop," +
      "service.version=v1,cloud.region=r1,cloud.availability_zone=z1",
    ]);
    assertMatch(headers[3]!, /^forwarded: for="127\.\d+\.\d+\.\d+:\d+"$/);
    assertMatch(headers[4]!, /^traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    assertEquals(headers.length, 5);
    assertEquals(application.ended, false);
  }));

Deno.test("nothing of the application is read before the 200, everything after it (ZT-059)", () =>
  withOutbound(({ rig, open, accept }) => {
    const application = open(), peer = accept();
    application.write(ascii("early") as Uint8Array<ArrayBuffer>);
    application.finish();
    peer.expect(HEADERS, 1);
    for (let turn = 0; turn < 10; turn++) rig.turn();
    peer.poll();
    assertEquals(peer.frames.filter(({ type }) => type === DATA), []);
    peer.send(frame(HEADERS, END_HEADERS, 1, hex("0803313030"))); // 100
    peer.send(frame(HEADERS, END_HEADERS, 1, OK), frame(DATA, END_STREAM, 1, ascii("answer")));
    assertEquals(new TextDecoder().decode(peer.expect(DATA, 1).payload), "early");
    assertEquals(peer.expect(DATA, 1).flags, END_STREAM);
    closed(rig, application);
    assertEquals([application.receivedBytes, application.error], [6, 0]);
    rig.until("it is counted", () => rig.shards[0]!.connectionCount === 0);
    assertEquals(rig.records(0).map(({ flag, receivedBytes, sentBytes }) => [flag, receivedBytes, sentBytes]), [[
      0,
      5,
      6,
    ]]);
  }));

/** Answers that are none, what the log says of them, and what the upstream is told. */
const BAD_ANSWERS: [string, Uint8Array, RegExp, string][] = [
  [
    "503",
    frame(HEADERS, END_HEADERS | END_STREAM, 1, hex("0803353033")),
    /^http status: 503 Service Unavailable$/,
    "CANCEL",
  ],
  [
    "401 without an end",
    frame(HEADERS, END_HEADERS, 1, hex("0803343031")),
    /^http status: 401 Unauthorized$/,
    "CANCEL",
  ],
  ["no status", frame(HEADERS, END_HEADERS, 1, hex("00016101 62")), /malformed response/, "PROTOCOL_ERROR"],
  ["two of them", frame(HEADERS, END_HEADERS, 1, hex("8888")), /malformed response/, "PROTOCOL_ERROR"],
  [
    "an end before the answer",
    frame(HEADERS, END_HEADERS | END_STREAM, 1, hex("0803313030")),
    /ends before its answer/,
    "PROTOCOL_ERROR",
  ],
];

Deno.test("an answer that is not 200 closes the application, and the session stays (ZT-059)", () =>
  withOutbound(({ rig, pod, open, accept }) => {
    let streamId = 1;
    let peer: H2Peer | undefined;
    for (const [name, bytes, reason, error] of BAD_ANSWERS) {
      const application = open();
      peer ??= accept();
      peer.expect(HEADERS, streamId);
      const moved = bytes.slice();
      moved[8] = streamId;
      peer.send(moved);
      closed(rig, application);
      assertEquals(application.receivedBytes, 0, name);
      assertEquals(peer.reset(streamId), error, name);
      assertMatch(rig.records(0)[0]!.error!, reason, name);
      streamId += 2;
    }
    assertEquals(pod.pool.sessionCount, 1);
  }));

const RESETS: [string, (peer: H2Peer) => void, string][] = [
  ["PUSH_PROMISE", (peer) => peer.send(frame(PUSH_PROMISE, END_HEADERS, 1, hex("00000002 82"))), "PROTOCOL_ERROR"],
  ["HEADERS on a stream of nobody", (peer) => peer.send(frame(HEADERS, END_HEADERS, 9, OK)), "PROTOCOL_ERROR"],
  ["HEADERS on an even stream", (peer) => peer.send(frame(HEADERS, END_HEADERS, 2, OK)), "PROTOCOL_ERROR"],
  ["DATA before the answer", (peer) => peer.send(frame(DATA, 0, 1, ascii("x"))), "PROTOCOL_ERROR"],
  ["RST_STREAM on an idle stream", (peer) => peer.send(frame(RST_STREAM, 0, 3, word(0))), "PROTOCOL_ERROR"],
];

Deno.test("an upstream that breaks HTTP/2 ends its session, and each application with it (RFC 9113 §5.1)", () =>
  withOutbound(({ rig, pod, open, accept }) => {
    for (const [name, act, error] of RESETS) {
      const application = open(), peer = accept();
      peer.expect(HEADERS, 1);
      act(peer);
      assertEquals(peer.ending(), error, name);
      closed(rig, application);
      assertEquals(application.receivedBytes, 0, name);
      assertEquals(pod.pool.sessionCount, 0, name);
    }
  }));

Deno.test("a connection that ends before its answer is flagged by what went wrong, and later ones by CONNECT (ZT-195)", () =>
  withOutbound(({ rig, open, accept }) => {
    const cases: [name: string, act: (peer: H2Peer) => void, flag: number][] = [
      ["a reset", (peer) => peer.send(frame(RST_STREAM, 0, 1, word(2))), ResponseFlag.H2_HANDSHAKE_FAILURE],
      ["a refusal", (peer) => peer.send(frame(RST_STREAM, 0, 1, word(7))), ResponseFlag.H2_HANDSHAKE_FAILURE],
      ["broken HTTP/2", (peer) => peer.send(frame(DATA, 0, 1, ascii("x"))), ResponseFlag.H2_HANDSHAKE_FAILURE],
      ["a close", (peer) => (peer.tls.shutdown(), peer.socket.finish()), ResponseFlag.H2_HANDSHAKE_FAILURE],
      ["a status", (peer) => peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, hex("8d"))), ResponseFlag.CONNECT],
      [
        "a reset after the answer",
        (peer) => peer.send(frame(HEADERS, END_HEADERS, 1, OK), frame(RST_STREAM, 0, 1, word(2))),
        ResponseFlag.CONNECT,
      ],
    ];
    for (const [name, act, flag] of cases) {
      const application = open(), peer = accept();
      peer.expect(HEADERS, 1);
      act(peer);
      closed(rig, application);
      assertEquals(rig.records(0).map((record) => record.flag), [flag], name);
      peer.tls.shutdown(); // The next case begins with a session of its own.
      peer.socket.finish();
      rig.until("the session is gone", () => rig.tables.workers.getF64(0, WORKER.upstreamSessions) === 0);
    }
  }));

Deno.test("after GOAWAY a session takes nothing new; streams above its last are told, the others run on (ZT-073)", () =>
  withOutbound(({ rig, pod, open, accept }) => {
    const first = open(), peer = accept();
    peer.expect(HEADERS, 1);
    const second = open();
    peer.expect(HEADERS, 3);
    peer.send(frame(HEADERS, END_HEADERS, 1, OK), frame(GOAWAY, 0, 0, concat(word(1), word(0))));
    closed(rig, second);
    const third = open(), other = accept();
    other.expect(HEADERS, 1);
    other.send(frame(HEADERS, END_HEADERS, 1, OK));
    peer.send(frame(DATA, END_STREAM, 1, ascii("still")));
    closed(rig, first);
    assertEquals(first.receivedBytes, 5);
    first.finish();
    peer.expect(DATA, 1);
    assertEquals(peer.ending(), "NO_ERROR");
    rig.until("one session is left", () => pod.pool.sessionCount === 1);
    assertEquals(third.ended, false);
    assertEquals(rig.tables.workers.getF64(0, WORKER.upstreamSessions), 1);
  }));

Deno.test("the upstream's MAX_CONCURRENT_STREAMS is kept, by more sessions (ZT-071)", () =>
  withOutbound(({ pod, open, accept }) => {
    open();
    const peer = accept(concat(hex("0003"), word(1)));
    peer.expect(HEADERS, 1);
    peer.next("our acknowledgement", ({ type, flags }) => type === SETTINGS && flags === ACK);
    open();
    accept().expect(HEADERS, 1);
    assertEquals(pod.pool.sessionCount, 2);
    assertEquals(peer.frames.filter(({ type }) => type === HEADERS), []);
  }));

Deno.test("one session is dialled at a time; whoever waits shares it, and all learn at once that it failed (ZT-072)", () =>
  withOutbound(({ rig, pod, listener, open, accept }) => {
    const waiting = Array.from({ length: 10 }, () => open());
    const peer = accept();
    for (let at = 0; at < 10; at++) peer.expect(HEADERS, 1 + 2 * at);
    assertEquals([listener.accept(), pod.pool.sessionCount], [undefined, 1]);
    peer.tls.shutdown();
    peer.socket.finish();
    for (const application of waiting) closed(rig, application);
    rig.records(0);
    const again = Array.from({ length: 10 }, () => open());
    let socket: Socket | undefined;
    rig.until("a session comes in", () => (socket = listener.accept()) !== undefined);
    socket!.write(ascii("HTTP/1.1 400 Bad Request\r\n\r\n") as Uint8Array<ArrayBuffer>);
    for (const application of again) closed(rig, application);
    socket!.close();
    const errors = rig.records(0);
    assertEquals(errors.length, 10);
    for (const { error, flag } of errors) {
      assertMatch(error!, /^TLS handshake failed: /);
      assert(flag !== ResponseFlag.NONE);
    }
    assertEquals(listener.accept(), undefined);
  }));

Deno.test("an upstream that refuses, is silent, or swallows packets fails the waiting ones in 10 s (ZT-051)", () =>
  withOutbound(({ rig, ip, listener, open }) => {
    const mute = open();
    let socket: Socket | undefined;
    rig.until("a session comes in", () => (socket = listener.accept()) !== undefined);
    rig.pass(9_500);
    assertEquals(mute.ended, false);
    rig.pass(1_000);
    closed(rig, mute);
    socket!.close();
    assertEquals(rig.records(0).map(({ error }) => error), ["TLS handshake timed out"]);
    listener.close();
    const refused = open();
    closed(rig, refused);
    assertEquals(rig.records(0).map(({ error }) => error), ["connect failed (errno 111)"]);
    const full = new Server(ip, 15008, 0), fillers = Array.from({ length: 3 }, () => Socket.connect(ip, 15008));
    const swallowed = open();
    for (let turn = 0; turn < 5; turn++) rig.turn();
    rig.pass(10_500);
    closed(rig, swallowed);
    const [record] = rig.records(0);
    assertEquals(record!.flag, ResponseFlag.NETWORK_POLICY);
    assertEquals(
      record!.error,
      `connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: ${formatIp(...ip)}:15008`,
    );
    for (const filler of fillers) filler.close();
    full.close();
  }));

Deno.test("a session that nobody uses pings, and closes with GOAWAY after five minutes (ZT-063, ZT-074)", () =>
  withOutbound(({ rig, pod, open, accept }) => {
    const application = open(), peer = accept();
    peer.expect(HEADERS, 1);
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, OK));
    application.finish();
    closed(rig, application);
    let pings = 0;
    for (let elapsed = 0; elapsed < 298_000; elapsed += 2_000) {
      rig.pass(2_000);
      peer.poll();
      for (const { type, flags, payload } of peer.frames.splice(0)) {
        if (type !== PING || flags !== 0) continue;
        pings++;
        peer.send(frame(PING, ACK, 0, payload));
      }
    }
    assert(pings >= 24 && pings <= 30, `${pings} pings in five minutes`);
    assertEquals(pod.pool.sessionCount, 1);
    rig.pass(4_000);
    assertEquals(peer.ending(), "NO_ERROR");
    rig.until("the session is gone", () => pod.pool.sessionCount === 0);
  }));

Deno.test("tickets of an upstream are passed over, and its key updates answered (RFC 8446 §4.6)", () =>
  withOutbound(({ rig, open, accept }) => {
    const application = open(), peer = accept();
    peer.expect(HEADERS, 1);
    peer.send(frame(HEADERS, END_HEADERS, 1, OK));
    for (let round = 0; round < 10; round++) {
      peer.tls.keyUpdate(true);
      peer.send(frame(DATA, 0, 1, ascii("x")));
      application.write(ascii("y") as Uint8Array<ArrayBuffer>);
      rig.until("it arrives", () => (application.read(), application.receivedBytes === round + 1));
      peer.expect(DATA, 1);
    }
    assertEquals(peer.tls.failure, "");
  }));

Deno.test("an upstream that floods with interim answers, or answers to nobody, is told to calm down", () =>
  withOutbound(({ rig, pod, open, accept }) => {
    for (const ended of [false, true]) {
      const application = open(), peer = accept();
      peer.expect(HEADERS, 1);
      if (ended) peer.send(frame(RST_STREAM, 0, 1, word(2)));
      for (let round = 0; round < 40 && !peer.over; round++) {
        peer.send(...Array.from({ length: 100 }, () => frame(HEADERS, END_HEADERS, 1, hex("0803313030"))));
        peer.poll();
      }
      assertEquals(peer.ending(), "ENHANCE_YOUR_CALM");
      closed(rig, application);
      assertEquals(pod.pool.sessionCount, 0);
    }
  }));

Deno.test("a session that opens while we drain ends with its last stream: the drain need not wait for its deadline (ZT-224)", () =>
  withOutbound(({ rig, pod, open, listener, accept }) => {
    const application = open(), { reactor } = rig.shards[0]!, beganAtMs = reactor.nowMs;
    rig.command(0, Command.DRAIN, 60_000);
    rig.until("it drains, and dials", () => rig.shards[0]!.draining);
    const peer = accept();
    peer.expect(HEADERS, 1);
    assertEquals(pod.pool.sessionCount, 1);
    peer.send(frame(HEADERS, END_HEADERS, 1, OK), frame(DATA, END_STREAM, 1, ascii("answer")));
    application.finish();
    closed(rig, application);
    assertEquals(peer.ending(), "NO_ERROR");
    rig.until("nothing is left", () => pod.pool.sessionCount === 0);
    assert(reactor.nowMs - beganAtMs < 5_000, "no time-out ended it");
    assertEquals(listener.accept(), undefined);
    rig.pass(61_000, 10_000); // The deadline comes all the same.
  }));

Deno.test("a session that was dialled in a pod's former name carries nothing of it in its new one (ZT-070)", () =>
  withOutbound(({ rig, pod, open, listener, accept }) => {
    const { tls } = pod.identity;
    open();
    let socket: Socket | undefined;
    rig.until("a session comes in", () => (socket = listener.accept()) !== undefined);
    for (let turn = 0; turn < 5; turn++) rig.turn(); // Its first flight is on its way.
    rig.identify(pod, OTHER_URI);
    rig.certify(0, pod, renamed);
    const former = new H2Peer(rig, socket!, { server: true, leaf: upstreamLeaf, roots: own.roots });
    former.handshake();
    former.greet();
    const next = accept();
    next.expect(HEADERS, 1);
    assertEquals(former.ending(), "NO_ERROR");
    assertEquals(former.frames.filter(({ type }) => type === HEADERS), []);
    tls?.free();
  }));
