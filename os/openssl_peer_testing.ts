/** For tests: the other end of a TLS connection, plain OpenSSL from handshake to close, over a non-blocking socket. */
import { assert } from "../base/assert.ts";
import { loadLibcrypto, loadLibssl } from "./openssl_library.ts";

const ssl = loadLibssl({
  TLS_method: { parameters: [], result: "pointer" },
  SSL_CTX_new: { parameters: ["pointer"], result: "pointer" }, // const SSL_METHOD *
  SSL_CTX_free: { parameters: ["pointer"], result: "void" }, // SSL_CTX *
  SSL_CTX_ctrl: { parameters: ["pointer", "i32", "i64", "pointer"], result: "i64" }, // SSL_CTX *, int cmd, long, void *
  SSL_CTX_use_certificate: { parameters: ["pointer", "pointer"], result: "i32" }, // SSL_CTX *, X509 *
  SSL_CTX_use_PrivateKey: { parameters: ["pointer", "pointer"], result: "i32" }, // SSL_CTX *, EVP_PKEY *
  SSL_CTX_get_cert_store: { parameters: ["pointer"], result: "pointer" }, // const SSL_CTX *
  SSL_CTX_set_verify: { parameters: ["pointer", "i32", "pointer"], result: "void" }, // SSL_CTX *, int mode, SSL_verify_cb
  SSL_CTX_set_cipher_list: { parameters: ["pointer", "buffer"], result: "i32" }, // SSL_CTX *, const char *
  SSL_CTX_set_options: { parameters: ["pointer", "u64"], result: "u64" }, // SSL_CTX *, uint64_t
  SSL_CTX_set_ciphersuites: { parameters: ["pointer", "buffer"], result: "i32" }, // SSL_CTX *, const char *
  SSL_CTX_set_alpn_protos: { parameters: ["pointer", "buffer", "u32"], result: "i32" }, // SSL_CTX *, const uchar *, uint
  SSL_CTX_set_block_padding: { parameters: ["pointer", "usize"], result: "i32" }, // SSL_CTX *, size_t
  SSL_CTX_set_num_tickets: { parameters: ["pointer", "usize"], result: "i32" }, // SSL_CTX *, size_t
  SSL_CTX_set_keylog_callback: { parameters: ["pointer", "function"], result: "void" }, // SSL_CTX *, cb
  SSL_CTX_set_session_id_context: { parameters: ["pointer", "buffer", "u32"], result: "i32" }, // SSL_CTX *, const uchar *, uint
  SSL_ctrl: { parameters: ["pointer", "i32", "i64", "pointer"], result: "i64" }, // SSL *, int cmd, long, void *
  SSL_new: { parameters: ["pointer"], result: "pointer" }, // SSL_CTX *
  SSL_free: { parameters: ["pointer"], result: "void" }, // SSL *
  SSL_set_fd: { parameters: ["pointer", "i32"], result: "i32" }, // SSL *, int
  SSL_set_connect_state: { parameters: ["pointer"], result: "void" }, // SSL *
  SSL_set_accept_state: { parameters: ["pointer"], result: "void" }, // SSL *
  SSL_do_handshake: { parameters: ["pointer"], result: "i32" }, // SSL *
  SSL_read: { parameters: ["pointer", "buffer", "i32"], result: "i32" }, // SSL *, void *, int
  SSL_write: { parameters: ["pointer", "buffer", "i32"], result: "i32" }, // SSL *, const void *, int
  SSL_shutdown: { parameters: ["pointer"], result: "i32" }, // SSL *
  SSL_renegotiate: { parameters: ["pointer"], result: "i32" }, // SSL *
  SSL_version: { parameters: ["pointer"], result: "i32" }, // const SSL *
  SSL_get_client_random: { parameters: ["pointer", "buffer", "usize"], result: "usize" }, // const SSL *, uchar *, size_t
  SSL_get_server_random: { parameters: ["pointer", "buffer", "usize"], result: "usize" }, // const SSL *, uchar *, size_t
  SSL_key_update: { parameters: ["pointer", "i32"], result: "i32" }, // SSL *, int updatetype
  SSL_get_error: { parameters: ["pointer", "i32"], result: "i32" }, // const SSL *, int
  SSL_get_shutdown: { parameters: ["pointer"], result: "i32" }, // const SSL *
  SSL_get1_session: { parameters: ["pointer"], result: "pointer" }, // SSL *
  SSL_set_session: { parameters: ["pointer", "pointer"], result: "i32" }, // SSL *, SSL_SESSION *
  SSL_SESSION_free: { parameters: ["pointer"], result: "void" }, // SSL_SESSION *
  SSL_SESSION_is_resumable: { parameters: ["pointer"], result: "i32" }, // const SSL_SESSION *
  SSL_session_reused: { parameters: ["pointer"], result: "i32" }, // const SSL *
  SSL_get_current_cipher: { parameters: ["pointer"], result: "pointer" }, // const SSL *
  SSL_CIPHER_get_name: { parameters: ["pointer"], result: "pointer" }, // const SSL_CIPHER *
  SSL_get0_alpn_selected: { parameters: ["pointer", "buffer", "buffer"], result: "void" }, // const SSL *, const uchar **, uint *
  SSL_get_servername: { parameters: ["pointer", "i32"], result: "pointer" }, // const SSL *, int type
});

