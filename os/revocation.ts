/** One worker's view of revocation: who issued the certificates of live sessions, and what the lists in force say of them. */
import type { ContextHandle, PeerPath, PeerPathState, TlsRevocation } from "./api.ts";
import { loadLibcrypto } from "./openssl_library.ts";

const crypto = loadLibcrypto({
  X509_verify_cert: { parameters: ["pointer"], result: "i32" }, // X509_STORE_CTX *
  X509_STORE_CTX_get0_chain: { parameters: ["pointer"], result: "pointer" }, // const X509_STORE_CTX *
  X509_STORE_CTX_set_error: { parameters: ["pointer", "i32"], result: "void" }, // X509_STORE_CTX *, int
  X509_STORE_get0_objects: { parameters: ["pointer"], result: "pointer" }, // const X509_STORE *
  X509_STORE_free: { parameters: ["pointer"], result: "void" }, // X509_STORE *
  X509_OBJECT_get0_X509_CRL: { parameters: ["pointer"], result: "pointer" }, // const X509_OBJECT *
  X509_CRL_get_issuer: { parameters: ["pointer"], result: "pointer" }, // const X509_CRL *
  X509_CRL_get0_by_serial: { parameters: ["pointer", "buffer", "pointer"], result: "i32" }, // X509_CRL *, X509_REVOKED **, const ASN1_INTEGER *
  X509_CRL_verify: { parameters: ["pointer", "pointer"], result: "i32" }, // X509_CRL *, EVP_PKEY *
  X509_NAME_cmp: { parameters: ["pointer", "pointer"], result: "i32" }, // const X509_NAME *, const X509_NAME *
  X509_get_subject_name: { parameters: ["pointer"], result: "pointer" }, // const X509 *
  X509_get0_serialNumber: { parameters: ["pointer"], result: "pointer" }, // const X509 *
  X509_get0_pubkey: { parameters: ["pointer"], result: "pointer" }, // const X509 *
  X509_get_key_usage: { parameters: ["pointer"], result: "u32" }, // X509 *
  X509_digest: { parameters: ["pointer", "pointer", "buffer", "pointer"], result: "i32" }, // const X509 *, const EVP_MD *, uchar *, uint *
  i2d_X509: { parameters: ["pointer", "buffer"], result: "i32" }, // const X509 *, uchar **out; moves on what it points to
  d2i_X509: { parameters: ["pointer", "buffer", "i64"], result: "pointer" }, // X509 **, const uchar **in, long; likewise
  X509_up_ref: { parameters: ["pointer"], result: "i32" }, // X509 *
  X509_free: { parameters: ["pointer"], result: "void" }, // X509 *
  EVP_sha256: { parameters: [], result: "pointer" },
  OPENSSL_sk_num: { parameters: ["pointer"], result: "i32" }, // const OPENSSL_STACK *
  OPENSSL_sk_value: { parameters: ["pointer", "i32"], result: "pointer" }, // const OPENSSL_STACK *, int
  ASN1_STRING_type_new: { parameters: ["i32"], result: "pointer" }, // int type
  ASN1_STRING_set: { parameters: ["pointer", "buffer", "i32"], result: "i32" }, // ASN1_STRING *, const void *, int
  ASN1_STRING_type: { parameters: ["pointer"], result: "i32" }, // const ASN1_STRING *
  ASN1_STRING_get0_data: { parameters: ["pointer"], result: "pointer" }, // const ASN1_STRING *
  ASN1_STRING_length: { parameters: ["pointer"], result: "i32" }, // const ASN1_STRING *
  ERR_clear_error: { parameters: [], result: "void" },
});

const V_ASN1_INTEGER = 2, V_ASN1_NEG_INTEGER = 0x102;
const KU_CRL_SIGN = 0x0002;
/** What verification ends with for a revoked certificate: OpenSSL tells the peer by alert 44 (RFC 8446 §6.2). */
export const X509_V_ERR_CERT_REVOKED = 23;
/** A certificate's own number has 20 bytes at most (RFC 5280 §4.1.2.2); OpenSSL reads longer ones, which are not tracked. */
const SERIAL_BYTES_MAX = 256;
/** OpenSSL follows a chain no further by itself. */
const CHAIN_MAX = 100;

