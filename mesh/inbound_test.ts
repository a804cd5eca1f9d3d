import { assertEquals } from "@std/assert";
import { formatSocketAddress, parseSocketAddress } from "../base/address.ts";
import { type InboundAuthority, resolveInbound } from "./inbound.ts";
import { type MeshState, PlainMeshView } from "./plain_view.ts";
import type { Service } from "./service.ts";
import { ip, reference, service, serving, workload } from "./testing.ts";
import type { Workload } from "./workload.ts";

const RESERVED = [15001, 15006, 15008];
const PROXY_TUNNEL = { protocol: 1, port: 15088 } as const;

function authority(text: string): InboundAuthority {
  const address = parseSocketAddress(text);
  if (address !== undefined) return { kind: "address", ...address };
  const [hostname, port] = text.split(":");
  return { kind: "hostname", hostname: hostname!, port: Number(port) };
}

interface Case {
  claim: string;
  local: Workload;
  state?: MeshState;
  to: string;
  connected?: string;
  expected: string;
}

/** `port`, `→ port dialled` if another, `PROXY destination` if a header is sent; or status and reason. */
function check(cases: Case[]): void {
  for (const { claim, local, state, to, connected = "10.0.0.2", expected } of cases) {
    const view = new PlainMeshView({ ...state, workloads: [local, ...state?.workloads ?? []] });
    const request = { connectedIp: ip(connected), authority: authority(to), network: "", reservedPorts: RESERVED };
    const answer = resolveInbound(view, local, request);
    let text = answer.ok ? `${answer.port}` : `${answer.status} ${answer.reason}`;
    if (answer.ok && answer.connectPort !== answer.port) text += ` → ${answer.connectPort}`;
    if (answer.ok && answer.proxyDestination !== undefined) {
      text += ` PROXY ${formatSocketAddress(answer.proxyDestination.ip, answer.proxyDestination.port)}`;
    }
    assertEquals(text, expected, claim);
  }
}

const app = workload("app", "10.0.0.2");
const svc = (ports = "80:8080", fields: Partial<Service> = {}) => service("svc", "10.96.0.1", ports, fields);
const backend = (mapping: string, fields: Partial<Workload> = {}) =>
  workload("app", "10.0.0.2", { services: serving({ "ns1/svc.example": mapping }), ...fields });

Deno.test("resolveInbound() by address: only us, or what has us as its waypoint (ZT-090)", () => {
  const waypointService = service("waypoint", "10.96.0.9", "15008:15008");
  const waypointPod = workload("wp", "10.0.0.2", { services: serving({ "ns1/waypoint.example": "" }) });
  check([
    { claim: "our own address", local: app, to: "10.0.0.2:80", expected: "80" },
    {
      claim: "our own IPv6 address",
      local: workload("app", "2001:db8::2"),
      connected: "2001:db8::2",
      to: "[2001:db8::2]:80",
      expected: "80",
    },
    {
      claim: "an unknown address",
      local: app,
      to: "10.0.0.3:80",
      expected: "400 ip mismatch: 10.0.0.2 != 10.0.0.3",
    },
    {
      claim: "another workload's address",
      local: app,
      state: { workloads: [workload("other", "10.0.0.3")] },
      to: "10.0.0.3:80",
      expected: "400 ip mismatch: 10.0.0.2 != 10.0.0.3",
    },
    {
      claim: "a service that we serve, but no waypoint of it",
      local: backend("80:8080"),
      state: { services: [svc()] },
      to: "10.96.0.1:80",
      expected: "400 ip mismatch: 10.0.0.2 != 10.96.0.1",
    },
    {
      claim: "a workload whose waypoint is our address",
      local: app,
      state: { workloads: [workload("other", "10.0.0.3", { waypoint: reference("10.0.0.2") })] },
      to: "10.0.0.3:80",
      expected: "80",
    },
    {
      claim: "a workload whose waypoint is a VIP with us behind it",
      local: waypointPod,
      state: {
        services: [waypointService],
        workloads: [workload("other", "10.0.0.3", { waypoint: reference("10.96.0.9") })],
      },
      to: "10.0.0.3:80",
      expected: "80",
    },
    {
      claim: "a service whose waypoint is a hostname with us behind it",
      local: waypointPod,
      state: { services: [waypointService, svc("80:8080", { waypoint: reference("ns1/waypoint.example") })] },
      to: "10.96.0.1:80",
      expected: "80",
    },
    {
      claim: "a service hidden from our namespace whose waypoint we are (ZT-141)",
      local: waypointPod,
      state: {
        services: [
          waypointService,
          svc("80:8080", { namespace: "ns2", namespaceOnly: true, waypoint: reference("ns1/waypoint.example") }),
        ],
      },
      to: "10.96.0.1:80",
      expected: "80",
    },
    {
      claim: "a service with us among its weighted waypoints (ZT-035)",
      local: waypointPod,
      state: {
        services: [
          waypointService,
          svc("80:8080", { weightedWaypoints: [{ destination: reference("10.96.0.9"), weight: 1 }] }),
        ],
      },
      to: "10.96.0.1:80",
      expected: "80",
    },
    {
      claim: "a weighted waypoint of weight 0 gets no traffic, so none may come",
      local: waypointPod,
      state: {
        services: [
          waypointService,
          svc("80:8080", { weightedWaypoints: [{ destination: reference("10.96.0.9"), weight: 0 }] }),
        ],
      },
      to: "10.96.0.1:80",
      expected: "400 ip mismatch: 10.0.0.2 != 10.96.0.1",
    },
    {
      claim: "a service with another waypoint",
      local: app,
      state: { services: [svc("80:8080", { waypoint: reference("10.0.0.7") })] },
      to: "10.96.0.1:80",
      expected: "400 ip mismatch: 10.0.0.2 != 10.96.0.1",
    },
    {
      claim: "a workload with another waypoint",
      local: app,
      state: { workloads: [workload("other", "10.0.0.3", { waypoint: reference("10.0.0.7") })] },
      to: "10.0.0.3:80",
      expected: "400 ip mismatch: 10.0.0.2 != 10.0.0.3",
    },
    {
      claim: "a workload with a waypoint may be reached directly (ZT-092)",
      local: workload("app", "10.0.0.2", { waypoint: reference("10.0.0.7") }),
      to: "10.0.0.2:80",
      expected: "80",
    },
  ]);
});

