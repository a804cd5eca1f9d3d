import { assertEquals } from "@std/assert";
import { EMPTY_MATCH, type PolicyMatch } from "../../mesh/policy.ts";
import { encodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import { encodeServiceAddress, encodeWorkloadAddress } from "../../mesh/proto/workload_codec.ts";
import { createTables, openTables, type Tables } from "../tables/handles.ts";
import { CONNECTION, ConnectionKind, ConnectionState, Direction } from "../tables/layout.ts";
import { ipv4, policyOf, serviceOf, workloadOf } from "../tables/testing.ts";
import { configDump, type ConfigDumpSources, dumpPolicy, dumpService, dumpWorkload } from "./config_dump.ts";
import { MeshState } from "./state.ts";

/** As it is read back: what is undefined is gone. */
function read(dumped: unknown): unknown {
  return JSON.parse(JSON.stringify(dumped));
}

function smallTables(): Tables {
  const sizes = { pods: 2, identities: 1, flowsPerWorker: 4, connectionsPerWorker: 4, snapshotBytes: 4096 };
  return openTables(createTables(sizes));
}

function sourcesOf(state: MeshState, change: Partial<ConfigDumpSources> = {}): ConfigDumpSources {
  return { state, version: {}, config: {}, certificates: [], pods: undefined, tables: smallTables(), ...change };
}

Deno.test("a workload: nine members always, the others if not default (ZT-209)", () => {
  const plain = workloadOf("", { name: "w", trustDomain: "", serviceAccount: "" });
  assertEquals(read(dumpWorkload(plain)), {
    workloadIps: [],
    protocol: "TCP",
    networkMode: "Standard",
    name: "w",
    namespace: "default",
    workloadType: "deployment",
    status: "Healthy",
    clusterId: "Kubernetes",
    capacity: 1,
  });
  const full = workloadOf("c//Pod/a/w", {
    addresses: [ipv4(0x0a000001), [0x20010db8, 0, 0, 1]],
    network: "n",
    hostname: "w.example",
    tunnelProtocol: 1,
    waypoint: { address: { network: "n", ip: ipv4(0x0a0000ff) }, hboneMtlsPort: 15008 },
    networkGateway: { hostname: { namespace: "gw", hostname: "gw.svc" }, hboneMtlsPort: 15008 },
    node: "node",
    canonicalName: "cn",
    canonicalRevision: "v1",
    workloadType: 2,
    workloadName: "wn",
    nativeTunnel: true,
    applicationTunnel: { protocol: 1, port: 0 },
    authorizationPolicies: ["a/p"],
    healthy: false,
    locality: { region: "r", zone: "", subzone: "" },
    services: new Map([["b/y", []], ["a/x", [{ servicePort: 80, targetPort: 8080 }]]]),
    hostNetwork: true,
    capacity: 0,
  });
  assertEquals(read(dumpWorkload(full)), {
    workloadIps: ["10.0.0.1", "2001:db8::1"],
    waypoint: { destination: "n/10.0.0.255", hboneMtlsPort: 15008 },
    networkGateway: { destination: "gw/gw.svc", hboneMtlsPort: 15008 },
    protocol: "HBONE",
    networkMode: "HostNetwork",
    uid: "c//Pod/a/w",
    name: "c//Pod/a/w",
    namespace: "default",
    trustDomain: "cluster.local",
    serviceAccount: "default",
    network: "n",
    workloadName: "wn",
    workloadType: "pod",
    canonicalName: "cn",
    canonicalRevision: "v1",
    hostname: "w.example",
    node: "node",
    nativeTunnel: true,
    applicationTunnel: { protocol: "PROXY", port: null },
    authorizationPolicies: ["a/p"],
    status: "Unhealthy",
    clusterId: "Kubernetes",
    locality: { region: "r", zone: "", subzone: "" },
    services: ["a/x", "b/y"],
    capacity: 0,
  });
});

Deno.test("a service: VIPs apart from CIDRs, endpoints by uid (ZT-210)", () => {
  const key = "a/s.a.svc", ports = [{ servicePort: 80, targetPort: 9090 }];
  const service = serviceOf("a", "s.a.svc", {
    addresses: [{ network: "n", ip: ipv4(1) }, { network: "", ip: ipv4(0x0a000000), prefixLength: 8 }],
    ports: [{ servicePort: 80, targetPort: 8080 }],
    subjectAltNames: ["spiffe://x/ns/a/sa/b"],
    weightedWaypoints: [{
      destination: { hostname: { namespace: "w", hostname: "w.svc" }, hboneMtlsPort: 1 },
      weight: 3,
    }],
    loadBalancing: { routingPreference: [6, 1], mode: 2, allowUnhealthy: true },
    ipFamilies: 3,
    namespaceOnly: true,
  });
  assertEquals(read(dumpService(service, [workloadOf("u1", { services: new Map([[key, ports]]), healthy: false })])), {
    name: "s",
    namespace: "a",
    hostname: "s.a.svc",
    vips: ["n/0.0.0.1"],
    cidrVips: [{ network: "", cidr: "10.0.0.0/8" }],
    ports: { "80": 8080 },
    endpoints: { u1: { workloadUid: "u1", port: { "80": 9090 }, status: "Unhealthy" } },
    subjectAltNames: ["spiffe://x/ns/a/sa/b"],
    weightedWaypoints: [{ destination: { destination: "w/w.svc", hboneMtlsPort: 1 }, weight: 3 }],
    loadBalancer: { routingPreferences: ["Network", "Region"], mode: "Failover", healthPolicy: "AllowAll" },
    ipFamilies: "Dual",
    canonical: false,
    visibility: "Namespace",
  });
  assertEquals(read(dumpService(serviceOf("a", "t"), [])), {
    name: "t",
    namespace: "a",
    hostname: "t",
    vips: [],
    ports: {},
    endpoints: {},
    subjectAltNames: [],
    canonical: false,
    visibility: "Public",
  });
});

Deno.test("a policy: rules as lists of lists of matches, empty lists left out (ZT-211)", () => {
  const match: PolicyMatch = {
    ...EMPTY_MATCH,
    namespaces: [{ kind: "exact", value: "a" }, { kind: "prefix", value: "b" }],
    notPrincipals: [{ kind: "suffix", value: "c" }, { kind: "presence", value: "" }],
    serviceAccounts: [{ namespace: "n", serviceAccount: "s" }],
    sourceIps: [{ ip: ipv4(0x0a000000), prefixLength: 8 }],
    notDestinationIps: [{ ip: [0x20010db8, 0, 0, 0], prefixLength: 32 }],
    destinationPorts: [80],
  };
  const policy = policyOf("n/p", { scope: 2, action: 1, rules: [{ clauses: [[match, EMPTY_MATCH], []] }] });
  assertEquals(read(dumpPolicy(policy)), {
    name: "p",
    namespace: "n",
    scope: "WorkloadSelector",
    action: "Deny",
    rules: [[[
      {
        namespaces: [{ Exact: "a" }, { Prefix: "b" }],
        serviceAccounts: [{ namespace: "n", serviceAccount: "s" }],
        notPrincipals: [{ Suffix: "c" }, { Presence: [] }],
        sourceIps: ["10.0.0.0/8"],
        notDestinationIps: ["2001:db8::/32"],
        destinationPorts: [80],
      },
      {},
    ], []]],
    dryRun: false,
  });
});

Deno.test("the whole dump: keys, order, staged endpoints, certificates (ZT-208, ZT-212)", () => {
  const state = new MeshState("");
  const services = new Map([["a/known", []], ["a/unknown", [{ servicePort: 1, targetPort: 2 }]]]);
  const workloads = ["u2", "u1"].map((uid) => workloadOf(uid, { services }));
  state.applyAddresses([
    ...workloads.map((workload) => ({ name: workload.uid, bytes: encodeWorkloadAddress(workload) })),
    ...["known", "also"].map((hostname) => ({
      name: `a/${hostname}`,
      bytes: encodeServiceAddress(serviceOf("a", hostname)),
    })),
  ], []);
  for (const name of ["n/q", "n/p"]) state.applyPolicies([{ name, bytes: encodeAuthorization(policyOf(name)) }], []);
  const pem = { pem: "PEM", serialNumber: "123", validFromMs: 0, expirationTimeMs: 1_000_500 };
  const certificates = ["spiffe://b", "spiffe://a"].map((identity) => ({
    identity,
    state: "Available",
    certChain: [pem],
    rootCerts: [],
  }));
  const dump = JSON.parse(configDump(sourcesOf(state, { certificates, config: { proxyMode: "Shared" } })));
  assertEquals(Object.keys(dump), [
    "workloads",
    "services",
    "policies",
    "stagedServices",
    "staticConfig",
    "version",
    "config",
    "certificates",
  ]);
  assertEquals(dump.workloads.map((it: { uid: string }) => it.uid), ["u1", "u2"]);
  assertEquals(dump.services.map((it: { hostname: string }) => it.hostname), ["also", "known"]);
  assertEquals(Object.keys(dump.services[1].endpoints), ["u1", "u2"]);
  assertEquals(dump.policies.map((it: { name: string }) => it.name), ["p", "q"]);
  assertEquals(dump.stagedServices, {
    "a/unknown": Object.fromEntries(
      ["u1", "u2"].map((uid) => [uid, { workloadUid: uid, port: { "1": 2 }, status: "Healthy" }]),
    ),
  });
  assertEquals(dump.staticConfig, { workloads: [], services: [], policies: [] });
  assertEquals(dump.certificates[0], {
    identity: "spiffe://a",
    state: "Available",
    certChain: [{
      pem: btoa("PEM"),
      serialNumber: "123",
      validFrom: "1970-01-01T00:00:00Z",
      expirationTime: "1970-01-01T00:16:40Z",
    }],
    rootCerts: [],
  });
});

Deno.test("workloadState shows each pod's live connections (ZT-213)", () => {
  const tables = smallTables(), rows = tables.connections[0]!;
  const open = (row: number, podRow: number, direction: number, kind: number, host: string) => {
    rows.set(row, CONNECTION.podRow, podRow);
    rows.set(row, CONNECTION.direction, direction);
    rows.set(row, CONNECTION.kind, kind);
    const fields = [CONNECTION.sourceIp, CONNECTION.destinationIp, CONNECTION.actualIp];
    for (const [at, field] of fields.entries()) {
      for (const [word, value] of ipv4(0x0a000001 + at).entries()) rows.setAt(row, field, word, value);
    }
    rows.set(row, CONNECTION.sourcePort, 1);
    rows.set(row, CONNECTION.destinationPort, 2);
    rows.set(row, CONNECTION.actualPort, 3);
    const bytes = new TextEncoder().encode(host);
    rows.set(row, CONNECTION.hostBytes, bytes.length);
    rows.writeBytes(row, CONNECTION.host, bytes);
    rows.store(row, CONNECTION.state, ConnectionState.OPEN);
  };
  open(0, 1, Direction.OUTBOUND, ConnectionKind.HBONE, "");
  open(1, 1, Direction.INBOUND, ConnectionKind.TCP, "");
  open(2, 1, Direction.INBOUND, ConnectionKind.HBONE, "s.svc");
  open(3, 1, Direction.OUTBOUND, ConnectionKind.DOUBLE_HBONE, "");
  rows.store(3, CONNECTION.state, ConnectionState.CLOSING);
  const facts = { name: "w", namespace: "a", serviceAccount: "sa" };
  const pods = [{ uid: "p2", podRow: -1, up: false, facts }, { uid: "p1", podRow: 1, up: true, facts }];
  const dump = JSON.parse(configDump(sourcesOf(new MeshState(""), { pods, tables })));
  const inbound = { src: "10.0.0.1:1", actualDst: "10.0.0.2:2" };
  assertEquals(dump.workloadState, {
    p1: {
      state: "Up",
      info: facts,
      connections: {
        inbound: [{ ...inbound, originalDst: null, protocol: "TCP" }, {
          ...inbound,
          originalDst: "s.svc",
          protocol: "HBONE",
        }],
        outbound: [{ src: "10.0.0.1:1", originalDst: "10.0.0.2:2", actualDst: "10.0.0.3:3", protocol: "HBONE" }],
      },
    },
    p2: { state: "Pending", info: facts, connections: { inbound: [], outbound: [] } },
  });
});
