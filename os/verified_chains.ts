/** Certificate chains that were verified before: the same ones under the same roots are believed without doing it again, until one of them expires. */
import { loadLibcrypto } from "./openssl_library.ts";

const crypto = loadLibcrypto({
  X509_verify_cert: { parameters: ["pointer"], result: "i32" }, // X509_STORE_CTX *
  X509_STORE_CTX_get0_cert: { parameters: ["pointer"], result: "pointer" }, // const X509_STORE_CTX *
  X509_STORE_CTX_get0_untrusted: { parameters: ["pointer"], result: "pointer" }, // const X509_STORE_CTX *
  X509_STORE_CTX_get0_chain: { parameters: ["pointer"], result: "pointer" }, // const X509_STORE_CTX *
  X509_STORE_CTX_set_error: { parameters: ["pointer", "i32"], result: "void" }, // X509_STORE_CTX *, int
  X509_get0_notAfter: { parameters: ["pointer"], result: "pointer" }, // const X509 *
  X509_digest: { parameters: ["pointer", "pointer", "buffer", "pointer"], result: "i32" }, // const X509 *, const EVP_MD *, uchar *, uint *
  ASN1_TIME_diff: { parameters: ["buffer", "buffer", "pointer", "pointer"], result: "i32" }, // int *days, int *seconds, const ASN1_TIME *from, const ASN1_TIME *to
  EVP_MD_fetch: { parameters: ["pointer", "buffer", "pointer"], result: "pointer" }, // OSSL_LIB_CTX *, const char *, const char *
  OPENSSL_sk_num: { parameters: ["pointer"], result: "i32" }, // const OPENSSL_STACK *
  OPENSSL_sk_value: { parameters: ["pointer", "i32"], result: "pointer" }, // const OPENSSL_STACK *, int
});

const X509_V_OK = 0, SHA256 = new TextEncoder().encode("SHA256\0");
const DIGEST_BYTES = 32, DAY_MS = 86_400_000;
/** Longer chains are verified each time. Istio's have two or three certificates. */
const CHAIN_CERTIFICATES_MAX = 8;
/** A peer needs a certificate of the mesh to take any of it. */
const CHAINS_MAX = 512;

type Pointer = Deno.PointerObject;

/** A chain, found by all certificates that its peer presented: when it was verified, and when the first of them expires. */
export interface KnownChain {
  readonly sinceMs: number;
  readonly untilMs: number;
  /** What its leaf names, once that was read: as the chain, a function of the bytes it is found by. */
  uris: readonly string[] | undefined;
}

/**
 * What contexts of one thread have verified. A context's roots, purpose and security level never change, so what OpenSSL
 * finds is a function of the certificates that were presented, all of which the digest covers, and of the time. That the
 * peer holds the leaf's key is proved in each handshake, cached or not. Not for contexts with revocation lists: they change.
 */
