/** Key material and what is signed with it, judged by openssl. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { CertificateAuthority } from "./authority.ts";
import { acceptCsr } from "./csr.ts";
import type { KeyMaterial } from "./key_material.ts";
import { loadPluggedIn } from "./plugged_in.ts";
import { loadSelfSigned } from "./self_signed_folder.ts";
import { Folder, plugIn } from "./testing.ts";

const CART = "spiffe://cluster.local/ns/shop/sa/cart";
const DAY_MS = 86_400_000;

async function newKey(): Promise<Uint8Array> {
  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  return new Uint8Array(await crypto.subtle.exportKey("spki", keys.publicKey));
}

async function issue(material: KeyMaterial, ttlMs = DAY_MS, withCommonName = false) {
  const authority = await CertificateAuthority.create(material);
  const issued = await authority.issueWorkload(await newKey(), { identities: [CART], ttlMs, withCommonName });
  return { issued, chain: issued.chain, authority };
}

Deno.test("issueWorkload() leaves a short life more than half of it to come (CP-492, ZT-155)", async () => {
  await using folder = await Folder.create();
  const { issued } = await issue(await loadSelfSigned(folder.path, "cluster.local", Date.now()), 60_000);
  assertEquals(Math.round((issued.notAfter.getTime() - issued.notBefore.getTime()) / 1_000), 75);
});

Deno.test("issueWorkload() makes what CP-490 to CP-492 ask, and openssl's strict check takes it", async () => {
  await using folder = await Folder.create();
  const { issued, chain } = await issue(await loadSelfSigned(folder.path, "cluster.local", Date.now()));
  await folder.write("leaf.pem", chain[0]!);
  await folder.write("roots.pem", chain.at(-1)!);
  assertStringIncludes(
    await folder.openssl("verify", "-x509_strict", "-CAfile", "roots.pem", "-purpose", "sslserver", "leaf.pem"),
    "leaf.pem: OK",
  );
  assertStringIncludes(
    await folder.openssl("verify", "-x509_strict", "-CAfile", "roots.pem", "-purpose", "sslclient", "leaf.pem"),
    "leaf.pem: OK",
  );
  const text = await folder.openssl("x509", "-in", "leaf.pem", "-noout", "-text");
  for (
    const expected of [
      "Version: 3 (0x2)",
      "Signature Algorithm: ecdsa-with-SHA256",
      "Issuer: O = cluster.local\n",
      "Subject: \n",
      "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment\n",
      "X509v3 Extended Key Usage: \n                TLS Web Server Authentication, TLS Web Client Authentication\n",
      "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
      `X509v3 Subject Alternative Name: critical\n                URI:${CART}\n`,
    ]
  ) assertStringIncludes(text, expected);
  assertEquals(Math.round((issued.notAfter.getTime() - issued.notBefore.getTime()) / 1_000), 86_400 + 120);
  const root = await folder.openssl("x509", "-in", "roots.pem", "-noout", "-text");
  for (
    const expected of ["CA:TRUE", "Certificate Sign, CRL Sign", "Subject: O = cluster.local\n", "NIST CURVE: P-256"]
  ) {
    assertStringIncludes(root, expected);
  }
});

Deno.test("issueWorkload() sets a common name only for a CSR that had one, and then the SAN is not critical (CP-490)", async () => {
  await using folder = await Folder.create();
  const { chain } = await issue(await loadSelfSigned(folder.path, "cluster.local", Date.now()), DAY_MS, true);
  await folder.write("leaf.pem", chain[0]!);
  const text = await folder.openssl("x509", "-in", "leaf.pem", "-noout", "-text");
  assertStringIncludes(text, `Subject: CN = ${CART}\n`);
  assertStringIncludes(text, `X509v3 Subject Alternative Name: \n                URI:${CART}\n`);
});

Deno.test("issueServer() names hosts and addresses, and serves only as a server (CP-004)", async () => {
  await using folder = await Folder.create();
  const authority = await CertificateAuthority.create(await loadSelfSigned(folder.path, "cluster.local", Date.now()));
  const server = await authority.issueServer(["istiod.istio-system.svc", "localhost", "127.0.0.1", "::1", "localhost"]);
  await folder.write("leaf.pem", server.chainPem);
  await folder.write("roots.pem", authority.material.rootsPem);
  for (
    const host of [
      "-verify_hostname=localhost",
      "-verify_hostname=istiod.istio-system.svc",
      "-verify_ip=127.0.0.1",
      "-verify_ip=::1",
    ]
  ) {
    const [flag, value] = host.split("=");
    assertStringIncludes(
      await folder.openssl("verify", "-x509_strict", "-CAfile", "roots.pem", flag!, value!, "leaf.pem"),
      "OK",
    );
  }
  await assertRejects(() => folder.openssl("verify", "-CAfile", "roots.pem", "-verify_hostname", "other", "leaf.pem"));
  await assertRejects(() => folder.openssl("verify", "-CAfile", "roots.pem", "-purpose", "sslclient", "leaf.pem"));
});

Deno.test("loadPluggedIn() signs with an operator's intermediate, RSA or ECDSA; each element ends in a newline (CP-471, CP-494, CP-500)", async () => {
  for (const key of [["-newkey", "rsa:2048"], ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]]) {
    await using folder = await Folder.create();
    await plugIn(folder, key);
    const { issued, chain } = await issue(await loadPluggedIn(folder.path, Date.now()), 80 * DAY_MS);
    assertEquals(chain.length, 3);
    assertEquals(chain[2], await Deno.readTextFile(`${folder.path}/root-cert.pem`), "the bundle as stored");
    for (const element of chain) assert(/[^\n]\n$/.test(element));
    await folder.write("leaf.pem", chain[0]!);
    await folder.write("middle.pem", chain[1]!);
    const verified = await folder.openssl(
      "verify",
      "-x509_strict",
      "-CAfile",
      "root-cert.pem",
      "-untrusted",
      "middle.pem",
      "leaf.pem",
    );
    assertStringIncludes(verified, "leaf.pem: OK");
    assert(issued.notAfter.getTime() <= Date.now() + 30 * DAY_MS, "never longer than the signer (CP-492)");
  }
});

Deno.test("loadPluggedIn() takes keys in PKCS#1 and SEC 1 form", async () => {
  for (
    const [key, convert] of [[["-newkey", "rsa:2048"], "rsa"], [[
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
    ], "ec"]] as const
  ) {
    await using folder = await Folder.create();
    await plugIn(folder, [...key]);
    const traditional = convert === "rsa" ? ["-traditional"] : [];
    await folder.openssl(convert, "-in", "ca-key.pem", ...traditional, "-out", "old.pem");
    await Deno.rename(`${folder.path}/old.pem`, `${folder.path}/ca-key.pem`);
    assertStringIncludes(
      await Deno.readTextFile(`${folder.path}/ca-key.pem`),
      convert === "rsa" ? "BEGIN RSA" : "BEGIN EC",
    );
    assertEquals((await loadPluggedIn(folder.path, Date.now())).selfSigned, false);
  }
});

Deno.test("loadPluggedIn() refuses a set that is incomplete or does not fit together (CP-500)", async () => {
  const spoil: [string, (folder: Folder) => Promise<unknown>][] = [
    ["ca-key.pem missing", (it) => Deno.remove(`${it.path}/ca-key.pem`)],
    ["cert-chain.pem missing", (it) => Deno.remove(`${it.path}/cert-chain.pem`)],
    ["root-cert.pem holds no certificate", (it) => it.write("root-cert.pem", "")],
    ["ca-key.pem is no usable private key", (it) => it.write("ca-key.pem", "x")],
    [
      "ca-key.pem is not the key of ca-cert.pem",
      (it) => it.openssl("ecparam", "-genkey", "-name", "prime256v1", "-out", "ca-key.pem"),
    ],
    [
      "no path from",
      (it) =>
        it.openssl(
          "req",
          "-x509",
          "-newkey",
          "rsa:2048",
          "-nodes",
          "-keyout",
          "/dev/null",
          "-out",
          "root-cert.pem",
          "-subj",
          "/CN=Other",
        ),
    ],
    [
      "is not a CA certificate",
      (it) =>
        it.openssl(
          "req",
          "-x509",
          "-key",
          "ca-key.pem",
          "-out",
          "ca-cert.pem",
          "-subj",
          "/CN=x",
          "-addext",
          "basicConstraints=CA:FALSE",
        ),
    ],
  ];
  for (const [message, edit] of spoil) {
    await using folder = await Folder.create();
    await plugIn(folder, ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    await edit(folder);
    const error = await assertRejects(() => loadPluggedIn(folder.path, Date.now()), MeshError, message);
    assertEquals(error.code, "AMB0212");
  }
  await using folder = await Folder.create();
  await plugIn(folder, ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
  await assertRejects(() => loadPluggedIn(folder.path, Date.now() + 31 * DAY_MS), MeshError, "ca-cert.pem expired");
});

Deno.test("issueWorkload() refuses once the signing certificate has expired, rather than sign a dead leaf (CP-492)", async () => {
  await using folder = await Folder.create();
  const material = await loadSelfSigned(folder.path, "cluster.local", Date.now());
  const authority = await CertificateAuthority.create(material, () => Date.now() + 3_651 * DAY_MS);
  const options = { identities: [CART], ttlMs: DAY_MS, withCommonName: false };
  await assertRejects(async () => await authority.issueWorkload(await newKey(), options), MeshError, "expired");
});

Deno.test("loadSelfSigned() makes a root once: a restart, and whoever starts at once, use the same (CP-501, CP-502)", async () => {
  await using folder = await Folder.create();
  const all = await Promise.all(Array.from({ length: 5 }, () => loadSelfSigned(folder.path, "td", Date.now())));
  assertEquals(new Set(all.map(({ rootsPem }) => rootsPem)).size, 1);
  assertEquals((await loadSelfSigned(folder.path, "td", Date.now())).rootsPem, all[0]!.rootsPem);
  const names = [...Deno.readDirSync(folder.path)].map(({ name }) => name);
  assertEquals(names, ["ca"], "nothing temporary stays");
  for (const { name } of Deno.readDirSync(`${folder.path}/ca`)) {
    assertEquals(Deno.statSync(`${folder.path}/ca/${name}`).mode! & 0o777, 0o600, name);
  }
  Deno.chmodSync(`${folder.path}/ca/ca-key.pem`, 0o644);
  await assertRejects(() => loadSelfSigned(folder.path, "td", Date.now()), MeshError, "can be read by others");
});

Deno.test("acceptCsr() says what is wrong and never throws, wherever a CSR is cut or changed (CP-490)", async () => {
  await using folder = await Folder.create();
  await folder.openssl(
    "req",
    "-new",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-keyout",
    "k",
    "-out",
    "csr",
    "-subj",
    "/CN=x",
  );
  const pem = await Deno.readTextFile(`${folder.path}/csr`);
  const good = await acceptCsr(pem);
  assert(!("refused" in good) && good.hasCommonName);
  const der = Uint8Array.from(atob(pem.replace(/-----[^-]+-----|\s/g, "")), (it) => it.charCodeAt(0));
  const wrap = (bytes: Uint8Array) =>
    `-----BEGIN CERTIFICATE REQUEST-----\n${btoa(String.fromCharCode(...bytes))}\n-----END CERTIFICATE REQUEST-----\n`;
  for (let at = 0; at < der.length; at++) {
    assert("refused" in await acceptCsr(wrap(der.subarray(0, at))), `cut at ${at}`);
    const changed = der.slice();
    changed[at]! ^= 0x40;
    const result = await acceptCsr(wrap(changed));
    assert("refused" in result, `changed at ${at}`);
  }
});
