/** Revocation over a worker's sessions: who is cut, who stays, and what the application, the peer and the counters hear. */
import { assert, assertEquals } from "@std/assert";
import type { IpWords } from "../../base/address.ts";
import { SIGNS_CERTIFICATES_AND_LISTS, TestAuthority } from "../../os/certificates_testing.ts";
import { OpenSslPeer, PeerState } from "../../os/openssl_peer_testing.ts";
import * as libc from "../../os/libc_cold.ts";
import { readRevocationLists, releaseLists } from "../../os/revocation_lists.ts";
import { FrameType } from "../../wire/h2/frame_rules.ts";
import { AccessKind, type AccessRecord } from "../tables/access.ts";
import { Direction, ResponseFlag, WORKER } from "../tables/layout.ts";
import { H2Peer } from "./h2_peer_testing.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import type { Pod } from "./pod.ts";
import type { Watched } from "./revocation_watch.ts";
import { authority, issue, Rig } from "./testing.ts";

const CLIENT_URI = "spiffe://cluster.local/ns/default/sa/client",
  SERVER_URI = "spiffe://cluster.local/ns/default/sa/server";
const REVOKED_TEXT = "connection closed: peer certificate revoked by CRL";
const intermediate = await TestAuthority.create("intermediate", {
  parent: authority,
  usages: SIGNS_CERTIFICATES_AND_LISTS,
});
const leaves = { client: await intermediate.issue([CLIENT_URI]), server: await issue(SERVER_URI) };
const CLIENT = 0, SERVER = 1;

interface Pair {
  readonly rig: Rig;
  readonly client: Pod;
  readonly server: Pod;
  readonly serverIp: IpWords;
  open(): Socket;
  arrive(): Socket;
  /** A connection that has carried bytes both ways. */
  carry(): { client: Socket; server: Socket };
}

/** A client's node (worker 0), whose certificate is an intermediate's, and a server's node (worker 1). */
function withPair(body: (pair: Pair) => Promise<void>): Promise<void> {
  return Rig.with(2, (rig) => {
    const clientIp = freshIp(), serverIp = freshIp();
    rig.addWorkload("client", clientIp);
    rig.addWorkload("server", serverIp);
    const client = rig.addPod(CLIENT, clientIp, CLIENT_URI);
    const server = rig.addPod(SERVER, serverIp, SERVER_URI, { [ListenerKind.HBONE]: new Server(serverIp, 15008).fd });
    rig.certify(CLIENT, client, leaves.client);
    rig.certify(SERVER, server, leaves.server);
    rig.publish();
    const application = new Server(serverIp);
    rig.atEnd(() => application.close());
    const open = () => rig.capture(CLIENT, client, ListenerKind.OUTBOUND, { ip: serverIp, port: application.port });
    const arrive = () => {
      let arrived: Socket | undefined;
      rig.until("the application is connected to", () => (arrived = application.accept()) !== undefined);
      rig.atEnd(() => arrived!.close());
      return arrived!;
    };
    const carry = () => {
      const pair = { client: open(), server: arrive() };
      exchange(rig, pair);
      return pair;
    };
    return body({ rig, client, server, serverIp, open, arrive, carry });
  });
}

function exchange(rig: Rig, { client, server }: { client: Socket; server: Socket }): void {
  for (const [from, to] of [[client, server], [server, client]] as const) {
    const before = to.receivedBytes;
    from.write(new TextEncoder().encode("ping"));
    rig.until("bytes go through", () => (to.read(), to.receivedBytes === before + 4));
  }
}

const over = (rig: Rig, socket: Socket) =>
  rig.until("the application is closed", () => (socket.read(), socket.ended || socket.error !== 0));

const counted = (rig: Rig, worker: number) =>
  [WORKER.revocationRejections, WORKER.revocationUntracked].map((field) =>
    [Direction.OUTBOUND, Direction.INBOUND].map((at) => rig.tables.workers.getF64At(worker, field, at))
  );

