/** The 14 traffic checks with redirection by eBPF, IPv4, IPv6 and dual stack, and what more it owes (cni.md appendix A). */
import { assertEquals, assertThrows } from "@std/assert";
import { CAPTURE_PORTS, PROBE_ADDRESS, REPLY_MARK, ZTUNNEL_MARK } from "../../cni/nft_rules.ts";
import type { PodRuleOptions } from "../../cni/redirection/redirection.ts";
import { ADDRESS, BpfRig, FAMILIES, type Family } from "./bpf_rig.ts";
import { RawSocket } from "./raw_socket.ts";

type At = (typeof ADDRESS)[Family];

/** Both families in one pod, then each in a pod that has no other. */
function test(
  name: string,
  options: PodRuleOptions,
  run: (rig: BpfRig, at: At, family: Family) => void | Promise<void>,
): void {
  for (const family of FAMILIES) {
    for (const [stack, families] of [["dual stack", FAMILIES], [`${family} only`, [family]]] as const) {
      Deno.test(`bpf: ${name} (${family}, ${stack})`, async () => {
        using rig = await BpfRig.start(options, families);
        await run(rig, ADDRESS[family], family);
        assertEquals(await rig.redirection.check(rig.pod, options), []);
      });
    }
  }
}

function exchange(one: RawSocket, other: RawSocket): void {
  one.send("there");
  assertEquals(other.receive(), "there");
  other.send("and back");
  assertEquals(one.receive(), "and back");
}

test(
  "checks 1 and 2: the application is captured, a marked socket is not (CNI-201, CNI-202, CNI-310)",
  {},
  (rig, at) => {
    const { pod, peer } = rig;
    using outbound = RawSocket.listen(pod, "::", CAPTURE_PORTS.outbound);
    using remote = RawSocket.listen(peer, "::", 9000);
    using captured = RawSocket.connect(pod, at.peer, 9000);
    using accepted = outbound.accept();
    assertEquals(rig.originalDestination(accepted), `${at.peer} 9000`);
    assertEquals(accepted.otherName(), captured.localName());
    assertEquals(accepted.otherName().split(" ")[0], at.pod, "the other end is the pod's own address");
    exchange(captured, accepted);
    using direct = RawSocket.connect(pod, at.peer, 9000, { mark: ZTUNNEL_MARK });
    using reached = remote.accept();
    assertEquals(reached.otherName(), direct.localName());
    assertEquals(direct.localName().split(" ")[0], at.pod);
  },
);

test("checks 3 and 4: inbound plaintext of any port is captured with its source (CNI-205, CNI-310)", {}, (rig, at) => {
  const { pod, peer } = rig;
  using plaintext = RawSocket.listen(pod, "::", CAPTURE_PORTS.inboundPlaintext);
  rig.serve(plaintext);
  using _application = RawSocket.listen(pod, "::", 8080);
  for (const port of [8080, 1, 65535]) {
    using connected = RawSocket.connect(peer, at.pod, port);
    using accepted = plaintext.accept();
    assertEquals(accepted.localName(), `${at.pod} ${port}`, "the original destination is the socket's own name");
    assertEquals(accepted.otherName(), connected.localName());
    assertEquals(connected.localName().split(" ")[0], at.peer);
    exchange(connected, accepted);
  }
});

test("checks 5 to 7: the original source reaches the application, its replies stay in the pod (CNI-206, CNI-310)", {}, (
  rig,
  at,
) => {
  const { pod } = rig;
  using plaintext = RawSocket.listen(pod, "::", CAPTURE_PORTS.inboundPlaintext);
  rig.serve(plaintext);
  using application = RawSocket.listen(pod, "::", 8080);
  using connected = RawSocket.connect(pod, at.pod, 8080, {
    mark: REPLY_MARK,
    transparent: true,
    device: "lo",
    local: { ip: at.peer, port: 20_000 },
  });
  using accepted = application.accept();
  assertEquals(accepted.otherName(), `${at.peer} 20000`);
  accepted.send("reply"); // Would it leave, the peer would answer with a reset, and nothing would arrive here.
  assertEquals(connected.receive(), "reply");
  exchange(connected, accepted);
});

test("check 8: HBONE goes straight to its listener (CNI-205, CNI-310)", {}, ({ pod, peer }, at) => {
  using hbone = RawSocket.listen(pod, "::", CAPTURE_PORTS.inboundHbone);
  using connected = RawSocket.connect(peer, at.pod, CAPTURE_PORTS.inboundHbone);
  using accepted = hbone.accept();
  assertEquals(accepted.localName(), `${at.pod} ${CAPTURE_PORTS.inboundHbone}`);
  exchange(connected, accepted);
});

test("check 9: the node's probes reach the application and are answered (CNI-205, CNI-310)", {}, (rig, at, family) => {
  const { pod, peer } = rig;
  using application = RawSocket.listen(pod, "::", 8080);
  using connected = RawSocket.connect(peer, at.pod, 8080, { local: { ip: PROBE_ADDRESS[family], port: 0 } });
  using accepted = application.accept();
  assertEquals(accepted.otherName().split(" ")[0], PROBE_ADDRESS[family]);
  exchange(connected, accepted);
});

