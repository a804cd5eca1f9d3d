/** Whose certificates a pod bears: what the control plane says of its workload, from when it says so. */
import { assertEquals } from "@std/assert";
import { FrameType } from "../../wire/h2/frame_rules.ts";
import { H2Peer } from "./h2_peer_testing.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";
import { issue, Rig } from "./testing.ts";
import { createTemplate } from "../../os/openssl.ts";
import { Command } from "../tables/layout.ts";

const URI = "spiffe://cluster.local/ns/default/sa/server", FOREIGN_URI = "spiffe://other.example/ns/default/sa/server";
const own = await issue(URI), foreign = await issue(FOREIGN_URI);
const client = await issue("spiffe://cluster.local/ns/default/sa/client");
const foreignClient = await issue("spiffe://other.example/ns/default/sa/client");

Deno.test("a pod that nobody knows yet has no identity, and its connections wait for one (ZT-043, ZT-082)", () =>
  Rig.with(1, (rig) => {
    const ip = freshIp(), serverIp = freshIp();
    rig.addWorkload("server", ip);
    rig.addWorkload("other", serverIp);
    const pod = rig.addPod(0, ip, undefined, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.publish();
    const inbound = Socket.connect(ip, 15008);
    rig.atEnd(() => inbound.close());
    rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: serverIp, port: 80 });
    rig.until("both wait", () => pod.parked.size === 2);
    assertEquals([pod.identity.row, pod.identity.uri, pod.identity.tls], [-1, "", undefined]);
    rig.identify(pod, URI);
    assertEquals(pod.parked.size, 2);
    rig.certify(0, pod, own);
    rig.until("nobody waits", () => pod.parked.size === 0 && pod.sessions.size === 1);
  }));

Deno.test("a pod of another trust domain presents that one's certificate, and lets that one's clients in (ZT-043, ZT-083)", () =>
  Rig.with(1, (rig) => {
    const ip = freshIp();
    rig.addWorkload("server", ip);
    const pod = rig.addPod(0, ip, URI, { [ListenerKind.HBONE]: new Server(ip, 15008).fd });
    rig.certify(0, pod, own);
    rig.publish();
    const before = H2Peer.dial(rig, ip, client).greet();
    before.expect(FrameType.SETTINGS, 0);
    const { tls } = pod.identity;
    rig.identify(pod, FOREIGN_URI);
    rig.certify(0, pod, foreign);
    const after = H2Peer.dial(rig, ip, foreignClient).greet();
    after.expect(FrameType.SETTINGS, 0);
    const refused = H2Peer.dial(rig, ip, client);
    rig.until("a client of the former one is refused", () => (refused.poll(), refused.over));
    assertEquals(before.over, false);
    tls?.free();
  }));

Deno.test("a certificate told of for a row's former identity is not used for the one that has the row now (ZT-043, ZT-160)", () =>
  Rig.with(1, (rig) => {
    const ip = freshIp();
    rig.addWorkload("server", ip);
    const pod = rig.addPod(0, ip, URI);
    rig.publish();
    const { low, high } = createTemplate(foreign); // The row's own context is none yet.
    rig.command(0, Command.IDENTITY_CHANGED, pod.identity.row, low, high);
    for (let turn = 0; turn < 3; turn++) rig.turn();
    assertEquals(pod.identity.tls, undefined);
    rig.certify(0, pod, own);
  }));
