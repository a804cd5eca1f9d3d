/** For tests: a CA, and certificates of it for API servers and their clients. */
import * as x509 from "@peculiar/x509";
import type { KeyPair } from "./access.ts";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 86_400_000;
let serials = 1;

async function pemOf(key: CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await crypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");
}

/** A root of its own. */
export class TestCa {
  readonly #keys: CryptoKeyPair;
  readonly #certificate: x509.X509Certificate;

  private constructor(keys: CryptoKeyPair, certificate: x509.X509Certificate) {
    this.#keys = keys;
    this.#certificate = certificate;
  }

  static async create(name = "CN=root"): Promise<TestCa> {
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]) as CryptoKeyPair;
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: String(serials++).padStart(2, "0"),
      name,
      notBefore: new Date(Date.now() - DAY_MS),
      notAfter: new Date(Date.now() + DAY_MS),
      signingAlgorithm: ALGORITHM,
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      ],
    });
    return new TestCa(keys, certificate);
  }

  get pem(): string {
    return this.#certificate.toString("pem");
  }

  /** @param names subject alternative names; none for a client. */
  async issue(subject: string, names: readonly { type: "dns" | "ip"; value: string }[] = []): Promise<KeyPair> {
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]) as CryptoKeyPair;
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: String(serials++).padStart(2, "0"),
      subject,
      issuer: this.#certificate.subject,
      notBefore: new Date(Date.now() - DAY_MS),
      notAfter: new Date(Date.now() + DAY_MS),
      signingAlgorithm: ALGORITHM,
      publicKey: keys.publicKey,
      signingKey: this.#keys.privateKey,
      extensions: names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension([...names])],
    });
    return { certificate: certificate.toString("pem"), key: await pemOf(keys.privateKey) };
  }
}
