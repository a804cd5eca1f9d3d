/** The .proto files are the documents, the codecs the code: a reader made from the former must agree with the latter. */
import { assertEquals } from "@std/assert";
import protobuf from "protobufjs";
import { ip, match, policy, reference, service, serving, workload } from "../testing.ts";
import { decodeAuthorization, encodeAuthorization } from "./authorization_codec.ts";
import {
  decodeIstioCertificateRequest,
  decodeIstioCertificateResponse,
  encodeIstioCertificateRequest,
  encodeIstioCertificateResponse,
} from "./ca_codec.ts";
import { ConfigStatus, decodeClientConfig, encodeClientConfig } from "./client_status_codec.ts";
import {
  decodeDeltaDiscoveryRequest,
  decodeDeltaDiscoveryResponse,
  encodeDeltaDiscoveryRequest,
  encodeDeltaDiscoveryResponse,
} from "./discovery_codec.ts";
import { decodeReflectionRequest, encodeReflectionResponse } from "./reflection_codec.ts";
import {
  decodeDiscoveryRequest,
  decodeDiscoveryResponse,
  encodeDiscoveryRequest,
  encodeDiscoveryResponse,
} from "./sotw_codec.ts";
import { decodeAddress, encodeServiceAddress, encodeWorkloadAddress } from "./workload_codec.ts";
import { decodeZdsAcknowledgement, decodeZdsRequest, encodeZdsAcknowledgement, encodeZdsRequest } from "./zds_codec.ts";

function typeOf(file: string, name: string): protobuf.Type {
  const root = new protobuf.Root();
  for (const common of ["any", "struct", "wrappers", "empty", "timestamp"]) {
    root.addJSON(protobuf.common.get(`google/protobuf/${common}.proto`)!.nested!);
  }
  protobuf.parse(Deno.readTextFileSync(new URL(file, import.meta.url)), root);
  return root.resolveAll().lookupType(name);
}

/** Our bytes, read and written again by the reader made from the .proto file, decode to the same; and nothing was unknown to it. */
function check<T>(file: string, name: string, bytes: Uint8Array, decode: (bytes: Uint8Array) => T): void {
  const type = typeOf(file, name);
  const plain = type.toObject(type.decode(bytes));
  const again = type.encode(type.fromObject(plain)).finish();
  assertEquals(decode(new Uint8Array(again)), decode(bytes), name);
  assertEquals(again.length, bytes.length, `${name} has no field that its .proto file lacks`);
}

Deno.test("workload.proto agrees with its codec", () => {
  const full = workload("w", "10.0.0.1 2001:db8::1", {
    hostname: "h",
    network: "net",
    tunnelProtocol: 1,
    trustDomain: "td",
    waypoint: reference("10.0.0.9"),
    networkGateway: reference("ns/gw"),
    node: "n",
    canonicalName: "c",
    canonicalRevision: "r",
    workloadType: 3,
    nativeTunnel: true,
    applicationTunnel: { protocol: 1, port: 15088 },
    authorizationPolicies: ["a/b", "a/c"],
    healthy: false,
    locality: { region: "r", zone: "z", subzone: "s" },
    services: serving({ "a/b": "80:8080 81:0", "a/c": "" }),
    hostNetwork: true,
    capacity: 7,
  });
  check("workload.proto", "istio.workload.Address", encodeWorkloadAddress(full), decodeAddress);
  const fullService = service("s", "10.96.0.1 10.0.0.0/8 ::/0", "80:8080 81:0", {
    subjectAltNames: ["spiffe://td/ns/a/sa/b"],
    waypoint: reference("ns/wp"),
    weightedWaypoints: [{ destination: reference("10.0.0.9"), weight: 3 }],
    loadBalancing: { mode: 2, routingPreference: [6, 1, 2, 3, 4, 5], allowUnhealthy: true },
    ipFamilies: 3,
    canonical: true,
    namespaceOnly: true,
  });
  check("workload.proto", "istio.workload.Address", encodeServiceAddress(fullService), decodeAddress);
});

Deno.test("authorization.proto agrees with its codec", () => {
  const texts = (["exact", "prefix", "suffix", "presence"] as const).map((kind) => ({
    kind,
    value: kind === "presence" ? "" : "x",
  }));
  const ips = [{ ip: ip("10.0.0.0"), prefixLength: 8 }, { ip: ip("2001:db8::"), prefixLength: 32 }];
  const account = { namespace: "a", serviceAccount: "b" };
  const full = match({
    namespaces: texts,
    notNamespaces: texts,
    principals: texts,
    notPrincipals: texts,
    sourceIps: ips,
    notSourceIps: ips,
    destinationIps: ips,
    notDestinationIps: ips,
    destinationPorts: [1, 65535],
    notDestinationPorts: [2],
    serviceAccounts: [account],
    notServiceAccounts: [account],
  });
  const rules = [{ clauses: [[full, match()], []] }, { clauses: [] }];
  const bytes = encodeAuthorization(policy("p", { scope: 2, action: 1, dryRun: true, rules }));
  check("authorization.proto", "istio.security.Authorization", bytes, (input) => decodeAuthorization(input, "k"));
});

