import { assertEquals } from "@std/assert";
import { formatSocketAddress } from "../base/address.ts";
import {
  checkGreeting,
  greetingBytes,
  readRequest,
  replyMessage,
  requestBytes,
  requestName,
  SOCKS_MESSAGE_BYTES_MAX,
  SocksReply,
} from "./socks5.ts";

const { SUCCEEDED, COMMAND_NOT_SUPPORTED } = SocksReply;
const V6 = "fd000000000000000000000000000001";

/** Takes a message in byte by byte, as it may come, and never more of it than is certain to belong to it. */
function takeIn(hex: string, length: (bytes: Uint8Array, have: number) => number): Uint8Array {
  const sent = Uint8Array.fromHex(hex), bytes = new Uint8Array(SOCKS_MESSAGE_BYTES_MAX);
  let have = 0;
  while (length(bytes, have) > have && have < sent.length) bytes[have] = sent[have++]!;
  return bytes.slice(0, have);
}

function request(hex: string): string {
  const bytes = takeIn(hex, requestBytes), target = new Uint32Array(5);
  const reply = readRequest(bytes, bytes.length, target);
  const [word0, word1, word2, word3, port] = target;
  return reply === SUCCEEDED
    ? formatSocketAddress([word0!, word1!, word2!, word3!], port!)
    : `reply ${reply} after ${bytes.length}`;
}

Deno.test("checkGreeting() wants version 5 and no authentication (RFC 1928 §3, ZT-189, ZT-190)", () => {
  const reply = (hex: string) => {
    const bytes = takeIn(hex, greetingBytes);
    return checkGreeting(bytes, bytes.length);
  };
  assertEquals(reply("050100"), SUCCEEDED);
  assertEquals(reply("0503010200"), SUCCEEDED);
  assertEquals(reply("0500"), COMMAND_NOT_SUPPORTED);
  assertEquals(reply("050102"), COMMAND_NOT_SUPPORTED);
  assertEquals(reply("04010050"), COMMAND_NOT_SUPPORTED);
  assertEquals(reply("474554"), COMMAND_NOT_SUPPORTED);
  assertEquals(takeIn("0501000501", greetingBytes).length, 3);
  assertEquals(greetingBytes(Uint8Array.of(5, 255), 2) <= SOCKS_MESSAGE_BYTES_MAX, true);
});

Deno.test("readRequest() reads addresses of both families (RFC 1928 §4, ZT-189)", () => {
  assertEquals(request("05010001" + "0a000102" + "1f90"), "10.0.1.2:8080");
  assertEquals(request("05010004" + V6 + "ffff"), "[fd00::1]:65535");
  assertEquals(request("05010001" + "0a000102" + "0050" + "474554"), "10.0.1.2:80"); // The application's bytes stay.
});

Deno.test("readRequest() reads a name's port, and requestName() the name (RFC 1928 §4, ZT-189)", () => {
  const named = (hex: string) => `${requestName(takeIn(hex, requestBytes))} ${request(hex)}`;
  assertEquals(named("05010003" + "01" + "61" + "0050"), "a [::]:80");
  assertEquals(named("05010003" + "ff" + "61".repeat(255) + "1f90"), `${"a".repeat(255)} [::]:8080`);
  assertEquals(named("05010003" + "00" + "0050"), " [::]:80");
  assertEquals(requestName(takeIn("05010001" + "0a000102" + "1f90", requestBytes)), undefined);
});

Deno.test("readRequest() answers 7 to whatever is not supported (RFC 1928 §4, ZT-190)", () => {
  for (const command of ["05020001", "05030001", "04010001", "05010101", "050100010a"]) {
    const full = command.padEnd(20, "0");
    assertEquals(request(full), command === "050100010a" ? "10.0.0.0:0" : `reply ${COMMAND_NOT_SUPPORTED} after 10`);
  }
  assertEquals(request("0501000200000000000000"), `reply ${COMMAND_NOT_SUPPORTED} after 5`);
});

Deno.test("replyMessage() names no address (ZT-190)", () => {
  assertEquals(replyMessage(SUCCEEDED).toHex(), "05000001000000000000");
  assertEquals(replyMessage(COMMAND_NOT_SUPPORTED).toHex(), "05070001000000000000");
});