Deno.test("resolveInbound() by hostname resolves the port for this endpoint (ZT-091)", () => {
  const other = (fields: Partial<Service>) => svc("80:7070", { namespace: "ns2", ...fields });
  check([
    {
      claim: "the endpoint's mapping",
      local: backend("80:9090"),
      state: { services: [svc()] },
      to: "svc.example:80",
      expected: "9090",
    },
    {
      claim: "else the target port",
      local: backend(""),
      state: { services: [svc()] },
      to: "svc.example:80",
      expected: "8080",
    },
    {
      claim: "a named port",
      local: backend("80:9090"),
      state: { services: [svc("80:0")] },
      to: "svc.example:80",
      expected: "9090",
    },
    {
      claim: "a named port that this endpoint does not map",
      local: backend(""),
      state: { services: [svc("80:0")] },
      to: "svc.example:80",
      expected: "503 requested service svc.example:80 found, but cannot resolve port",
    },
    {
      claim: "a port that the service lacks",
      local: backend("80:9090"),
      state: { services: [svc()] },
      to: "svc.example:81",
      expected: "503 requested service svc.example:81 found, but cannot resolve port",
    },
    {
      claim: "an unknown hostname",
      local: app,
      to: "svc.example:80",
      expected: "503 unknown service hostname: svc.example",
    },
    {
      claim: "the local namespace before the canonical one",
      local: app,
      state: { services: [other({ canonical: true }), svc()] },
      to: "svc.example:80",
      expected: "8080",
    },
    {
      claim: "the canonical one before the first",
      local: app,
      state: { services: [svc("80:1", { namespace: "ns0" }), other({ canonical: true })] },
      to: "svc.example:80",
      expected: "7070",
    },
    {
      claim: "else the first",
      local: app,
      state: { services: [other({}), svc("80:1", { namespace: "ns3" })] },
      to: "svc.example:80",
      expected: "7070",
    },
    {
      claim: "not one that our namespace may not see (ZT-141)",
      local: app,
      state: { services: [other({ namespaceOnly: true, canonical: true })] },
      to: "svc.example:80",
      expected: "503 unknown service hostname: svc.example",
    },
  ]);
});

Deno.test("resolveInbound() refuses the ports of our own listeners (ZT-006)", () => {
  for (const port of RESERVED) {
    check([{
      claim: `port ${port}`,
      local: app,
      to: `10.0.0.2:${port}`,
      expected: "503 attempted recursive call to ourselves",
    }]);
  }
  check([
    { claim: "not the others", local: app, to: "10.0.0.2:15020", expected: "15020" },
    {
      claim: "also behind a service's target port",
      local: backend("80:15001"),
      state: { services: [svc()] },
      to: "svc.example:80",
      expected: "503 attempted recursive call to ourselves",
    },
  ]);
});

Deno.test("resolveInbound() hands over to an application tunnel (ZT-090, ZT-095, ZT-096)", () => {
  const tunnelled = (fields: Partial<Workload> = {}) => backend("", { applicationTunnel: PROXY_TUNNEL, ...fields });
  check([
    {
      claim: "any address is accepted, told by the PROXY header",
      local: tunnelled(),
      to: "10.96.0.7:80",
      expected: "80 → 15088 PROXY 10.96.0.7:80",
    },
    {
      claim: "without a port of its own the resolved port is dialled",
      local: tunnelled({ applicationTunnel: { protocol: 1, port: 0 } }),
      to: "10.0.0.2:80",
      expected: "80 PROXY 10.0.0.2:80",
    },
    {
      claim: "without PROXY no header",
      local: tunnelled({ applicationTunnel: { protocol: 0, port: 15088 } }),
      to: "10.0.0.3:80",
      expected: "80 → 15088",
    },
    {
      claim: "a hostname becomes its VIP and service port, IPv4 preferred",
      local: tunnelled(),
      state: { services: [service("svc", "2001:db8::5 10.96.0.1", "80:8080")] },
      to: "svc.example:80",
      expected: "8080 → 15088 PROXY 10.96.0.1:80",
    },
    {
      claim: "a VIP of another network is better than none",
      local: tunnelled(),
      state: { services: [svc("80:8080", { addresses: [{ network: "net2", ip: ip("10.97.0.1") }] })] },
      to: "svc.example:80",
      expected: "8080 → 15088 PROXY 10.97.0.1:80",
    },
    {
      claim: "a hostname without VIP",
      local: tunnelled(),
      state: { services: [service("svc", "10.0.0.0/8", "80:8080")] },
      to: "svc.example:80",
      expected: "503 requested service svc.example found, but has no IP addresses",
    },
  ]);
});
