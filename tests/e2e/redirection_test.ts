/** The 14 traffic checks of the redirection rules (CNI-310; CNI-120, CNI-121), for both families, with a stand-in for ztunnel. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { CAPTURE_PORTS, PROBE_ADDRESS, ZTUNNEL_MARK } from "../../cni/nft_rules.ts";
import type { Redirection } from "../../cni/redirection/redirection.ts";
import { createAnonymousNetns, type Netns, writeSysctl } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { NETFILTER_BACKENDS, openBackend } from "./backends.ts";
import { RawSocket } from "./raw_socket.ts";

const ADDRESS = {
  ipv4: { pod: "10.55.1.2", peer: "10.55.1.1", loopback: "127.0.0.1" },
  ipv6: { pod: "fd00:55::2", peer: "fd00:55::1", loopback: "::1" },
} as const;
/** Every address; a namespace may have no IPv6. */
const ANY = { ipv4: "0.0.0.0", ipv6: "::" } as const;
const PREFIX_LENGTH = { ipv4: 24, ipv6: 64 } as const;
type Family = keyof typeof ADDRESS;

/** Which families a pod has, and which of them is tried. */
const STACKS: readonly { readonly has: readonly Family[]; readonly tried: Family; readonly name: string }[] = [
  { has: ["ipv4"], tried: "ipv4", name: "IPv4 alone" },
  { has: ["ipv6"], tried: "ipv6", name: "IPv6 alone" },
  { has: ["ipv4", "ipv6"], tried: "ipv4", name: "IPv4 of both" },
  { has: ["ipv4", "ipv6"], tried: "ipv6", name: "IPv6 of both" },
];

/** Two namespaces joined by a veth, with addresses of the families. */
class Bench implements Disposable {
  readonly pod: Netns = createAnonymousNetns();
  readonly peer: Netns = createAnonymousNetns();

  constructor(families: readonly Family[]) {
    // Link-local addresses are usable at once: neighbour discovery needs them.
    for (const netns of [this.pod, this.peer]) writeSysctl(netns, "net/ipv6/conf/default/accept_dad", "0");
    using pod = RouteSocket.open(this.pod);
    using peer = RouteSocket.open(this.peer);
    peer.addVeth({ name: "veth0", peerName: "eth0", peerNetns: this.pod });
    for (const [routes, link, who] of [[pod, "eth0", "pod"], [peer, "veth0", "peer"]] as const) {
      routes.setUp("lo");
      if (!families.includes("ipv6")) {
        writeSysctl(routes === pod ? this.pod : this.peer, "net/ipv6/conf/all/disable_ipv6", "1");
      }
      for (const family of families) routes.addAddress(link, `${ADDRESS[family][who]}/${PREFIX_LENGTH[family]}`);
      routes.setUp(link);
    }
    const deadline = performance.now() + 10_000;
    while (!pod.findLink("eth0")!.running || !peer.findLink("veth0")!.running) {
      assert(performance.now() < deadline, "the link carries packets");
    }
    for (const family of families) {
      peer.addAddress("lo", `${PROBE_ADDRESS[family]}/${family === "ipv4" ? 32 : 128}`);
      pod.addRoute({ destination: family === "ipv4" ? "0.0.0.0/0" : "::/0", via: ADDRESS[family].peer });
    }
  }

  [Symbol.dispose](): void {
    this.pod[Symbol.dispose]();
    this.peer[Symbol.dispose]();
  }
}

/** Accepts a connection that `connected` made, and returns both ends. */
function pair(listener: RawSocket, connected: RawSocket): { accepted: RawSocket; connected: RawSocket } {
  return { accepted: listener.accept(), connected };
}

function exchange(one: RawSocket, other: RawSocket): void {
  one.send("there");
  assertEquals(other.receive(), "there");
  other.send("and back");
  assertEquals(one.receive(), "and back");
}

