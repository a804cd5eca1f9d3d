import { assertEquals } from "@std/assert";
import { CertificateAuthority } from "./authority.ts";
import { ClientCertificateWay } from "./client_certificate.ts";
import { bearer } from "./cluster_testing.ts";
import { derOf, pemBlocks, toPem } from "./pem.ts";
import { loadPluggedIn } from "./plugged_in.ts";
import { RevokedCertificates } from "./revoked_certificates.ts";
import { Folder, plugIn, revocationList } from "./testing.ts";

const CART = "spiffe://td/ns/shop/sa/cart";

const dersOf = (pem: string) => pemBlocks(pem).map((block) => derOf(block)!);

async function leafOf(authority: CertificateAuthority) {
  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]);
  const publicKey = new Uint8Array(await crypto.subtle.exportKey("spki", (keys as CryptoKeyPair).publicKey));
  return await authority.issueWorkload(publicKey, { identities: [CART], ttlMs: 60_000, withCommonName: false });
}

Deno.test("ClientCertificateWay believes nobody whose certificate, or one above it, is on a list as openssl writes it (CP-477, CP-511)", async () => {
  await using folder = await Folder.create();
  await plugIn(folder, ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
  const authority = await CertificateAuthority.create(await loadPluggedIn(folder.path, Date.now()));
  const mine = await leafOf(authority), other = await leafOf(authority), revoked = new RevokedCertificates();
  const way = new ClientCertificateWay((domain) => domain === "td", revoked);
  const outcome = async ({ chain }: typeof mine) => {
    const shown = { certificateUris: [CART], certificateChain: chain.flatMap(dersOf) };
    const caller = await way.authenticate(bearer("", shown));
    return "refused" in caller ? caller.refused : caller.identities.join();
  };
  const revoke = async (file: string, { by, key }: { by: string; key: string }) => {
    await folder.write("ca.conf", "[ca]\ndefault_ca=d\n[d]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=9\n");
    await folder.write("index", "");
    const signer = ["-config", "ca.conf", "-cert", by, "-keyfile", key];
    await folder.openssl("ca", ...signer, "-revoke", file);
    await folder.openssl("ca", ...signer, "-gencrl", "-out", "crl.pem");
    return await Deno.readTextFile(`${folder.path}/crl.pem`);
  };
  assertEquals(await outcome(mine), CART);
  await folder.write("leaf.pem", mine.pem);
  const ofLeaf = await revoke("leaf.pem", { by: "ca-cert.pem", key: "ca-key.pem" });
  assertEquals(revoked.take(ofLeaf), true);
  assertEquals(await outcome(mine), `certificate ${mine.serial} of the client's is revoked`);
  assertEquals(await outcome(other), CART);
  const ofSigner = await revoke("ca-cert.pem", { by: "root-cert.pem", key: "root.key" });
  assertEquals(revoked.take(ofSigner), true);
  assertEquals((await outcome(other)).endsWith("is revoked"), true, "all that it has signed");
  assertEquals([revoked.take(await revocationList("CN=Another", [mine.serial])), await outcome(mine)], [true, CART]);
  assertEquals([revoked.take(ofLeaf + ofSigner), revoked.take(""), await outcome(mine)], [true, true, CART]);
});

Deno.test("RevokedCertificates takes nothing of what it cannot read whole (RFC 5280 §5.1)", async () => {
  const revoked = new RevokedCertificates(), list = await revocationList("CN=Root", ["01", "02"]);
  const [der] = dersOf(list);
  for (let end = 0; end < der!.length; end++) {
    assertEquals(revoked.take(toPem("X509 CRL", der!.subarray(0, end))), end === 0, `${end} bytes`); // Empty is no block.
  }
  assertEquals(revoked.take(list), true);
  for (let at = 0; at < der!.length; at++) {
    const bent = der!.slice();
    bent[at]! ^= 0x55;
    revoked.take(toPem("X509 CRL", bent)); // Whatever it is now, it throws nothing.
  }
});
