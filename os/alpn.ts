/** ALPN on the accepting side: `h2` and nothing else (RFC 7301 §3.1, ZT-081). */
import type { Memory } from "./api.ts";

const libc = Deno.dlopen("libc.so.6", {
  memcpy: { parameters: ["pointer", "u32", "u32"], result: "void" }, // void *dest, const void *src, size_t n; returns dest
}).symbols;

/** The one protocol we speak, as ALPN writes it. */
export const ALPN_H2 = Uint8Array.of(2, 0x68, 0x32);
const SSL_TLSEXT_ERR_OK = 0, SSL_TLSEXT_ERR_ALERT_FATAL = 2;

/** For SSL_CTX_set_alpn_select_cb, of contexts of this thread. */
export function alpnSelector(memory: Memory): Deno.UnsafeCallback<
  { parameters: ["pointer", "pointer", "pointer", "pointer", "u32", "pointer"]; result: "i32" }
> {
  const text = memory.allocate(ALPN_H2.length), answer = memory.allocate(16);
  memory.u8.set(ALPN_H2, text);
  memory.u32[answer >> 2] = memory.base + text + 1; // 64 bits, of which the arena's addresses fit the lower half.
  memory.u32[(answer >> 2) + 1] = 0;
  // int cb(SSL *, const uchar **out, uchar *outlen, const uchar *in, uint inlen, void *): points to our own text.
  return new Deno.UnsafeCallback(
    { parameters: ["pointer", "pointer", "pointer", "pointer", "u32", "pointer"], result: "i32" },
    (_ssl, out, outLength, offer, offerBytes) => {
      if (!offersH2(offer!, offerBytes)) return SSL_TLSEXT_ERR_ALERT_FATAL; // no_application_protocol, 120
      // A view of memory that is not ours is an object for the collector: two copies cost a third of two views.
      libc.memcpy(out, memory.base + answer, 8);
      libc.memcpy(outLength, memory.base + text, 1);
      return SSL_TLSEXT_ERR_OK;
    },
  );
}

/** Whether `h2` is among the protocols of an offer (RFC 7301 §3.1); nearly always it is the only one. */
function offersH2(offer: Deno.PointerObject, offerBytes: number): boolean {
  const view = new Deno.UnsafePointerView(offer);
  if (offerBytes === 3 && view.getUint8(0) === 2) return view.getUint8(1) === 0x68 && view.getUint8(2) === 0x32;
  const offered = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(offer, offerBytes));
  for (let at = 0; at + 2 < offered.length; at += 1 + offered[at]!) {
    if (offered[at] === 2 && offered[at + 1] === 0x68 && offered[at + 2] === 0x32) return true;
  }
  return false;
}
