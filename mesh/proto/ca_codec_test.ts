import { assertEquals, assertThrows } from "@std/assert";
import {
  decodeIstioCertificateRequest,
  decodeIstioCertificateResponse,
  encodeIstioCertificateRequest,
  encodeIstioCertificateResponse,
} from "./ca_codec.ts";
import { assertSurvivesHostileBytes } from "./hostile_bytes_testing.ts";
import { WireFormatError } from "./wire_format_error.ts";

const bytes = (hex: string): Uint8Array => Uint8Array.fromHex(hex.replaceAll(" ", ""));
const REQUEST = {
  csr: "-----BEGIN CERTIFICATE REQUEST-----",
  validitySeconds: 86_400,
  metadata: { ImpersonatedIdentity: "spiffe://cluster.local/ns/a/sa/b" },
};

Deno.test("decodeIstioCertificateRequest() gives back what was encoded (ZT-149, ZT-150)", () => {
  assertEquals(decodeIstioCertificateRequest(encodeIstioCertificateRequest(REQUEST)), REQUEST);
  for (const validitySeconds of [0, -1, 2 ** 40, Number.MAX_SAFE_INTEGER]) {
    const request = { csr: "", validitySeconds };
    assertEquals(decodeIstioCertificateRequest(encodeIstioCertificateRequest(request)), request);
  }
});

Deno.test("encodeIstioCertificateRequest() uses the field numbers of the API, no metadata unless given (ZT-149)", () => {
  assertEquals(encodeIstioCertificateRequest({ csr: "c", validitySeconds: 300 }), bytes("0a0163 18ac02"));
  assertEquals(
    encodeIstioCertificateRequest({ csr: "c", validitySeconds: 1, metadata: { k: "v" } }),
    bytes("0a0163 1801 22 0a 0a 08 0a016b 1203 1a0176"),
  );
});

Deno.test("decodeIstioCertificateRequest() refuses a duration that no number holds", () => {
  assertThrows(() => decodeIstioCertificateRequest(bytes("18 ffffffffffffffff7f")), WireFormatError, "too large");
  assertThrows(() => decodeIstioCertificateRequest(bytes("18 ffffffffffffffffffff01")), WireFormatError, "no varint");
});

Deno.test("decodeIstioCertificateResponse() gives back what was encoded, order and empty parts kept (CP-471)", () => {
  const response = { certChain: ["leaf", "", "roots"] };
  assertEquals(decodeIstioCertificateResponse(encodeIstioCertificateResponse(response)), response);
});

Deno.test("certificate decoders survive hostile bytes", () => {
  assertSurvivesHostileBytes(decodeIstioCertificateRequest, encodeIstioCertificateRequest(REQUEST));
  assertSurvivesHostileBytes(decodeIstioCertificateResponse, encodeIstioCertificateResponse({ certChain: ["a", "b"] }));
});
