import { assert, assertEquals } from "@std/assert";
import { chooseEndpoint, endpointPort } from "./balance.ts";
import { PlainMeshView } from "./plain_view.ts";
import { seededRandom } from "./proto/hostile_bytes_testing.ts";
import { type LoadBalancing, LoadBalancingMode, LoadBalancingScope, type Service } from "./service.ts";
import { reference, service, serving, workload } from "./testing.ts";
import type { Workload } from "./workload.ts";

const { REGION, ZONE, SUBZONE, NODE, CLUSTER, NETWORK } = LoadBalancingScope;
const place = (region: string, zone: string, subzone = "") => ({ locality: { region, zone, subzone } });
const endpoint = (name: string, fields: Partial<Workload> = {}) =>
  workload(name, "10.1.0.1", { services: serving({ "ns1/svc.example": "80:8080" }), ...fields });
const source = workload("client", "10.0.0.1", { ...place("r1", "z1", "s1"), node: "n1", network: "net1" });

/** The names that draws can give. */
function drawable(loadBalancing: Partial<LoadBalancing> | undefined, endpoints: Workload[]): string[] {
  const balancing = loadBalancing && { mode: LoadBalancingMode.FAILOVER, routingPreference: [], allowUnhealthy: false };
  const svc = service("svc", "10.96.0.1", "80:8080", {
    loadBalancing: balancing && { ...balancing, ...loadBalancing },
  });
  const view = new PlainMeshView({ services: [svc], workloads: endpoints });
  const names = new Set<string>();
  for (let draw = 0; draw < 100; draw++) {
    const chosen = chooseEndpoint(view, svc, { source, port: 80, forWaypoint: false }, () => draw / 100);
    if (chosen !== undefined) names.add(chosen.name);
  }
  return [...names].sort();
}

const local = endpoint("local", { ...place("r1", "z1", "s1"), node: "n1", network: "net1" });
const sameZone = endpoint("same-zone", { ...place("r1", "z1"), network: "net1" });
const sameRegion = endpoint("same-region", { ...place("r1", "z2"), network: "net1" });
const elsewhere = endpoint("elsewhere", { ...place("r2", "z1"), network: "net1" });
const remote = endpoint("remote", { ...place("r1", "z1"), network: "net2", networkGateway: reference("10.9.9.9") });

Deno.test("chooseEndpoint() takes all without a mode (ZT-029)", () => {
  assertEquals(drawable(undefined, [local, elsewhere]), ["elsewhere", "local"]);
  assertEquals(drawable({ mode: 0, routingPreference: [REGION] }, [local, elsewhere]), ["elsewhere", "local"]);
});

Deno.test("chooseEndpoint() STRICT wants every preference (ZT-029)", () => {
  const strict = (preference: LoadBalancingScope[], ...endpoints: Workload[]) =>
    drawable({ mode: LoadBalancingMode.STRICT, routingPreference: preference }, endpoints);
  assertEquals(strict([REGION, ZONE], local, sameZone, sameRegion, elsewhere), ["local", "same-zone"]);
  assertEquals(strict([NODE], sameZone, sameRegion), []);
  assertEquals(strict([NETWORK, REGION], remote), []); // ZT-030
  assertEquals(strict([CLUSTER], local, remote), ["local", "remote"]);
});

Deno.test("chooseEndpoint() FAILOVER keeps the highest rank, counted up to the first miss (ZT-029)", () => {
  const failover = (preference: LoadBalancingScope[], ...endpoints: Workload[]) =>
    drawable({ routingPreference: preference }, endpoints);
  const all = [local, sameZone, sameRegion, elsewhere];
  assertEquals(failover([REGION, ZONE, SUBZONE], ...all), ["local"]);
  assertEquals(failover([REGION, ZONE], ...all), ["local", "same-zone"]);
  assertEquals(failover([REGION, ZONE], sameRegion, elsewhere), ["same-region"]);
  // The zone matches, but the region before it does not.
  assertEquals(failover([REGION, ZONE], elsewhere, endpoint("far", place("r3", "z3"))), ["elsewhere", "far"]);
  assertEquals(failover([], ...all), ["elsewhere", "local", "same-region", "same-zone"]);
});

Deno.test("chooseEndpoint() counts equal empty strings as a match (ZT-029)", () => {
  const nowhere = workload("client", "10.0.0.1");
  const svc = service("svc", "", "80:80", {
    loadBalancing: { mode: LoadBalancingMode.STRICT, routingPreference: [REGION, NODE], allowUnhealthy: false },
  });
  const view = new PlainMeshView({ workloads: [endpoint("a")] });
  assertEquals(chooseEndpoint(view, svc, { source: nowhere, port: 80, forWaypoint: false }, () => 0)?.name, "a");
});