type Pointer = Deno.PointerObject;

/** A number that an issuer gave to a certificate, as OpenSSL keeps it. */
interface Serial {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly negative: boolean;
}

/** A certificate that has signed others. Equal ones under an equal issuer are one, so that a session costs a few words. */
class Issuer {
  readonly certificate: Pointer;
  readonly key: string;
  readonly serial: Serial;
  /** null: trusted for itself, and in no list (RFC 5280 §6.1). */
  readonly issuer: Issuer | null;
  readonly id: number;
  /** Paths and issuers that name it. */
  users = 0;
  /** The lists that `lists` and `revoked` are of. */
  generation = -1;
  lists: List[] = [];
  revoked = false;

  constructor(certificate: Pointer, key: string, serial: Serial, issuer: Issuer | null, id: number) {
    this.certificate = certificate;
    this.key = key;
    this.serial = serial;
    this.issuer = issuer;
    this.id = id;
  }
}

/** A list whose issuer has the name of some {@link Issuer}. */
interface List {
  readonly crl: Pointer;
  /** Whether the issuer signed it, and may. undefined: nobody asked yet, since nothing of the issuer's was in it. */
  genuine: boolean | undefined;
}

/** Which lists are in force, and the certificates that led to the peers of this worker's sessions. */
export class Revocation implements TlsRevocation {
  /** Lists that name a certificate but that its issuer did not sign, or may not: they count for nothing. */
  forgedCount = 0;
  /** What the last verification went through: {@link takePath}. */
  #path: VerifiedPath | null = null;
  #store: Pointer | null = null;
  #crls: Pointer[] = [];
  #generation = 0;
  #nextId = 0;
  readonly #issuers = new Map<string, Issuer>();
  readonly #digest = new Uint8Array(32);
  readonly #found = new Uint8Array(8);
  readonly #number = crypto.ASN1_STRING_type_new(V_ASN1_INTEGER);
  readonly #negativeNumber = crypto.ASN1_STRING_type_new(V_ASN1_NEG_INTEGER);
  readonly #verify: Deno.UnsafeCallback<{ parameters: ["pointer", "pointer"]; result: "i32" }>;

