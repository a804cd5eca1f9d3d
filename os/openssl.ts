/** OpenSSL 3 for the data plane: contexts, handshakes and the traffic secrets that come out of them. */
import { MeshError } from "../base/errors.ts";
import {
  type ContextHandle,
  HandshakeStep,
  type Memory,
  type PeerPath,
  type RecordOpener,
  type RecordSealer,
  type Tls,
  type TlsHandshake,
  type TlsIdentity,
  type TlsPolicy,
  type TrafficKeys,
} from "./api.ts";
import { ALPN_H2, alpnSelector } from "./alpn.ts";
import { loadLibcrypto, loadLibssl, OPENSSL, showVersion } from "./openssl_library.ts";
import { Revocation, X509_V_ERR_CERT_REVOKED } from "./revocation.ts";
import { CIPHERS_12, hasExtendedMaster, isTls12, takeRecords12, TLS1_2_VERSION } from "./tls12_handshake.ts";
import { type CipherSuite, Opener, RecordCrypto, Sealer, suiteOf } from "./tls_records.ts";
import { type KnownChain, VerifiedChains } from "./verified_chains.ts";

const ssl = loadLibssl({
  OpenSSL_version_num: { parameters: [], result: "u64" },
  TLS_client_method: { parameters: [], result: "pointer" },
  TLS_server_method: { parameters: [], result: "pointer" },
  TLS_method: { parameters: [], result: "pointer" },
  SSL_CTX_new: { parameters: ["pointer"], result: "pointer" }, // const SSL_METHOD *
  SSL_CTX_free: { parameters: ["pointer"], result: "void" }, // SSL_CTX *
  SSL_CTX_up_ref: { parameters: ["pointer"], result: "i32" }, // SSL_CTX *
  SSL_CTX_ctrl: { parameters: ["pointer", "i32", "i64", "pointer"], result: "i64" }, // SSL_CTX *, int cmd, long, void *
  SSL_CTX_set_options: { parameters: ["pointer", "u64"], result: "u64" }, // SSL_CTX *, uint64_t
  SSL_CTX_use_certificate: { parameters: ["pointer", "pointer"], result: "i32" }, // SSL_CTX *, X509 *
  SSL_CTX_use_PrivateKey: { parameters: ["pointer", "pointer"], result: "i32" }, // SSL_CTX *, EVP_PKEY *
  SSL_CTX_check_private_key: { parameters: ["pointer"], result: "i32" }, // const SSL_CTX *
  SSL_CTX_get0_certificate: { parameters: ["pointer"], result: "pointer" }, // const SSL_CTX *
  SSL_CTX_get0_privatekey: { parameters: ["pointer"], result: "pointer" }, // const SSL_CTX *
  SSL_CTX_get_cert_store: { parameters: ["pointer"], result: "pointer" }, // const SSL_CTX *
  SSL_CTX_set_verify: { parameters: ["pointer", "i32", "pointer"], result: "void" }, // SSL_CTX *, int mode, SSL_verify_cb
  SSL_CTX_set_cert_verify_callback: { parameters: ["pointer", "function", "pointer"], result: "void" }, // SSL_CTX *, cb, void *
  SSL_CTX_set_ciphersuites: { parameters: ["pointer", "buffer"], result: "i32" }, // SSL_CTX *, const char *
  SSL_CTX_set_cipher_list: { parameters: ["pointer", "buffer"], result: "i32" }, // SSL_CTX *, const char *
  SSL_CTX_set_alpn_protos: { parameters: ["pointer", "buffer", "u32"], result: "i32" }, // SSL_CTX *, const uchar *, uint
  SSL_CTX_set_alpn_select_cb: { parameters: ["pointer", "function", "pointer"], result: "void" }, // SSL_CTX *, cb, void *
  SSL_CTX_set_keylog_callback: { parameters: ["pointer", "function"], result: "void" }, // SSL_CTX *, cb
  SSL_CTX_set_num_tickets: { parameters: ["pointer", "usize"], result: "i32" }, // SSL_CTX *, size_t
  SSL_new: { parameters: ["pointer"], result: "pointer" }, // SSL_CTX *
  SSL_free: { parameters: ["pointer"], result: "void" }, // SSL *
  SSL_set_fd: { parameters: ["pointer", "i32"], result: "i32" }, // SSL *, int
  SSL_set_connect_state: { parameters: ["pointer"], result: "void" }, // SSL *
  SSL_set_accept_state: { parameters: ["pointer"], result: "void" }, // SSL *
  SSL_set_quiet_shutdown: { parameters: ["pointer", "i32"], result: "void" }, // SSL *, int
  SSL_do_handshake: { parameters: ["pointer"], result: "i32" }, // SSL *
  SSL_get_error: { parameters: ["pointer", "i32"], result: "i32" }, // const SSL *, int
  SSL_get_verify_result: { parameters: ["pointer"], result: "i64" }, // const SSL *
  SSL_get_current_cipher: { parameters: ["pointer"], result: "pointer" }, // const SSL *
  SSL_CIPHER_get_protocol_id: { parameters: ["pointer"], result: "u16" }, // const SSL_CIPHER *
  SSL_get1_peer_certificate: { parameters: ["pointer"], result: "pointer" }, // const SSL *
});

