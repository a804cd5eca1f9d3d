/** What rows, labels and log lines say of connections. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { frame } from "../../wire/h2/testing.ts";
import { FrameFlag, FrameType } from "../../wire/h2/frame_rules.ts";
import { writeConnectBlock } from "../../wire/h2/hpack_encoder.ts";
import { EMPTY_MATCH } from "../../mesh/policy.ts";
import { AccessKind, type AccessRecord, LogScope } from "../tables/access.ts";
import { type FlowLabel, parseFlowLabel } from "../tables/flow_label.ts";
import { putFailure } from "../tables/identities.ts";
import { Command, CONNECTION, Direction, FLOW, HEADER, ResponseFlag } from "../tables/layout.ts";
import { policyOf, serviceOf } from "../tables/testing.ts";
import { concat } from "./h2_peer_testing.ts";
import { CONNECT_METHOD, field, withInbound } from "./inbound_testing.ts";
import { ListenerKind } from "./listener.ts";
import { freshIp } from "./loopback_testing.ts";
import { Rig } from "./testing.ts";

const { HEADERS } = FrameType, { END_HEADERS } = FrameFlag;
const BAGGAGE = "k8s.cluster.name=far,k8s.namespace.name=n,k8s.deployment.name=w,service.name=s,service.version=v2";

function labelOf(rig: Rig, record: AccessRecord): FlowLabel {
  const flows = rig.tables.flows[0]!, bytes = flows.get(record.flowRow, FLOW.labelBytes);
  return parseFlowLabel(new TextDecoder().decode(flows.readBytes(record.flowRow, FLOW.label, bytes)));
}

Deno.test("the row of an inbound tunnel names the service that its client asked for (ZT-213)", () =>
  withInbound(({ rig, authority, arrive, peer: open }) => {
    const peer = open(), table = rig.tables.connections[0]!;
    for (const [at, host] of ["shop.example", `${"x".repeat(150)}.example`, undefined].entries()) {
      const block = new Uint8Array(4096), forwarded = `for="10.0.0.9:1"${host === undefined ? "" : `;host=${host}`}`;
      const end = writeConnectBlock(block, 0, authority, BAGGAGE, forwarded, "00-0-0-00");
      peer.send(frame(HEADERS, END_HEADERS, at * 2 + 1, block.slice(0, end)));
      arrive();
      peer.answer(at * 2 + 1);
      const bytes = table.readBytes(at, CONNECTION.host, table.get(at, CONNECTION.hostBytes));
      assertEquals(new TextDecoder().decode(bytes), (host ?? "").slice(0, 128));
    }
  }));

Deno.test("a caller is known by its address, and by its baggage if it came from another network (ZT-099, ZT-194)", () =>
  withInbound(({ rig, authority, peer: open }) => {
    (rig.shards[0]! as { responseBaggage: boolean }).responseBaggage = true;
    rig.addWorkload("caller", [0, 0, 0xffff, 0x7f000001], { namespace: "near", workloadName: "caller-1" });
    rig.publish();
    const cases: readonly (readonly [network: string | undefined, workload: string, app: string])[] = [
      [undefined, "caller-1", "caller"], // What we know of the address outweighs what it says.
      ["", "caller-1", "caller"],
      ["elsewhere", "w", "w"], // The address may be somebody else's here; app of baggage is the workload's name.
    ];
    const peer = open();
    for (const [at, [network, workload, app]] of cases.entries()) {
      const parts = [CONNECT_METHOD, field(":authority", authority), field("baggage", BAGGAGE)];
      if (network !== undefined) parts.push(field("x-forwarded-network", network));
      peer.send(frame(HEADERS, END_HEADERS, at * 2 + 1, concat(...parts)));
      assertEquals(peer.answer(at * 2 + 1).headers, [":status: 401"]);
      const [record] = rig.records(0);
      const label = labelOf(rig, record!);
      assertEquals([label.sourceWorkload, label.sourceApp], [workload, app], `network ${network}`);
      assertEquals(label.sourcePrincipal, "spiffe://cluster.local/ns/default/sa/client");
    }
  }, (rig) => rig.mesh.putPolicy(policyOf("default/nobody", { action: 0 }))));

Deno.test("baggage is not read where the switch for it is off (ZT-056)", () =>
  withInbound(({ rig, authority, peer: open }) => {
    (rig.shards[0]! as { responseBaggage: boolean }).responseBaggage = false;
    const peer = open(), parts = [CONNECT_METHOD, field(":authority", authority), field("baggage", BAGGAGE)];
    peer.send(frame(HEADERS, END_HEADERS, 1, concat(...parts)));
    peer.answer(1);
    assertEquals(labelOf(rig, rig.records(0)[0]!).sourceWorkload, "");
  }, (rig) => rig.mesh.putPolicy(policyOf("default/nobody", { action: 0 }))));

Deno.test("a policy that a workload names and nobody sent is skipped with a warning, once (ZT-106)", () =>
  withInbound(({ rig, ip, authority, peer: open, arrive }) => {
    const warnings = (streamId: number) => {
      peer.send(frame(HEADERS, END_HEADERS, streamId, concat(CONNECT_METHOD, field(":authority", authority))));
      arrive();
      assertEquals(peer.answer(streamId).headers, [":status: 200"]);
      return rig.records(0).filter(({ kind }) => kind === AccessKind.LOG).map(({ flag, error }) => [flag, error]);
    };
    rig.addWorkload("server", ip, { authorizationPolicies: ["default/missing"] });
    rig.publish();
    const peer = open();
    const warning = [2, "policy default/missing of workload cluster//Pod/default/server is not known, and skipped"];
    assertEquals([warnings(1), warnings(3)], [[warning], []]);
    rig.mesh.putPolicy(policyOf("default/missing", { scope: 2, action: 1 })); // Denies nothing.
    rig.publish();
    rig.records(0);
    assertEquals(warnings(5), []);
  }));

Deno.test("a plaintext caller has labels by its address, and no principal (ZT-104)", () =>
  withInbound(({ rig, pod, ip }) => {
    const caller = freshIp();
    rig.addWorkload("caller", caller, { workloadName: "caller-1" });
    rig.publish();
    rig.capture(0, pod, ListenerKind.PLAINTEXT, { ip, port: 80 });
    rig.until("it is refused", () => rig.shards[0]!.connectionCount === 0);
    const [record] = rig.records(0), label = labelOf(rig, record!);
    assertEquals([label.sourcePrincipal, label.securityPolicy, label.destinationPrincipal], [
      "",
      "",
      "spiffe://cluster.local/ns/default/sa/server",
    ]);
    assertEquals([record!.direction, record!.flag], [Direction.INBOUND, ResponseFlag.DENY]);
    const flows = rig.tables.flows[0]!, row = record!.flowRow; // Refused, and yet opened (ZT-103, ZT-196).
    assertEquals([flows.getF64(row, FLOW.opened), flows.getF64At(row, FLOW.closed, ResponseFlag.DENY)], [1, 1]);
  }, (rig) => rig.mesh.putPolicy(policyOf("default/nobody", { action: 0 }))));

Deno.test("an outbound connection that fails at once is counted as opened, closed and failed (ZT-195, ZT-196)", () =>
  withInbound(({ rig, pod }) => {
    const application = rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: [0, 0, 0xffff, 0xffffffff], port: 80 });
    rig.until("it is closed", () => (application.read(), application.ended || application.error !== 0));
    const [record] = rig.records(0), flows = rig.tables.flows[0]!;
    assertEquals([record!.kind, record!.direction, record!.flag], [
      AccessKind.COMPLETE,
      Direction.OUTBOUND,
      ResponseFlag.CONNECT,
    ]);
    assertMatch(record!.error!, /^connect to 255\.255\.255\.255 failed \(errno \d+\)$/);
    assertEquals(flows.getF64(record!.flowRow, FLOW.opened), 1);
    assertEquals(flows.getF64At(record!.flowRow, FLOW.closed, ResponseFlag.CONNECT), 1);
  }));

Deno.test("a line about a tunnel names the trace that its client began, if it is one (ZT-058)", () =>
  withInbound(({ rig, authority, peer: open }) => {
    rig.tables.header.store(0, HEADER.policyLevel, 3);
    const peer = open(), trace = "0123456789abcdef0123456789abcdef";
    for (const [at, traceparent] of [`00-${trace}-0123456789abcdef-00`, "00-0-0-00", undefined].entries()) {
      const parts = [CONNECT_METHOD, field(":authority", authority)];
      if (traceparent !== undefined) parts.push(field("traceparent", traceparent));
      peer.send(frame(HEADERS, END_HEADERS, at * 2 + 1, concat(...parts)));
      peer.answer(at * 2 + 1);
      const line = rig.records(0).find(({ kind }) => kind === AccessKind.LOG);
      assertEquals(/ id (\w+): /.exec(line!.error!)?.[1], at === 0 ? trace : undefined);
    }
  }, (rig) => rig.mesh.putPolicy(policyOf("default/nobody", { action: 0 }))));

Deno.test("policy decisions are told while somebody reads them, and what dry runs would have done (ZT-109, ZT-206)", () =>
  withInbound(({ rig, ip, pod }) => {
    const decisions = () => {
      rig.capture(0, pod, ListenerKind.PLAINTEXT, { ip, port: 80 });
      rig.until("it is over", () => rig.shards[0]!.connectionCount === 0);
      return rig.records(0).filter(({ kind }) => kind === AccessKind.LOG);
    };
    assertEquals(decisions(), []);
    rig.tables.header.store(0, HEADER.policyLevel, 4);
    const [allowed, deny, allow, ...none] = decisions();
    assertEquals(none, []);
    assertEquals([allowed!.flag, allowed!.direction], [4, LogScope.POLICY]);
    assertMatch(allowed!.error!, /^allowed \S+ \(no identity\) to \S+:80: no allow policies$/);
    assertStringIncludes(deny!.error!, "dry-run: deny policy match");
    assertStringIncludes(deny!.error!, ": default/dry-deny");
    assertStringIncludes(allow!.error!, "dry-run: no allow policies match");
    rig.mesh.putPolicy(policyOf("default/nobody", { action: 0 }));
    rig.publish();
    const denied = decisions();
    assert(denied.some(({ error }) => /^denied .*: allow policies exist, but none allowed$/.test(error!)));
  }, (rig) => {
    const port = { ...EMPTY_MATCH, destinationPorts: [80] }, other = { ...EMPTY_MATCH, destinationPorts: [81] };
    rig.mesh.putPolicy(
      policyOf("default/dry-deny", { action: 1, dryRun: true, rules: [{ clauses: [[port]] }] }),
    );
    rig.mesh.putPolicy(
      policyOf("default/dry-allow", { action: 0, dryRun: true, rules: [{ clauses: [[other]] }] }),
    );
  }));

Deno.test("through a waypoint the destination is the waypoint, and the service the one that was asked for (ZT-199)", () =>
  Rig.with(1, (rig) => {
    const ip = freshIp(), vip = freshIp(), waypoint = freshIp(), uri = "spiffe://cluster.local/ns/default/sa/client";
    rig.addWorkload("client", ip);
    rig.addWorkload("waypoint", waypoint, { workloadName: "waypoint" });
    rig.mesh.putService(
      serviceOf("default", "shop.default.svc", {
        addresses: [{ network: "", ip: vip, prefixLength: undefined }],
        ports: [{ servicePort: 80, targetPort: 8080 }],
        waypoint: { address: { network: "", ip: waypoint }, hostname: undefined, hboneMtlsPort: 15008 },
      }),
    );
    const pod = rig.addPod(0, ip, uri);
    rig.publish();
    putFailure(rig.tables.identities, pod.identity.row, "signing error: the CA is gone");
    rig.command(0, Command.IDENTITY_CHANGED, pod.identity.row, 0, 0);
    rig.until("it is heard", () => pod.identity.failure !== undefined);
    rig.capture(0, pod, ListenerKind.OUTBOUND, { ip: vip, port: 80 });
    const [record] = rig.records(0), label = labelOf(rig, record!);
    assertEquals([label.reporter, label.destinationWorkload, label.destinationServiceName, label.destinationService], [
      "source",
      "waypoint",
      "shop",
      "shop.default.svc",
    ]);
    assertEquals(label.destinationPrincipal, "spiffe://cluster.local/ns/default/sa/waypoint");
    // Without a certificate the connection ends, flagged for what it lacks (ZT-195).
    assertEquals([record!.flag, record!.error], [ResponseFlag.IDENTITY_ERROR, "signing error: the CA is gone"]);
  }));