  constructor() {
    // int cb(X509_STORE_CTX *, void *), in place of OpenSSL's own verification: before the peer hears that it is believed.
    this.#verify = new Deno.UnsafeCallback(
      { parameters: ["pointer", "pointer"], result: "i32" },
      (context) => this.#verifyChain(context!),
    );
  }

  /** For SSL_CTX_set_cert_verify_callback. */
  get verifyCallback(): Pointer {
    return this.#verify.pointer;
  }

  /** Puts lists in force, and takes over one reference to them. Paths are judged by them from now on. */
  use(handle: ContextHandle): void {
    const before = this.#store;
    this.#store = Deno.UnsafePointer.create(BigInt(handle.high) << 32n | BigInt(handle.low))!;
    const objects = crypto.X509_STORE_get0_objects(this.#store);
    this.#crls = [];
    for (let at = 0; at < crypto.OPENSSL_sk_num(objects); at++) {
      const crl = crypto.X509_OBJECT_get0_X509_CRL(crypto.OPENSSL_sk_value(objects, at));
      if (crl !== null) this.#crls.push(crl);
    }
    this.#generation++;
    this.forgedCount = 0;
    for (const issuer of this.#issuers.values()) issuer.lists = []; // They point into what is let go now.
    if (before !== null) crypto.X509_STORE_free(before);
  }

  /** The path of the handshake under way, once its peer's chain has been verified. The caller frees it. */
  takePath(): VerifiedPath | null {
    const path = this.#path;
    this.#path = null;
    return path;
  }

  #verifyChain(context: Pointer): number {
    const verified = crypto.X509_verify_cert(context);
    if (verified !== 1) return verified;
    const path = this.#pathOf(crypto.X509_STORE_CTX_get0_chain(context));
    this.#path?.free();
    this.#path = path;
    if (path === null || !path.revoked) return 1;
    crypto.X509_STORE_CTX_set_error(context, X509_V_ERR_CERT_REVOKED);
    return 0;
  }

  /** From a verified chain, leaf first. What the peer presented beyond it is not in it (ZT-089). */
  #pathOf(chain: Pointer | null): VerifiedPath | null {
    if (chain === null) return null;
    let issuer: Issuer | null = null;
    for (let at = crypto.OPENSSL_sk_num(chain) - 1; at > 0; at--) {
      const certificate = crypto.OPENSSL_sk_value(chain, at)!, serial = serialOf(certificate);
      const next: Issuer | null = serial === undefined ? null : this.#issuerOf(certificate, serial, issuer);
      if (next === null) {
        if (issuer !== null) this.#release(issuer);
        return null;
      }
      issuer = next;
    }
    const serial = serialOf(crypto.OPENSSL_sk_value(chain, 0)!);
    if (serial !== undefined) return new VerifiedPath(this, serial, issuer);
    if (issuer !== null) this.#release(issuer);
    return null;
  }

  /** The one that stands for a certificate, with one more user; the user of `issuer` that the caller held goes into it. */
  #issuerOf(certificate: Pointer, serial: Serial, issuer: Issuer | null): Issuer | null {
    if (crypto.X509_digest(certificate, crypto.EVP_sha256(), this.#digest, null) !== 1) return null;
    const key = `${issuer === null ? "" : issuer.id}/${this.#digest.toHex()}`;
    const known = this.#issuers.get(key);
    if (known !== undefined) {
      known.users++;
      if (issuer !== null) this.#release(issuer); // It has one of its own there already.
      return known;
    }
    crypto.X509_up_ref(certificate);
    const made = new Issuer(certificate, key, serial, issuer, this.#nextId++);
    made.users = 1;
    this.#issuers.set(key, made);
    return made;
  }

  resumePath({ serial, negative, issuers }: PeerPathState): VerifiedPath | null {
    if (serial.length > SERIAL_BYTES_MAX || issuers.length > CHAIN_MAX) return null;
    let issuer: Issuer | null = null;
    for (let at = issuers.length - 1; at >= 0; at--) {
      const certificate = readCertificate(issuers[at]!);
      const number: Serial | undefined = certificate === null ? undefined : serialOf(certificate);
      const next: Issuer | null = number === undefined ? null : this.#issuerOf(certificate!, number, issuer);
      if (certificate !== null) crypto.X509_free(certificate); // An issuer has its own reference.
      if (next === null) {
        if (issuer !== null) this.#release(issuer);
        return null;
      }
      issuer = next;
    }
    return new VerifiedPath(this, { bytes: new Uint8Array(serial), negative }, issuer);
  }

  #release(issuer: Issuer): void {
    for (let at: Issuer | null = issuer; at !== null && --at.users === 0; at = at.issuer) {
      this.#issuers.delete(at.key);
      crypto.X509_free(at.certificate);
    }
  }

  /** @internal For {@link VerifiedPath}. */
  release(issuer: Issuer | null): void {
    if (issuer !== null) this.#release(issuer);
  }

  /** Issuers that some path names: no more than live sessions have. */
  get issuerCount(): number {
    return this.#issuers.size;
  }

  /** Whether `issuer` is revoked itself, or has revoked the certificate with this number. */
  isRevoked(issuer: Issuer | null, serial: Serial): boolean {
    if (issuer === null) return false;
    this.#renew(issuer);
    return issuer.revoked || this.#isListed(issuer, serial);
  }

  /** Brings what is known of an issuer up to the lists in force. */
  #renew(issuer: Issuer): void {
    if (issuer.generation === this.#generation) return;
    issuer.generation = this.#generation;
    const name = crypto.X509_get_subject_name(issuer.certificate);
    issuer.lists = [];
    for (const crl of this.#crls) {
      if (crypto.X509_NAME_cmp(crypto.X509_CRL_get_issuer(crl), name) !== 0) continue;
      issuer.lists.push({ crl, genuine: undefined });
    }
    issuer.revoked = this.isRevoked(issuer.issuer, issuer.serial);
  }

  #isListed(issuer: Issuer, serial: Serial): boolean {
    if (issuer.lists.length === 0) return false;
    const number = serial.negative ? this.#negativeNumber : this.#number;
    crypto.ASN1_STRING_set(number, serial.bytes, serial.bytes.length);
    for (const list of issuer.lists) {
      if (crypto.X509_CRL_get0_by_serial(list.crl, this.#found, number) !== 1) continue;
      list.genuine ??= this.#isGenuine(list.crl, issuer);
      if (list.genuine) return true;
    }
    return false;
  }

  /** Takes as long as hashing the list: once for each that names somebody. */
  #isGenuine(crl: Pointer, issuer: Issuer): boolean {
    // A root is trusted as a name and a key; what else its certificate says binds nobody (RFC 5280 §6.1.1).
    const may = issuer.issuer === null || (crypto.X509_get_key_usage(issuer.certificate) & KU_CRL_SIGN) !== 0;
    const key = crypto.X509_get0_pubkey(issuer.certificate);
    const genuine = may && key !== null && crypto.X509_CRL_verify(crl, key) === 1;
    crypto.ERR_clear_error();
    if (!genuine) this.forgedCount++;
    return genuine;
  }
}

