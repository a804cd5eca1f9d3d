/** Certificate revocation lists as OpenSSL holds them: read once by the agent, in one object that all workers share. */
import { MeshError } from "../base/errors.ts";
import type { ContextHandle } from "./api.ts";
import { loadLibcrypto } from "./openssl_library.ts";

const crypto = loadLibcrypto({
  d2i_X509_CRL: { parameters: ["pointer", "buffer", "i64"], result: "pointer", nonblocking: true }, // X509_CRL **, const uchar **, long
  X509_CRL_free: { parameters: ["pointer"], result: "void" }, // X509_CRL *
  X509_CRL_get_REVOKED: { parameters: ["pointer"], result: "pointer" }, // X509_CRL *
  X509_CRL_get0_by_serial: { parameters: ["pointer", "buffer", "pointer"], result: "i32", nonblocking: true }, // X509_CRL *, X509_REVOKED **, const ASN1_INTEGER *
  X509_CRL_get_ext_by_critical: { parameters: ["pointer", "i32", "i32"], result: "i32" }, // const X509_CRL *, int crit, int lastpos
  X509_CRL_get_ext: { parameters: ["pointer", "i32"], result: "pointer" }, // const X509_CRL *, int loc
  X509_CRL_get_ext_by_NID: { parameters: ["pointer", "i32", "i32"], result: "i32" }, // const X509_CRL *, int nid, int lastpos
  X509_EXTENSION_get_object: { parameters: ["pointer"], result: "pointer" }, // X509_EXTENSION *
  OBJ_obj2nid: { parameters: ["pointer"], result: "i32" }, // const ASN1_OBJECT *
  OPENSSL_sk_num: { parameters: ["pointer"], result: "i32" }, // const OPENSSL_STACK *
  ASN1_STRING_type_new: { parameters: ["i32"], result: "pointer" }, // int type
  ASN1_STRING_free: { parameters: ["pointer"], result: "void" }, // ASN1_STRING *
  X509_STORE_new: { parameters: [], result: "pointer" },
  X509_STORE_up_ref: { parameters: ["pointer"], result: "i32" }, // X509_STORE *
  X509_STORE_free: { parameters: ["pointer"], result: "void" }, // X509_STORE *
  X509_STORE_free_aside: { name: "X509_STORE_free", parameters: ["pointer"], result: "void", nonblocking: true }, // X509_STORE *
  X509_STORE_get0_objects: { parameters: ["pointer"], result: "pointer" }, // const X509_STORE *
  X509_STORE_add_crl: { parameters: ["pointer", "pointer"], result: "i32" }, // X509_STORE *, X509_CRL *
  ERR_clear_error: { parameters: [], result: "void" },
});

const V_ASN1_INTEGER = 2;
const NID_ISSUING_DISTRIBUTION_POINT = 770, NID_DELTA_CRL = 140, NID_AUTHORITY_KEY_IDENTIFIER = 90;

/** Lists that were read. {@link releaseLists} follows. */
export interface RevocationLists {
  readonly handle: ContextHandle;
  /** Certificates that they name, all together. */
  readonly revokedCount: number;
}

function unreadable(number: number, why: string): MeshError {
  return new MeshError("AMB7061", `revocation list ${number} cannot be used: ${why}`, {
    remedy: "look at it with `openssl crl -text`; complete lists in PEM or DER are read (RFC 5280 §5)",
  });
}

/**
 * Reads lists in DER. A long one is read on another thread: the agent goes on meanwhile.
 * @throws MeshError AMB7061 when one of them is no list, or one whose meaning is not known here.
 */
export async function readRevocationLists(ders: readonly Uint8Array<ArrayBuffer>[]): Promise<RevocationLists> {
  const store = crypto.X509_STORE_new();
  if (store === null) throw unreadable(1, "OpenSSL has no memory for it");
  const nothing = crypto.ASN1_STRING_type_new(V_ASN1_INTEGER);
  let revokedCount = 0, done = false;
  try {
    for (const [at, der] of ders.entries()) {
      const list = await readOne(der, at + 1);
      try {
        checkMeaning(list, at + 1);
        const entries = crypto.X509_CRL_get_REVOKED(list);
        if (entries !== null) revokedCount += crypto.OPENSSL_sk_num(entries);
        // The first look-up sorts the entries; after it the list never changes, and threads may share it.
        await crypto.X509_CRL_get0_by_serial(list, new Uint8Array(new ArrayBuffer(8)), nothing);
        if (crypto.X509_STORE_add_crl(store, list) !== 1) throw unreadable(at + 1, "OpenSSL has no memory for it");
      } finally {
        crypto.X509_CRL_free(list); // The store has a reference of its own.
      }
    }
    // OpenSSL 4.0 keeps what was added in a table, which the first look at all of it turns into the list that later ones
    // get, without a lock; after it nothing changes, and threads may share it.
    crypto.X509_STORE_get0_objects(store);
    done = true;
  } finally {
    crypto.ASN1_STRING_free(nothing);
    if (!done) crypto.X509_STORE_free(store);
  }
  const value = Deno.UnsafePointer.value(store);
  return { handle: { low: Number(value & 0xffffffffn), high: Number(value >> 32n) }, revokedCount };
}

async function readOne(der: Uint8Array<ArrayBuffer>, number: number): Promise<Deno.PointerObject> {
  const start = Deno.UnsafePointer.value(Deno.UnsafePointer.of(der));
  const cursor = new BigUint64Array([start]);
  const list = await crypto.d2i_X509_CRL(null, new Uint8Array(cursor.buffer), BigInt(der.length));
  crypto.ERR_clear_error();
  if (list === null) throw unreadable(number, "it is no list in DER");
  if (cursor[0] === start + BigInt(der.length)) return list;
  crypto.X509_CRL_free(list);
  throw unreadable(number, "something follows it");
}

/** Whoever is named in a list of ours is revoked, whatever the list's scope; so only what turns that around is refused. */
function checkMeaning(list: Deno.PointerObject, number: number): void {
  if (crypto.X509_CRL_get_ext_by_NID(list, NID_DELTA_CRL, -1) >= 0) {
    throw unreadable(number, "it is a delta list, which says only what changed");
  }
  for (let at = -1;;) {
    at = crypto.X509_CRL_get_ext_by_critical(list, 1, at);
    if (at < 0) return;
    const nid = crypto.OBJ_obj2nid(crypto.X509_EXTENSION_get_object(crypto.X509_CRL_get_ext(list, at)));
    if (nid === NID_ISSUING_DISTRIBUTION_POINT || nid === NID_AUTHORITY_KEY_IDENTIFIER) continue;
    throw unreadable(number, "it has a critical extension that is not known here");
  }
}

function pointerOf(handle: ContextHandle): Deno.PointerObject {
  return Deno.UnsafePointer.create(BigInt(handle.high) << 32n | BigInt(handle.low))!;
}

/** One more owner: each worker that is told of the lists takes one reference and gives it up itself. */
export function retainLists(lists: RevocationLists): void {
  crypto.X509_STORE_up_ref(pointerOf(lists.handle));
}

/** Gives up one reference. The last one takes milliseconds for a long list, on another thread. */
export function releaseLists(lists: RevocationLists): Promise<void> {
  return crypto.X509_STORE_free_aside(pointerOf(lists.handle));
}
