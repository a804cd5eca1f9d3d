import { assert, assertEquals } from "@std/assert";
import { formatSocketAddress } from "../base/address.ts";
import { ownsAddress } from "./gateway_reference.ts";
import { formatIdentity } from "./identity.ts";
import { PlainMeshView } from "./plain_view.ts";
import { seededRandom } from "./proto/hostile_bytes_testing.ts";
import { HBONE_PORT, resolve } from "./resolve.ts";
import type { LoadBalancingMode, LoadBalancingScope, Service } from "./service.ts";
import { ip, reference, seeds, service, serving, workload } from "./testing.ts";
import type { GatewayAddress, Workload } from "./workload.ts";

/** A small mesh, so that its parts often meet: eight workloads, four services, references that may lead nowhere. */
function randomMesh(random: () => number): { workloads: Workload[]; services: Service[] } {
  const below = (limit: number) => Math.floor(random() * limit);
  const maybe = <T>(value: () => T): T | undefined => below(3) === 0 ? value() : undefined;
  const anyReference = (): GatewayAddress =>
    reference(below(2) === 0 ? `10.0.0.${below(10)}` : `ns${below(2)}/s${below(5)}.example`);
  const workloads = Array.from({ length: 8 }, (_, at) =>
    workload(`w${at}`, below(8) === 0 ? "" : `10.0.0.${at}`, {
      tunnelProtocol: below(2) as 0 | 1,
      namespace: `ns${below(2)}`,
      network: below(8) === 0 ? "remote" : "",
      hostNetwork: below(8) === 0,
      healthy: below(5) > 0,
      capacity: below(3),
      waypoint: maybe(anyReference),
      networkGateway: maybe(anyReference),
      hostname: below(2) === 0 ? `w${at}.host` : "",
      applicationTunnel: maybe(() => ({ protocol: 1, port: 15088 })),
      locality: { region: `r${below(2)}`, zone: `z${below(2)}`, subzone: "" },
      services: serving(Object.fromEntries(
        [0, 1, 2, 3].filter(() => below(2) === 0).map((name) => [`ns${below(2)}/s${name}.example`, `80:${below(3)}`]),
      )),
    }));
  const services = Array.from(
    { length: 4 },
    (_, at) =>
      service(`s${at}`, `10.96.0.${at} 10.0.0.${below(8)}/${28 + below(5)}`, `80:${below(2) * 8080} 15008:15008`, {
        namespace: `ns${below(2)}`,
        namespaceOnly: below(4) === 0,
        subjectAltNames: below(2) === 0 ? [`spiffe://cluster.local/ns/ns0/sa/s${at}`, "example.org"] : [],
        waypoint: maybe(anyReference),
        weightedWaypoints: below(6) === 0 ? [{ destination: anyReference(), weight: below(2) }] : [],
        loadBalancing: maybe(() => ({
          mode: below(4) as LoadBalancingMode,
          routingPreference: [1 + below(6), 1 + below(6)] as LoadBalancingScope[],
          allowUnhealthy: below(2) === 0,
        })),
      }),
  );
  return { workloads, services };
}

/** What DNS says of any hostname. */
const FOUND = ip("192.0.2.1");

Deno.test("resolve() keeps the mesh's promises in any mesh, seeded (ZT-020 to ZT-044)", () => {
  const kinds = new Map<string, number>();
  for (const seed of seeds()) {
    const random = seededRandom(seed), state = randomMesh(random), view = new PlainMeshView(state);
    const source = state.workloads[seed % 8]!;
    for (let target = 0; target < 16; target++) {
      const dialled = ip(target < 8 ? `10.0.0.${target}` : `10.96.0.${target - 8}`);
      const [word0, word1, word2, word3] = dialled, port = 80;
      const where = `seed ${seed}, ${source.name} to ${formatSocketAddress(dialled, port)}`;
      const decided = resolve(view, source, { network: "", word0, word1, word2, word3, port }, random);
      kinds.set(decided.kind, (kinds.get(decided.kind) ?? 0) + 1);
      const byName = decided.kind === "hostname", route = byName ? decided.onward(FOUND) : decided;
      if (byName) {
        const { workload: named, wantsIpv4 } = decided;
        assert(named.hostname !== "" && wantsIpv4, `${where}: a hostname to ask for, in the family that was dialled`);
        assert(!ownsAddress(named, ...dialled), `${where}: what was dialled needs no DNS`);
        const onward = decided.onward(FOUND);
        assertEquals([onward.workload, onward.ip], [named, FOUND], `${where}: and it leads to what was found`);
      }
      const owner = view.workloadAt("", ...dialled), found = view.serviceAt("", ...dialled, source.namespace);
      if (route.kind === "passthrough") {
        assert(owner === undefined, `${where}: no workload of the mesh is passed through, whatever range covers it`);
        const unsecured = found === undefined || found.loadBalancing?.mode === 3;
        assert(unsecured, `${where}: only the unknown, or what the service says, is passed through`);
        assert(found?.waypoint === undefined, `${where}: no waypoint is bypassed`);
        assertEquals([route.ip, route.port], [dialled, port], where);
      }
      if (route.kind === "refused") assert(route.reason.length > 10, `${where}: says why`);
      if (route.kind === "doubleHbone") {
        assert(owner === undefined && route.service === found, `${where}: only a service is asked for elsewhere`);
        assertEquals(route.authority, `${route.service.hostname}:${port}`, where);
        assert(
          (byName || ownsAddress(route.workload, ...route.ip)) && route.port > 0,
          `${where}: the gateway can be dialled`,
        );
        assert(route.identities.includes(formatIdentity(route.workload)), `${where}: the gateway may present itself`);
        assert(route.innerIdentities.length > 0, `${where}: the peer behind it must present something`);
        const far = state.workloads.filter((it) => it.network !== source.network && it.networkGateway !== undefined);
        assert(far.length > 0, `${where}: only for what is on another network`);
      }
      if (route.kind !== "tcp" && route.kind !== "hbone") continue;
      const { workload: chosen } = route;
      assert(byName || ownsAddress(chosen, ...route.ip), `${where}: the address dialled is the chosen workload's`);
      assertEquals(chosen.network, source.network, `${where}: never into another network`);
      assert(route.port > 0, `${where}: a port is known`);
      if (route.kind === "tcp") {
        assertEquals(chosen.tunnelProtocol, 0, `${where}: HBONE workloads are never reached in the clear`);
      } else {
        assert(route.identities.includes(formatIdentity(chosen)), `${where}: the chosen one may present itself`);
        if (route.viaWaypoint) assertEquals(route.authority, formatSocketAddress(dialled, port), where);
        else assertEquals(route.port, HBONE_PORT, where);
      }
      if (owner === undefined && found?.waypoint !== undefined) {
        assert(route.kind === "hbone" && route.viaWaypoint, `${where}: a service's waypoint is never bypassed`);
      }
      if (route.service !== undefined && !(route.kind === "hbone" && route.viaWaypoint)) {
        assert(view.endpointsOf(route.service).includes(chosen), `${where}: an endpoint of the service`);
        assert(chosen.capacity > 0, `${where}: capacity 0 is never chosen`);
      }
    }
  }
  assertEquals(
    [...kinds.keys()].sort(),
    ["doubleHbone", "hbone", "hostname", "passthrough", "refused", "tcp"],
    "every kind of route was seen",
  );
});
