import { assertEquals, assertThrows } from "@std/assert";
import {
  decodeDeltaDiscoveryRequest,
  decodeDeltaDiscoveryResponse,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
  encodeDeltaDiscoveryRequest,
  encodeDeltaDiscoveryResponse,
} from "./discovery_codec.ts";
import { assertSurvivesHostileBytes } from "./hostile_bytes_testing.ts";
import { WireFormatError } from "./wire_format_error.ts";

const bytes = (hex: string): Uint8Array => Uint8Array.fromHex(hex.replaceAll(" ", ""));

const REQUEST: DeltaDiscoveryRequest = {
  node: {
    id: "ztunnel~10.0.0.1~ztunnel-a.istio-system~istio-system.svc.cluster.local",
    cluster: "ztunnel",
    metadata: { NAME: "ztunnel-a", LABELS: { app: "ztunnel", "": "" }, N: [1, -0.5, null, true, false, [], {}] },
  },
  typeUrl: "type.googleapis.com/istio.workload.Address",
  resourceNamesSubscribe: ["*", ""],
  resourceNamesUnsubscribe: ["*"],
  initialResourceVersions: new Map([["a", "1"], ["b", ""]]),
  responseNonce: "nonce",
  errorDetail: { code: 13, message: "a: failed to parse address, had 5 bytes" },
};
const RESPONSE: DeltaDiscoveryResponse = {
  systemVersionInfo: "2026/1",
  resources: [
    { name: "a/b", version: "ff", aliases: ["net/10.0.0.1"], typeUrl: "t", bytes: Uint8Array.of(1, 2, 3) },
    { name: "c", version: "", aliases: [], typeUrl: "", bytes: new Uint8Array(0) },
  ],
  typeUrl: "t",
  nonce: "n",
  removedResources: ["x", "y"],
  controlPlane: "istiod-0",
};

Deno.test("decodeDeltaDiscoveryRequest() gives back what was encoded", () => {
  assertEquals(decodeDeltaDiscoveryRequest(encodeDeltaDiscoveryRequest(REQUEST)), REQUEST);
  assertEquals(decodeDeltaDiscoveryRequest(new Uint8Array(0)), {
    node: undefined,
    typeUrl: "",
    resourceNamesSubscribe: [],
    resourceNamesUnsubscribe: [],
    initialResourceVersions: new Map(),
    responseNonce: "",
    errorDetail: undefined,
  });
});

Deno.test("decodeDeltaDiscoveryResponse() gives back what was encoded", () => {
  assertEquals(decodeDeltaDiscoveryResponse(encodeDeltaDiscoveryResponse(RESPONSE)), RESPONSE);
});

Deno.test("discovery messages use Envoy's field numbers (CP section 5)", () => {
  assertEquals(
    encodeDeltaDiscoveryRequest({
      node: { id: "i", metadata: { k: "v" } },
      typeUrl: "t",
      resourceNamesSubscribe: ["s"],
      resourceNamesUnsubscribe: ["u"],
      initialResourceVersions: new Map([["n", "v"]]),
      responseNonce: "o",
      errorDetail: { code: 3, message: "m" },
    }),
    bytes(
      "0a 0f 0a0169 1a 0a 0a 08 0a016b 1203 1a0176 120174 1a0173 220175 2a 06 0a016e 120176 32016f 3a 05 0803 12016d",
    ),
  );
  const resource = { name: "n", version: "v", aliases: ["a"], typeUrl: "t", bytes: Uint8Array.of(9) };
  assertEquals(
    encodeDeltaDiscoveryResponse({ ...RESPONSE, systemVersionInfo: "s", resources: [resource], controlPlane: "c" }),
    bytes("0a0173 12 11 0a0176 12 06 0a0174 120109 1a016e 220161 220174 2a016e 320178 320179 3a 03 0a0163"),
  );
});

Deno.test("encodeDeltaDiscoveryRequest() does not depend on the order of maps", () => {
  const reversed = new Map([...REQUEST.initialResourceVersions].reverse());
  assertEquals(
    encodeDeltaDiscoveryRequest({ ...REQUEST, initialResourceVersions: reversed }),
    encodeDeltaDiscoveryRequest(REQUEST),
  );
});

Deno.test("decodeDeltaDiscoveryRequest() keeps a metadata key named __proto__ as data", () => {
  const metadata = Object.fromEntries([["__proto__", "x"]]);
  const decoded = decodeDeltaDiscoveryRequest(encodeDeltaDiscoveryRequest({ ...REQUEST, node: { id: "", metadata } }));
  assertEquals(Object.entries(decoded.node!.metadata), [["__proto__", "x"]]);
  assertEquals(Object.getPrototypeOf(decoded.node!.metadata), Object.prototype);
});

Deno.test("decodeDeltaDiscoveryRequest() bounds the depth of metadata", () => {
  let value: Uint8Array = bytes("1a 00");
  const wrap = (tag: number, inner: Uint8Array) => {
    const length = inner.length < 128 ? [inner.length] : [(inner.length & 127) | 128, inner.length >> 7];
    return Uint8Array.of(tag, ...length, ...inner);
  };
  for (let depth = 0; depth < 100; depth++) value = wrap(0x32, wrap(0x0a, value));
  const request = wrap(0x0a, wrap(0x1a, wrap(0x0a, wrap(0x12, value))));
  assertThrows(() => decodeDeltaDiscoveryRequest(request), WireFormatError, "nested deeper than 64");
});

Deno.test("decodeDeltaDiscoveryResponse() refuses a resource without name or body", () => {
  assertThrows(() => decodeDeltaDiscoveryResponse(bytes("12 00")), WireFormatError, "a resource has no name");
  assertThrows(
    () => decodeDeltaDiscoveryResponse(bytes("12 03 1a 01 61")),
    WireFormatError,
    'resource "a" has no body',
  );
});

Deno.test("discovery decoders survive hostile bytes", () => {
  assertSurvivesHostileBytes(decodeDeltaDiscoveryRequest, encodeDeltaDiscoveryRequest(REQUEST));
  assertSurvivesHostileBytes(decodeDeltaDiscoveryResponse, encodeDeltaDiscoveryResponse(RESPONSE));
});