Deno.test("discovery.proto agrees with its codec", () => {
  const request = {
    node: { id: "i", cluster: "c", metadata: { a: [1, "x", null, true, { b: 2 }] } },
    typeUrl: "t",
    resourceNamesSubscribe: ["a"],
    resourceNamesUnsubscribe: ["b"],
    initialResourceVersions: new Map([["n", "v"]]),
    responseNonce: "o",
    errorDetail: { code: 3, message: "m" },
  };
  const name = "envoy.service.discovery.v3.DeltaDiscovery";
  check("discovery.proto", `${name}Request`, encodeDeltaDiscoveryRequest(request), decodeDeltaDiscoveryRequest);
  const response = {
    systemVersionInfo: "s",
    resources: [{ name: "n", version: "v", aliases: ["a", "b"], typeUrl: "t", bytes: Uint8Array.of(1, 2) }],
    typeUrl: "t",
    nonce: "o",
    removedResources: ["r"],
    controlPlane: "c",
  };
  check("discovery.proto", `${name}Response`, encodeDeltaDiscoveryResponse(response), decodeDeltaDiscoveryResponse);
});

Deno.test("discovery.proto agrees with the codec of tools' messages", () => {
  const request = {
    node: { id: "i", cluster: "c", metadata: {} },
    typeUrl: "t",
    resourceNames: ["a", "b"],
    responseNonce: "o",
    errorDetail: { code: 3, message: "m" },
  };
  const name = "envoy.service.discovery.v3.Discovery";
  check("discovery.proto", `${name}Request`, encodeDiscoveryRequest(request), decodeDiscoveryRequest);
  const resources = [{ typeUrl: "t", bytes: Uint8Array.of(1, 2) }];
  const response = { versionInfo: "s", resources, typeUrl: "t", nonce: "o", controlPlane: "c" };
  check("discovery.proto", `${name}Response`, encodeDiscoveryResponse(response), decodeDiscoveryResponse);
});

Deno.test("client_status.proto agrees with its codec", () => {
  const node = { id: "i", cluster: "c", metadata: { a: "b" } };
  const types = [
    { typeUrl: "t", status: ConfigStatus.SYNCED, lastUpdatedMs: 1_700_000_000_250, error: "" },
    { typeUrl: "u", status: ConfigStatus.ERROR, lastUpdatedMs: 1_700_000_000_000, error: "e" },
    { typeUrl: "v", status: ConfigStatus.NOT_SENT, lastUpdatedMs: undefined, error: "" },
  ];
  const bytes = encodeClientConfig({ node, types });
  check("client_status.proto", "envoy.service.status.v3.ClientConfig", bytes, decodeClientConfig);
  assertEquals(decodeClientConfig(bytes), { node, types });
});

Deno.test("citadel.proto agrees with its codec", () => {
  const request = { csr: "c", validitySeconds: 2 ** 40, metadata: { ImpersonatedIdentity: "spiffe://td/ns/a/sa/b" } };
  const requestBytes = encodeIstioCertificateRequest(request);
  check("citadel.proto", "istio.v1.auth.IstioCertificateRequest", requestBytes, decodeIstioCertificateRequest);
  const responseBytes = encodeIstioCertificateResponse({ certChain: ["a", "b"] });
  check("citadel.proto", "istio.v1.auth.IstioCertificateResponse", responseBytes, decodeIstioCertificateResponse);
});

Deno.test("zds.proto agrees with its codec", () => {
  const requests = [
    { kind: "add", uid: "u", workload: { name: "n", namespace: "s", serviceAccount: "a" } },
    { kind: "delete", uid: "u" },
    { kind: "keep", uid: "u" },
    { kind: "snapshotSent" },
  ] as const;
  for (const request of requests) {
    check("zds.proto", "istio.workload.zds.WorkloadRequest", encodeZdsRequest(request), decodeZdsRequest);
  }
  const acknowledgement = encodeZdsAcknowledgement({ error: "e" });
  check("zds.proto", "istio.workload.zds.WorkloadResponse", acknowledgement, decodeZdsAcknowledgement);
});

Deno.test("reflection.proto agrees with its codec", () => {
  const name = "grpc.reflection.v1.ServerReflection", question = typeOf("reflection.proto", `${name}Request`);
  const ask = (plain: object) =>
    decodeReflectionRequest(new Uint8Array(question.encode(question.fromObject(plain)).finish()));
  assertEquals(ask({ host: "h", listServices: "*" }), { host: "h", listsServices: true });
  assertEquals(ask({ fileContainingSymbol: "a.B" }), { host: "", listsServices: false });
  const response = typeOf("reflection.proto", `${name}Response`);
  const read = (bytes: Uint8Array) => response.toObject(response.decode(bytes));
  const bytes = question.encode(question.fromObject({ host: "h", listServices: "*" })).finish();
  const asked = { host: "h", question: new Uint8Array(bytes) }, originalRequest = { host: "h", listServices: "*" };
  assertEquals(read(encodeReflectionResponse({ ...asked, answer: { services: ["a", "b"] } })), {
    validHost: "h",
    originalRequest,
    listServicesResponse: { service: [{ name: "a" }, { name: "b" }] },
  });
  assertEquals(read(encodeReflectionResponse({ ...asked, answer: { code: 5, message: "m" } })), {
    validHost: "h",
    originalRequest,
    errorResponse: { errorCode: 5, errorMessage: "m" },
  });
});