const crypto = loadLibcrypto({
  BIO_new_mem_buf: { parameters: ["buffer", "i32"], result: "pointer" }, // const void *, int
  BIO_free: { parameters: ["pointer"], result: "i32" }, // BIO *
  PEM_read_bio_X509: { parameters: ["pointer", "pointer", "pointer", "pointer"], result: "pointer" }, // BIO *, X509 **, cb, void *
  PEM_read_bio_PrivateKey: { parameters: ["pointer", "pointer", "pointer", "pointer"], result: "pointer" }, // BIO *, EVP_PKEY **, cb, void *
  X509_free: { parameters: ["pointer"], result: "void" }, // X509 *
  EVP_PKEY_free: { parameters: ["pointer"], result: "void" }, // EVP_PKEY *
  X509_STORE_add_cert: { parameters: ["pointer", "pointer"], result: "i32" }, // X509_STORE *, X509 *
  X509_get_ext_d2i: { parameters: ["pointer", "i32", "pointer", "pointer"], result: "pointer" }, // const X509 *, int nid, int *, int *
  GENERAL_NAMES_free: { parameters: ["pointer"], result: "void" }, // GENERAL_NAMES *
  OPENSSL_sk_num: { parameters: ["pointer"], result: "i32" }, // const OPENSSL_STACK *
  OPENSSL_sk_value: { parameters: ["pointer", "i32"], result: "pointer" }, // const OPENSSL_STACK *, int
  GENERAL_NAME_get0_value: { parameters: ["pointer", "buffer"], result: "pointer" }, // const GENERAL_NAME *, int *type
  ASN1_STRING_get0_data: { parameters: ["pointer"], result: "pointer" }, // const ASN1_STRING *
  ASN1_STRING_length: { parameters: ["pointer"], result: "i32" }, // const ASN1_STRING *
  ERR_get_error: { parameters: [], result: "u64" },
  ERR_clear_error: { parameters: [], result: "void" },
  ERR_error_string_n: { parameters: ["u64", "buffer", "usize"], result: "void" }, // unsigned long, char *, size_t
  X509_verify_cert_error_string: { parameters: ["i64"], result: "pointer" }, // long
});

