import { assert, assertEquals, assertThrows } from "@std/assert";
import { AssertionError } from "../../base/assert.ts";
import { assertSurvivesHostileBytes } from "./hostile_bytes_testing.ts";
import { WireFormatError } from "./wire_format_error.ts";
import {
  decodeZdsAcknowledgement,
  decodeZdsHello,
  decodeZdsRequest,
  encodeZdsAcknowledgement,
  encodeZdsHello,
  encodeZdsRequest,
  ZdsFeature,
  type ZdsRequest,
  ZdsVersion,
} from "./zds_codec.ts";

const bytes = (hex: string): Uint8Array => Uint8Array.fromHex(hex.replaceAll(" ", ""));

Deno.test("ZDS messages have the bytes of the protocol (CNI-242, ZT-162, ZT-163)", () => {
  const requests: [ZdsRequest, string][] = [
    [
      { kind: "add", uid: "u", workload: { name: "n", namespace: "s", serviceAccount: "a" } },
      "0a 0e 0a0175 12 09 0a016e 120173 1a0161",
    ],
    [{ kind: "add", uid: "u", workload: undefined }, "0a 03 0a0175"],
    [{ kind: "delete", uid: "u" }, "12 03 120175"],
    [{ kind: "snapshotSent" }, "1a 00"],
    [{ kind: "keep", uid: "u" }, "2a 03 0a0175"],
  ];
  for (const [request, hex] of requests) {
    assertEquals(encodeZdsRequest(request), bytes(hex));
    assertEquals(decodeZdsRequest(bytes(hex)), request);
  }
  assertEquals(encodeZdsHello({ version: ZdsVersion.V1 }), bytes("08 01"));
  assertEquals(decodeZdsHello(bytes("08 e9 07")), { version: 1001 });
  const features = ZdsFeature.SHARED_NETNS, ours = bytes("08 01 a0 06 01");
  assertEquals(encodeZdsHello({ version: ZdsVersion.V1, features }), ours);
  assertEquals(decodeZdsHello(ours), { version: 1, features });
  assertEquals(encodeZdsAcknowledgement({ error: "" }), bytes("0a 00"));
  assertEquals(encodeZdsAcknowledgement({ error: "x" }), bytes("0a 03 0a0178"));
  assertEquals(decodeZdsAcknowledgement(bytes("0a 03 0a0178")), { error: "x" });
});

Deno.test("a workload of a shared namespace travels with its ports and its address, and any ports are bounded (CNI-275)", () => {
  const shared = {
    outboundPort: 15100,
    plaintextPort: 15300,
    inboundPorts: [80, 443],
    address: "10.0.0.1",
    dnsPort: 15500,
  };
  const request = { kind: "add", uid: "u", workload: undefined, shared } as const;
  assertEquals(decodeZdsRequest(encodeZdsRequest(request)), request);
  const nowhere = { ...request, shared: { ...shared, inboundPorts: [], address: "", dnsPort: 0 } };
  assertEquals(decodeZdsRequest(encodeZdsRequest(nowhere)), nowhere);
  const wrong = { ...request, shared: { ...shared, inboundPorts: [65_536] } };
  assertThrows(() => decodeZdsRequest(encodeZdsRequest(wrong)), WireFormatError, "above 65535");
});

Deno.test("an agent that keeps sockets says so with an add, and ztunnel says which are beside its answer", () => {
  const add = { kind: "add", uid: "a", workload: { name: "n", namespace: "s", serviceAccount: "a" } } as const;
  for (const request of [add, { ...add, keepsSockets: true }]) {
    assertEquals(decodeZdsRequest(encodeZdsRequest(request)), request);
  }
  for (const answer of [{ error: "" }, { error: "", sockets: true }]) {
    assertEquals(decodeZdsAcknowledgement(encodeZdsAcknowledgement(answer)), answer);
  }
});

Deno.test("decodeZdsRequest() refuses a message without a known request", () => {
  for (const hex of ["", "32 00"]) {
    assertThrows(() => decodeZdsRequest(bytes(hex)), WireFormatError, "no request that is known");
  }
  assertThrows(() => decodeZdsAcknowledgement(bytes("")), WireFormatError, "no acknowledgement");
  assertThrows(() => decodeZdsRequest(new Uint8Array(1025)), WireFormatError, "the most allowed is 1024");
});

Deno.test("encodeZdsAcknowledgement() cuts a long error between characters (CNI-241)", () => {
  const { error } = decodeZdsAcknowledgement(encodeZdsAcknowledgement({ error: "x" + "é".repeat(2_000) }));
  assertEquals(error, "x" + "é".repeat(449));
  assert(encodeZdsAcknowledgement({ error: "é".repeat(2_000) }).length <= 1024);
});

Deno.test("encodeZdsRequest() never builds a packet over the limit (CNI-241)", () => {
  assertThrows(() => encodeZdsRequest({ kind: "keep", uid: "u".repeat(1_020) }), AssertionError, "fits in one packet");
});

Deno.test("ZDS decoders survive hostile bytes", () => {
  const workload = { name: "n", namespace: "s", serviceAccount: "a" };
  assertSurvivesHostileBytes(decodeZdsRequest, encodeZdsRequest({ kind: "add", uid: "u", workload }));
  assertSurvivesHostileBytes(decodeZdsAcknowledgement, encodeZdsAcknowledgement({ error: "failure" }));
});
