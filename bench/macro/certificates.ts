/** A certificate authority of one run: SPIFFE leaves for the peers that have no control plane. */
import * as x509 from "@peculiar/x509";

const KEY = { name: "ECDSA", namedCurve: "P-256" } as const; // what ztunnel and istiod make by default
const SIGNATURE = { name: "ECDSA", hash: "SHA-256" } as const;
const DAY_MS = 24 * 60 * 60 * 1000;

export const CLIENT_URI = "spiffe://cluster.local/ns/bench/sa/client";
export const SERVER_URI = "spiffe://cluster.local/ns/bench/sa/server";

export interface KeyAndChain {
  readonly privateKey: string;
  readonly chain: string;
}

/** The names a leaf carries. */
export type LeafName = { readonly uri: string } | { readonly ip: string };

export class Authority {
  readonly #root: x509.X509Certificate;
  readonly #keys: CryptoKeyPair;

  private constructor(root: x509.X509Certificate, keys: CryptoKeyPair) {
    this.#root = root;
    this.#keys = keys;
  }

  static async create(): Promise<Authority> {
    const keys = await crypto.subtle.generateKey(KEY, true, ["sign", "verify"]);
    const root = await x509.X509CertificateGenerator.createSelfSigned({
      name: "O=bench,CN=root",
      keys,
      signingAlgorithm: SIGNATURE,
      ...validity(),
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      ],
    });
    return new Authority(root, keys);
  }

  /** Takes up the authority that {@link Authority.save} wrote. */
  static async load(folder: string): Promise<Authority> {
    const der = x509.PemConverter.decodeFirst(Deno.readTextFileSync(`${folder}/root-key.pem`));
    const root = new x509.X509Certificate(Deno.readTextFileSync(`${folder}/root-cert.pem`));
    const privateKey = await crypto.subtle.importKey("pkcs8", der, KEY, true, ["sign"]);
    return new Authority(root, { privateKey, publicKey: await root.publicKey.export() });
  }

  /** Writes `root-cert.pem` and `root-key.pem`. */
  async save(folder: string): Promise<void> {
    Deno.writeTextFileSync(`${folder}/root-cert.pem`, this.rootPem);
    Deno.writeTextFileSync(`${folder}/root-key.pem`, await privateKeyPem(this.#keys.privateKey), { mode: 0o600 });
  }

  /** Writes the set of files that istiod signs with: ours is a root, so there is no chain between. */
  async saveAsPluggedIn(folder: string): Promise<void> {
    for (const name of ["ca-cert.pem", "root-cert.pem"]) Deno.writeTextFileSync(`${folder}/${name}`, this.rootPem);
    Deno.writeTextFileSync(`${folder}/cert-chain.pem`, "");
    Deno.writeTextFileSync(`${folder}/ca-key.pem`, await privateKeyPem(this.#keys.privateKey), { mode: 0o600 });
  }

  get rootPem(): string {
    return this.#root.toString("pem") + "\n";
  }

  /** A new key and a certificate for it. */
  async issue(name: LeafName): Promise<KeyAndChain> {
    const keys = await crypto.subtle.generateKey(KEY, true, ["sign", "verify"]);
    const chain = await this.certify(keys.publicKey, name);
    return { privateKey: await privateKeyPem(keys.privateKey), chain };
  }

  /** A certificate for a public key, PEM. */
  async certify(publicKey: x509.PublicKeyType, name: LeafName): Promise<string> {
    const alternative = "uri" in name
      ? { type: "url" as const, value: name.uri }
      : { type: "ip" as const, value: name.ip };
    const certificate = await x509.X509CertificateGenerator.create({
      subject: "O=bench",
      issuer: this.#root.subject,
      publicKey,
      signingKey: this.#keys.privateKey,
      signingAlgorithm: SIGNATURE,
      ...validity(),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
        new x509.SubjectAlternativeNameExtension([alternative], true),
      ],
    });
    return certificate.toString("pem") + "\n";
  }
}

function validity(): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(Date.now() - DAY_MS), notAfter: new Date(Date.now() + DAY_MS) };
}

async function privateKeyPem(key: CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await crypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY") + "\n";
}