const SSL_CTRL_MODE = 33, SSL_CTRL_SET_SESS_CACHE_MODE = 44;
const SSL_CTRL_CHAIN_CERT = 89, SSL_CTRL_GET_CHAIN_CERTS = 115, SSL_CTRL_SET_VERIFY_CERT_STORE = 106;
const SSL_CTRL_SET_GROUPS_LIST = 92, SSL_CTRL_SET_MIN_PROTO_VERSION = 123;
const TLS1_3_VERSION = 0x304;
const SSL_MODE_RELEASE_BUFFERS = 0x10n;
const SSL_OP_NO_TICKET = 1n << 14n, SSL_OP_NO_COMPRESSION = 1n << 17n, SSL_OP_NO_RENEGOTIATION = 1n << 30n;
const SSL_VERIFY_PEER = 1, SSL_VERIFY_FAIL_IF_NO_PEER_CERT = 2;
const SSL_ERROR_WANT_READ = 2, SSL_ERROR_WANT_WRITE = 3;
const NID_SUBJECT_ALT_NAME = 85, GEN_URI = 6;
const LETTER_T = 0x54;
const URI_BYTES_MAX = 2048, URI_COUNT_MAX = 16;
/** AES-256 first, no ChaCha20 (ZT-080). */
const CIPHER_SUITES = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256";
/** Key exchange in Istio's own order (ZT-080). The last came with OpenSSL 3.5; an older library offers the rest. */
const GROUPS = "X25519:P-256:P-384", POST_QUANTUM_GROUP = "X25519MLKEM768";

const encoder = new TextEncoder();
const zeroTerminated = (text: string) => encoder.encode(text + "\0");

/** Empties this thread's error queue. @returns Its first entry as text, or "". */
function takeError(): string {
  const code = crypto.ERR_get_error();
  crypto.ERR_clear_error();
  if (code === 0n) return "";
  const text = new Uint8Array(256);
  crypto.ERR_error_string_n(code, text, 256n);
  return new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
}

function refused(what: string): MeshError {
  return new MeshError("AMB7052", `OpenSSL refused ${what}: ${takeError() || "no reason given"}`, {
    remedy: "check that the certificate, its key and the roots are PEM and belong together",
  });
}

type Pointer = Deno.PointerObject;

function handleOf(pointer: Pointer): ContextHandle {
  const value = Deno.UnsafePointer.value(pointer);
  return { low: Number(value & 0xffffffffn), high: Number(value >> 32n) };
}

function pointerOf(handle: ContextHandle): Pointer {
  return Deno.UnsafePointer.create(BigInt(handle.high) << 32n | BigInt(handle.low))!;
}

/** Every certificate of a PEM text; the caller frees them. */
function readCertificates(pem: string): Pointer[] {
  const bytes = encoder.encode(pem);
  const bio = crypto.BIO_new_mem_buf(bytes, bytes.length);
  const certificates: Pointer[] = [];
  for (;;) {
    const certificate = crypto.PEM_read_bio_X509(bio, null, null, null);
    if (certificate === null) break;
    certificates.push(certificate);
  }
  crypto.BIO_free(bio);
  crypto.ERR_clear_error(); // The end of the text is an error to the reader.
  return certificates;
}

/**
 * A template context holding certificate, key and roots, for workers to derive theirs from. Made by the agent.
 * @param pem.chain Leaf first, then intermediates. @throws MeshError AMB7052 when a part does not fit the others.
 */
