/** Handshakes that go wrong, and client certificates that lead to our root by no honest way. */
import { Buffer } from "node:buffer";
import net from "node:net";
import tls from "node:tls";
import { assert, assertEquals, assertThrows } from "@std/assert";
import * as x509 from "@peculiar/x509";
import { MeshError } from "../../base/errors.ts";
import { CertificateAuthority } from "../ca/authority.ts";
import { toPem } from "../ca/pem.ts";
import { verifiedPeer } from "./listener_credentials.ts";
import { Rig } from "./server_testing.ts";
import { readTlsRules } from "./tls_rules.ts";

const DAY_MS = 86_400_000;
const URI = "spiffe://cluster.local/ns/shop/sa/cart";
const KEY = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

interface Shown {
  readonly cert: string;
  readonly key: string;
}

const newKeys = () => crypto.subtle.generateKey(KEY, true, ["sign", "verify"]) as Promise<CryptoKeyPair>;

async function keyPem({ privateKey }: CryptoKeyPair): Promise<string> {
  return toPem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", privateKey));
}

/** A leaf as the CA gave it, at a time, for a key. */
async function leaf(authority: CertificateAuthority, keys: CryptoKeyPair, atMs = Date.now()): Promise<string> {
  const then = await CertificateAuthority.create(authority.material, () => atMs);
  const spki = new Uint8Array(await crypto.subtle.exportKey("spki", keys.publicKey));
  return (await then.issueWorkload(spki, { identities: [URI], ttlMs: DAY_MS, withCommonName: true })).pem;
}

/** A certificate of anybody's making. */
async function forged(
  keys: CryptoKeyPair,
  { issuer, signer, names }: { issuer: string; signer: CryptoKeyPair; names: readonly string[] },
): Promise<string> {
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: "01",
    subject: "",
    issuer,
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + DAY_MS),
    signingAlgorithm: KEY,
    signingKey: signer.privateKey,
    publicKey: keys.publicKey,
    extensions: [
      new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: "url" as const, value })), true),
    ],
  });
  return toPem("CERTIFICATE", certificate.rawData);
}

/** What becomes of a connection that shows this: `greeted` if the server says its SETTINGS, `closed` if it says nothing. */
function outcome(rig: Rig, { cert, key }: Shown, maxVersion: "TLSv1.2" | "TLSv1.3"): Promise<string> {
  return new Promise((resolve) => {
    const ca = rig.authority.material.rootsPem, ALPNProtocols = ["h2"];
    const socket = tls.connect({ port: rig.port, ca, servername: "localhost", cert, key, maxVersion, ALPNProtocols });
    let outcome = "closed";
    socket.on("data", () => {
      outcome = "greeted";
      socket.destroy();
    });
    socket.on("error", () => {}).on("close", () => resolve(outcome));
  });
}

Deno.test("GrpcServer believes no client certificate that is out of date, signed by a leaf, or by a namesake of the root (CP-003)", async () => {
  await using rig = await Rig.start();
  const { authority } = rig, own = await newKeys(), other = await newKeys();
  const key = await keyPem(own), otherKey = await keyPem(other), cert = await leaf(authority, own);
  const subject = new x509.X509Certificate(cert).subject, root = authority.material.signer.subject;
  const shown: [string, Shown, string][] = [
    ["an honest one", { cert, key }, "greeted"],
    ["one of the day before yesterday", { cert: await leaf(authority, own, Date.now() - 2 * DAY_MS), key }, "closed"],
    ["one of tomorrow", { cert: await leaf(authority, own, Date.now() + DAY_MS), key }, "closed"],
    ["one that a leaf has signed", {
      cert: await forged(other, { issuer: subject, signer: own, names: [URI] }) + cert,
      key: otherKey,
    }, "closed"],
    ["one of a root of the same name", {
      cert: await forged(other, { issuer: root, signer: other, names: [URI] }),
      key: otherKey,
    }, "closed"],
  ];
  for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
    for (const [what, pair, expected] of shown) {
      assertEquals(await outcome(rig, pair, version), expected, `${what}, ${version}`);
    }
  }
});

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
      let spoken = "closed";
      socket.on("error", () => {}).on("close", () => resolve(spoken));
      socket.on("data", () => {
        spoken = socket.getCipher().standardName;
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
