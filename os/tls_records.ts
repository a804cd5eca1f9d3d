/** TLS 1.3 records (RFC 8446 §5.2) sealed and opened in place by OpenSSL's AES-GCM, keyed with the traffic secrets of a handshake. */
import { assert } from "../base/assert.ts";
import { type Memory, RecordError, type RecordOpener, type RecordSealer, type TrafficKeys } from "./api.ts";
import { loadLibcrypto } from "./openssl_library.ts";

const crypto = loadLibcrypto({
  EVP_CIPHER_CTX_new: { parameters: [], result: "pointer" },
  EVP_CIPHER_CTX_free: { parameters: ["pointer"], result: "void" }, // EVP_CIPHER_CTX *
  EVP_CIPHER_fetch: { parameters: ["pointer", "buffer", "pointer"], result: "pointer" }, // OSSL_LIB_CTX *, const char *, const char *
  EVP_CipherInit_ex: { parameters: ["pointer", "pointer", "pointer", "u32", "u32", "i32"], result: "i32" }, // ctx, cipher, engine, key, iv, enc
  EVP_EncryptInit_ex: { parameters: ["pointer", "pointer", "pointer", "u32", "u32"], result: "i32" }, // ctx, cipher, engine, key, iv
  EVP_DecryptInit_ex: { parameters: ["pointer", "pointer", "pointer", "u32", "u32"], result: "i32" },
  EVP_EncryptUpdate: { parameters: ["pointer", "u32", "u32", "u32", "i32"], result: "i32" }, // ctx, out, int *outl, in, int inl
  EVP_DecryptUpdate: { parameters: ["pointer", "u32", "u32", "u32", "i32"], result: "i32" },
  EVP_EncryptFinal_ex: { parameters: ["pointer", "u32", "u32"], result: "i32" }, // ctx, out, int *outl
  EVP_DecryptFinal_ex: { parameters: ["pointer", "u32", "u32"], result: "i32" },
  EVP_CIPHER_CTX_ctrl: { parameters: ["pointer", "i32", "i32", "u32"], result: "i32" }, // ctx, type, arg, ptr
  EVP_MAC_fetch: { parameters: ["pointer", "buffer", "pointer"], result: "pointer" }, // OSSL_LIB_CTX *, const char *, const char *
  EVP_MAC_free: { parameters: ["pointer"], result: "void" }, // EVP_MAC *
  EVP_MAC_CTX_new: { parameters: ["pointer"], result: "pointer" }, // EVP_MAC *
  EVP_MAC_CTX_set_params: { parameters: ["pointer", "u32"], result: "i32" }, // EVP_MAC_CTX *, const OSSL_PARAM *
  EVP_MAC_init: { parameters: ["pointer", "u32", "u32", "u32"], result: "i32" }, // EVP_MAC_CTX *, const uchar *key, size_t, const OSSL_PARAM *
  EVP_MAC_update: { parameters: ["pointer", "u32", "u32"], result: "i32" }, // EVP_MAC_CTX *, const uchar *, size_t
  EVP_MAC_final: { parameters: ["pointer", "u32", "u32", "u32"], result: "i32" }, // EVP_MAC_CTX *, uchar *out, size_t *outl, size_t outsize
});

/** AES-GCM in libcrypto, for records of either version. */
export { crypto as aead };

const EVP_CTRL_AEAD_GET_TAG = 0x10, EVP_CTRL_AEAD_SET_TAG = 0x11;
const TAG_BYTES = 16, HEADER_BYTES = 5, IV_BYTES = 12;
const CONTENT_BYTES_MAX = 16384;
/** RFC 8446 §5.2: 2^14 bytes of content, the type byte, at most 255 of expansion; ours uses 1 + 16. */
export const CIPHERTEXT_BYTES_MAX = CONTENT_BYTES_MAX + 256;
const APPLICATION_DATA = 23;

export type CipherSuite = "aes128" | "aes256";

type Pointer = Deno.PointerObject;