export class VerifiedChains {
  /** Verifications that were done, and that were known. */
  doneCount = 0;
  knownCount = 0;
  readonly #contexts = new Map<number, Map<string, KnownChain>>();
  /** Of the handshake under way. */
  #chain: KnownChain | null = null;
  #nextId = 1;
  readonly #nowMs: () => number;
  readonly #chainsMax: number;
  readonly #digests = new Uint8Array(DIGEST_BYTES * CHAIN_CERTIFICATES_MAX);
  readonly #digestAt = Array.from(
    { length: CHAIN_CERTIFICATES_MAX },
    (_, at) => this.#digests.subarray(DIGEST_BYTES * at, DIGEST_BYTES * (at + 1)),
  );
  readonly #days = new Int32Array(1);
  readonly #seconds = new Int32Array(1);
  readonly #sha256 = crypto.EVP_MD_fetch(null, SHA256, null); // Once: else it is looked for at each digest.
  readonly #verify: Deno.UnsafeCallback<{ parameters: ["pointer", "pointer"]; result: "i32" }>;

  /** @param nowMs the time of day. @param chainsMax of one context; the oldest makes room. */
  constructor(nowMs: () => number, chainsMax = CHAINS_MAX) {
    this.#nowMs = nowMs;
    this.#chainsMax = chainsMax;
    // int cb(X509_STORE_CTX *, void *), in place of OpenSSL's own verification.
    this.#verify = new Deno.UnsafeCallback(
      { parameters: ["pointer", "pointer"], result: "i32" },
      (store, id) => this.#verifyChain(store!, id === null ? 0 : Number(Deno.UnsafePointer.value(id))),
    );
  }

  /** For SSL_CTX_set_cert_verify_callback, with {@link add}'s number as its argument. */
  get verifyCallback(): Pointer {
    return this.#verify.pointer;
  }

  /** One more context, which has verified nothing yet. @returns Its number, as the pointer that OpenSSL hands back. */
  add(): Pointer {
    const id = this.#nextId++;
    this.#contexts.set(id, new Map());
    return Deno.UnsafePointer.create(BigInt(id))!;
  }

  /** Forgets a context. Handshakes of it that are under way are verified in full. */
  remove(id: Pointer): void {
    this.#contexts.delete(Number(Deno.UnsafePointer.value(id)));
  }

  /** The chain that the step of a handshake just done has verified or known; null: none, or it is not kept. */
  takeChain(): KnownChain | null {
    const chain = this.#chain;
    this.#chain = null;
    return chain;
  }

  #verifyChain(store: Pointer, id: number): number {
    this.#chain = null;
    const chains = this.#contexts.get(id), key = chains === undefined ? "" : this.#keyOf(store);
    const nowMs = this.#nowMs(), known = chains?.get(key);
    if (known !== undefined && known.sinceMs <= nowMs && nowMs < known.untilMs) {
      crypto.X509_STORE_CTX_set_error(store, X509_V_OK);
      this.knownCount++;
      this.#chain = known;
      return 1;
    }
    const verified = crypto.X509_verify_cert(store);
    this.doneCount++;
    if (chains === undefined || key === "") return verified;
    chains.delete(key);
    if (verified !== 1) return verified;
    const leftMs = this.#leftMs(crypto.X509_STORE_CTX_get0_chain(store));
    if (leftMs <= 0) return verified;
    if (chains.size >= this.#chainsMax) { for (const oldest of chains.keys()) if (chains.delete(oldest)) break; }
    this.#chain = { sinceMs: nowMs, untilMs: nowMs + leftMs, uris: undefined };
    chains.set(key, this.#chain);
    return verified;
  }

  /** Digests of all that the peer presented, leaf first; "" when there is no telling. */
  #keyOf(store: Pointer): string {
    const presented = crypto.X509_STORE_CTX_get0_untrusted(store);
    const count = presented === null ? 0 : crypto.OPENSSL_sk_num(presented);
    if (count < 1 || count > CHAIN_CERTIFICATES_MAX) return "";
    const leaf = crypto.OPENSSL_sk_value(presented, 0);
    if (!Deno.UnsafePointer.equals(leaf, crypto.X509_STORE_CTX_get0_cert(store))) return "";
    for (let at = 0; at < count; at++) {
      const certificate = at === 0 ? leaf : crypto.OPENSSL_sk_value(presented, at);
      if (crypto.X509_digest(certificate, this.#sha256, this.#digestAt[at]!, null) !== 1) return "";
    }
    return this.#digests.subarray(0, DIGEST_BYTES * count).toHex();
  }

  /** Until the first certificate of a verified chain expires, its root's included; 0 when there is no telling. */
  #leftMs(chain: Pointer | null): number {
    const count = chain === null ? 0 : crypto.OPENSSL_sk_num(chain);
    let left = count < 1 ? 0 : Infinity;
    for (let at = 0; at < count; at++) {
      const end = crypto.X509_get0_notAfter(crypto.OPENSSL_sk_value(chain, at));
      const days = new Uint8Array(this.#days.buffer), seconds = new Uint8Array(this.#seconds.buffer);
      if (crypto.ASN1_TIME_diff(days, seconds, null, end) !== 1) return 0; // From now, as OpenSSL's clock has it.
      left = Math.min(left, this.#days[0]! * DAY_MS + this.#seconds[0]! * 1_000);
    }
    return left;
  }
}
