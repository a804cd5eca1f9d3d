import { assert, assertEquals, assertThrows } from "@std/assert";
import { type IpWords, parseIp } from "../../base/address.ts";
import { AppProtocol, type Service } from "../service.ts";
import type { Workload } from "../workload.ts";
import { assertSurvivesHostileBytes, decodes } from "./hostile_bytes_testing.ts";
import { decodeAddress, encodeServiceAddress, encodeWorkloadAddress } from "./workload_codec.ts";
import { WireFormatError } from "./wire_format_error.ts";

const ip = (text: string): IpWords => parseIp(text)!;
const bytes = (hex: string): Uint8Array => Uint8Array.fromHex(hex.replaceAll(" ", ""));

const FULL_WORKLOAD: Workload = {
  uid: "cluster1//Pod/shop/cart-1",
  name: "cart-1",
  namespace: "shop",
  addresses: [ip("10.0.0.1"), ip("2001:db8::1")],
  hostname: "cart.example",
  network: "net1",
  tunnelProtocol: 1,
  trustDomain: "example.org",
  serviceAccount: "cart",
  waypoint: { address: { network: "net1", ip: ip("10.0.0.9") }, hboneMtlsPort: 15008 },
  networkGateway: { hostname: { namespace: "gateways", hostname: "ew.example" }, hboneMtlsPort: 15009 },
  node: "node1",
  canonicalName: "cart",
  canonicalRevision: "v1",
  workloadType: 3,
  workloadName: "cart-deployment",
  nativeTunnel: true,
  applicationTunnel: { protocol: 1, port: 15088 },
  authorizationPolicies: ["shop/a", "shop/b"],
  healthy: false,
  clusterId: "cluster1",
  locality: { region: "r", zone: "z", subzone: "s" },
  services: new Map([
    ["shop/cart.shop.svc.cluster.local", [{ servicePort: 80, targetPort: 8080 }, { servicePort: 81, targetPort: 0 }]],
    ["shop/other.example", []],
  ]),
  hostNetwork: true,
  capacity: 0,
};

const FULL_SERVICE: Service = {
  name: "cart",
  namespace: "shop",
  hostname: "cart.shop.svc.cluster.local",
  addresses: [
    { network: "net1", ip: ip("10.96.0.1") },
    { network: "net1", ip: ip("10.97.0.0"), prefixLength: 16 },
    { network: "", ip: ip("2001:db8::"), prefixLength: 0 },
  ],
  ports: [{ servicePort: 80, targetPort: 8080, appProtocol: AppProtocol.GRPC }, { servicePort: 443, targetPort: 0 }],
  subjectAltNames: ["spiffe://cluster.local/ns/shop/sa/cart"],
  waypoint: { hostname: { namespace: "shop", hostname: "waypoint.shop.svc.cluster.local" }, hboneMtlsPort: 15008 },
  weightedWaypoints: [
    { destination: { address: { network: "", ip: ip("10.0.0.9") }, hboneMtlsPort: 15008 }, weight: 75 },
    { destination: { hostname: { namespace: "a", hostname: "b" }, hboneMtlsPort: 0 }, weight: 0 },
  ],
  loadBalancing: { routingPreference: [6, 1, 2], mode: 2, allowUnhealthy: true },
  ipFamilies: 3,
  canonical: true,
  ingressUseWaypoint: true,
  namespaceOnly: true,
};

Deno.test("decodeAddress() gives back what encodeWorkloadAddress() was given", () => {
  assertEquals(decodeAddress(encodeWorkloadAddress(FULL_WORKLOAD)), { workload: FULL_WORKLOAD });
});

Deno.test("decodeAddress() gives back what encodeServiceAddress() was given", () => {
  assertEquals(decodeAddress(encodeServiceAddress(FULL_SERVICE)), { service: FULL_SERVICE });
});