interface Check {
  readonly name: string;
  readonly dnsCapture: boolean;
  readonly run: (bench: Bench, family: Family, backend: Redirection) => void | Promise<void>;
}
const CHECKS: Check[] = [];
const check = (name: string, dnsCapture: boolean, run: Check["run"]) => void CHECKS.push({ name, dnsCapture, run });

check(
  "checks 1 and 2: the application is captured, a marked socket is not (R5, R16)",
  false,
  ({ pod, peer }, family) => {
    const at = ADDRESS[family];
    using outbound = RawSocket.listen(pod, ANY[family], CAPTURE_PORTS.outbound);
    using remote = RawSocket.listen(peer, ANY[family], 9000);
    const captured = pair(outbound, RawSocket.connect(pod, at.peer, 9000));
    assertEquals(captured.accepted.originalDestination(family === "ipv6"), `${at.peer} 9000`);
    assertEquals(captured.accepted.otherName().split(" ")[0], at.pod, "the peer's address stays the pod's");
    exchange(captured.connected, captured.accepted);
    const direct = pair(remote, RawSocket.connect(pod, at.peer, 9000, { mark: ZTUNNEL_MARK }));
    assertEquals(direct.accepted.otherName(), direct.connected.localName());
    assertEquals(direct.connected.localName().split(" ")[0], at.pod);
    for (const it of [captured, direct]) it.accepted[Symbol.dispose](), it.connected[Symbol.dispose]();
  },
);

check("checks 3 and 4: inbound plaintext is captured with its source (R6, R11)", false, ({ pod, peer }, family) => {
  const at = ADDRESS[family];
  using plaintext = RawSocket.listen(pod, ANY[family], CAPTURE_PORTS.inboundPlaintext);
  using application = RawSocket.listen(pod, ANY[family], 8080);
  const { accepted, connected } = pair(plaintext, RawSocket.connect(peer, at.pod, 8080));
  assertEquals(accepted.originalDestination(family === "ipv6"), `${at.pod} 8080`);
  assertEquals(accepted.otherName(), connected.localName());
  assertEquals(connected.localName().split(" ")[0], at.peer);
  exchange(connected, accepted);
  assert(application.fd >= 0);
  accepted[Symbol.dispose](), connected[Symbol.dispose]();
});

check("checks 5 to 7: the original source reaches the application, its replies stay in the pod (R3, R4, R14)", false, ({
  pod,
  peer,
}, family) => {
  const at = ADDRESS[family];
  using application = RawSocket.listen(pod, ANY[family], 8080);
  const { accepted, connected } = pair(
    application,
    RawSocket.connect(pod, at.pod, 8080, {
      mark: ZTUNNEL_MARK,
      transparent: true,
      local: { ip: at.peer, port: 0 },
    }),
  );
  assertEquals(accepted.otherName().split(" ")[0], at.peer);
  using routes = RouteSocket.open(peer);
  assert(routes.findLink("veth0")!.up, "the way out was open, so that only the rules kept the reply in");
  accepted.send("reply"); // Would it leave, the peer would answer with a reset, and nothing would arrive here.
  assertEquals(connected.receive(), "reply");
  exchange(connected, accepted);
  accepted[Symbol.dispose](), connected[Symbol.dispose]();
});

check("check 8: HBONE goes straight to its listener (R11)", false, ({ pod, peer }, family) => {
  const at = ADDRESS[family];
  using hbone = RawSocket.listen(pod, ANY[family], CAPTURE_PORTS.inboundHbone);
  const { accepted, connected } = pair(hbone, RawSocket.connect(peer, at.pod, CAPTURE_PORTS.inboundHbone));
  assertEquals(accepted.localName(), `${at.pod} ${CAPTURE_PORTS.inboundHbone}`);
  exchange(connected, accepted);
  accepted[Symbol.dispose](), connected[Symbol.dispose]();
});

