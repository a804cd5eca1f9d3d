/** How a drain tells a downstream which of its streams were looked at. */
import { assertEquals } from "@std/assert";
import { formatIp } from "../../base/address.ts";
import { FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { frame } from "../../wire/h2/testing.ts";
import { Command } from "../tables/layout.ts";
import { connectFrame, H2Peer } from "./h2_peer_testing.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, type Socket } from "./loopback_testing.ts";
import { issue, Rig } from "./testing.ts";

const { GOAWAY, HEADERS, PING } = FrameType;
const own = await issue("spiffe://cluster.local/ns/default/sa/server");
const client = await issue("spiffe://cluster.local/ns/default/sa/client");

/** A pod that takes HBONE at worker 0, with its certificate. */
function addServer(rig: Rig) {
  const ip = freshIp();
  rig.addWorkload("server", ip);
  const hbone = new Server(ip, 15008).fd;
  const pod = rig.addPod(0, ip, "spiffe://cluster.local/ns/default/sa/server", { [ListenerKind.HBONE]: hbone });
  rig.certify(0, pod, own);
  rig.publish();
  return { ip, pod };
}

/** The PING that asks whether our first GOAWAY was read. */
function drainPing(peer: H2Peer) {
  return peer.next("a PING", ({ type, flags }) => type === PING && (flags & FrameFlag.ACK) === 0);
}

// The original leaves streams that cross its first GOAWAY without an answer; no peer can tell ours from one that drains later.
Deno.test("a drain says GOAWAY and PING, serves what crosses them, and after the answer names the last stream (ZT-076)", () =>
  Rig.with(1, (rig) => {
    const { ip, pod } = addServer(rig);
    const listener = new Server(ip);
    rig.atEnd(() => listener.close());
    const peer = H2Peer.dial(rig, ip, client).greet();
    peer.send(connectFrame(1, `${formatIp(...ip)}:${listener.port}`));
    let application: Socket | undefined;
    rig.until("the connection arrives", () => (application = listener.accept()) !== undefined);
    rig.atEnd(() => application!.close());
    peer.expect(HEADERS, 1);

    rig.command(0, Command.DRAIN, 5_000);
    assertEquals(peer.expect(GOAWAY, 0).payload.toHex(), "7fffffff" + "00000000");
    const ping = drainPing(peer);
    const furtherGoaways = () => peer.frames.filter(({ type }) => type === GOAWAY);
    peer.send(connectFrame(3, `${formatIp(...ip)}:${listener.port}`));
    let crossed: Socket | undefined;
    rig.until("what crossed our GOAWAY arrives", () => (crossed = listener.accept()) !== undefined);
    rig.atEnd(() => crossed!.close());
    peer.expect(HEADERS, 3);
    peer.send(frame(PING, FrameFlag.ACK, 0, new Uint8Array(8))); // The answer to another PING proves nothing.
    assertEquals(furtherGoaways(), []);
    peer.send(frame(PING, FrameFlag.ACK, 0, ping.payload));
    assertEquals(peer.expect(GOAWAY, 0).payload.toHex(), "00000003" + "00000000");
    peer.send(frame(PING, FrameFlag.ACK, 0, ping.payload), frame(PING, 0, 0, new Uint8Array(8)));
    peer.next("our answer", ({ type, flags }) => type === PING && (flags & FrameFlag.ACK) !== 0);
    assertEquals(furtherGoaways(), []);
    peer.send(connectFrame(5, "127.0.0.1:1"));
    assertEquals(peer.reset(5), "REFUSED_STREAM");
    rig.pass(5_500);
    rig.until("the session is gone", () => pod.sessions.size === 0);
  }));

Deno.test("an idle session ends once its peer has read that we drain (ZT-076)", () =>
  Rig.with(1, (rig) => {
    const { ip, pod } = addServer(rig);
    const peer = H2Peer.dial(rig, ip, client).greet();
    rig.command(0, Command.DRAIN, 5_000);
    assertEquals(peer.expect(GOAWAY, 0).payload.toHex(), "7fffffff" + "00000000");
    peer.send(frame(PING, FrameFlag.ACK, 0, drainPing(peer).payload));
    assertEquals(peer.ending(), "NO_ERROR");
    rig.until("the session is gone", () => pod.sessions.size === 0);
    rig.pass(5_500); // The deadline comes all the same.
  }));

Deno.test("all pods drain at once, and what is left of any is cut at the one deadline (ZT-077, ZT-225)", () =>
  Rig.with(1, (rig) => {
    const peers: H2Peer[] = [], applications: Socket[] = [], ips = [freshIp(), freshIp(), freshIp()];
    for (const [at, ip] of ips.entries()) rig.addWorkload(`server-${at}`, ip);
    rig.publish();
    for (const ip of ips) {
      const hbone = new Server(ip, 15008).fd;
      const pod = rig.addPod(0, ip, "spiffe://cluster.local/ns/default/sa/server", { [ListenerKind.HBONE]: hbone });
      if (pod.identity.tls === undefined) rig.certify(0, pod, own);
      rig.publish();
      const listener = new Server(ip), peer = H2Peer.dial(rig, ip, client).greet();
      rig.atEnd(() => listener.close());
      peer.send(connectFrame(1, `${formatIp(...ip)}:${listener.port}`));
      let application: Socket | undefined;
      rig.until("the connection arrives", () => (application = listener.accept()) !== undefined);
      rig.atEnd(() => application!.close());
      peer.expect(HEADERS, 1);
      peers.push(peer);
      applications.push(application!);
    }
    const over = (socket: Socket) => (socket.read(), socket.ended || socket.error !== 0);
    rig.command(0, Command.DRAIN, 5_000);
    for (const peer of peers) peer.expect(GOAWAY, 0); // None waits for another to be done.
    rig.pass(4_500);
    assertEquals(applications.map(over), [false, false, false]);
    rig.pass(1_000);
    rig.until("all are cut", () => applications.every(over));
    assertEquals(rig.records(0).map(({ error }) => error), Array(3).fill("connection closed due to connection drain"));
  }));
