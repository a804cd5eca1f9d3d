/** TLS 1.2 records of AES-GCM (RFC 5288 §3), sealed and opened in place, in the form that {@link Sealer} and {@link Opener} have for TLS 1.3. */
import { assert } from "../base/assert.ts";
import { RecordError, type RecordOpener, type RecordSealer, type TrafficKeys } from "./api.ts";
import { loadLibcrypto } from "./openssl_library.ts";
import { aead, type CipherSuite, keyBytesOf, type RecordCrypto } from "./tls_records.ts";

const crypto = loadLibcrypto({
  EVP_KDF_fetch: { parameters: ["pointer", "buffer", "pointer"], result: "pointer" }, // OSSL_LIB_CTX *, const char *, const char *
  EVP_KDF_free: { parameters: ["pointer"], result: "void" }, // EVP_KDF *
  EVP_KDF_CTX_new: { parameters: ["pointer"], result: "pointer" }, // EVP_KDF *
  EVP_KDF_CTX_free: { parameters: ["pointer"], result: "void" }, // EVP_KDF_CTX *
  EVP_KDF_derive: { parameters: ["pointer", "buffer", "usize", "buffer"], result: "i32" }, // EVP_KDF_CTX *, uchar *, size_t, const OSSL_PARAM *
});

const EVP_CTRL_AEAD_GET_TAG = 0x10, EVP_CTRL_AEAD_SET_TAG = 0x11;
const HEADER_BYTES = 5, EXPLICIT_NONCE_BYTES = 8, TAG_BYTES = 16, SALT_BYTES = 4;
/** Sequence number, type, version, length (RFC 5246 §6.2.3.3). */
const AAD_BYTES = 13;
const CONTENT_BYTES_MAX = 16_384;
/** A record of ours is no longer than one of TLS 1.3, so that the same places hold either. */
const OUR_CONTENT_BYTES_MAX = CONTENT_BYTES_MAX + 1 - EXPLICIT_NONCE_BYTES;
const OSSL_PARAM_UTF8_STRING = 4n, OSSL_PARAM_OCTET_STRING = 5n, OSSL_PARAM_BYTES = 40;

type Pointer = Deno.PointerObject;

/** What both directions of a connection stand on. Secret. */
export interface Tls12Keys {
  readonly clientKey: Uint8Array<ArrayBuffer>;
  readonly serverKey: Uint8Array<ArrayBuffer>;
  readonly clientSalt: Uint8Array<ArrayBuffer>;
  readonly serverSalt: Uint8Array<ArrayBuffer>;
}

/** The PRF of TLS 1.2 (RFC 5246 §5). @param seed label and seed, one after the other. */
export function prf(
  suite: CipherSuite,
  secret: Uint8Array<ArrayBuffer>,
  seed: Uint8Array<ArrayBuffer>,
  bytes: number,
): Uint8Array<ArrayBuffer> {
  const text = (of: string) => new TextEncoder().encode(of + "\0");
  const digest = suite === "aes256" ? "SHA384" : "SHA256";
  const parameters = [
    { name: text("digest"), type: OSSL_PARAM_UTF8_STRING, value: text(digest), size: digest.length },
    { name: text("secret"), type: OSSL_PARAM_OCTET_STRING, value: secret, size: secret.length },
    { name: text("seed"), type: OSSL_PARAM_OCTET_STRING, value: seed, size: seed.length },
  ];
  let at = OSSL_PARAM_BYTES * (parameters.length + 1); // The last is all zeros.
  const block = new Uint8Array(at + parameters.reduce((sum, it) => sum + it.name.length + it.value.length, 0));
  const words = new BigUint64Array(block.buffer, 0, at >> 3),
    base = Deno.UnsafePointer.value(Deno.UnsafePointer.of(block));
  const put = (what: Uint8Array) => {
    block.set(what, at);
    at += what.length;
    return base + BigInt(at - what.length);
  };
  for (const [index, { name, type, value, size }] of parameters.entries()) {
    words.set([put(name), type, put(value), BigInt(size), 0n], index * (OSSL_PARAM_BYTES >> 3)); // struct ossl_param_st
  }
  const kdf = crypto.EVP_KDF_fetch(null, text("TLS1-PRF"), null);
  assert(kdf !== null, "libcrypto has the PRF of TLS 1.2");
  const context = crypto.EVP_KDF_CTX_new(kdf), output = new Uint8Array(bytes);
  const derived = crypto.EVP_KDF_derive(context, output, BigInt(bytes), block);
  crypto.EVP_KDF_CTX_free(context);
  crypto.EVP_KDF_free(kdf);
  block.fill(0);
  assert(derived === 1, "the PRF takes its secret");
  return output;
}

