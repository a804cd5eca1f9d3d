/** A network gateway that behaves as it likes: what a connection that needs it comes to. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { frame, hex } from "../../wire/h2/testing.ts";
import { AccessKind } from "../tables/access.ts";
import { CONNECTION, ConnectionState, FLOW, ResponseFlag } from "../tables/layout.ts";
import { serviceOf } from "../tables/testing.ts";
import {
  acceptInner,
  closed,
  connect,
  labelOf,
  leaves,
  readAll,
  SERVICE,
  text,
  uri,
  VIP,
  withNetworks,
} from "./double_hbone_testing.ts";
import { Gateway, OK } from "./gateway_testing.ts";
import { H2Peer } from "./h2_peer_testing.ts";
import { freshIp, Server } from "./loopback_testing.ts";
import { authority, Rig } from "./testing.ts";

const { DATA, HEADERS, RST_STREAM, PING } = FrameType;
const { END_STREAM, END_HEADERS, ACK } = FrameFlag;

/** A gateway's ways to fail, each from its CONNECT on: what it does, the flag, and the text of the log. */
const FAILURES: [
  string,
  (it: { rig: Rig; gateway: Gateway; outer: H2Peer; behind: Server }) => void,
  number,
  RegExp,
][] = [
  [
    "refuses with 503",
    ({ outer }) => outer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, hex("0803353033"))),
    ResponseFlag.CONNECT,
    /^http status: 503 Service Unavailable \(from the network gateway\)$/,
  ],
  [
    "resets in place of an answer",
    ({ outer }) => outer.send(frame(RST_STREAM, 0, 1, hex("00000007"))),
    ResponseFlag.H2_HANDSHAKE_FAILURE,
    /^receive: the stream was reset \(error 7\)$/,
  ],
  [
    "goes away",
    ({ outer }) => {
      outer.tls.shutdown();
      outer.socket.finish();
    },
    ResponseFlag.H2_HANDSHAKE_FAILURE,
    /^the peer closed the connection$/,
  ],
  [
    "never answers",
    ({ rig, outer }) => pingingFor(rig, outer, 20_500),
    ResponseFlag.CONNECT,
    /^the network gateway did not answer within 20 s$/,
  ],
  [
    "answers, and leads nowhere",
    ({ rig, outer }) => {
      outer.send(frame(HEADERS, END_HEADERS, 1, OK));
      rig.until("the inner session greets", () => (outer.poll(), outer.frames.some(({ type }) => type === DATA)));
      pingingFor(rig, outer, 10_500);
    },
    ResponseFlag.CONNECT,
    /^TLS handshake timed out$/,
  ],
  [
    "answers, and ends the stream",
    ({ outer }) => outer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, OK)),
    ResponseFlag.CONNECT,
    /^TLS handshake failed: /,
  ],
  [
    "answers, and speaks something else",
    ({ outer }) => outer.send(frame(HEADERS, END_HEADERS, 1, OK), frame(DATA, 0, 1, text("HTTP/1.1 200 OK\r\n\r\n"))),
    ResponseFlag.CONNECT,
    /^TLS handshake failed: /,
  ],
  [
    "leads to another identity, its own before all",
    ({ rig, gateway, outer, behind }) => {
      gateway.join(outer, 1, behind.ip, behind.port);
      acceptInner(rig, behind, "gateway");
    },
    ResponseFlag.CONNECT,
    /^identity verification error: peer did not present the expected SAN \(spiffe:.*server\), got spiffe:.*gateway$/,
  ],
  [
    "leads to a peer that refuses",
    ({ rig, gateway, outer, behind }) => {
      gateway.join(outer, 1, behind.ip, behind.port);
      const inner = acceptInner(rig, behind, "server");
      inner.expect(HEADERS, 1);
      inner.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, hex("0803343031")));
    },
    ResponseFlag.CONNECT,
    /^http status: 401 Unauthorized$/,
  ],
  [
    "cuts the stream under an inner session",
    ({ rig, gateway, outer, behind }) => {
      const joint = gateway.join(outer, 1, behind.ip, behind.port);
      acceptInner(rig, behind, "server").expect(HEADERS, 1);
      gateway.cut(joint);
      outer.send(frame(RST_STREAM, 0, 1, hex("00000002")));
    },
    ResponseFlag.H2_HANDSHAKE_FAILURE,
    /^receive: the stream was reset \(error 2\)$/,
  ],
];

