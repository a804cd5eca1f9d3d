/** Client certificates of every sort: of the mesh's own CA, of a foreign one, expired. For callers that try their luck. */
import * as x509 from "@peculiar/x509";
import { loadSelfSigned } from "../../control/ca/self_signed_folder.ts";

const HOUR_MS = 3_600_000;
const CRL_NUMBER = "2.5.29.20";
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

export interface ClientCertificate {
  /** The leaf, as PEM. */
  readonly certificate: string;
  readonly key: string;
}

export class Issuer {
  readonly #key: CryptoKey;
  readonly #certificate: x509.X509Certificate;

  private constructor(key: CryptoKey, certificate: x509.X509Certificate) {
    this.#key = key;
    this.#certificate = certificate;
  }

  /** Signs with the key of the mesh's CA, read from istiod's state folder. */
  static async ofMesh(stateFolder: string): Promise<Issuer> {
    const { key, signer } = await loadSelfSigned(stateFolder, "cluster.local", Date.now());
    return new Issuer(key, signer);
  }

  /** A root of its own, which nobody trusts. */
  static async foreign(): Promise<Issuer> {
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      name: [{ O: ["cluster.local"] }],
      notBefore: new Date(Date.now() - HOUR_MS),
      notAfter: new Date(Date.now() + HOUR_MS),
      signingAlgorithm: ALGORITHM,
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      ],
    });
    return new Issuer(keys.privateKey, certificate);
  }

  /** A revocation list with these numbers, as PEM. */
  async revoke(serials: readonly string[]): Promise<string> {
    const list = await x509.X509CrlGenerator.create({
      issuer: this.#certificate.subject,
      thisUpdate: new Date(Date.now() - HOUR_MS),
      nextUpdate: new Date(Date.now() + HOUR_MS),
      entries: serials.map((serialNumber) => ({ serialNumber, revocationDate: new Date(Date.now() - HOUR_MS) })),
      signingAlgorithm: ALGORITHM,
      signingKey: this.#key,
      extensions: [new x509.Extension(CRL_NUMBER, false, Uint8Array.of(2, 1, 1))], // Some verifiers want it (RFC 5280 §5.2.3).
    });
    return x509.PemConverter.encode(list.rawData, "X509 CRL") + "\n";
  }

  /** A certificate for this SPIFFE identity. Its life may lie in the past. */
  async issue(identity: string, life: { fromMs?: number; untilMs?: number } = {}): Promise<ClientCertificate> {
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.create({
      issuer: this.#certificate.subjectName,
      notBefore: new Date(life.fromMs ?? Date.now() - HOUR_MS),
      notAfter: new Date(life.untilMs ?? Date.now() + HOUR_MS),
      signingAlgorithm: ALGORITHM,
      signingKey: this.#key,
      publicKey: keys.publicKey,
      extensions: [
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.SubjectAlternativeNameExtension([{ type: "url", value: identity }], true),
      ],
    });
    const key = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
    return { certificate: certificate.toString("pem"), key: x509.PemConverter.encode(key, "PRIVATE KEY") };
  }
}
