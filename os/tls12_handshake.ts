/** What a handshake of TLS 1.2 leaves behind: its version, its suite, its keys. */
import { assert } from "../base/assert.ts";
import type { RecordOpener, RecordSealer } from "./api.ts";
import { loadLibssl } from "./openssl_library.ts";
import { expandMaster, Opener12, Sealer12 } from "./tls12_records.ts";
import type { CipherSuite, RecordCrypto } from "./tls_records.ts";

const ssl = loadLibssl({
  SSL_version: { parameters: ["pointer"], result: "i32" }, // const SSL *
  SSL_ctrl: { parameters: ["pointer", "i32", "i64", "pointer"], result: "i64" }, // SSL *, int cmd, long, void *
  SSL_get_session: { parameters: ["pointer"], result: "pointer" }, // const SSL *
  SSL_SESSION_get_master_key: { parameters: ["pointer", "buffer", "usize"], result: "usize" }, // const SSL_SESSION *, uchar *, size_t
  SSL_get_client_random: { parameters: ["pointer", "buffer", "usize"], result: "usize" }, // const SSL *, uchar *, size_t
  SSL_get_server_random: { parameters: ["pointer", "buffer", "usize"], result: "usize" }, // const SSL *, uchar *, size_t
});

export const TLS1_2_VERSION = 0x303;
const SSL_CTRL_GET_EXTMS_SUPPORT = 122;
/** AES-256 first, forward secrecy always, for either kind of certificate (ZT-080). */
export const CIPHERS_12 = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" +
  "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256";
/** Their numbers on the wire (RFC 5289 §3.2). */
const SUITES: Readonly<Record<number, CipherSuite>> = {
  0xc02b: "aes128",
  0xc02c: "aes256",
  0xc02f: "aes128",
  0xc030: "aes256",
};
const RANDOM_BYTES = 32, MASTER_BYTES = 48;

/** Whether a connection agreed on TLS 1.2. */
export function isTls12(handle: Deno.PointerObject): boolean {
  return ssl.SSL_version(handle) === TLS1_2_VERSION;
}

/** Whether its master secret stands for the whole handshake (RFC 7627 §4). */
export function hasExtendedMaster(handle: Deno.PointerObject): boolean {
  return ssl.SSL_ctrl(handle, SSL_CTRL_GET_EXTMS_SUPPORT, 0n, null) === 1n;
}

/** The record layer of a handshake that is done, by the suite's number. The handshake stays its owner's. */
export function takeRecords12(
  handle: Deno.PointerObject,
  suiteId: number,
  server: boolean,
  records: RecordCrypto,
): { sealer: RecordSealer; opener: RecordOpener } {
  const suite = SUITES[suiteId];
  assert(suite !== undefined, "only suites that were offered are agreed on");
  const master = new Uint8Array(MASTER_BYTES);
  const randoms = { client: new Uint8Array(RANDOM_BYTES), server: new Uint8Array(RANDOM_BYTES) };
  const got = ssl.SSL_SESSION_get_master_key(ssl.SSL_get_session(handle), master, BigInt(MASTER_BYTES));
  assert(got === BigInt(MASTER_BYTES), "a handshake that is done has a master secret");
  ssl.SSL_get_client_random(handle, randoms.client, BigInt(RANDOM_BYTES));
  ssl.SSL_get_server_random(handle, randoms.server, BigInt(RANDOM_BYTES));
  const keys = expandMaster(suite, master, randoms);
  const clients = { key: keys.clientKey, salt: keys.clientSalt };
  const servers = { key: keys.serverKey, salt: keys.serverSalt };
  const taken = {
    sealer: new Sealer12(records, suite, server ? servers : clients),
    opener: new Opener12(records, suite, server ? clients : servers),
  };
  for (const secret of [master, ...Object.values(keys)]) secret.fill(0);
  return taken;
}