Deno.test("decodeAddress() applies the defaults of an empty workload (ZT section 7.4)", () => {
  const workload = decodeAddress(bytes("0a 00")).workload!;
  assertEquals(workload.trustDomain, "cluster.local");
  assertEquals(workload.serviceAccount, "default");
  assertEquals(workload.clusterId, "Kubernetes");
  assertEquals(workload.capacity, 1);
  assertEquals(workload.healthy, true);
  assertEquals(encodeWorkloadAddress({ ...workload, serviceAccount: "", clusterId: "" }), bytes("0a 00"));
});

Deno.test("encodeWorkloadAddress() elides only the default trust domain (CP section 3.2)", () => {
  const defaults = { ...FULL_WORKLOAD, trustDomain: "cluster.local", serviceAccount: "default" };
  const elided = encodeWorkloadAddress(defaults).length;
  assertEquals(encodeWorkloadAddress({ ...defaults, trustDomain: "cluster.locaX" }).length - elided, 15);
  assertEquals(encodeWorkloadAddress({ ...defaults, serviceAccount: "" }).length - elided, -9);
  assertEquals(decodeAddress(encodeWorkloadAddress(defaults)), { workload: defaults });
});

Deno.test("encodeWorkloadAddress() does not depend on the order of the services (CP-200)", () => {
  const reversed = { ...FULL_WORKLOAD, services: new Map([...FULL_WORKLOAD.services].reverse()) };
  assertEquals(encodeWorkloadAddress(reversed), encodeWorkloadAddress(FULL_WORKLOAD));
});

Deno.test("encodeWorkloadAddress() uses the field numbers of the API", () => {
  const plain: Workload = { ...decodeAddress(bytes("0a 00")).workload!, serviceAccount: "", clusterId: "" };
  const cases: [Partial<Workload>, string][] = [
    [{ name: "a" }, "0a 01 61"],
    [{ namespace: "a" }, "12 01 61"],
    [{ addresses: [ip("1.2.3.4")] }, "1a 04 01020304"],
    [{ network: "a" }, "22 01 61"],
    [{ tunnelProtocol: 1 }, "28 01"],
    [{ trustDomain: "a" }, "32 01 61"],
    [{ serviceAccount: "a" }, "3a 01 61"],
    [{ node: "a" }, "4a 01 61"],
    [{ canonicalName: "a" }, "52 01 61"],
    [{ canonicalRevision: "a" }, "5a 01 61"],
    [{ workloadType: 2 }, "60 02"],
    [{ workloadName: "a" }, "6a 01 61"],
    [{ nativeTunnel: true }, "70 01"],
    [{ authorizationPolicies: ["a"] }, "82 01 01 61"],
    [{ healthy: false }, "88 01 01"],
    [{ clusterId: "a" }, "92 01 01 61"],
    [{ uid: "a" }, "a2 01 01 61"],
    [{ hostname: "a" }, "aa 01 01 61"],
    [{ services: new Map([["a/b", [{ servicePort: 1, targetPort: 2 }]]]) }, "b2 01 0d 0a03612f62 12 06 0a 04 08011002"],
    [{ applicationTunnel: { protocol: 1, port: 2 } }, "ba 01 04 08011002"],
    [{ locality: { region: "", zone: "a", subzone: "" } }, "c2 01 03 12 01 61"],
    [{ hostNetwork: true }, "c8 01 01"],
    [{ capacity: 5 }, "da 01 02 08 05"],
    [
      { waypoint: { hostname: { namespace: "a", hostname: "b" }, hboneMtlsPort: 1 } },
      "42 0a 0a 06 0a0161 120162 18 01",
    ],
    [
      { networkGateway: { address: { network: "a", ip: ip("1.2.3.4") }, hboneMtlsPort: 0 } },
      "9a 01 0b 12 09 0a0161 1204 01020304",
    ],
  ];
  for (const [fields, hex] of cases) {
    const body = bytes(hex);
    assertEquals(encodeWorkloadAddress({ ...plain, ...fields }), Uint8Array.of(0x0a, body.length, ...body), hex);
  }
});

