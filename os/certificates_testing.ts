/** Certificates for tests: authorities and leaves with SPIFFE names, as PEM. */
import * as x509 from "@peculiar/x509";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const RSA = {
  name: "RSASSA-PKCS1-v1_5",
  hash: "SHA-256",
  modulusLength: 2048,
  publicExponent: Uint8Array.of(1, 0, 1),
};
const DAY_MS = 86_400_000;
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1", CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";

export interface LeafPem {
  readonly chain: string;
  readonly privateKey: string;
  readonly roots: string;
  /** Hexadecimal, as a list names it. */
  readonly serial?: string;
}

interface LeafOptions {
  /** Days from now at which it ends; negative: it has expired. */
  readonly days?: number;
  readonly usages?: readonly string[];
  /** Hexadecimal; of the authority's own counting if not given. */
  readonly serial?: string;
  /** A DNS name behind the URIs. */
  readonly host?: string;
  /** Its key is of RSA; the authority's is not. */
  readonly rsa?: boolean;
}

interface AuthorityOptions {
  /** Who signs it; itself if not given. */
  readonly parent?: TestAuthority;
  readonly usages?: number;
  readonly serial?: string;
}

/** A list for {@link TestAuthority.revoke}. */
interface ListOptions {
  /** Days from now until the next list is due; negative: that day has passed. */
  readonly days?: number;
  readonly extensions?: x509.Extension[];
}

async function privateKeyPem(keys: CryptoKeyPair): Promise<string> {
  return x509.PemConverter.encode(await crypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY") + "\n";
}

/** A root, or an intermediate, that issues leaves. */
export class TestAuthority {
  readonly #keys: CryptoKeyPair;
  readonly #certificate: x509.X509Certificate;
  readonly #parent: TestAuthority | undefined;
  #serial = 1;

  private constructor(keys: CryptoKeyPair, certificate: x509.X509Certificate, parent?: TestAuthority) {
    this.#keys = keys;
    this.#certificate = certificate;
    this.#parent = parent;
  }

  static async create(
    name: string,
    { parent, usages = x509.KeyUsageFlags.keyCertSign, serial }: AuthorityOptions = {},
  ): Promise<TestAuthority> {
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serial ?? parent?.nextSerial() ?? "01",
      subject: `O=${name}`,
      issuer: parent === undefined ? `O=${name}` : parent.#certificate.subject,
      notBefore: new Date(Date.now() - 10 * DAY_MS),
      notAfter: new Date(Date.now() + 10 * DAY_MS),
      publicKey: keys.publicKey,
      signingKey: (parent === undefined ? keys : parent.#keys).privateKey,
      signingAlgorithm: ALGORITHM,
      extensions: [
        new x509.BasicConstraintsExtension(true, 5, true),
        new x509.KeyUsagesExtension(usages, true),
      ],
    });
    return new TestAuthority(keys, certificate, parent);
  }

  /** The root that this authority leads to. */
  get rootPem(): string {
    return this.#parent?.rootPem ?? this.pem;
  }

  get pem(): string {
    return this.#certificate.toString("pem") + "\n";
  }

  /** Hexadecimal, as its parent's lists name it. */
  get serial(): string {
    return this.#certificate.serialNumber;
  }

  nextSerial(): string {
    return (++this.#serial).toString(16).padStart(2, "0");
  }

  /** What a leaf presents behind itself. */
  get #intermediatesPem(): string {
    return this.#parent === undefined ? "" : this.pem + this.#parent.#intermediatesPem;
  }

  /** A list of ours with these numbers in it, in DER. */
  async revoke(
    serials: readonly string[],
    { days = 1, extensions }: ListOptions = {},
  ): Promise<Uint8Array<ArrayBuffer>> {
    const list = await x509.X509CrlGenerator.create({
      issuer: this.#certificate.subject,
      thisUpdate: new Date(Date.now() - 5 * DAY_MS),
      nextUpdate: new Date(Date.now() + days * DAY_MS),
      entries: serials.map((serialNumber) => ({ serialNumber, revocationDate: new Date(Date.now() - DAY_MS) })),
      signingKey: this.#keys.privateKey,
      signingAlgorithm: ALGORITHM,
      extensions,
    });
    return new Uint8Array(list.rawData);
  }

  /** A leaf with these URI names, in this order. */
  async issue(
    uris: readonly string[],
    { days = 1, usages = [SERVER_AUTH, CLIENT_AUTH], serial, host, rsa = false }: LeafOptions = {},
  ): Promise<LeafPem> {
    const keys = await crypto.subtle.generateKey(rsa ? RSA : ALGORITHM, true, ["sign", "verify"]);
    const names: x509.JsonGeneralName[] = uris.map((value) => ({ type: "url", value }));
    if (host !== undefined) names.push({ type: "dns", value: host });
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serial ?? this.nextSerial(),
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
    return {
      chain: certificate.toString("pem") + "\n" + this.#intermediatesPem,
      privateKey: await privateKeyPem(keys),
      roots: this.rootPem,
      serial: certificate.serialNumber,
    };
  }
}

/** Extended key usages, for leaves that lack one. */
export const ONLY_SERVER = [SERVER_AUTH], ONLY_CLIENT = [CLIENT_AUTH];

/** A list in DER as PEM. */
export function crlPem(der: Uint8Array<ArrayBuffer>): string {
  return x509.PemConverter.encode(der, "X509 CRL") + "\n";
}

/** Key usages of authorities. */
export const SIGNS_CERTIFICATES = x509.KeyUsageFlags.keyCertSign;
export const SIGNS_CERTIFICATES_AND_LISTS = x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign;
export const { Extension } = x509;