const crypto = loadLibcrypto({
  BIO_new_mem_buf: { parameters: ["buffer", "i32"], result: "pointer" }, // const void *, int
  BIO_free: { parameters: ["pointer"], result: "i32" }, // BIO *
  PEM_read_bio_X509: { parameters: ["pointer", "pointer", "pointer", "pointer"], result: "pointer" }, // BIO *, X509 **, cb, void *
  PEM_read_bio_PrivateKey: { parameters: ["pointer", "pointer", "pointer", "pointer"], result: "pointer" }, // BIO *, EVP_PKEY **, cb, void *
  X509_free: { parameters: ["pointer"], result: "void" }, // X509 *
  EVP_PKEY_free: { parameters: ["pointer"], result: "void" }, // EVP_PKEY *
  X509_STORE_add_cert: { parameters: ["pointer", "pointer"], result: "i32" }, // X509_STORE *, X509 *
  ERR_get_error: { parameters: [], result: "u64" },
  ERR_clear_error: { parameters: [], result: "void" },
  ERR_error_string_n: { parameters: ["u64", "buffer", "usize"], result: "void" }, // unsigned long, char *, size_t
});

const SSL_CTRL_CHAIN_CERT = 89;
const SSL_CTRL_SET_GROUPS_LIST = 92, SSL_CTRL_GET_NEGOTIATED_GROUP = 134;
const SSL_CTRL_MODE = 33, SSL_CTRL_SET_MIN_PROTO_VERSION = 123, SSL_CTRL_SET_MAX_PROTO_VERSION = 124;
const SSL_MODE_ENABLE_PARTIAL_WRITE = 1n, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER = 2n;
const SSL_OP_NO_EXTENDED_MASTER_SECRET = 1n;
const SSL_VERIFY_PEER = 1, SSL_VERIFY_FAIL_IF_NO_PEER_CERT = 2;
const SSL_ERROR_SSL = 1, SSL_ERROR_WANT_READ = 2, SSL_ERROR_WANT_WRITE = 3, SSL_ERROR_ZERO_RETURN = 6;
const KEY_UPDATE_NOT_REQUESTED = 0, KEY_UPDATE_REQUESTED = 1;
/** OpenSSL's own numbers, for groups that it has some for. */
const GROUP_OF_NID: Readonly<Record<number, number>> = { 415: 23, 715: 24, 1034: 29 };
/** `SSL_R_SSLV3_ALERT_…` is this plus the alert's number. */
const ALERT_REASON_OFFSET = 1000;

