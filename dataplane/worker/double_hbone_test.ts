/** Connections to another network: what passes, what is said on which level, and how it ends. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { setSocketFlag } from "../../os/libc_cold.ts";
import { FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { frame } from "../../wire/h2/testing.ts";
import { AccessKind } from "../tables/access.ts";
import { Command, CONNECTION, ConnectionKind, ConnectionState, FLOW, ResponseFlag } from "../tables/layout.ts";
import {
  acceptInner,
  closed,
  connect,
  labelOf,
  leaves,
  type Networks,
  readAll,
  SERVICE,
  text,
  uri,
  withNetworks,
} from "./double_hbone_testing.ts";
import { OK } from "./gateway_testing.ts";
import { freshIp, Server } from "./loopback_testing.ts";
import type { RemoteTunnel } from "./remote_tunnel.ts";
import { Handover } from "./takeover/write_state.ts";

const SOL_SOCKET = 1, SO_SNDBUF = 7;
const { DATA, HEADERS, RST_STREAM, GOAWAY } = FrameType;
const { END_STREAM, END_HEADERS } = FrameFlag;

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
    assertEquals(label.destinationName, "shop-workload", "in the log a peer behind a gateway goes by its workload");
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

Deno.test("what came before the inner peer went still reaches an application that reads late (ZT-065)", () =>
  withNetworks(({ rig, client, gateway, open }) => {
    const application = open(), outer = gateway.accept(), behind = new Server(freshIp());
    rig.atEnd(() => behind.close());
    outer.expect(HEADERS, 1);
    gateway.join(outer, 1, behind.ip, behind.port);
    const inner = acceptInner(rig, behind, "server"), block = new Uint8Array(16_000).fill(7), blocks = 250;
    inner.expect(HEADERS, 1);
    inner.send(frame(HEADERS, END_HEADERS, 1, OK));
    const tunnel = rig.shards[0]!.rows.at(0) as RemoteTunnel;
    setSocketFlag(tunnel.fd, SOL_SOCKET, SO_SNDBUF, 65_536); // Else the kernel takes all of it.
    application.finish();
    inner.expect(DATA, 1);
    for (let at = 1; at <= blocks; at++) inner.send(frame(DATA, at === blocks ? END_STREAM : 0, 1, block));
    inner.tls.shutdown();
    inner.socket.finish();
    rig.until("the inner session is gone", () => client.pool.nested.size === 0);
    assert(rig.shards[0]!.buffers.chunksTaken > 0, "bytes wait for the application");
    closed(rig, application);
    assertEquals([application.receivedBytes, application.error], [blocks * block.length, 0]);
    rig.until("it is counted", () => rig.shards[0]!.connectionCount === 0);
    assertEquals(rig.records(0).map(({ flag, error }) => [flag, error]), [[ResponseFlag.NONE, undefined]]);
  }));

Deno.test("a connection to another network, and the session that carries it, end in the process that began them (ZT-046)", () =>
  withNetworks((networks) => {
    const { rig } = networks, shard = rig.shards[0]!;
    connect(networks);
    assertEquals(new Handover(shard).counts, { sessions: 0, connections: 0, left: 1, settling: 0 });
    networks.open(); // Its stream is asked for, and not there yet.
    for (let turn = 0; turn < 3; turn++) rig.turn();
    assertEquals(new Handover(shard).counts, { sessions: 0, connections: 0, left: 2, settling: 0 });
  }));