test("checks 10 and 11: the pod's own address and loopback are direct (CNI-201, CNI-310)", {}, ({ pod }, at) => {
  using application = RawSocket.listen(pod, "::", 8080);
  for (const own of [at.pod, at.loopback]) {
    using connected = RawSocket.connect(pod, own, 8080);
    using accepted = application.accept();
    assertEquals(accepted.otherName().split(" ")[0], own);
    exchange(connected, accepted);
  }
});

test("check 12: DNS over TCP is captured with its original destination (CNI-204, CNI-310)", { dnsCapture: true }, (
  rig,
  at,
) => {
  using dns = RawSocket.listen(rig.pod, at.loopback, CAPTURE_PORTS.dns);
  using connected = RawSocket.connect(rig.pod, at.peer, 53);
  using accepted = dns.accept();
  assertEquals(rig.originalDestination(accepted), `${at.peer} 53`);
  assertEquals(connected.otherName(), `${at.peer} 53`);
  exchange(connected, accepted);
});

test("check 13: DNS over UDP is captured, and the answer comes from the resolver (CNI-204, CNI-310)", {
  dnsCapture: true,
}, ({ pod }, at) => {
  using dns = RawSocket.listen(pod, at.loopback, CAPTURE_PORTS.dns, { transport: "udp" });
  using application = RawSocket.connect(pod, at.peer, 53, { transport: "udp" });
  application.send("question");
  assertEquals(dns.receive(), "question");
  assertEquals(application.otherName(), `${at.peer} 53`);
  dns.connectTo(application.localName());
  dns.send("answer");
  assertEquals(application.receive(), "answer");
});

test("DNS over UDP without a connection: sent and received from the resolver's address (CNI-204)", {
  dnsCapture: true,
}, ({ pod }, at) => {
  using dns = RawSocket.listen(pod, at.loopback, CAPTURE_PORTS.dns, { transport: "udp" });
  using application = RawSocket.listen(pod, at.peer.includes(":") ? "::" : "0.0.0.0", 0, { transport: "udp" });
  application.sendTo("question", at.peer, 53);
  const { text, from } = dns.receiveFrom();
  assertEquals(text, "question");
  dns.sendTo("answer", ...from);
  assertEquals(application.receiveFrom(), { text: "answer", from: [at.peer, 53] });
});

test("check 14: ztunnel's own queries leave and their answers return (CNI-204, CNI-310)", { dnsCapture: true }, (
  { pod, peer },
  at,
) => {
  using resolver = RawSocket.listen(peer, at.peer, 53, { transport: "udp" });
  using query = RawSocket.connect(pod, at.peer, 53, { transport: "udp", mark: ZTUNNEL_MARK });
  query.send("question");
  assertEquals(resolver.receive(), "question");
  resolver.connectTo(query.localName());
  resolver.send("answer");
  assertEquals(query.receive(), "answer");
});

test("an application that asks whom it talks to hears what it connected to (CNI-203)", {}, ({ pod }, at) => {
  using outbound = RawSocket.listen(pod, "::", CAPTURE_PORTS.outbound);
  using captured = RawSocket.connect(pod, at.peer, 9000);
  using _accepted = outbound.accept();
  assertEquals(captured.otherName(), `${at.peer} 9000`);
});

test("what a connection was meant for is forgotten with it (CNI-202)", {}, (rig, at) => {
  using outbound = RawSocket.listen(rig.pod, "::", CAPTURE_PORTS.outbound);
  const captured = RawSocket.connect(rig.pod, at.peer, 9000);
  const accepted = outbound.accept();
  accepted[Symbol.dispose](), captured[Symbol.dispose]();
  assertEquals(rig.redirection.node.maps.byTuple.keys().length, 0);
  assertEquals(rig.redirection.node.maps.byCookie.keys().length, 0);
  assertEquals(rig.redirection.node.counters().CAPTURED, 1);
});

test(
  "nothing listens: captured traffic is refused both ways, and passes once the pod has left (CNI-205, CNI-214)",
  {},
  async (
    rig,
    at,
  ) => {
    const { pod, peer } = rig;
    using remote = RawSocket.listen(peer, "::", 9000);
    using application = RawSocket.listen(pod, "::", 8080);
    assertThrows(() => RawSocket.connect(pod, at.peer, 9000), Error, "ECONNREFUSED");
    assertThrows(() => RawSocket.connect(peer, at.pod, 8080), Error, "ECONNREFUSED");
    for (const port of [CAPTURE_PORTS.outbound, CAPTURE_PORTS.inboundPlaintext]) {
      using _ztunnels = RawSocket.listen(pod, "::", port);
      assertThrows(() => RawSocket.connect(peer, at.pod, port), Error, "ECONNREFUSED");
    }
    rig.redirection.release(pod);
    for (let round = 0; round < 2; round++) {
      using out = RawSocket.connect(pod, at.peer, 9000);
      using reached = remote.accept();
      exchange(out, reached);
      using connected = RawSocket.connect(peer, at.pod, 8080);
      using accepted = application.accept();
      exchange(connected, accepted);
      await rig.redirection.remove(pod);
    }
    await rig.redirection.apply(pod, {});
  },
);