Deno.test("decodeAddress() refuses what the API does not allow", () => {
  const cases: [string, string][] = [
    ["", "an Address holds neither a workload nor a service"],
    ["0a 07 1a 05 0102030405", "failed to parse address, had 5 bytes"], // ZT-134
    ["0a 02 1a 00", "failed to parse address, had 0 bytes"],
    ["0a 02 28 02", "unknown tunnel protocol 2"], // LEGACY_ISTIO_MTLS
    ["0a 03 88 01 02", "unknown workload status 2"],
    ["0a 03 c8 01 02", "unknown network mode 2"],
    ["0a 05 ba 01 02 08 02", "unknown application tunnel protocol 2"],
    ["0a 08 b2 01 05 0a 03 61 62 63", 'service key "abc" is not namespace/hostname'],
    ["0a 02 42 00", "a gateway reference has neither hostname nor address"],
    ["12 05 42 03 0a 01 00", "unknown load balancing scope 0"],
    ["12 04 42 02 08 07", "unknown load balancing scope 7"],
    ["12 04 42 02 10 04", "unknown load balancing mode 4"],
    ["12 04 42 02 18 02", "unknown health policy 2"],
    ["12 02 48 04", "unknown IP families 4"],
    ["12 04 6a 02 10 01", "a weighted waypoint has no destination"],
    ["12 0a 22 08 12 04 01020304 18 21", "prefix length 33 is above 32"],
    ["12 07 2a 05 08 80 80 04 00", "port 65536 is above 65535"],
    ["0a 03 0a 01 ff", "field 1 is not valid UTF-8"],
    ["0a 02 08 01", "field 1 has wire type 0, expected 2"],
    ["0a 02 0b 0c", "field 1 has wire type 3, expected 2"],
    ["0a 03 93 03 00", "field 50 is a group"],
    ["0a 01 00", "a field has number 0"],
    ["0a 05 0a 04 61", "field 1 is cut off"],
  ];
  for (const [hex, reason] of cases) {
    assertThrows(() => decodeAddress(bytes(hex)), WireFormatError, reason, hex);
  }
});

Deno.test("decodeAddress() is lenient where the API says so", () => {
  // Unknown fields of every wire type are skipped.
  assertEquals(
    decodeAddress(bytes("0a 1a 9003 05 9103 0102030405060708 9203 01 00 9503 01020304 0a 01 61")).workload?.name,
    "a",
  );
  assertEquals(decodeAddress(bytes("0a 02 60 09")).workload?.workloadType, 0);
  assertEquals(decodeAddress(bytes("12 02 70 09")).service?.namespaceOnly, false); // ZT-141
  // The prefix length as UInt32Value, and at full length.
  assertEquals(decodeAddress(bytes("12 0c 22 0a 12 04 01020300 1a 02 08 18")).service?.addresses[0]?.prefixLength, 24);
  assertEquals(decodeAddress(bytes("12 0a 22 08 12 04 01020304 18 20")).service?.addresses[0]?.prefixLength, undefined);
  // The last member of a oneof counts.
  assertEquals(decodeAddress(bytes("0a 00 12 00")).workload, undefined);
});

Deno.test("decodeAddress() survives hostile bytes", () => {
  assertSurvivesHostileBytes(decodeAddress, encodeWorkloadAddress(FULL_WORKLOAD));
  assertSurvivesHostileBytes(decodeAddress, encodeServiceAddress(FULL_SERVICE));
});

Deno.test("decodeAddress() refuses every truncation of a message", () => {
  for (const valid of [encodeWorkloadAddress(FULL_WORKLOAD), encodeServiceAddress(FULL_SERVICE)]) {
    for (let length = 0; length < valid.length; length++) {
      assert(!decodes(decodeAddress, valid.slice(0, length)), `cut at ${length}`);
    }
  }
});