/** Keys and salts of both directions (RFC 5246 §6.3, RFC 5288 §3). */
export function expandMaster(
  suite: CipherSuite,
  master: Uint8Array<ArrayBuffer>,
  randoms: { readonly client: Uint8Array; readonly server: Uint8Array },
): Tls12Keys {
  const label = new TextEncoder().encode("key expansion"), seed = new Uint8Array(label.length + 64);
  seed.set(label);
  seed.set(randoms.server, label.length);
  seed.set(randoms.client, label.length + 32);
  const keyBytes = keyBytesOf(suite), block = prf(suite, master, seed, 2 * (keyBytes + SALT_BYTES));
  const keys = {
    clientKey: block.slice(0, keyBytes),
    serverKey: block.slice(keyBytes, 2 * keyBytes),
    clientSalt: block.slice(2 * keyBytes, 2 * keyBytes + SALT_BYTES),
    serverSalt: block.slice(2 * keyBytes + SALT_BYTES),
  };
  block.fill(0);
  return keys;
}

/** Keys of one direction. They last as long as the connection: TLS 1.2 changes them by renegotiation alone, which is refused. */
abstract class Direction {
  readonly tls12 = true;
  protected readonly crypto: RecordCrypto;
  protected readonly context: Pointer;
  readonly #salt: number;
  /** The Finished message was number 0. */
  protected sequence = 1;
  #freed = false;

  constructor(
    shared: RecordCrypto,
    suite: CipherSuite,
    keys: { readonly key: Uint8Array; readonly salt: Uint8Array<ArrayBuffer> },
    encrypt: boolean,
  ) {
    this.crypto = shared;
    const { arena, keyAt } = shared, context = aead.EVP_CIPHER_CTX_new();
    assert(context !== null, "libcrypto has memory for a cipher context");
    this.context = context;
    arena.u8.set(keys.key, keyAt);
    const cipher = shared.cipher(suite);
    const keyed = aead.EVP_CipherInit_ex(context, cipher, null, arena.base + keyAt, 0, encrypt ? 1 : 0);
    assert(keyed === 1, "AES-GCM takes its key");
    arena.u8.fill(0, keyAt, keyAt + 32);
    this.#salt = new DataView(keys.salt.buffer, keys.salt.byteOffset).getInt32(0);
  }

  /** Writes what is authenticated with the next record. */
  protected writeAad(type: number, bytes: number): void {
    const { arena: { view, u8 }, aadAt } = this.crypto, sequence = this.sequence++;
    view.setInt32(aadAt, (sequence / 0x100000000) | 0);
    view.setInt32(aadAt + 4, sequence | 0);
    u8[aadAt + 8] = type;
    view.setInt16(aadAt + 9, 0x0303);
    view.setInt16(aadAt + 11, bytes);
  }