const ends = (records: AccessRecord[]) =>
  records.filter(({ kind }) => kind === AccessKind.COMPLETE).map((
    { direction, flag, error },
  ) => [direction, flag, error]);

Deno.test("a session whose upstream is revoked is dropped, and no new one comes to be (ZT-088, ZT-089, ZT-078)", () =>
  withPair(async ({ rig, client, open, carry }) => {
    const connections = [carry(), carry()];
    await rig.revoke(CLIENT, await authority.revoke([leaves.server.serial!]));
    for (const it of connections) over(rig, it.client);
    assertEquals(client.pool.sessionCount, 0);
    assertEquals(ends(rig.records(CLIENT)), [
      [Direction.OUTBOUND, ResponseFlag.CERT_REVOKED, REVOKED_TEXT],
      [Direction.OUTBOUND, ResponseFlag.CERT_REVOKED, REVOKED_TEXT],
    ]);
    assertEquals(counted(rig, CLIENT), [[1, 0], [0, 0]], "once a session, under its reporter");
    for (const it of connections) over(rig, it.server);
    const refused = open();
    over(rig, refused);
    const [[, flag, error]] = ends(rig.records(CLIENT)) as [[number, number, string]];
    assertEquals(flag, ResponseFlag.CERT_REVOKED);
    assert(error.includes("certificate revoked"), error);
    assertEquals(counted(rig, CLIENT), [[2, 0], [0, 0]]);
    await rig.revoke(CLIENT, await authority.revoke([]));
    exchange(rig, carry());
  }));

Deno.test("a session whose downstream is revoked ends with GOAWAY, and its peer is not let in again (ZT-088, ZT-089, ZT-078)", () =>
  withPair(async ({ rig, server, serverIp, open, carry }) => {
    const connection = carry(), idle = H2Peer.dial(rig, serverIp, leaves.client).greet();
    idle.expect(FrameType.SETTINGS, 0);
    assertEquals(server.sessions.size, 2);
    await rig.revoke(SERVER, await authority.revoke([intermediate.serial])); // Everyone below an intermediate.
    assertEquals(idle.ending(), "NO_ERROR");
    over(rig, connection.server);
    over(rig, connection.client);
    assertEquals(server.sessions.size, 0);
    assertEquals(ends(rig.records(SERVER)), [[Direction.INBOUND, ResponseFlag.CERT_REVOKED, REVOKED_TEXT]]);
    assertEquals(ends(rig.records(CLIENT)).map(([, flag]) => flag), [ResponseFlag.CONNECT], "the peer's own account");
    assertEquals(counted(rig, SERVER), [[0, 2], [0, 0]]);
    over(rig, open());
    assertEquals(counted(rig, SERVER), [[0, 3], [0, 0]]);
    assertEquals(ends(rig.records(CLIENT)).map(([, flag]) => flag), [ResponseFlag.CONNECT], "a peer's alert (ZT-195)");
    const early = rig.records(SERVER).filter(({ kind }) => kind === AccessKind.EARLY);
    assert(early.some(({ error }) => error!.includes("certificate revoked")), "the refusal is logged");
  }));

Deno.test("an unrelated reload cuts nobody, nor does a certificate that is merely in no list any more (ZT-089)", () =>
  withPair(async ({ rig, carry }) => {
    const connection = carry();
    for (const lists of [[], [await authority.revoke(["7f01", "7f02"])], [await intermediate.revoke(["7f03"])], []]) {
      for (const worker of [CLIENT, SERVER]) await rig.revoke(worker, ...lists);
      exchange(rig, connection);
    }
    assertEquals([CLIENT, SERVER].map((worker) => counted(rig, worker)), [[[0, 0], [0, 0]], [[0, 0], [0, 0]]]);
  }));