const encoder = new TextEncoder();

function takeError(): { text: string; alert: number } {
  let first = "", alert = -1;
  for (;;) {
    const code = crypto.ERR_get_error();
    if (code === 0n) return { text: first, alert };
    const text = new Uint8Array(256);
    crypto.ERR_error_string_n(code, text, 256n);
    if (first === "") first = new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
    const reason = Number(code & 0x7fffffn);
    if (alert < 0 && reason > ALERT_REASON_OFFSET && reason < ALERT_REASON_OFFSET + 256) {
      alert = reason - ALERT_REASON_OFFSET;
    }
  }
}

export interface PeerOptions {
  readonly server: boolean;
  /** undefined: no certificate of its own. */
  readonly leaf?: { readonly chain: string; readonly privateKey: string };
  /** undefined: whoever answers is believed. */
  readonly roots?: string;
  /** Wire form, such as `\x02h2`; undefined: no ALPN. */
  readonly alpn?: string;
  readonly ciphers?: string;
  readonly tls12Only?: boolean;
  /** A TLS 1.2 without extended master secret. */
  readonly noExtendedMaster?: boolean;
  /** Key exchange, such as `X25519:P-256`. */
  readonly groups?: string;
  /** Records are padded to a multiple of this. */
  readonly blockPadding?: number;
  readonly tickets?: number;
  /** A session of another connection, to offer for resumption. */
  readonly resume?: Deno.PointerObject;
}

export const PeerState = { AGAIN: 0, DONE: 1, FAILED: 2 } as const;

/** One connection of a plain OpenSSL peer. {@link free} it; the descriptor stays the caller's. */
export class OpenSslPeer {
  readonly #context: Deno.PointerObject;
  readonly #ssl: Deno.PointerObject;
  readonly #keylog: Deno.UnsafeCallback<{ parameters: ["pointer", "pointer"]; result: "void" }>;
  readonly #scratch = new Uint8Array(65_536);
  /** Lines of the key log: label, client random, secret. */
  readonly secrets = new Map<string, Uint8Array<ArrayBuffer>>();
  /** Why the last call failed, and the alert that the other side sent, or -1. */
  failure = "";
  alert = -1;
  /** The other side has said close_notify. */
  closed = false;

