/** The certificate authority: signs workload certificates and our own server certificate (CP-490 to CP-494, CP-004). */
import * as x509 from "@peculiar/x509";
import { MeshError } from "../../base/errors.ts";
import { parseIp } from "../../base/address.ts";
import { BACKDATE_MS, type KeyMaterial, randomSerial } from "./key_material.ts";
import { toPem } from "./pem.ts";

export interface Issued {
  /** The leaf, ending in one newline. */
  readonly pem: string;
  /** The answer to a CSR: leaf, each intermediate, the whole root bundle (CP-471). */
  readonly chain: readonly string[];
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** A server certificate with its key, for 15012. */
export interface ServerCertificate {
  /** Leaf and intermediates. */
  readonly chainPem: string;
  readonly keyPem: string;
}

const SERVER_LIFE_MS = 10 * 365 * 86_400_000; // as long as a self-signed root (CP-005)
const COMMON_NAME_LENGTH_MAX = 64; // ub-common-name, RFC 5280 appendix A.1

export class CertificateAuthority {
  readonly #now: () => number;
  #material: KeyMaterial;
  #authorityKeyId: x509.AuthorityKeyIdentifierExtension;

  private constructor(material: KeyMaterial, keyId: x509.AuthorityKeyIdentifierExtension, now: () => number) {
    this.#material = material;
    this.#authorityKeyId = keyId;
    this.#now = now;
  }

  static async create(material: KeyMaterial, now: () => number = Date.now): Promise<CertificateAuthority> {
    return new CertificateAuthority(material, await keyIdOf(material), now);
  }

  /** What it signs with now. */
  get material(): KeyMaterial {
    return this.#material;
  }

  /** Signs with other material from here on (CP-504). */
  async replace(material: KeyMaterial): Promise<void> {
    const keyId = await keyIdOf(material);
    [this.#material, this.#authorityKeyId] = [material, keyId];
  }

  /** When the signing certificate ends, in milliseconds since 1970. */
  get signerExpiresAtMs(): number {
    return this.material.signer.notAfter.getTime();
  }

  /** The earliest end of the root bundle's certificates. */
  get rootExpiresAtMs(): number {
    return Math.min(...this.material.roots.map((root) => root.notAfter.getTime()));
  }

  /**
   * Signs a leaf for these identities, ending with the signing certificate at the latest (CP-492).
   * @throws MeshError AMB0213 if the signing certificate has expired.
   */
  async issueWorkload(
    publicKey: x509.PublicKey,
    { identities, ttlMs, withCommonName }: { identities: readonly string[]; ttlMs: number; withCommonName: boolean },
  ): Promise<Issued> {
    const named = withCommonName && identities[0]!.length <= COMMON_NAME_LENGTH_MAX;
    const names = new x509.SubjectAlternativeNameExtension(
      identities.map((value) => ({ type: "url" as const, value })),
      !named, // Critical exactly when the subject is empty (RFC 5280 §4.2.1.6).
    );
    const usages = [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth];
    return await this.#issue(publicKey, { name: named ? [{ CN: [identities[0]!] }] : [], names, usages, ttlMs });
  }

  /** Makes a key and a certificate for our own listener, valid for these DNS names and IP addresses. */
  async issueServer(hosts: readonly string[]): Promise<ServerCertificate> {
    const algorithm = { name: "ECDSA", namedCurve: "P-256" };
    const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
    const sorted = [...new Set(hosts)].sort(); // CP-004
    const names = new x509.SubjectAlternativeNameExtension(
      sorted.map((value) => ({ type: parseIp(value) === undefined ? "dns" as const : "ip" as const, value })),
      true,
    );
    const publicKey = new x509.PublicKey(await crypto.subtle.exportKey("spki", keys.publicKey));
    const usages = [x509.ExtendedKeyUsage.serverAuth];
    const issued = await this.#issue(publicKey, { name: [], names, usages, ttlMs: SERVER_LIFE_MS });
    return {
      chainPem: issued.chain.slice(0, -1).join(""),
      keyPem: toPem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", keys.privateKey)),
    };
  }

  async #issue(
    publicKey: x509.PublicKey,
    leaf: {
      name: x509.JsonName;
      names: x509.SubjectAlternativeNameExtension;
      usages: x509.ExtendedKeyUsageType[];
      ttlMs: number;
    },
  ): Promise<Issued> {
    const { signer, key, algorithm, intermediatesPem, rootsPem } = this.#material; // One set for the whole answer.
    const authorityKeyId = this.#authorityKeyId;
    const nowMs = this.#now();
    if (signer.notAfter.getTime() <= nowMs) {
      throw new MeshError("AMB0213", `the signing certificate expired at ${signer.notAfter.toISOString()}`, {
        remedy: "renew the CA's certificate and restart istiod",
      });
    }
    const notAfter = new Date(Math.min(nowMs + leaf.ttlMs, signer.notAfter.getTime()));
    // A short life reaches back less: node proxies renew at half of it (ZT-155), which must not be past at birth.
    const notBefore = new Date(nowMs - Math.min(BACKDATE_MS, (notAfter.getTime() - nowMs) / 4));
    const serial = randomSerial();
    const usage = x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment;
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serial,
      subject: leaf.name,
      issuer: signer.subjectName, // As it is encoded there: verifiers compare bytes.
      notBefore,
      notAfter,
      signingAlgorithm: algorithm,
      signingKey: key,
      publicKey,
      extensions: [
        new x509.KeyUsagesExtension(usage, true),
        new x509.ExtendedKeyUsageExtension(leaf.usages),
        new x509.BasicConstraintsExtension(false, undefined, true),
        await x509.SubjectKeyIdentifierExtension.create(publicKey),
        authorityKeyId,
        leaf.names,
      ],
    });
    const pem = toPem("CERTIFICATE", certificate.rawData);
    return { pem, chain: [pem, ...intermediatesPem, rootsPem], serial, notBefore, notAfter };
  }
}

async function keyIdOf({ signer }: KeyMaterial): Promise<x509.AuthorityKeyIdentifierExtension> {
  const ownId = signer.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
  if (ownId !== undefined) return new x509.AuthorityKeyIdentifierExtension(ownId);
  return await x509.AuthorityKeyIdentifierExtension.create(signer.publicKey);
}
