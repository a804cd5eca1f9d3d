import { assertEquals } from "@std/assert";
import { parseSocketAddress } from "../base/address.ts";
import { proxyHeaderBytesMax, writeProxyHeader } from "./proxy_protocol.ts";

const IDENTITY = "spiffe://cluster.local/ns/shop/sa/frontend";
const SIGNATURE = "0d0a0d0a000d0a515549540a";

function hexOf(source: string, destination: string, identity: string): string {
  const bytes = new Uint8Array(proxyHeaderBytesMax(identity.length));
  const length = writeProxyHeader(bytes, parseSocketAddress(source)!, parseSocketAddress(destination)!, identity);
  return bytes.subarray(0, length).toHex();
}

const textHex = (text: string) => new TextEncoder().encode(text).toHex();
const V4 = "0a000105" + "0a010203" + "cafe" + "0050";
const V6 = "fd000000000000000000000000000001" + "fd000000000000000000000000000002" + "0001" + "ffff";

Deno.test("writeProxyHeader() writes addresses and identity byte for byte (ZT-095)", () => {
  const tlv = `d0${"002a"}${textHex(IDENTITY)}`;
  assertEquals(hexOf("10.0.1.5:51966", "10.1.2.3:80", IDENTITY), `${SIGNATURE}21110039${V4}${tlv}`);
  assertEquals(hexOf("10.0.1.5:51966", "10.1.2.3:80", ""), `${SIGNATURE}2111000c${V4}`);
  assertEquals(hexOf("[fd00::1]:1", "[fd00::2]:65535", IDENTITY), `${SIGNATURE}21210051${V6}${tlv}`);
  assertEquals(hexOf("[fd00::1]:1", "[fd00::2]:65535", ""), `${SIGNATURE}21210024${V6}`);
});

Deno.test("writeProxyHeader() writes the lengths of the example in the rule (ZT-095)", () => {
  // 12 bytes of addresses, a TLV of 3 + 41: 0x38.
  const identity = "spiffe://cluster.local/ns/default/sa/abcd";
  assertEquals(hexOf("10.0.1.5:51966", "10.1.2.3:80", identity), `${SIGNATURE}21110038${V4}d00029${textHex(identity)}`);
});

Deno.test("writeProxyHeader() tells no addresses where the families differ (ZT-096)", () => {
  assertEquals(hexOf("10.0.1.5:1", "[fd00::2]:2", ""), `${SIGNATURE}21000000`);
  assertEquals(hexOf("[fd00::2]:2", "10.0.1.5:1", "a"), `${SIGNATURE}21000004d0000161`);
});

Deno.test("writeProxyHeader() refuses an identity that no header holds, and takes the longest one", () => {
  const [v4, v6] = [parseSocketAddress("10.0.0.1:1")!, parseSocketAddress("[fd00::1]:1")!];
  const fits = (bytes: number, address = v4) =>
    writeProxyHeader(new Uint8Array(proxyHeaderBytesMax(bytes)), address, address, "a".repeat(bytes));
  assertEquals([fits(65_520), fits(65_521)], [16 + 65_535, -1]);
  assertEquals([fits(65_496, v6), fits(65_497, v6)], [16 + 65_535, -1]);
});
