/** The certificate authority: signs workload certificates and our own server certificate (CP-490 to CP-494, CP-004). */
import { MeshError } from "../../base/errors.ts";
import { BACKDATE_MS, type KeyMaterial, randomSerial } from "./key_material.ts";
import { type LeafFacts, LeafWriter } from "./leaf.ts";
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
  #writer: LeafWriter;

  private constructor(material: KeyMaterial, writer: LeafWriter, now: () => number) {
    this.#material = material;
    this.#writer = writer;
    this.#now = now;
  }

  static async create(material: KeyMaterial, now: () => number = Date.now): Promise<CertificateAuthority> {
    return new CertificateAuthority(material, await LeafWriter.of(material), now);
  }

  /** What it signs with now. */
  get material(): KeyMaterial {
    return this.#material;
  }

  /** Signs with other material from here on (CP-504). */
  async replace(material: KeyMaterial): Promise<void> {
    const writer = await LeafWriter.of(material);
    [this.#material, this.#writer] = [material, writer];
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
   * @param publicKey a SubjectPublicKeyInfo. @throws MeshError AMB0213 if the signing certificate has expired.
   */
  async issueWorkload(
    publicKey: Uint8Array,
    { identities, ttlMs, withCommonName }: { identities: readonly string[]; ttlMs: number; withCommonName: boolean },
  ): Promise<Issued> {
    const named = withCommonName && identities[0]!.length <= COMMON_NAME_LENGTH_MAX;
    const names = identities.map((value) => ({ kind: "uri" as const, value }));
    return await this.#issue({ publicKey, commonName: named ? identities[0]! : "", names, forClients: true, ttlMs });
  }

  /** Makes a key and a certificate for our own listener, valid for these DNS names and IP addresses. */
  async issueServer(hosts: readonly string[]): Promise<ServerCertificate> {
    const algorithm = { name: "ECDSA", namedCurve: "P-256" };
    const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
    const names = [...new Set(hosts)].sort().map((value) => ({ kind: "host" as const, value })); // CP-004
    const publicKey = new Uint8Array(await crypto.subtle.exportKey("spki", keys.publicKey));
    const issued = await this.#issue({ publicKey, commonName: "", names, forClients: false, ttlMs: SERVER_LIFE_MS });
    return {
      chainPem: issued.chain.slice(0, -1).join(""),
      keyPem: toPem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", keys.privateKey)),
    };
  }

  async #issue(
    { ttlMs, ...facts }: Omit<LeafFacts, "serial" | "notBeforeMs" | "notAfterMs"> & { ttlMs: number },
  ): Promise<Issued> {
    const { signer, key, algorithm, intermediatesPem, rootsPem } = this.#material; // One set for the whole answer.
    const writer = this.#writer, nowMs = this.#now(), signerEndsMs = signer.notAfter.getTime();
    if (signerEndsMs <= nowMs) {
      throw new MeshError("AMB0213", `the signing certificate expired at ${signer.notAfter.toISOString()}`, {
        remedy: "renew the CA's certificate and restart istiod",
      });
    }
    const notAfterMs = Math.min(nowMs + ttlMs, signerEndsMs);
    // A short life reaches back less: node proxies renew at half of it (ZT-155), which must not be past at birth.
    const notBeforeMs = nowMs - Math.min(BACKDATE_MS, (notAfterMs - nowMs) / 4);
    const serial = randomSerial();
    const toBeSigned = writer.toBeSigned({ ...facts, serial: Uint8Array.fromHex(serial), notBeforeMs, notAfterMs });
    const signature = new Uint8Array(await crypto.subtle.sign(algorithm, key, toBeSigned));
    const pem = toPem("CERTIFICATE", writer.certificate(toBeSigned, signature, algorithm));
    const life = { notBefore: new Date(notBeforeMs), notAfter: new Date(notAfterMs) };
    return { pem, chain: [pem, ...intermediatesPem, rootsPem], serial, ...life };
  }
}