export function createTemplate(pem: { chain: string; privateKey: string; roots: string }): ContextHandle {
  const context = ssl.SSL_CTX_new(ssl.TLS_method());
  if (context === null) throw refused("a new context");
  const chain = readCertificates(pem.chain), roots = readCertificates(pem.roots);
  const keyBytes = encoder.encode(pem.privateKey);
  const bio = crypto.BIO_new_mem_buf(keyBytes, keyBytes.length);
  const key = crypto.PEM_read_bio_PrivateKey(bio, null, null, null);
  try {
    if (chain.length === 0) throw refused("the certificate chain");
    if (roots.length === 0) throw refused("the root certificates");
    if (key === null) throw refused("the private key");
    if (ssl.SSL_CTX_use_certificate(context, chain[0]!) !== 1) throw refused("the leaf certificate");
    if (ssl.SSL_CTX_use_PrivateKey(context, key) !== 1) throw refused("the private key");
    if (ssl.SSL_CTX_check_private_key(context) !== 1) throw refused("the pair of certificate and key");
    for (const intermediate of chain.slice(1)) {
      if (ssl.SSL_CTX_ctrl(context, SSL_CTRL_CHAIN_CERT, 1n, intermediate) !== 1n) {
        throw refused("an intermediate certificate");
      }
    }
    const store = ssl.SSL_CTX_get_cert_store(context);
    for (const root of roots) if (crypto.X509_STORE_add_cert(store, root) !== 1) throw refused("a root certificate");
    return handleOf(context);
  } catch (error) {
    ssl.SSL_CTX_free(context);
    throw error;
  } finally {
    for (const certificate of [...chain, ...roots]) crypto.X509_free(certificate);
    if (key !== null) crypto.EVP_PKEY_free(key);
    crypto.BIO_free(bio);
  }
}

/** One more owner of a template: each worker that is told of it takes one reference and frees it. */
export function retainTemplate(handle: ContextHandle): void {
  ssl.SSL_CTX_up_ref(pointerOf(handle));
}

/** Gives up one reference. */
export function releaseTemplate(handle: ContextHandle): void {
  ssl.SSL_CTX_free(pointerOf(handle));
}

/** @throws MeshError AMB7057 when the library cannot do what the policy asks for. */
function setGroups(context: Pointer, policy: TlsPolicy): void {
  if (policy.postQuantumOnly === true) {
    if (takesGroups(context, POST_QUANTUM_GROUP)) return;
    throw new MeshError("AMB7057", `OpenSSL ${opensslVersion()} (${OPENSSL.libssl}) has no ${POST_QUANTUM_GROUP}`, {
      remedy: "post-quantum key exchange needs OpenSSL 3.5 or newer: build one with `deno task openssl`, or name one " +
        "with --openssl",
    });
  }
  if (takesGroups(context, `${GROUPS}:${POST_QUANTUM_GROUP}`) || takesGroups(context, GROUPS)) return;
  throw refused(`the groups ${GROUPS}`);
}

function takesGroups(context: Pointer, groups: string): boolean {
  const list = zeroTerminated(groups);
  const taken = ssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_GROUPS_LIST, 0n, Deno.UnsafePointer.of(list)) === 1n;
  crypto.ERR_clear_error();
  return taken;
}

/** Whether the library can do what the policy asks for. @throws MeshError AMB7057 */
export function checkPolicy(policy: TlsPolicy): void {
  const context = ssl.SSL_CTX_new(ssl.TLS_method());
  if (context === null) throw refused("a new context");
  try {
    setGroups(context, policy);
  } finally {
    ssl.SSL_CTX_free(context);
  }
}

/** `3.0.19` and the like, of the library that was loaded. */
export function opensslVersion(): string {
  return showVersion(Number(ssl.OpenSSL_version_num()));
}

/** One worker's view of OpenSSL: callbacks belong to the thread that made them, so each worker makes its own. */
export class OpenSsl implements Tls {
  readonly records: RecordCrypto;
  readonly revocation: Revocation | null;
  /** null where revocation lists are in force. */
  readonly verified: VerifiedChains | null;
  /** Secrets of the handshake under way; OpenSSL calls back synchronously from within the step. */
  clientSecret: Uint8Array | undefined;
  serverSecret: Uint8Array | undefined;
  readonly #policy: TlsPolicy;
  readonly #keylog: Deno.UnsafeCallback<{ parameters: ["pointer", "pointer"]; result: "void" }>;
  readonly #alpn: ReturnType<typeof alpnSelector>;