const SUITES = {
  aes128: { name: "AES-128-GCM", keyBytes: 16, hash: "SHA256", hashBytes: 32 },
  aes256: { name: "AES-256-GCM", keyBytes: 32, hash: "SHA384", hashBytes: 48 },
} as const;
// OSSL_PARAM: its name, its type, where the value is and how long, what was returned; 64 bits each but the type. Zeros end the list.
const PARAM_TYPE = 8, PARAM_VALUE = 16, PARAM_LENGTH = 24, PARAMS_BYTES = 80, PARAM_UTF8 = 4;
/** Of what HKDF works on: a secret, a label, a length of output; each less than this. */
const DERIVED_BYTES_MAX = 64;

/** Bytes of this suite's key. */
export function keyBytesOf(suite: CipherSuite): number {
  return SUITES[suite].keyBytes;
}

/** The suite of keys that another process exported, if they are whole; undefined for any others. */
export function suiteOf(keys: TrafficKeys): CipherSuite | undefined {
  const suite = keys.suite === "aes128" || keys.suite === "aes256" ? keys.suite : undefined;
  if (suite === undefined || keys.secret.length !== SUITES[suite].hashBytes) return undefined;
  return Number.isSafeInteger(keys.sequence) && keys.sequence >= 0 ? suite : undefined;
}

/** What all records of a worker share: scratch words in the arena and the fetched ciphers. */
export class RecordCrypto {
  readonly arena: Memory;
  readonly ivAt: number;
  readonly lengthAt: number;
  readonly keyAt: number;
  /** What TLS 1.2 authenticates with a record. */
  readonly aadAt: number;
  readonly #ciphers: Record<CipherSuite, Pointer>;
  /** HMAC with each suite's hash. What a one-shot call spends on finding both is most of what it takes. */
  readonly #macs: Record<CipherSuite, Pointer>;
  /** Secret, then info, then output. */
  readonly #derivedAt: number;

  constructor(arena: Memory) {
    this.arena = arena;
    this.ivAt = arena.allocate(16);
    this.lengthAt = arena.allocate(16);
    this.keyAt = arena.allocate(32);
    this.aadAt = arena.allocate(16);
    const fetch = (suite: CipherSuite) => {
      const cipher = crypto.EVP_CIPHER_fetch(null, new TextEncoder().encode(SUITES[suite].name + "\0"), null);
      assert(cipher !== null, "libcrypto has AES-GCM");
      return cipher;
    };
    this.#ciphers = { aes128: fetch("aes128"), aes256: fetch("aes256") };
    this.#derivedAt = arena.allocate(3 * DERIVED_BYTES_MAX);
    this.#macs = { aes128: this.#hmac("aes128"), aes256: this.#hmac("aes256") };
  }