Deno.test("chooseEndpoint() puts the same network before all else, and orders the remote ones (ZT-030)", () => {
  const preference = { routingPreference: [NETWORK, REGION, ZONE] };
  assertEquals(drawable(preference, [remote, elsewhere]), ["elsewhere"]);
  assertEquals(drawable(preference, [remote, elsewhere, sameRegion]), ["same-region"]);
  const remoteFar = { ...remote, name: "remote-far", uid: "far", ...place("r9", "z9") };
  assertEquals(drawable(preference, [remote, remoteFar]), ["remote"]);
});

Deno.test("chooseEndpoint() falls over to another network when local endpoints are unhealthy (ZT-030, ZT-137)", () => {
  const preference = { routingPreference: [NETWORK, REGION] };
  assertEquals(drawable(preference, [{ ...local, healthy: false }, remote]), ["remote"]);
  assertEquals(drawable({ ...preference, allowUnhealthy: true }, [{ ...local, healthy: false }, remote]), ["local"]);
});

Deno.test("chooseEndpoint() drops what has no way to be reached (ZT-026)", () => {
  const nameless = { addresses: [], network: "net1" };
  assertEquals(drawable(undefined, [endpoint("a", nameless)]), []);
  assertEquals(drawable(undefined, [endpoint("a", { ...nameless, networkGateway: reference("10.9.9.9") })]), []);
  assertEquals(drawable(undefined, [endpoint("a", { ...nameless, hostname: "a.example" })]), ["a"]);
  assertEquals(drawable(undefined, [endpoint("a", { ...nameless, network: "net2" })]), []);
  assertEquals(drawable(undefined, [{ ...remote, addresses: [] }]), ["remote"]);
});

Deno.test("chooseEndpoint() draws in proportion to capacity (ZT-031)", () => {
  const svc = service("svc", "", "80:80");
  const capacities = [0, 1, 3, 0, 6, 0];
  const view = new PlainMeshView({ workloads: capacities.map((capacity, at) => endpoint(`w${at}`, { capacity })) });
  const random = seededRandom(1), draws = 20_000, counts = capacities.map(() => 0);
  for (let draw = 0; draw < draws; draw++) {
    const chosen = chooseEndpoint(view, svc, { source, port: 80, forWaypoint: false }, random);
    counts[Number(chosen?.name.slice(1))]!++;
  }
  for (const [at, capacity] of capacities.entries()) {
    assert(Math.abs(counts[at]! / draws - capacity / 10) < 0.02, `capacity ${capacity} drawn ${counts[at]} times`);
    if (capacity === 0) assertEquals(counts[at], 0);
  }
});

Deno.test("chooseEndpoint() lets no endpoint of capacity 0 hide others (ZT-031)", () => {
  assertEquals(drawable({ routingPreference: [ZONE] }, [{ ...sameZone, capacity: 0 }, sameRegion]), ["same-region"]);
  assertEquals(drawable(undefined, [{ ...local, capacity: 0 }]), []);
});

Deno.test("endpointPort() prefers the endpoint's mapping, then the service's, then a tunnel's (ZT-027, ZT-028)", () => {
  const at = (ports: string, mapping: string, tunnelPort: number | undefined, forWaypoint: boolean) => {
    const svc: Service = service("svc", "", ports);
    const applicationTunnel = tunnelPort === undefined ? undefined : { protocol: 1 as const, port: tunnelPort };
    const services = serving({ "ns1/svc.example": mapping });
    return endpointPort(svc, workload("w", "", { services, applicationTunnel }), 80, forWaypoint);
  };
  const cases: [string, string, number | undefined, boolean, number][] = [
    ["80:8080", "80:9090", undefined, false, 9090],
    ["80:8080", "", undefined, false, 8080],
    ["80:8080", "80:0", undefined, false, 8080],
    ["80:0", "80:9090", undefined, false, 9090],
    ["80:0", "", undefined, false, 0],
    ["80:0", "", 15088, false, 0],
    ["", "80:9090", undefined, false, 0],
    ["", "80:9090", undefined, true, 0],
    ["", "80:9090", 15088, true, 9090],
    ["", "", 15088, true, 80],
    ["", "", 0, true, 0],
    ["", "", 15088, false, 0],
    ["80:8080", "", 15088, true, 8080],
    ["80:0", "", 15088, true, 80],
  ];
  for (const [ports, mapping, tunnel, forWaypoint, expected] of cases) {
    assertEquals(
      at(ports, mapping, tunnel, forWaypoint),
      expected,
      JSON.stringify([ports, mapping, tunnel, forWaypoint]),
    );
  }
});
