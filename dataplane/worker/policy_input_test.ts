/** What policies are asked about an inbound connection, and how many they close together. */
import { assertEquals } from "@std/assert";
import { formatIp, type IpWords, parseIp } from "../../base/address.ts";
import { EMPTY_MATCH, type PolicyMatch } from "../../mesh/policy.ts";
import { policyOf } from "../tables/testing.ts";
import { ResponseFlag } from "../tables/layout.ts";
import { connectFrame } from "./h2_peer_testing.ts";
import { withInbound } from "./inbound_testing.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp, Server, Socket } from "./loopback_testing.ts";

const deny = (match: Partial<PolicyMatch>) =>
  policyOf("default/deny", { action: 1, rules: [{ clauses: [[{ ...EMPTY_MATCH, ...match }]] }] });
const whole = (ip: IpWords) => [{ ip, prefixLength: 32 }];
const LOOPBACK = parseIp("127.0.0.1")!;

Deno.test("policies see the peer's address and identity, the address connected to, and the application's port (ZT-093, ZT-118)", () =>
  withInbound(({ rig, ip, authority, application, arrive, peer: open }) => {
    const cases: readonly (readonly [match: Partial<PolicyMatch>, denied: boolean])[] = [
      [{ sourceIps: whole(LOOPBACK) }, true],
      [{ sourceIps: whole(ip) }, false],
      [{ destinationIps: whole(ip) }, true],
      [{ destinationPorts: [application.port] }, true],
      [{ destinationPorts: [15008] }, false],
      [{ principals: [{ kind: "exact", value: "cluster.local/ns/default/sa/client" }] }, true],
      [{ serviceAccounts: [{ namespace: "default", serviceAccount: "client" }] }, true],
      [{ serviceAccounts: [{ namespace: "other", serviceAccount: "client" }] }, false],
      [{ notPrincipals: [{ kind: "presence", value: "" }] }, false],
    ];
    const peer = open();
    for (const [at, [match, denied]] of cases.entries()) {
      rig.mesh.putPolicy(deny(match));
      rig.publish();
      const streamId = at * 2 + 1;
      peer.send(connectFrame(streamId, authority));
      if (!denied) arrive();
      const status = denied ? 401 : 200;
      assertEquals(peer.answer(streamId).headers, [`:status: ${status}`], `${at}: ${JSON.stringify(match)}`);
    }
  }));

Deno.test("all connections of a kind that a new policy refuses close, on one session and on others (ZT-121)", () =>
  withInbound(({ rig, tunnel, peer: open }) => {
    const one = open(), other = open();
    const applications = [tunnel(one, 1), tunnel(one, 3), tunnel(other, 1)];
    rig.records(0);
    rig.mesh.putPolicy(deny({ sourceIps: whole(LOOPBACK) }));
    rig.publish();
    assertEquals([one.reset(1), one.reset(3), other.reset(1)], ["CANCEL", "CANCEL", "CANCEL"]);
    rig.until(
      "all applications are closed",
      () => applications.every((socket) => (socket.read(), socket.ended || socket.error !== 0)),
    );
    assertEquals(rig.records(0).map(({ flag }) => flag), Array(3).fill(ResponseFlag.DENY));
  }));

Deno.test("a policy comes to the last of many connections, however many snapshots come meanwhile (ZT-120)", () =>
  withInbound(({ rig, ip, authority, application, arrive, peer: open }) => {
    const STREAMS = 130, peers = [open(), open()];
    for (let count = 0; count < 2 * STREAMS; count++) {
      const peer = peers[count < STREAMS ? 0 : 1]!;
      peer.send(connectFrame(1 + 2 * (count % STREAMS), authority));
      arrive();
    }
    const last = new Server(ip);
    rig.atEnd(() => last.close());
    peers[1]!.send(connectFrame(2 * STREAMS + 1, `${formatIp(...ip)}:${last.port}`));
    rig.until("the last one is connected", () => rig.shards[0]!.connectionCount === 2 * STREAMS + 1);
    rig.mesh.putPolicy(deny({ destinationPorts: [last.port] }));
    for (let snapshots = 0; snapshots < 20; snapshots++) {
      rig.addWorkload("elsewhere", freshIp());
      rig.publish(); // No two turns without one.
    }
    assertEquals(rig.shards[0]!.connectionCount, 2 * STREAMS, `to port ${application.port}`);
  }));

Deno.test("a workload with a waypoint is reached directly, with and without HBONE, unless a policy says no (ZT-092, ZT-105)", () =>
  withInbound(({ rig, pod, ip, application, tunnel, arrive, peer: open }) => {
    const waypoint = freshIp();
    rig.addWorkload("waypoint", waypoint);
    rig.addWorkload("server", ip, {
      waypoint: { address: { network: "", ip: waypoint }, hostname: undefined, hboneMtlsPort: 15008 },
    });
    rig.publish();
    tunnel(open(), 1);
    const plain = () => rig.capture(0, pod, ListenerKind.PLAINTEXT, { ip, port: application.port });
    plain();
    arrive();
    rig.mesh.putPolicy(deny({ notPrincipals: [{ kind: "exact", value: "cluster.local/ns/default/sa/waypoint" }] }));
    rig.publish();
    rig.until("both are cut", () => rig.shards[0]!.connectionCount === 0);
    const late: Socket = plain();
    rig.until("a later one is refused", () => (late.read(), late.ended || late.error !== 0));
    assertEquals(application.accept(), undefined, formatIp(...ip));
  }));

Deno.test("plaintext policies see the original destination, and nobody's identity (ZT-100, ZT-102)", () =>
  withInbound(({ rig, pod }) => {
    const target = new Server(freshIp());
    rig.atEnd(() => target.close());
    const cases: readonly (readonly [match: Partial<PolicyMatch>, denied: boolean])[] = [
      [{ destinationIps: whole(target.ip) }, true],
      [{ destinationPorts: [target.port] }, true],
      [{ sourceIps: whole(LOOPBACK) }, true],
      [{ principals: [{ kind: "presence", value: "" }] }, false],
      [{ notPrincipals: [{ kind: "presence", value: "" }] }, true], // What STRICT peer authentication becomes.
    ];
    for (const [match, denied] of cases) {
      rig.mesh.putPolicy(deny(match));
      rig.publish();
      const caller = rig.capture(0, pod, ListenerKind.PLAINTEXT, { ip: target.ip, port: target.port });
      if (denied) rig.until("it is refused", () => (caller.read(), caller.ended || caller.error !== 0));
      else {
        rig.until("it arrives", () => {
          const arrived = target.accept();
          arrived?.close();
          return arrived !== undefined;
        });
      }
      assertEquals(target.accept(), undefined, JSON.stringify(match));
    }
  }));