  #hmac(suite: CipherSuite): Pointer {
    const { arena } = this, { u8, u32, base } = arena, at = arena.allocate(PARAMS_BYTES), { hash } = SUITES[suite];
    const { written } = new TextEncoder().encodeInto("digest\0" + hash, u8.subarray(this.#derivedAt));
    u8.fill(0, at, at + PARAMS_BYTES);
    u32[at >> 2] = base + this.#derivedAt;
    u32[(at + PARAM_TYPE) >> 2] = PARAM_UTF8;
    u32[(at + PARAM_VALUE) >> 2] = base + this.#derivedAt + written - hash.length;
    u32[(at + PARAM_LENGTH) >> 2] = hash.length;
    const mac = crypto.EVP_MAC_fetch(null, new TextEncoder().encode("HMAC\0"), null);
    const context = mac === null ? null : crypto.EVP_MAC_CTX_new(mac);
    assert(context !== null && crypto.EVP_MAC_CTX_set_params(context, base + at) === 1, "libcrypto has HMAC");
    crypto.EVP_MAC_free(mac); // The context has it.
    return context;
  }

  /** HKDF-Expand-Label with an empty context and at most one hash of output (RFC 8446 §7.1). */
  expandLabel(suite: CipherSuite, secret: Uint8Array, label: string, bytes: number): Uint8Array<ArrayBuffer> {
    const { hashBytes } = SUITES[suite], full = `tls13 ${label}`, infoBytes = 2 + 1 + full.length + 1 + 1;
    assert(bytes <= hashBytes && secret.length <= DERIVED_BYTES_MAX, "one block of HKDF-Expand is enough");
    assert(infoBytes <= DERIVED_BYTES_MAX, "a label is short");
    const { u8, base } = this.arena, mac = this.#macs[suite], secretAt = this.#derivedAt;
    const infoAt = secretAt + DERIVED_BYTES_MAX, outAt = infoAt + DERIVED_BYTES_MAX;
    u8.set(secret, secretAt);
    u8[infoAt] = 0;
    u8[infoAt + 1] = bytes;
    u8[infoAt + 2] = full.length;
    for (let at = 0; at < full.length; at++) u8[infoAt + 3 + at] = full.charCodeAt(at);
    u8[infoAt + infoBytes - 2] = 0;
    u8[infoAt + infoBytes - 1] = 1; // T(1)
    const done = crypto.EVP_MAC_init(mac, base + secretAt, secret.length, 0) === 1 &&
      crypto.EVP_MAC_update(mac, base + infoAt, infoBytes) === 1 &&
      crypto.EVP_MAC_final(mac, base + outAt, base + this.lengthAt, hashBytes) === 1;
    assert(done, "HMAC over 64 bytes succeeds");
    const output = u8.slice(outAt, outAt + bytes);
    u8.fill(0, secretAt, outAt + DERIVED_BYTES_MAX);
    return output;
  }

  cipher(suite: CipherSuite): Pointer {
    return this.#ciphers[suite];
  }
}

/** Keys of one direction: cipher context, nonce and sequence number. */
abstract class Direction {
  readonly tls12 = false;
  protected readonly crypto: RecordCrypto;
  protected readonly context: Pointer;
  readonly #suite: CipherSuite;
  #secret: Uint8Array<ArrayBuffer>;
  readonly #encrypt: boolean;
  #iv0 = 0;
  #iv1 = 0;
  #iv2 = 0;
  protected sequence = 0;
  #freed = false;

  constructor(shared: RecordCrypto, suite: CipherSuite, secret: Uint8Array, encrypt: boolean) {
    this.crypto = shared;
    this.#suite = suite;
    this.#secret = new Uint8Array(secret);
    this.#encrypt = encrypt;
    const context = crypto.EVP_CIPHER_CTX_new();
    assert(context !== null, "libcrypto has memory for a cipher context");
    this.context = context;
    this.#rekey();
  }

