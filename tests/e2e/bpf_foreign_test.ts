/** The traffic checks that differ for a ztunnel of another make: it asks the kernel as after a REDIRECT, and marks as ever. */
import { assertEquals, assertThrows } from "@std/assert";
import { CAPTURE_PORTS, PROBE_ADDRESS, ZTUNNEL_MARK } from "../../cni/nft_rules.ts";
import { ADDRESS, BpfRig, FAMILIES, type Family } from "./bpf_rig.ts";
import { RawSocket } from "./raw_socket.ts";

function test(
  name: string,
  run: (rig: BpfRig, at: (typeof ADDRESS)[Family], family: Family) => void | Promise<void>,
): void {
  for (const family of FAMILIES) {
    Deno.test(`bpf, foreign ztunnel: ${name} (${family})`, async () => {
      using rig = await BpfRig.start({ dnsCapture: true }, FAMILIES, { foreign: true });
      await run(rig, ADDRESS[family], family);
      assertEquals(await rig.redirection.check(rig.pod, { dnsCapture: true }), []);
    });
  }
}

test("SO_ORIGINAL_DST tells what a captured connection was meant for (CNI-202)", ({ pod }, at, family) => {
  using outbound = RawSocket.listen(pod, "::", CAPTURE_PORTS.outbound);
  using _captured = RawSocket.connect(pod, at.peer, 9000), accepted = outbound.accept();
  assertEquals(accepted.originalDestination(family === "ipv6"), `${at.peer} 9000`);
  using dns = RawSocket.listen(pod, at.loopback, CAPTURE_PORTS.dns);
  using _query = RawSocket.connect(pod, at.peer, 53), asked = dns.accept();
  assertEquals(asked.originalDestination(family === "ipv6"), `${at.peer} 53`);
});

test(
  "inbound plaintext of any port finds its listener, with its source; probes and HBONE pass (CNI-208)",
  (rig, at, family) => {
    const { pod, peer } = rig;
    using application = RawSocket.listen(pod, "::", 8080);
    assertThrows(
      () => RawSocket.connect(peer, at.pod, 8080, { timeoutS: 1 }),
      Error,
      undefined,
      "nobody listens at 15006",
    );
    using plaintext = RawSocket.listen(pod, "::", CAPTURE_PORTS.inboundPlaintext);
    for (const port of [8080, 1, 65535]) {
      using connected = RawSocket.connect(peer, at.pod, port), accepted = plaintext.accept();
      assertEquals([accepted.localName(), accepted.otherName()], [`${at.pod} ${port}`, connected.localName()]);
      connected.send("there");
      assertEquals(accepted.receive(), "there");
    }
    using _probe = RawSocket.connect(peer, at.pod, 8080, { local: { ip: PROBE_ADDRESS[family], port: 0 } });
    using served = application.accept();
    assertEquals(served.otherName().split(" ")[0], PROBE_ADDRESS[family]);
    using hbone = RawSocket.listen(pod, "::", CAPTURE_PORTS.inboundHbone);
    using _tunnel = RawSocket.connect(peer, at.pod, CAPTURE_PORTS.inboundHbone), _taken = hbone.accept();
  },
);

test(
  "what it sends with its own mark from a client's address is answered inside the pod (CNI-206, CNI-208)",
  (rig, at) => {
    const { pod } = rig;
    using application = RawSocket.listen(pod, "::", 8080);
    const source = { mark: ZTUNNEL_MARK, transparent: true, local: { ip: at.peer, port: 0 } };
    using connected = RawSocket.connect(pod, at.pod, 8080, source), accepted = application.accept();
    assertEquals(accepted.otherName().split(" ")[0], at.peer);
    accepted.send("reply");
    assertEquals(connected.receive(), "reply");
    using own = RawSocket.connect(pod, at.pod, 8080, { mark: ZTUNNEL_MARK }), direct = application.accept();
    assertEquals(direct.otherName(), own.localName());
    own.send("there");
    assertEquals(direct.receive(), "there");
  },
);