  constructor(fd: number, options: PeerOptions) {
    const context = ssl.SSL_CTX_new(ssl.TLS_method());
    assert(context !== null, "OpenSSL has memory for a context");
    this.#context = context;
    if (options.tls12Only === true) ssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, 0x303n, null);
    else ssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, 0x304n, null);
    ssl.SSL_CTX_ctrl(context, SSL_CTRL_MODE, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER, null);
    if (options.noExtendedMaster === true) ssl.SSL_CTX_set_options(context, SSL_OP_NO_EXTENDED_MASTER_SECRET);
    ssl.SSL_CTX_set_session_id_context(context, Uint8Array.of(1), 1);
    if (options.ciphers !== undefined) {
      const list = encoder.encode(options.ciphers + "\0");
      const taken = options.tls12Only === true
        ? ssl.SSL_CTX_set_cipher_list(context, list)
        : ssl.SSL_CTX_set_ciphersuites(context, list);
      assert(taken === 1, "suites are known");
    }
    if (options.groups !== undefined) {
      const groups = encoder.encode(options.groups + "\0");
      const taken = ssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_GROUPS_LIST, 0n, Deno.UnsafePointer.of(groups));
      assert(taken === 1n, "groups are known");
    }
    if (options.leaf !== undefined) this.#useLeaf(options.leaf);
    if (options.roots !== undefined) this.#trust(options.roots);
    if (options.alpn !== undefined) {
      const protocols = Uint8Array.from(options.alpn, (letter) => letter.charCodeAt(0));
      assert(ssl.SSL_CTX_set_alpn_protos(context, protocols, protocols.length) === 0, "ALPN is well-formed");
    }
    if (options.blockPadding !== undefined) ssl.SSL_CTX_set_block_padding(context, BigInt(options.blockPadding));
    if (options.tickets !== undefined) ssl.SSL_CTX_set_num_tickets(context, BigInt(options.tickets));
    this.#keylog = new Deno.UnsafeCallback({ parameters: ["pointer", "pointer"], result: "void" }, (_ssl, line) => {
      const [label, , secret] = Deno.UnsafePointerView.getCString(line!).split(" ");
      this.secrets.set(label!, Uint8Array.fromHex(secret!));
    });
    ssl.SSL_CTX_set_keylog_callback(context, this.#keylog.pointer);
    const handle = ssl.SSL_new(context);
    assert(handle !== null, "OpenSSL has memory for a connection");
    this.#ssl = handle;
    ssl.SSL_set_fd(handle, fd);
    if (options.resume !== undefined) ssl.SSL_set_session(handle, options.resume);
    if (options.server) ssl.SSL_set_accept_state(handle);
    else ssl.SSL_set_connect_state(handle);
  }

  #useLeaf(leaf: { readonly chain: string; readonly privateKey: string }): void {
    const chain = encoder.encode(leaf.chain), key = encoder.encode(leaf.privateKey);
    const chainBio = crypto.BIO_new_mem_buf(chain, chain.length), keyBio = crypto.BIO_new_mem_buf(key, key.length);
    const certificate = crypto.PEM_read_bio_X509(chainBio, null, null, null);
    const privateKey = crypto.PEM_read_bio_PrivateKey(keyBio, null, null, null);
    const used = ssl.SSL_CTX_use_certificate(this.#context, certificate) === 1 &&
      ssl.SSL_CTX_use_PrivateKey(this.#context, privateKey) === 1;
    assert(used, "the leaf is well-formed");
    for (;;) {
      const further = crypto.PEM_read_bio_X509(chainBio, null, null, null);
      if (further === null) break;
      ssl.SSL_CTX_ctrl(this.#context, SSL_CTRL_CHAIN_CERT, 1n, further);
      crypto.X509_free(further);
    }
    crypto.ERR_clear_error(); // The end of the text is an error to the reader.
    crypto.X509_free(certificate);
    crypto.EVP_PKEY_free(privateKey);
    crypto.BIO_free(chainBio);
    crypto.BIO_free(keyBio);
  }

  #trust(roots: string): void {
    const bytes = encoder.encode(roots), bio = crypto.BIO_new_mem_buf(bytes, bytes.length);
    const root = crypto.PEM_read_bio_X509(bio, null, null, null);
    crypto.X509_STORE_add_cert(ssl.SSL_CTX_get_cert_store(this.#context), root);
    crypto.X509_free(root);
    crypto.BIO_free(bio);
    ssl.SSL_CTX_set_verify(this.#context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, null);
  }

  step(): number {
    crypto.ERR_clear_error();
    const result = ssl.SSL_do_handshake(this.#ssl);
    return result === 1 ? PeerState.DONE : this.#failed(result);
  }

  /** @returns Bytes written, 0 if the socket takes none now, -1 when the connection failed. */
  write(bytes: Uint8Array<ArrayBuffer>): number {
    crypto.ERR_clear_error();
    const result = ssl.SSL_write(this.#ssl, bytes, bytes.length);
    if (result > 0) return result;
    return this.#failed(result) === PeerState.AGAIN ? 0 : -1;
  }

  /** What has come, or undefined: nothing now, the end ({@link closed}) or a {@link failure}. */
  read(): Uint8Array<ArrayBuffer> | undefined {
    crypto.ERR_clear_error();
    const result = ssl.SSL_read(this.#ssl, this.#scratch, this.#scratch.length);
    if (result > 0) return this.#scratch.slice(0, result);
    this.#failed(result);
    return undefined;
  }

  #failed(result: number): number {
    const error = ssl.SSL_get_error(this.#ssl, result);
    if (error === SSL_ERROR_WANT_READ || error === SSL_ERROR_WANT_WRITE) return PeerState.AGAIN;
    if (error === SSL_ERROR_ZERO_RETURN) {
      this.closed = true;
      return PeerState.FAILED;
    }
    const { text, alert } = takeError();
    this.failure = text !== "" ? text : error === SSL_ERROR_SSL ? "unknown" : "end of the socket";
    if (alert >= 0) this.alert = alert;
    return PeerState.FAILED;
  }

  /** A KeyUpdate with the next write. @param request asks the other side for one in return. */
  keyUpdate(request: boolean): void {
    const type = request ? KEY_UPDATE_REQUESTED : KEY_UPDATE_NOT_REQUESTED;
    assert(ssl.SSL_key_update(this.#ssl, type) === 1, "OpenSSL can update its key now");
  }

  /** Asks for another handshake, as TLS 1.2 can. */
  renegotiate(): void {
    assert(ssl.SSL_renegotiate(this.#ssl) === 1, "OpenSSL can renegotiate");
    ssl.SSL_do_handshake(this.#ssl);
  }

  get tls12(): boolean {
    return ssl.SSL_version(this.#ssl) === 0x303;
  }

  /** What both sides put into a handshake of TLS 1.2. */
  get randoms(): { client: Uint8Array; server: Uint8Array } {
    const client = new Uint8Array(32), server = new Uint8Array(32);
    ssl.SSL_get_client_random(this.#ssl, client, 32n);
    ssl.SSL_get_server_random(this.#ssl, server, 32n);
    return { client, server };
  }

  /** Says close_notify. */
  shutdown(): void {
    ssl.SSL_shutdown(this.#ssl);
  }

  get cipher(): string {
    return Deno.UnsafePointerView.getCString(ssl.SSL_CIPHER_get_name(ssl.SSL_get_current_cipher(this.#ssl))!);
  }

  /** The group of the key exchange, as its number in TLS. */
  get group(): number {
    const number = Number(ssl.SSL_ctrl(this.#ssl, SSL_CTRL_GET_NEGOTIATED_GROUP, 0n, null));
    return GROUP_OF_NID[number] ?? number & 0xffff;
  }

  get alpn(): string {
    const pointer = new BigUint64Array(1), length = new Uint32Array(1);
    ssl.SSL_get0_alpn_selected(this.#ssl, new Uint8Array(pointer.buffer), new Uint8Array(length.buffer));
    if (length[0] === 0) return "";
    const bytes = Deno.UnsafePointerView.getArrayBuffer(Deno.UnsafePointer.create(pointer[0]!)!, length[0]!);
    return new TextDecoder().decode(new Uint8Array(bytes).slice());
  }

  /** The name that the client asked for (SNI), or undefined. */
  get serverName(): string | undefined {
    const name = ssl.SSL_get_servername(this.#ssl, 0);
    return name === null ? undefined : Deno.UnsafePointerView.getCString(name);
  }

  get resumed(): boolean {
    return ssl.SSL_session_reused(this.#ssl) === 1;
  }

  /** Whether what this connection learned could resume another. */
  get resumable(): boolean {
    const session = ssl.SSL_get1_session(this.#ssl);
    if (session === null) return false;
    const resumable = ssl.SSL_SESSION_is_resumable(session) === 1;
    ssl.SSL_SESSION_free(session);
    return resumable;
  }

  /** This connection's session; {@link freeSession} follows. */
  takeSession(): Deno.PointerObject {
    const session = ssl.SSL_get1_session(this.#ssl);
    assert(session !== null, "a connection has a session");
    return session;
  }

  static freeSession(session: Deno.PointerObject): void {
    ssl.SSL_SESSION_free(session);
  }

  free(): void {
    ssl.SSL_free(this.#ssl);
    ssl.SSL_CTX_free(this.#context);
    this.#keylog.close();
  }
}