  #rekey(): void {
    const { arena, keyAt } = this.crypto;
    const key = this.crypto.expandLabel(this.#suite, this.#secret, "key", SUITES[this.#suite].keyBytes);
    const iv = this.crypto.expandLabel(this.#suite, this.#secret, "iv", IV_BYTES);
    arena.u8.set(key, keyAt);
    const cipher = this.crypto.cipher(this.#suite);
    const keyed = crypto.EVP_CipherInit_ex(this.context, cipher, null, arena.base + keyAt, 0, this.#encrypt ? 1 : 0);
    assert(keyed === 1, "AES-GCM takes its key");
    arena.u8.fill(0, keyAt, keyAt + 32);
    key.fill(0);
    const view = new DataView(iv.buffer);
    this.#iv0 = view.getInt32(0);
    this.#iv1 = view.getInt32(4);
    this.#iv2 = view.getInt32(8);
    this.sequence = 0;
  }

  /** RFC 8446 §7.2: the next generation of the secret; the sequence starts again at 0. */
  nextKey(): void {
    const next = this.crypto.expandLabel(this.#suite, this.#secret, "traffic upd", SUITES[this.#suite].hashBytes);
    this.#secret.fill(0);
    this.#secret = next;
    this.#rekey();
  }

  /** A copy of what another process needs to go on from here. */
  exportKeys(): TrafficKeys {
    assert(!this.#freed, "keys that were freed are nobody's");
    return { suite: this.#suite, secret: this.#secret.slice(), sequence: this.sequence };
  }

  /** Goes on with the number that the last owner would have used next. */
  protected goOnAt(sequence: number): void {
    assert(this.sequence === 0, "a sequence is moved before its first record only");
    this.sequence = sequence;
  }

  /** Writes the nonce of the next record: the sequence number XOR the IV (RFC 8446 §5.3). */
  protected writeNonce(): void {
    const { arena, ivAt } = this.crypto, view = arena.view, sequence = this.sequence++;
    view.setInt32(ivAt, this.#iv0);
    view.setInt32(ivAt + 4, this.#iv1 ^ (sequence / 0x100000000) | 0);
    view.setInt32(ivAt + 8, this.#iv2 ^ sequence);
  }

  free(): void {
    assert(!this.#freed, "keys are freed once");
    this.#freed = true;
    this.#secret.fill(0);
    crypto.EVP_CIPHER_CTX_free(this.context);
  }
}

/** Seals records in place in the arena. */
export class Sealer extends Direction implements RecordSealer {
  readonly contentBytesMax = CONTENT_BYTES_MAX;

  constructor(shared: RecordCrypto, suite: CipherSuite, secret: Uint8Array, sequence = 0) {
    super(shared, suite, secret, true);
    this.goOnAt(sequence);
  }

  get sealedCount(): number {
    return this.sequence;
  }

  seal(at: number, bytes: number, contentType: number): number {
    const { arena, ivAt, lengthAt } = this.crypto, u8 = arena.u8, base = arena.base, context = this.context;
    const body = bytes + 1 + TAG_BYTES;
    u8[at] = APPLICATION_DATA;
    u8[at + 1] = 3;
    u8[at + 2] = 3;
    u8[at + 3] = body >> 8;
    u8[at + 4] = body & 255;
    u8[at + HEADER_BYTES + bytes] = contentType;
    this.writeNonce();
    const text = base + at + HEADER_BYTES, length = base + lengthAt;
    crypto.EVP_EncryptInit_ex(context, null, null, 0, base + ivAt);
    crypto.EVP_EncryptUpdate(context, 0, length, base + at, HEADER_BYTES);
    crypto.EVP_EncryptUpdate(context, text, length, text, bytes + 1);
    const sealed = crypto.EVP_EncryptFinal_ex(context, text + bytes + 1, length);
    const tagged = crypto.EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, text + bytes + 1);
    assert(sealed === 1 && tagged === 1, "AES-GCM seals what it was keyed for"); // Else plaintext would leave.
    return HEADER_BYTES + body;
  }
}

/** Opens records in place in the arena. */
export class Opener extends Direction implements RecordOpener {
  constructor(shared: RecordCrypto, suite: CipherSuite, secret: Uint8Array, sequence = 0) {
    super(shared, suite, secret, false);
    this.goOnAt(sequence);
  }

  open(at: number, recordBytes: number): number {
    const bytes = recordBytes - HEADER_BYTES - TAG_BYTES;
    if (bytes < 1) return RecordError.BAD_RECORD;
    if (recordBytes - HEADER_BYTES > CIPHERTEXT_BYTES_MAX) return RecordError.OVERFLOW;
    const { arena, ivAt, lengthAt } = this.crypto, base = arena.base, context = this.context;
    this.writeNonce();
    const text = base + at + HEADER_BYTES, length = base + lengthAt;
    crypto.EVP_DecryptInit_ex(context, null, null, 0, base + ivAt);
    crypto.EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, text + bytes);
    crypto.EVP_DecryptUpdate(context, 0, length, base + at, HEADER_BYTES);
    crypto.EVP_DecryptUpdate(context, text, length, text, bytes);
    return crypto.EVP_DecryptFinal_ex(context, text + bytes, length) === 1 ? bytes : RecordError.BAD_RECORD;
  }
}
