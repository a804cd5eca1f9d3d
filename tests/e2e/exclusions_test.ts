/** What is left out of capture, and connections that stood before: the same on every backend (CNI-099, CNI-127). */
import { assertEquals } from "@std/assert";
import { CAPTURE_PORTS } from "../../cni/nft_rules.ts";
import { createAnonymousNetns } from "../../os/netns.ts";
import { RouteSocket } from "../../os/netlink/rtnetlink.ts";
import { NETFILTER_BACKENDS, openBackend } from "./backends.ts";
import { RawSocket } from "./raw_socket.ts";

const POD = "10.59.0.2", PEER = "10.59.0.1", OTHER = "10.59.7.1";

function joined() {
  const pod = createAnonymousNetns(), peer = createAnonymousNetns();
  using routes = RouteSocket.open(peer), inside = RouteSocket.open(pod);
  routes.addVeth({ name: "veth0", peerName: "eth0", peerNetns: pod });
  inside.setUp("lo");
  routes.addAddress("veth0", `${PEER}/24`);
  routes.addAddress("veth0", `${OTHER}/32`);
  inside.addAddress("eth0", `${POD}/24`);
  routes.setUp("veth0");
  inside.setUp("eth0");
  inside.addRoute({ destination: "0.0.0.0/0", via: PEER });
  return { pod, peer, [Symbol.dispose]: () => (pod[Symbol.dispose](), peer[Symbol.dispose]()) };
}

for (const name of NETFILTER_BACKENDS) {
  Deno.test(`${name}: excluded ports and ranges are reached past the mesh, all else is captured (CNI-099)`, async () => {
    using backend = await openBackend(name), both = joined();
    const exclude = { outboundPorts: [3306], outboundCidrs: ["10.59.7.0/24"], inboundPorts: [9100] };
    await backend.apply(both.pod, { dnsCapture: true, exclude });
    using captured = RawSocket.listen(both.pod, "0.0.0.0", CAPTURE_PORTS.outbound);
    using plaintext = RawSocket.listen(both.pod, "0.0.0.0", CAPTURE_PORTS.inboundPlaintext);
    const reached = (port: number, ip: string, listener: RawSocket) => {
      using connected = RawSocket.connect(both.pod, ip, port), accepted = listener.accept();
      return accepted.localName() === connected.otherName();
    };
    using database = RawSocket.listen(both.peer, "0.0.0.0", 3306), web = RawSocket.listen(both.peer, "0.0.0.0", 9000);
    assertEquals(reached(3306, PEER, database), true);
    assertEquals(reached(9000, OTHER, web), true);
    assertEquals(reached(9000, PEER, captured), false);
    using resolver = RawSocket.listen(both.peer, OTHER, 53, { transport: "udp" });
    using query = RawSocket.connect(both.pod, OTHER, 53, { transport: "udp" });
    query.send("question");
    assertEquals(resolver.receive(), "question", "a range counts for DNS too");
    using metrics = RawSocket.listen(both.pod, "0.0.0.0", 9100);
    using scraped = RawSocket.connect(both.peer, POD, 9100), answered = metrics.accept();
    assertEquals(answered.otherName(), scraped.localName());
    using asked = RawSocket.connect(both.peer, POD, 8080), taken = plaintext.accept();
    assertEquals(taken.otherName(), asked.localName());
  });

  Deno.test(`${name}: with graceful enrolment a connection that stands goes on, and a new one is captured (CNI-127)`, async () => {
    using backend = await openBackend(name), both = joined();
    using server = RawSocket.listen(both.peer, "0.0.0.0", 9000), service = RawSocket.listen(both.pod, "0.0.0.0", 8080);
    using out = RawSocket.connect(both.pod, PEER, 9000), outPeer = server.accept();
    using into = RawSocket.connect(both.peer, POD, 8080), intoPod = service.accept();
    await backend.apply(both.pod, { graceful: true });
    for (const [one, other] of [[out, outPeer], [outPeer, out], [into, intoPod], [intoPod, into]] as const) {
      one.send("still here");
      assertEquals(other.receive(), "still here");
    }
    using captured = RawSocket.listen(both.pod, "0.0.0.0", CAPTURE_PORTS.outbound);
    using fresh = RawSocket.connect(both.pod, PEER, 9000), taken = captured.accept();
    assertEquals([taken.originalDestination(false), fresh.localName()], [`${PEER} 9000`, taken.otherName()]);
  });
}

for (const name of NETFILTER_BACKENDS) {
  Deno.test(`${name}: with another address for the node's probes that one reaches the application, all else is captured (CNI-189)`, async () => {
    const probe = { ipv4: PEER, ipv6: "fd00:59::1" };
    using backend = await openBackend(name, { probe }), both = joined(), probes = backend.openNode(both.peer);
    await backend.apply(both.pod, { probe });
    assertEquals(await backend.check(both.pod, { probe }), []);
    using application = RawSocket.listen(both.pod, "0.0.0.0", 8080);
    using plaintext = RawSocket.listen(both.pod, "0.0.0.0", CAPTURE_PORTS.inboundPlaintext);
    const from = { local: { ip: OTHER, port: 0 } };
    using captured = RawSocket.connect(both.peer, POD, 8080, from), taken = plaintext.accept();
    assertEquals(taken.otherName(), captured.localName());
    await probes.ensure();
    assertEquals(await probes.check(), []);
    await probes.add([{ ip: POD, uid: "a" }]); // From here on whatever the node itself sends there comes from that address.
    using probed = RawSocket.connect(both.peer, POD, 8080, from), answered = application.accept();
    assertEquals([answered.otherName().split(" ")[0], probed.localName().split(" ")[0]], [PEER, OTHER]);
  });
}
