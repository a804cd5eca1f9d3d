/** Some break their channel: its back-off timers outlive it, so that these tests stand in a file of their own. */
import { Buffer } from "node:buffer";
import net from "node:net";
import tls from "node:tls";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { verifiedPeer } from "./listener_credentials.ts";
import { readTlsRules } from "./tls_rules.ts";

import { clientPair, echo, FAILING, newAuthority, Rig, serverTls } from "./server_testing.ts";

Deno.test(
  "GrpcServer knows a client by its certificate, and reads nothing of one that does not verify (CP-003)",
  FAILING,
  async () => {
    await using rig = await Rig.start();
    const known = rig.client(await clientPair(rig.authority));
    assertEquals(await echo(known), 5);
    assert(rig.calls[0]!.peer.certificate!.length > 100);
    const stranger = rig.client(await clientPair(await newAuthority()));
    assertEquals([await echo(stranger), rig.calls.length], ["UNAVAILABLE", 1]);
    known.close();
    stranger.close();
  },
);

Deno.test("GrpcServer closes who says nothing in the handshake, as the runtime would not", async () => {
  await using rig = await Rig.start({ tlsVersionMin: "TLSV1_2", handshakeMsMax: 100 });
  const socket = net.connect(rig.port, "127.0.0.1"), closed = new Promise((resolve) => socket.on("close", resolve));
  socket.on("error", () => {}).on("data", () => {});
  await closed;
});

Deno.test("GrpcServer takes no TLS below the version that it was given (CP-003)", async () => {
  await using rig = await Rig.start({ tlsVersionMin: "TLSV1_3" });
  const connect = (maxVersion: "TLSv1.2" | "TLSv1.3") =>
    new Promise<string>((resolve) => {
      const options = { port: rig.port, ca: rig.authority.material.rootsPem, servername: "localhost" };
      const socket = tls.connect({ ...options, maxVersion, ALPNProtocols: ["h2"] }, () => {
        resolve(socket.getProtocol() ?? "");
        socket.destroy();
      });
      socket.on("error", () => resolve("refused"));
    });
  assertEquals([await connect("TLSv1.2"), await connect("TLSv1.3")], ["refused", "TLSv1.3"]);
});

Deno.test("GrpcServer reads nothing over a suite of TLS 1.2 that it was not given; of TLS 1.3 all are well (CP-003)", async () => {
  const connect = async (suites: readonly string[], maxVersion: "TLSv1.2" | "TLSv1.3") => {
    await using rig = await Rig.start(readTlsRules({ tlsVersionMin: "TLSV1_2", tlsSuites: suites }));
    return await new Promise<string>((resolve) => {
      const options = { port: rig.port, ca: rig.authority.material.rootsPem, servername: "localhost", maxVersion };
      const socket = tls.connect({ ...options, ALPNProtocols: ["h2"] });
      socket.on("error", () => resolve("closed")).on("close", () => resolve("closed"));
      socket.on("data", () => {
        resolve(socket.getCipher().standardName);
        socket.destroy();
      });
    });
  };
  const chosen = await connect([], "TLSv1.2");
  assert(chosen.startsWith("TLS_ECDHE_ECDSA_WITH_"), chosen);
  assertEquals(await connect([chosen, "TLS_RSA_WITH_AES_128_CBC_SHA"], "TLSv1.2"), chosen);
  const another = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"];
  assertEquals(await connect(another, "TLSv1.2"), "closed");
  assert((await connect(another, "TLSv1.3")).startsWith("TLS_"));
});

Deno.test("readTlsRules() refuses suites of which none would be taken (CP-003)", () => {
  const read = (tlsVersionMin: "TLSV1_2" | "TLSV1_3", ...tlsSuites: string[]) =>
    readTlsRules({ tlsVersionMin, tlsSuites });
  assertEquals(read("TLSV1_2"), { tlsVersionMin: "TLSV1_2" });
  assertEquals(read("TLSV1_3", "nonsense"), { tlsVersionMin: "TLSV1_3" });
  assertThrows(() => read("TLSV1_2", "TLS_AES_128_GCM_SHA256", "TLS_RSA_WITH_RC4_128_SHA"), MeshError, "RC4");
});

Deno.test(
  "GrpcServer presents what it is given from then on, and keeps the connections there are (CP-006)",
  FAILING,
  async () => {
    await using rig = await Rig.start();
    const other = await newAuthority(), standing = rig.client(), late = rig.client(undefined, other);
    assertEquals([await echo(standing), await echo(late)], [5, "UNAVAILABLE"]);
    rig.credentials.update(await serverTls(other));
    const newer = rig.client(await clientPair(other), other),
      older = rig.client(await clientPair(rig.authority), other);
    assertEquals([await echo(standing), await echo(newer), await echo(older)], [5, 5, "UNAVAILABLE"]);
    for (const client of [standing, late, newer, older]) client.close();
  },
);

Deno.test("verifiedPeer() takes a resumed session's certificate only while the roots stand and it is valid (CP-003, CP-505)", () => {
  const peer = (authorized: boolean, reused: boolean, validTo: string) => ({
    authorized,
    authorizationError: new Error("of another root"),
    isSessionReused: () => reused,
    getPeerCertificate: () => ({ raw: Buffer.from([1]), valid_to: validTo }),
  });
  const known = (it: ReturnType<typeof peer>, changed: boolean) =>
    !("refused" in verifiedPeer(it as unknown as Parameters<typeof verifiedPeer>[0], changed));
  const later = new Date(Date.now() + 60_000).toString(), past = new Date(Date.now() - 60_000).toString();
  assertEquals(known(peer(false, false, later), false), false);
  assertEquals(known(peer(true, false, later), true), true);
  assertEquals(known(peer(true, true, later), false), true);
  assertEquals(known(peer(true, true, later), true), false);
  assertEquals(known(peer(true, true, past), false), false);
  assertEquals(known(peer(true, true, "whenever"), false), false);
});

Deno.test("GrpcServer.stop() waits for no handshake, and counts how connections ended", FAILING, async () => {
  await using rig = await Rig.start();
  const socket = net.connect(rig.port, "127.0.0.1"), closed = new Promise((resolve) => socket.on("close", resolve));
  socket.on("error", () => {}).on("data", () => {});
  await new Promise((resolve) => socket.on("connect", resolve));
  const client = rig.client();
  assertEquals(await echo(client), 5);
  assert(/\nambit_grpc_connections 1\n/.test(rig.metrics.render()));
  client.close();
  await rig.server.stop(60_000); // A handshake may take 10 s.
  await closed;
  const text = rig.metrics.render();
  assert(/\nambit_grpc_connections 0\n/.test(text) && /ended_total\{reason="[^"]+"\} 1\n/.test(text), text);
});
