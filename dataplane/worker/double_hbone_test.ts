/** Connections to another network: two workers on either side of a gateway, and a gateway that behaves as it likes. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { IpWords } from "../../base/address.ts";
import { FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { frame, hex } from "../../wire/h2/testing.ts";
import { AccessKind } from "../tables/access.ts";
import { parseFlowLabel } from "../tables/flow_label.ts";
import { Command, CONNECTION, ConnectionKind, ConnectionState, FLOW, ResponseFlag } from "../tables/layout.ts";
import { ipv4, serviceOf } from "../tables/testing.ts";
import { Gateway, OK } from "./gateway_testing.ts";
import { H2Peer } from "./h2_peer_testing.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import type { Pod } from "./pod.ts";
import type { ShardOptions } from "./shard_options.ts";
import { issue, Rig } from "./testing.ts";

const { DATA, HEADERS, RST_STREAM, PING, GOAWAY } = FrameType;
const { END_STREAM, END_HEADERS, ACK } = FrameFlag;
const uri = (account: string) => `spiffe://cluster.local/ns/default/sa/${account}`;
const leaves = {
  client: await issue(uri("client")),
  server: await issue(uri("server")),
  gateway: await issue(uri("gateway")),
  renewed: await issue(uri("renewed")), // Another name, so that it can be told from the one before.
};
const VIP = ipv4(0x0a600001), SERVICE = "shop.default.svc.cluster.local", KEY = `default/${SERVICE}`;

interface Networks {
  readonly rig: Rig;
  readonly client: Pod;
  readonly server: Pod;
  readonly gateway: Gateway;
  readonly serverIp: IpWords;
  /** Where the server's application listens, behind its proxy. */
  readonly application: Server;
  /** A new connection of the client's application to the service. */
  open(): Socket;
  /** Its other end at the server's application. */
  arrive(): Socket;
}

/** A client's node (worker 0), a gateway, and a server's node (worker 1) that only the gateway reaches. */
function withNetworks(body: (networks: Networks) => void, options: Partial<ShardOptions> = {}): Promise<void> {
  return Rig.with(2, (rig) => {
    const clientIp = freshIp(), serverIp = freshIp(), gateway = new Gateway(rig, leaves.gateway);
    const application = new Server(serverIp);
    rig.addWorkload("client", clientIp, { network: "near", clusterId: "K1", workloadName: "client-workload" });
    rig.addWorkload("gateway", gateway.ip, { network: "far" });
    rig.addWorkload("server", serverIp, {
      network: "far",
      clusterId: "K2",
      canonicalName: "shop",
      canonicalRevision: "v7",
      workloadName: "shop-workload",
      locality: { region: "r2", zone: "z2", subzone: "" },
      networkGateway: { address: { network: "far", ip: gateway.ip }, hboneMtlsPort: 15_009 },
      services: new Map([[KEY, [{ servicePort: 80, targetPort: application.port }]]]),
    });
    rig.mesh.putService(serviceOf("default", SERVICE, {
      addresses: [{ network: "near", ip: VIP }],
      ports: [{ servicePort: 80, targetPort: 8080 }],
      subjectAltNames: [uri("server")],
    }));
    const client = rig.addPod(0, clientIp, uri("client"));
    const server = rig.addPod(1, serverIp, uri("server"), { [ListenerKind.HBONE]: new Server(serverIp, 15008).fd });
    rig.certify(0, client, leaves.client);
    rig.certify(1, server, leaves.server);
    rig.publish();
    rig.atEnd(() => application.close());
    body({
      rig,
      client,
      server,
      gateway,
      serverIp,
      application,
      open: () => rig.capture(0, client, ListenerKind.OUTBOUND, { ip: VIP, port: 80 }),
      arrive() {
        let arrived: Socket | undefined;
        rig.until("the application is connected to", () => (arrived = application.accept()) !== undefined);
        rig.atEnd(() => arrived!.close());
        return arrived!;
      },
    });
  }, { network: "near", responseBaggage: true, ...options });
}

const text = (value: string) => new TextEncoder().encode(value) as Uint8Array<ArrayBuffer>;

function readAll(rig: Rig, socket: Socket, bytes: number): string {
  let got = "";
  rig.until(`${bytes} bytes come`, () => {
    got += new TextDecoder().decode(socket.read());
    return got.length >= bytes;
  });
  return got;
}