check("check 9: the node's probes reach the application and are answered (R9, R10)", false, ({ pod, peer }, family) => {
  const at = ADDRESS[family];
  using application = RawSocket.listen(pod, ANY[family], 8080);
  const source = { ip: PROBE_ADDRESS[family], port: 0 };
  const { accepted, connected } = pair(application, RawSocket.connect(peer, at.pod, 8080, { local: source }));
  assertEquals(accepted.otherName().split(" ")[0], PROBE_ADDRESS[family]);
  exchange(connected, accepted);
  accepted[Symbol.dispose](), connected[Symbol.dispose]();
});

check("checks 10 and 11: the pod's own address and loopback are direct (R15, R16)", false, ({ pod }, family) => {
  const at = ADDRESS[family];
  using application = RawSocket.listen(pod, ANY[family], 8080);
  for (const own of [at.pod, at.loopback]) {
    const { accepted, connected } = pair(application, RawSocket.connect(pod, own, 8080));
    assertEquals(accepted.otherName().split(" ")[0], own);
    exchange(connected, accepted);
    accepted[Symbol.dispose](), connected[Symbol.dispose]();
  }
});

check("check 12: DNS over TCP is captured with its original destination (R13)", true, ({ pod }, family) => {
  const at = ADDRESS[family];
  using dns = RawSocket.listen(pod, at.loopback, CAPTURE_PORTS.dns);
  const { accepted, connected } = pair(dns, RawSocket.connect(pod, at.peer, 53));
  assertEquals(accepted.originalDestination(family === "ipv6"), `${at.peer} 53`);
  exchange(connected, accepted);
  accepted[Symbol.dispose](), connected[Symbol.dispose]();
});

check(
  "check 13: DNS over UDP is captured, and the answer seems to come from the resolver (R12)",
  true,
  ({ pod }, family) => {
    const at = ADDRESS[family];
    using dns = RawSocket.listen(pod, at.loopback, CAPTURE_PORTS.dns, { transport: "udp" });
    using application = RawSocket.connect(pod, at.peer, 53, { transport: "udp" });
    application.send("question");
    assertEquals(dns.receive(), "question");
    dns.connectTo(application.localName());
    dns.send("answer");
    assertEquals(application.receive(), "answer", "a connected socket takes answers from the resolver's address only");
  },
);

check(
  "check 14: ztunnel's own queries leave and their answers return (R12, R19, R20)",
  true,
  ({ pod, peer }, family) => {
    const at = ADDRESS[family];
    using resolver = RawSocket.listen(peer, at.peer, 53, { transport: "udp" });
    using query = RawSocket.connect(pod, at.peer, 53, { transport: "udp", mark: ZTUNNEL_MARK });
    query.send("question");
    assertEquals(resolver.receive(), "question");
    resolver.connectTo(query.localName());
    resolver.send("answer");
    assertEquals(query.receive(), "answer");
  },
);

check("nothing listens: captured traffic is refused, never let through; without rules it passes", false, async (
  { pod, peer },
  family,
  backend,
) => {
  const at = ADDRESS[family];
  using remote = RawSocket.listen(peer, ANY[family], 9000);
  assertThrows(() => RawSocket.connect(pod, at.peer, 9000), Error, "ECONNREFUSED");
  await backend.remove(pod);
  const { accepted, connected } = pair(remote, RawSocket.connect(pod, at.peer, 9000));
  exchange(connected, accepted);
  accepted[Symbol.dispose](), connected[Symbol.dispose]();
});

for (const name of NETFILTER_BACKENDS) {
  for (const { has, tried, name: stack } of STACKS) {
    Deno.test(`${name}: the 14 traffic checks, ${stack} (CNI-120 to CNI-126, CNI-310)`, async (t) => {
      using backend = await openBackend(name);
      for (const { name: what, dnsCapture, run } of CHECKS) {
        await t.step(what, async () => {
          using bench = new Bench(has);
          await backend.apply(bench.pod, { dnsCapture });
          await run(bench, tried, backend);
        });
      }
    });
  }
}