  /** @param verified what this thread's contexts have verified, instead of one that begins empty. */
  constructor(arena: Memory, policy: TlsPolicy = {}, verified = new VerifiedChains(Date.now)) {
    this.#policy = policy;
    this.records = new RecordCrypto(arena);
    this.revocation = policy.revocation === true ? new Revocation() : null;
    this.verified = this.revocation === null ? verified : null;
    this.#keylog = new Deno.UnsafeCallback({ parameters: ["pointer", "pointer"], result: "void" }, (_ssl, line) => {
      // CLIENT_TRAFFIC… and SERVER_TRAFFIC…; the four lines of every handshake that are something else are not read.
      if (new Deno.UnsafePointerView(line!).getUint8(7) !== LETTER_T) return;
      const text = Deno.UnsafePointerView.getCString(line!);
      if (text.startsWith("CLIENT_TRAFFIC_SECRET_0 ")) this.clientSecret = secretOf(text);
      else if (text.startsWith("SERVER_TRAFFIC_SECRET_0 ")) this.serverSecret = secretOf(text);
    });
    this.#alpn = alpnSelector(arena);
  }

  derive(template: ContextHandle): TlsIdentity {
    const source = pointerOf(template);
    try {
      const known = [this.verified?.add() ?? null, this.verified?.add() ?? null] as const;
      const client = this.#context(source, false, known[0]), server = this.#context(source, true, known[1]);
      return new OpenSslIdentity(this, { client, server, known });
    } finally {
      ssl.SSL_CTX_free(source);
    }
  }

  resumeRecords(seal: TrafficKeys, open: TrafficKeys): { sealer: Sealer; opener: Opener } | undefined {
    const sealing = suiteOf(seal), opening = suiteOf(open);
    if (sealing === undefined || opening === undefined) return undefined;
    return {
      sealer: new Sealer(this.records, sealing, seal.secret, seal.sequence),
      opener: new Opener(this.records, opening, open.secret, open.sequence),
    };
  }

  #context(template: Pointer, server: boolean, known: Pointer | null): Pointer {
    const context = ssl.SSL_CTX_new(server ? ssl.TLS_server_method() : ssl.TLS_client_method());
    if (context === null) throw refused("a new context");
    const tls12 = this.#policy.tls12 === true && this.#policy.postQuantumOnly !== true;
    const oldest = BigInt(tls12 ? TLS1_2_VERSION : TLS1_3_VERSION);
    ssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, oldest, null); // ZT-079
    if (tls12 && ssl.SSL_CTX_set_cipher_list(context, zeroTerminated(CIPHERS_12)) !== 1) throw refused("its suites");
    ssl.SSL_CTX_ctrl(context, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, null);
    ssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, 0n, null); // No resumption either way (ZT-081).
    ssl.SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    const fits = ssl.SSL_CTX_use_certificate(context, ssl.SSL_CTX_get0_certificate(template)) === 1 &&
      ssl.SSL_CTX_use_PrivateKey(context, ssl.SSL_CTX_get0_privatekey(template)) === 1 &&
      ssl.SSL_CTX_set_ciphersuites(context, zeroTerminated(CIPHER_SUITES)) === 1;
    if (!fits) throw refused("the template's certificate");
    setGroups(context, this.#policy);
    const chain = new BigUint64Array(1);
    ssl.SSL_CTX_ctrl(template, SSL_CTRL_GET_CHAIN_CERTS, 0n, Deno.UnsafePointer.of(chain));
    const certificates = Deno.UnsafePointer.create(chain[0]!);
    for (let at = 0; certificates !== null && at < crypto.OPENSSL_sk_num(certificates); at++) {
      ssl.SSL_CTX_ctrl(context, SSL_CTRL_CHAIN_CERT, 1n, crypto.OPENSSL_sk_value(certificates, at));
    }
    ssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_VERIFY_CERT_STORE, 1n, ssl.SSL_CTX_get_cert_store(template));
    ssl.SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, null); // ZT-083, ZT-085
    if (this.revocation !== null) {
      ssl.SSL_CTX_set_cert_verify_callback(context, this.revocation.verifyCallback, null); // ZT-088
    } else if (this.verified !== null) {
      ssl.SSL_CTX_set_cert_verify_callback(context, this.verified.verifyCallback, known);
    }
    if (server) {
      ssl.SSL_CTX_set_num_tickets(context, 0n);
      ssl.SSL_CTX_set_alpn_select_cb(context, this.#alpn.pointer, null);
    } else if (ssl.SSL_CTX_set_alpn_protos(context, ALPN_H2, ALPN_H2.length) !== 0) throw refused("ALPN h2");
    ssl.SSL_CTX_set_keylog_callback(context, this.#keylog.pointer);
    return context;
  }
}