const closed = (rig: Rig, socket: Socket) =>
  rig.until("the application is closed", () => (socket.read(), socket.ended || socket.error !== 0));

/** A connection up to both applications. */
function connect({ gateway, serverIp, open, arrive }: Networks): { client: Socket; server: Socket; outer: H2Peer } {
  const client = open(), outer = gateway.peers[0] ?? gateway.accept();
  const { streamId } = outer.next("a CONNECT", ({ type }) => type === HEADERS);
  gateway.join(outer, streamId, serverIp, 15008);
  return { client, server: arrive(), outer };
}

function labelOf(rig: Rig, row: number) {
  const flows = rig.tables.flows[0]!;
  return parseFlowLabel(new TextDecoder().decode(flows.readBytes(row, FLOW.label, flows.get(row, FLOW.labelBytes))));
}

/** The peer behind the gateway, written by hand, after its handshake. */
function acceptInner(rig: Rig, behind: Server, name: keyof typeof leaves): H2Peer {
  let socket: Socket | undefined;
  rig.until("the gateway connects", () => (socket = behind.accept()) !== undefined);
  const peer = new H2Peer(rig, socket!, { server: true, leaf: leaves[name], roots: leaves.client.roots });
  peer.handshake();
  return peer.greet();
}

Deno.test("a connection crosses networks and back, and each side may end first (ZT-046, ZT-065)", () =>
  withNetworks((networks) => {
    const { rig, client } = networks;
    for (const first of ["client", "server"]) {
      const near = networks.open(), outer = networks.gateway.peers[0] ?? networks.gateway.accept();
      const { streamId } = outer.next("a CONNECT", ({ type }) => type === HEADERS);
      near.write(text("ping"));
      networks.gateway.join(outer, streamId, networks.serverIp, 15008);
      const far = networks.arrive();
      assertEquals(readAll(rig, far, 4), "ping");
      far.write(text("pong!"));
      assertEquals(readAll(rig, near, 5), "pong!");
      const [one, other] = first === "client" ? [near, far] : [far, near];
      one.finish();
      closed(rig, other);
      assertEquals([other.error, one.ended], [0, false], "one direction has ended, the other has not");
      other.write(text("last"));
      assertEquals(readAll(rig, one, 4), "last");
      other.finish();
      closed(rig, one);
      rig.until("all is counted", () => rig.shards.every((shard) => shard.connectionCount === 0));
      rig.until("the inner session is gone, the outer one stays", () => client.pool.sessionCount === 1);
      const records = [...rig.records(0), ...rig.records(1)];
      assertEquals(records.map(({ flag, error }) => [flag, error]), [[0, undefined], [0, undefined]]);
    }
    assertEquals(networks.gateway.peers.length, 1, "the outer session is shared (ZT-070)");
  }));