Deno.test("lists that come while a handshake is under way, after its peer was verified, still end it (ZT-089)", () =>
  withPair(async ({ rig, server, serverIp }) => {
    const [fd, peerFd] = libc.socketpair(libc.AF.UNIX, libc.SOCK.STREAM | libc.SOCK.NONBLOCK) as readonly [
      number,
      number,
    ];
    const peer = new OpenSslPeer(peerFd, {
      server: false,
      leaf: leaves.client,
      roots: leaves.client.roots,
      alpn: "\x02h2",
    });
    const near = new Socket(fd), far = Socket.connect(serverIp, 15008);
    rig.atEnd(() => {
      peer.free();
      libc.close(peerFd);
      near.close();
      far.close();
    });
    peer.step();
    far.write(near.read()); // ClientHello
    rig.until("the client is through", () => {
      near.write(far.read());
      return peer.step() === PeerState.DONE;
    });
    const flight = near.read(); // Certificate, CertificateVerify and Finished: all but the last bytes.
    far.write(flight.slice(0, -10));
    for (let turn = 0; turn < 20; turn++) rig.turn();
    const lists = await readRevocationLists([await authority.revoke([intermediate.serial])]);
    rig.enforce(SERVER, lists);
    assertEquals(counted(rig, SERVER), [[0, 0], [0, 0]], "not yet a session");
    far.write(flight.slice(-10));
    rig.until("the session is cut as it opens", () => (far.read(), far.ended || far.error !== 0));
    assertEquals([server.sessions.size, rig.shards[SERVER]!.revocations.count], [0, 0]);
    assertEquals(counted(rig, SERVER), [[0, 1], [0, 0]]);
    await releaseLists(lists);
  }));

Deno.test("a session that cannot be tracked stays up and is counted (ZT-089)", () =>
  withPair(async ({ rig, serverIp, server }) => {
    const leaf = await authority.issue([CLIENT_URI], { serial: "01".repeat(300) });
    H2Peer.dial(rig, serverIp, leaf).greet().expect(FrameType.SETTINGS, 0);
    assertEquals(counted(rig, SERVER), [[0, 0], [0, 1]]);
    await rig.revoke(SERVER, await authority.revoke([leaf.serial!]));
    assertEquals([server.sessions.size, rig.shards[SERVER]!.revocations.count], [1, 0]);
  }));

Deno.test("thousands of sessions are judged a part at a time, and who comes or goes meanwhile is not missed (ZT-089)", () =>
  Rig.with(1, async (rig) => {
    const watch = rig.shards[0]!.revocations, state = { revoked: false, judged: 0 }, cut: number[] = [];
    const fakes = Array.from({ length: 1_000 }, (_, at): Watched => ({
      server: at % 2 === 0,
      peerPath: {
        get revoked() {
          state.judged++;
          return state.revoked;
        },
        exportPath: () => ({ serial: new Uint8Array(0), negative: false, issuers: [] }),
        free() {},
      },
      revoke() {
        cut.push(at);
        watch.forget(fakes[at]!);
      },
    }));
    const untilJudged = () => {
      state.judged = 0;
      const turns: number[] = [];
      for (let before = -1; before !== state.judged; rig.turn()) {
        turns.push(state.judged - Math.max(0, before));
        before = state.judged;
      }
      return Math.max(...turns);
    };
    for (const fake of fakes.slice(0, -1)) assert(watch.admit(fake));
    const lists = await readRevocationLists([]);
    rig.enforce(0, lists);
    assert(untilJudged() <= 256, "at most so many in a turn");
    state.revoked = true;
    rig.enforce(0, lists);
    watch.forget(fakes[998]!); // Ended by itself, before its turn came.
    assertEquals(watch.admit(fakes[999]!), false, "who opens now is judged by the new lists");
    assert(untilJudged() <= 256);
    assertEquals(cut, Array.from({ length: 998 }, (_, at) => at));
    assertEquals([watch.count, counted(rig, 0)[0]], [0, [500, 499]]);
    await releaseLists(lists);
  }));
