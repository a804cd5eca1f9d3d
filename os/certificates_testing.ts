/** Certificates for tests: authorities and leaves with SPIFFE names, as PEM. */
import * as x509 from "@peculiar/x509";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 86_400_000;
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1", CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";

export interface LeafPem {
  readonly chain: string;
  readonly privateKey: string;
  readonly roots: string;
}

interface LeafOptions {
  /** Days from now at which it ends; negative: it has expired. */
  readonly days?: number;
  readonly usages?: readonly string[];
}

async function privateKeyPem(keys: CryptoKeyPair): Promise<string> {
  return x509.PemConverter.encode(await crypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY") + "\n";
}

/** A self-signed root that issues leaves. */
export class TestAuthority {
  readonly #keys: CryptoKeyPair;
  readonly #certificate: x509.X509Certificate;
  #serial = 1;

  private constructor(keys: CryptoKeyPair, certificate: x509.X509Certificate) {
    this.#keys = keys;
    this.#certificate = certificate;
  }

  static async create(name: string): Promise<TestAuthority> {
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: "01",
      name: `O=${name}`,
      notBefore: new Date(Date.now() - 10 * DAY_MS),
      notAfter: new Date(Date.now() + 10 * DAY_MS),
      keys,
      signingAlgorithm: ALGORITHM,
      extensions: [
        new x509.BasicConstraintsExtension(true, 1, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      ],
    });
    return new TestAuthority(keys, certificate);
  }

  get rootPem(): string {
    return this.#certificate.toString("pem") + "\n";
  }

  /** A leaf with these URI names, in this order. */
  async issue(
    uris: readonly string[],
    { days = 1, usages = [SERVER_AUTH, CLIENT_AUTH] }: LeafOptions = {},
  ): Promise<LeafPem> {
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
    const names = uris.map((value) => ({ type: "url" as const, value }));
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: (++this.#serial).toString(16).padStart(2, "0"),
      subject: "",
      issuer: this.#certificate.subject,
      notBefore: new Date(Date.now() - 5 * DAY_MS),
      notAfter: new Date(Date.now() + days * DAY_MS),
      publicKey: keys.publicKey,
      signingKey: this.#keys.privateKey,
      signingAlgorithm: ALGORITHM,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([...usages]),
        ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names, true)]),
      ],
    });
    return { chain: certificate.toString("pem") + "\n", privateKey: await privateKeyPem(keys), roots: this.rootPem };
  }
}

/** Extended key usages, for leaves that lack one. */
export const ONLY_SERVER = [SERVER_AUTH], ONLY_CLIENT = [CLIENT_AUTH];