Deno.test("both levels ask for the service by name and port; the inner one says which network it comes from (ZT-046, ZT-054)", () =>
  withNetworks(({ rig, gateway, open }) => {
    open();
    const outer = gateway.accept(), behind = new Server(freshIp());
    rig.atEnd(() => behind.close());
    const outside = outer.answer(1).headers;
    gateway.join(outer, 1, behind.ip, behind.port);
    const inside = acceptInner(rig, behind, "server").answer(1).headers;
    assertEquals(outside.slice(0, 3), [
      ":method: CONNECT",
      `:authority: ${SERVICE}:80`,
      "baggage: k8s.cluster.name=K1,k8s.namespace.name=default,k8s.deployment.name=client-workload,service.name=client",
    ]);
    assertMatch(outside[3]!, /^forwarded: for="127\.\d+\.\d+\.\d+:\d+";host=shop\.default\.svc\.cluster\.local$/);
    assertMatch(outside[4]!, /^traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    assertEquals(outside.length, 5, "the gateway is told of no network");
    assertEquals(inside, [...outside, "x-forwarded-network: near"]);
  }));

Deno.test("whoever answers inside replaces the destination in labels, log and metrics; the dump says DOUBLEHBONE (ZT-047, ZT-199, ZT-213)", () =>
  withNetworks((networks) => {
    const { rig, gateway } = networks, table = rig.tables.connections[0]!;
    const { client, server } = connect(networks);
    const row = 0;
    rig.until("it is up", () => table.load(row, CONNECTION.state) === ConnectionState.OPEN);
    assertEquals(table.get(row, CONNECTION.kind), ConnectionKind.DOUBLE_HBONE);
    assertEquals([table.get(row, CONNECTION.actualPort), table.get(row, CONNECTION.destinationPort)], [15_009, 80]);
    client.finish();
    server.write(text("abc"));
    server.finish();
    closed(rig, client);
    rig.until("it is counted", () => rig.shards.every((shard) => shard.connectionCount === 0));
    const [record] = rig.records(0), label = labelOf(rig, record!.flowRow);
    assertEquals(record!.kind, AccessKind.COMPLETE);
    assertEquals(record!.authority, `${SERVICE}:80`);
    assertEquals([record!.receivedBytes, record!.sentBytes], [0, 3]);
    assertEquals(record!.destination, { ip: [...gateway.ip], port: 15_009 });
    assertEquals(
      [label.destinationWorkload, label.destinationCanonicalService, label.destinationCanonicalRevision],
      ["shop-workload", "shop", "v7"],
    );
    assertEquals(
      [label.destinationNamespace, label.destinationCluster, label.destinationRegion, label.destinationZone],
      ["default", "K2", "r2", "z2"],
    );
    assertEquals([label.destinationPrincipal, label.sourcePrincipal], [uri("server"), uri("client")]);
    assertEquals([label.destinationService, label.securityPolicy], [SERVICE, "mutual_tls"]);
    const flows = rig.tables.flows[0]!, used: number[][] = [];
    for (let at = 0; at < flows.rowCount; at++) {
      const opened = flows.getF64(at, FLOW.opened), ended = flows.getF64At(at, FLOW.closed, ResponseFlag.NONE);
      if (opened + ended > 0) used.push([at, opened, ended]);
    }
    assertEquals(used, [[record!.flowRow, 1, 1]], "the gateway's own labels count nothing");
  }));

Deno.test("a 200 without baggage tells only who it may be: its certificate (ZT-047)", () =>
  withNetworks((networks) => {
    const { rig } = networks, { client, server } = connect(networks);
    client.finish();
    server.finish();
    closed(rig, client);
    rig.until("it is counted", () => rig.shards.every((shard) => shard.connectionCount === 0));
    const label = labelOf(rig, rig.records(0)[0]!.flowRow);
    assertEquals([label.destinationWorkload, label.destinationName, label.destinationCluster], ["", "", ""]);
    assertEquals([label.destinationPrincipal, label.destinationService], [uri("server"), SERVICE]);
  }, { responseBaggage: false }));

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
    ResponseFlag.CONNECT,
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
    ResponseFlag.CONNECT,
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

Deno.test("each connection has an inner session of its own; the outer one is shared (ZT-046, ZT-070)", () =>
  withNetworks((networks) => {
    const { rig, client } = networks;
    const all = Array.from({ length: 5 }, () => connect(networks));
    assertEquals([client.pool.sessionCount, networks.gateway.peers.length], [6, 1]);
    assertEquals(networks.server.sessions.size, 5);
    for (const [at, { client, server }] of all.entries()) {
      client.write(text(`hello ${at}`));
      assertEquals(readAll(rig, server, 7), `hello ${at}`);
    }
    for (const { client, server } of all) {
      client.abort();
      closed(rig, server);
      server.close();
    }
    rig.until("one session is left", () => client.pool.sessionCount === 1);
    rig.until("the far side has none", () => networks.server.sessions.size === 0);
  }));

Deno.test("megabytes pass both ways at once, and one that reads nothing holds up nobody (ZT-061, ZT-062)", () =>
  withNetworks((networks) => {
    const { rig } = networks, deaf = connect(networks), busy = connect(networks);
    const block = new Uint8Array(1 << 16).fill(1), total = 6 << 20;
    const sent = [0, 0, 0], got = [0, 0];
    rig.until("all bytes are there", () => {
      sent[2]! += deaf.server.write(block); // Its client reads nothing.
      for (const [at, [from, to]] of [[busy.client, busy.server], [busy.server, busy.client]].entries()) {
        if (sent[at]! < total) sent[at]! += from!.write(block.subarray(0, Math.min(block.length, total - sent[at]!)));
        got[at]! += to!.read().length;
      }
      return got[0] === total && got[1] === total;
    });
    assert(sent[2]! > 1 << 20, "what windows and buffers hold was taken");
    rig.until("no more is taken for one that reads nothing", () => deaf.server.write(block) === 0);
    let rest = 0;
    rig.until("it all comes once it is read", () => {
      const bytes = deaf.client.read().length;
      rest += bytes;
      return rest >= sent[2]!;
    });
  }));

Deno.test("a pod's end, at any moment, leaves nothing of its connections (ZT-169)", async () => {
  const STAGES: ((networks: Networks) => void)[] = [
    () => {},
    ({ gateway }) => gateway.accept(),
    ({ gateway }) => gateway.accept().expect(HEADERS, 1),
    ({ rig, gateway }) => {
      const outer = gateway.accept(), behind = new Server(freshIp());
      rig.atEnd(() => behind.close());
      outer.expect(HEADERS, 1);
      gateway.join(outer, 1, behind.ip, behind.port);
      for (let turn = 0; turn < 5; turn++) rig.turn();
    },
    ({ rig, gateway, serverIp, arrive }) => {
      const outer = gateway.accept();
      outer.expect(HEADERS, 1);
      gateway.join(outer, 1, serverIp, 15008);
      arrive();
      for (let turn = 0; turn < 5; turn++) rig.turn();
    },
  ];
  for (const reach of STAGES) {
    await withNetworks((networks) => {
      const { rig, client } = networks, application = networks.open();
      reach(networks);
      rig.removePod(client);
      closed(rig, application);
      assertEquals(rig.leftovers(0), "");
    });
  }
});

Deno.test("a drain lets what runs run, and cuts inner and outer sessions at its deadline (ZT-077, ZT-224)", () =>
  withNetworks((networks) => {
    const { rig } = networks, quick = connect(networks), slow = connect(networks);
    rig.command(0, Command.DRAIN, 5_000);
    for (let turn = 0; turn < 5; turn++) rig.turn();
    quick.client.write(text("still"));
    assertEquals(readAll(rig, quick.server, 5), "still");
    quick.client.finish();
    quick.server.finish();
    closed(rig, quick.client);
    rig.pass(6_000);
    closed(rig, slow.client);
    const records = rig.records(0).filter(({ kind }) => kind === AccessKind.COMPLETE);
    assertEquals(records.map(({ flag, error }) => [flag, error]), [
      [ResponseFlag.NONE, undefined],
      [ResponseFlag.CONNECT, "connection closed due to connection drain"],
    ]);
    rig.until("nothing is left", () => networks.client.pool.sessionCount === 0);
  }));

Deno.test("a renewed certificate is shown inside from the next connection on, while the outer session lives (ZT-043)", () =>
  withNetworks((networks) => {
    const { rig, client } = networks;
    connect(networks);
    rig.certify(0, client, leaves.renewed);
    connect(networks);
    const principals = [...networks.server.sessions].map(({ identityUri }) => identityUri);
    assertEquals(principals, [uri("client"), uri("renewed")]);
    assertEquals(networks.gateway.peers.length, 1);
  }));

Deno.test("when it is over the inner peer hears GOAWAY and close_notify, the gateway the end of its stream (ZT-046)", () =>
  withNetworks(({ rig, gateway, open }) => {
    const application = open(), outer = gateway.accept(), behind = new Server(freshIp());
    rig.atEnd(() => behind.close());
    outer.expect(HEADERS, 1);
    const joint = gateway.join(outer, 1, behind.ip, behind.port);
    const inner = acceptInner(rig, behind, "server");
    inner.expect(HEADERS, 1);
    inner.send(frame(HEADERS, END_HEADERS, 1, OK), frame(DATA, END_STREAM, 1, text("bye")));
    assertEquals(readAll(rig, application, 3), "bye");
    application.finish();
    assertEquals(inner.ending(), "NO_ERROR");
    assert(inner.tls.closed, "close_notify");
    rig.until("the stream has ended both ways", () => joint.ended && joint.behind.ended);
    rig.pass(6_000);
    assertEquals(outer.frames.filter(({ type }) => type === RST_STREAM || type === GOAWAY), []);
  }));