/** The secret at the end of a line of the key log (label, client random, secret). */
function secretOf(line: string): Uint8Array {
  return Uint8Array.fromHex(line.slice(line.lastIndexOf(" ") + 1));
}

class OpenSslIdentity implements TlsIdentity {
  readonly #owner: OpenSsl;
  readonly #client: Pointer;
  readonly #server: Pointer;
  /** Numbers of the two in {@link OpenSsl.verified}. */
  readonly #known: readonly (Pointer | null)[];

  constructor(
    owner: OpenSsl,
    own: { readonly client: Pointer; readonly server: Pointer; readonly known: readonly (Pointer | null)[] },
  ) {
    this.#owner = owner;
    this.#client = own.client;
    this.#server = own.server;
    this.#known = own.known;
  }

  connect(fd: number): TlsHandshake {
    return new OpenSslHandshake(this.#owner, this.#client, fd, false);
  }

  accept(fd: number): TlsHandshake {
    return new OpenSslHandshake(this.#owner, this.#server, fd, true);
  }

  /** Handshakes under way keep their context alive; new ones must not be started. */
  free(): void {
    for (const id of this.#known) if (id !== null) this.#owner.verified?.remove(id);
    ssl.SSL_CTX_free(this.#client);
    ssl.SSL_CTX_free(this.#server);
  }
}

class OpenSslHandshake implements TlsHandshake {
  readonly #owner: OpenSsl;
  readonly #server: boolean;
  #ssl: Pointer | null;
  #clientSecret: Uint8Array | undefined;
  #serverSecret: Uint8Array | undefined;
  #path: PeerPath | null = null;
  /** What this handshake's peer presented, if it is kept. */
  #chain: KnownChain | null = null;
  #failure = "";
  peerRevoked = false;

  constructor(owner: OpenSsl, context: Pointer, fd: number, server: boolean) {
    this.#owner = owner;
    this.#server = server;
    const handle = ssl.SSL_new(context);
    if (handle === null) throw refused("a new connection");
    this.#ssl = handle;
    ssl.SSL_set_fd(handle, fd); // BIO_NOCLOSE: the descriptor stays ours.
    ssl.SSL_set_quiet_shutdown(handle, 1);
    if (server) ssl.SSL_set_accept_state(handle);
    else ssl.SSL_set_connect_state(handle);
  }

  step(): HandshakeStep {
    const owner = this.#owner;
    owner.clientSecret = this.#clientSecret;
    owner.serverSecret = this.#serverSecret;
    crypto.ERR_clear_error();
    const result = ssl.SSL_do_handshake(this.#ssl);
    this.#clientSecret = owner.clientSecret;
    this.#serverSecret = owner.serverSecret;
    owner.clientSecret = undefined;
    owner.serverSecret = undefined;
    if (owner.revocation !== null) this.#path = owner.revocation.takePath() ?? this.#path;
    else this.#chain = owner.verified!.takeChain() ?? this.#chain;
    if (result === 1) {
      if (!isTls12(this.#ssl!) || hasExtendedMaster(this.#ssl!)) {
        return HandshakeStep.DONE;
      }
      this.#failure = "the peer's TLS 1.2 has no extended master secret"; // RFC 7627 §5.4: its keys may be another's too.
      return HandshakeStep.FAILED;
    }
    const error = ssl.SSL_get_error(this.#ssl, result);
    if (error === SSL_ERROR_WANT_READ) return HandshakeStep.WANTS_READ;
    if (error === SSL_ERROR_WANT_WRITE) return HandshakeStep.WANTS_WRITE;
    const verify = ssl.SSL_get_verify_result(this.#ssl);
    this.#failure = takeError() || "the peer closed the connection";
    this.peerRevoked = verify === BigInt(X509_V_ERR_CERT_REVOKED);
    if (verify !== 0n) {
      const text = crypto.X509_verify_cert_error_string(verify);
      if (text !== null) this.#failure += ` (${Deno.UnsafePointerView.getCString(text)})`;
    }
    return HandshakeStep.FAILED;
  }

  failure(): string {
    return this.#failure;
  }

  peerUris(): readonly string[] {
    const chain = this.#chain;
    if (chain === null) return this.#readUris();
    return chain.uris ??= this.#readUris();
  }

  #readUris(): readonly string[] {
    const certificate = ssl.SSL_get1_peer_certificate(this.#ssl);
    if (certificate === null) return [];
    const names = crypto.X509_get_ext_d2i(certificate, NID_SUBJECT_ALT_NAME, null, null);
    const uris: string[] = [];
    const type = new Int32Array(1);
    const count = names === null ? 0 : Math.min(crypto.OPENSSL_sk_num(names), URI_COUNT_MAX);
    for (let at = 0; at < count; at++) {
      const value = crypto.GENERAL_NAME_get0_value(crypto.OPENSSL_sk_value(names, at), new Uint8Array(type.buffer));
      if (type[0] !== GEN_URI || value === null) continue;
      const bytes = crypto.ASN1_STRING_length(value), data = crypto.ASN1_STRING_get0_data(value);
      if (data === null || bytes < 1 || bytes > URI_BYTES_MAX) continue;
      const text = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(data, bytes)).slice();
      // IA5String: a byte outside printable ASCII (a NUL before all) makes the name no identity.
      if (text.every((byte) => byte > 0x20 && byte < 0x7f)) uris.push(String.fromCharCode(...text));
    }
    if (names !== null) crypto.GENERAL_NAMES_free(names);
    crypto.X509_free(certificate);
    return uris;
  }

  takePath(): PeerPath | null {
    const path = this.#path;
    this.#path = null;
    return path;
  }

  takeRecords(): { sealer: RecordSealer; opener: RecordOpener } {
    const taken = isTls12(this.#ssl!) ? this.#takeRecords12() : this.#takeRecords13();
    this.free();
    return taken;
  }

  #takeRecords12(): { sealer: RecordSealer; opener: RecordOpener } {
    const id = ssl.SSL_CIPHER_get_protocol_id(ssl.SSL_get_current_cipher(this.#ssl));
    return takeRecords12(this.#ssl!, id, this.#server, this.#owner.records);
  }

  #takeRecords13(): { sealer: Sealer; opener: Opener } {
    const id = ssl.SSL_CIPHER_get_protocol_id(ssl.SSL_get_current_cipher(this.#ssl));
    const suite: CipherSuite = id === 0x1302 ? "aes256" : "aes128"; // Only these two are ever offered or taken.
    const records = this.#owner.records;
    const own = this.#server ? this.#serverSecret! : this.#clientSecret!;
    const peers = this.#server ? this.#clientSecret! : this.#serverSecret!;
    return { sealer: new Sealer(records, suite, own), opener: new Opener(records, suite, peers) };
  }

  free(): void {
    if (this.#ssl === null) return;
    ssl.SSL_free(this.#ssl);
    this.#ssl = null;
    this.#path?.free();
    this.#path = null;
    this.#clientSecret?.fill(0);
    this.#serverSecret?.fill(0);
  }
}