/** A peer's verified chain, without its certificates: the leaf's number, and who issued it. */
export class VerifiedPath implements PeerPath {
  readonly #revocation: Revocation;
  readonly #serial: Serial;
  #issuer: Issuer | null;

  constructor(revocation: Revocation, serial: Serial, issuer: Issuer | null) {
    this.#revocation = revocation;
    this.#serial = serial;
    this.#issuer = issuer;
  }

  get revoked(): boolean {
    return this.#revocation.isRevoked(this.#issuer, this.#serial);
  }

  exportPath(): PeerPathState {
    const issuers: Uint8Array[] = [];
    for (let issuer = this.#issuer; issuer !== null; issuer = issuer.issuer) issuers.push(derOf(issuer.certificate));
    return { serial: this.#serial.bytes, negative: this.#serial.negative, issuers };
  }

  free(): void {
    this.#revocation.release(this.#issuer);
    this.#issuer = null;
  }
}

function derOf(certificate: Pointer): Uint8Array<ArrayBuffer> {
  const der = new Uint8Array(crypto.i2d_X509(certificate, null));
  const out = BigUint64Array.of(Deno.UnsafePointer.value(Deno.UnsafePointer.of(der)));
  crypto.i2d_X509(certificate, new Uint8Array(out.buffer));
  return der;
}

/** The caller frees it. */
function readCertificate(der: Uint8Array): Pointer | null {
  const bytes = new Uint8Array(der), at = BigUint64Array.of(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
  const certificate = crypto.d2i_X509(null, new Uint8Array(at.buffer), BigInt(bytes.length));
  crypto.ERR_clear_error();
  return certificate;
}

/** @returns undefined for one too long to keep. */
function serialOf(certificate: Pointer): Serial | undefined {
  const number = crypto.X509_get0_serialNumber(certificate);
  const count = crypto.ASN1_STRING_length(number), data = crypto.ASN1_STRING_get0_data(number);
  if (count > SERIAL_BYTES_MAX || (data === null && count > 0)) return undefined;
  const bytes = new Uint8Array(count);
  if (data !== null) Deno.UnsafePointerView.copyInto(data, bytes);
  return { bytes, negative: crypto.ASN1_STRING_type(number) === V_ASN1_NEG_INTEGER };
}