  /** Writes the nonce of the record at `at`: the salt, and what the record says (RFC 5288 §3). */
  protected writeNonce(at: number): void {
    const { arena: { view }, ivAt } = this.crypto;
    view.setInt32(ivAt, this.#salt);
    view.setInt32(ivAt + 4, view.getInt32(at + HEADER_BYTES));
    view.setInt32(ivAt + 8, view.getInt32(at + HEADER_BYTES + 4));
  }

  /** A session of TLS 1.2 ends before it would need another key. */
  nextKey(): never {
    assert(false, "TLS 1.2 has no KeyUpdate");
  }

  /** A session of TLS 1.2 stays in the process that opened it. */
  exportKeys(): TrafficKeys {
    assert(false, "sessions of TLS 1.2 are not handed over");
  }

  free(): void {
    assert(!this.#freed, "keys are freed once");
    this.#freed = true;
    aead.EVP_CIPHER_CTX_free(this.context);
  }
}

/** Seals records in place. The content is moved up by the length of the nonce: a fraction of what sealing it costs. */
export class Sealer12 extends Direction implements RecordSealer {
  readonly contentBytesMax = OUR_CONTENT_BYTES_MAX;

  constructor(
    shared: RecordCrypto,
    suite: CipherSuite,
    keys: { readonly key: Uint8Array; readonly salt: Uint8Array<ArrayBuffer> },
  ) {
    super(shared, suite, keys, true);
  }

  get sealedCount(): number {
    return this.sequence;
  }

  seal(at: number, bytes: number, contentType: number): number {
    assert(bytes <= OUR_CONTENT_BYTES_MAX, "a record stays in its place");
    const { arena, ivAt, lengthAt, aadAt } = this.crypto, { u8, view, base } = arena, context = this.context;
    const from = at + HEADER_BYTES, to = from + EXPLICIT_NONCE_BYTES;
    const body = EXPLICIT_NONCE_BYTES + bytes + TAG_BYTES;
    u8.copyWithin(to, from, from + bytes);
    u8[at] = contentType;
    u8[at + 1] = 3;
    u8[at + 2] = 3;
    u8[at + 3] = body >> 8;
    u8[at + 4] = body & 255;
    this.writeAad(contentType, bytes);
    view.setInt32(from, view.getInt32(aadAt)); // The sequence number is a nonce that never comes again.
    view.setInt32(from + 4, view.getInt32(aadAt + 4));
    this.writeNonce(at);
    const text = base + to, length = base + lengthAt;
    aead.EVP_EncryptInit_ex(context, null, null, 0, base + ivAt);
    aead.EVP_EncryptUpdate(context, 0, length, base + aadAt, AAD_BYTES);
    if (bytes > 0) aead.EVP_EncryptUpdate(context, text, length, text, bytes);
    const sealed = aead.EVP_EncryptFinal_ex(context, text + bytes, length);
    const tagged = aead.EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, text + bytes);
    assert(sealed === 1 && tagged === 1, "AES-GCM seals what it was keyed for"); // Else plaintext would leave.
    return HEADER_BYTES + body;
  }
}

/** Opens records in place, and leaves them as those of TLS 1.3 are left: content at `at + 5`, its type behind it. */
export class Opener12 extends Direction implements RecordOpener {
  constructor(
    shared: RecordCrypto,
    suite: CipherSuite,
    keys: { readonly key: Uint8Array; readonly salt: Uint8Array<ArrayBuffer> },
  ) {
    super(shared, suite, keys, false);
  }

  open(at: number, recordBytes: number): number {
    const bytes = recordBytes - HEADER_BYTES - EXPLICIT_NONCE_BYTES - TAG_BYTES;
    if (bytes < 0) return RecordError.BAD_RECORD;
    if (bytes > CONTENT_BYTES_MAX) return RecordError.OVERFLOW;
    const { arena, ivAt, lengthAt, aadAt } = this.crypto, { u8, base } = arena, context = this.context;
    if (u8[at + 1] !== 3 || u8[at + 2] !== 3) return RecordError.BAD_RECORD;
    const from = at + HEADER_BYTES + EXPLICIT_NONCE_BYTES, type = u8[at]!;
    this.writeAad(type, bytes);
    this.writeNonce(at);
    const text = base + from, length = base + lengthAt;
    aead.EVP_DecryptInit_ex(context, null, null, 0, base + ivAt);
    aead.EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, text + bytes);
    aead.EVP_DecryptUpdate(context, 0, length, base + aadAt, AAD_BYTES);
    if (bytes > 0) aead.EVP_DecryptUpdate(context, text, length, text, bytes);
    if (aead.EVP_DecryptFinal_ex(context, text + bytes, length) !== 1) return RecordError.BAD_RECORD;
    u8.copyWithin(at + HEADER_BYTES, from, from + bytes);
    u8[at + HEADER_BYTES + bytes] = type;
    return bytes + 1;
  }
}