/** Lets time pass for a gateway that answers PINGs, and nothing else. */
function pingingFor(rig: Rig, outer: H2Peer, ms: number): void {
  for (let left = ms; left > 0; left -= 500) {
    rig.pass(Math.min(500, left), 500);
    outer.poll();
    for (const { type, flags, payload } of outer.frames.splice(0)) {
      if (type === PING && flags === 0) outer.send(frame(PING, ACK, 0, payload));
    }
  }
}

for (const [what, act, flag, reason] of FAILURES) {
  Deno.test(`a gateway that ${what}: the application is closed without a byte, nothing is left, the next one works (ZT-046)`, () =>
    withNetworks((networks) => {
      const { rig, gateway, client } = networks, behind = new Server(freshIp());
      rig.atEnd(() => behind.close());
      const application = networks.open(), outer = gateway.accept();
      application.write(text("secret"));
      outer.next("a CONNECT", ({ type }) => type === HEADERS);
      act({ rig, gateway, outer, behind });
      closed(rig, application);
      assertEquals(application.receivedBytes, 0);
      rig.until("it is counted", () => rig.shards[0]!.connectionCount === 0);
      const [record] = rig.records(0), label = labelOf(rig, record!.flowRow), flows = rig.tables.flows[0]!;
      assertMatch(record!.error!, reason);
      assertEquals([record!.flag, record!.receivedBytes], [flag, 0]);
      assertEquals(label.destinationName, "gateway", "nobody answered behind it");
      assertEquals(
        [flows.getF64(record!.flowRow, FLOW.opened), flows.getF64At(record!.flowRow, FLOW.closed, flag)],
        [1, 1],
      );
      for (let seconds = 0; seconds < 7; seconds++) rig.pass(1_000);
      assert(client.pool.sessionCount <= 1, "the outer session may stay, the inner one may not");
      gateway.peers.length = 0;
      if (client.pool.sessionCount === 1) gateway.peers.push(outer);
      const next = connect(networks);
      next.client.write(text("more"));
      assertEquals(readAll(rig, next.server, 4), "more");
    }));
}

Deno.test("a gateway of another identity is not asked for anything (ZT-045, ZT-085)", () =>
  withNetworks(({ rig, gateway, open }) => {
    rig.mesh.putService(serviceOf("default", SERVICE, {
      addresses: [{ network: "near", ip: VIP }],
      ports: [{ servicePort: 80, targetPort: 8080 }],
      subjectAltNames: [uri("gateway")],
    }));
    rig.addWorkload("gateway", gateway.ip, { network: "far", serviceAccount: "another" });
    rig.publish();
    const application = open(), outer = gateway.accept();
    closed(rig, application);
    assertMatch(rig.records(0)[0]!.error!, /expected SAN \(spiffe:.*another\), got spiffe:.*gateway$/);
    assertEquals(outer.frames.filter(({ type }) => type === HEADERS), []);
  }));

for (const level of ["gateway", "server"] as const) {
  Deno.test(`a ${level} whose certificate is revoked is cut and not reached again, and the log says why (ZT-088, ZT-089)`, () =>
    withNetworks(async (networks) => {
      const { rig } = networks, { client } = connect(networks);
      rig.until("it is up", () => rig.tables.connections[0]!.load(0, CONNECTION.state) === ConnectionState.OPEN);
      await rig.revoke(0, await authority.revoke([leaves[level].serial!]));
      closed(rig, client);
      const next = networks.open();
      if (level === "gateway") networks.gateway.accept(false);
      else {
        const outer = networks.gateway.peers[0]!;
        const { streamId } = outer.next("a CONNECT", ({ type }) => type === HEADERS);
        networks.gateway.join(outer, streamId, networks.serverIp, 15008);
      }
      closed(rig, next);
      rig.until("both are counted", () => rig.shards[0]!.connectionCount === 0);
      const [cut, refused] = rig.records(0).filter(({ kind }) => kind === AccessKind.COMPLETE);
      assertEquals([cut!.flag, cut!.error], [
        ResponseFlag.CERT_REVOKED,
        "connection closed: peer certificate revoked by CRL",
      ]);
      assertEquals(refused!.flag, ResponseFlag.CERT_REVOKED);
      assertMatch(refused!.error!, /certificate revoked/);
    }));
}
