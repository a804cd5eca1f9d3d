import { assertEquals } from "@std/assert";
import type { MeshState } from "./plain_view.ts";
import { backend, check, HBONE, route, summary, svc } from "./resolve_testing.ts";
import { LoadBalancingMode } from "./service.ts";
import { ip, reference, service, serving, workload } from "./testing.ts";

Deno.test("resolve() follows what the address belongs to (ZT-017 to ZT-025, ZT-041)", () => {
  check([
    {
      claim: "an unknown address is passthrough (ZT-020)",
      state: {},
      to: "1.2.3.4",
      expected: "passthrough 1.2.3.4:80",
    },
    {
      claim: "a workload without HBONE gets TCP (ZT-041)",
      state: { workloads: [workload("w", "10.0.0.2")] },
      to: "10.0.0.2",
      expected: "tcp 10.0.0.2:80 at w",
    },
    {
      claim: "a workload with HBONE gets a tunnel to 15008, whatever its node (ZT-041)",
      state: { workloads: [workload("w", "10.0.0.2", { ...HBONE, node: "remote" })] },
      to: "10.0.0.2",
      expected: "hbone 10.0.0.2:15008 for 10.0.0.2:80 at w",
    },
    {
      claim: "the same node makes no difference (ZT-041)",
      state: { workloads: [workload("w", "10.0.0.2", { ...HBONE, node: "n" })] },
      source: workload("client", "10.0.0.1", { node: "n" }),
      to: "10.0.0.2",
      expected: "hbone 10.0.0.2:15008 for 10.0.0.2:80 at w",
    },
    {
      claim: "an IPv6 authority is bracketed (ZT-053)",
      state: { workloads: [workload("w", "2001:db8::2", HBONE)] },
      to: "2001:db8::2",
      expected: "hbone [2001:db8::2]:15008 for [2001:db8::2]:80 at w",
    },
    {
      claim: "the source's own waypoint plays no part (ZT-040)",
      state: { workloads: [workload("w", "10.0.0.2", HBONE), workload("wp", "10.0.0.9", HBONE)] },
      source: workload("client", "10.0.0.1", { waypoint: reference("10.0.0.9") }),
      to: "10.0.0.2",
      expected: "hbone 10.0.0.2:15008 for 10.0.0.2:80 at w",
    },
    {
      claim: "a service is translated to the endpoint's address and port (ZT-027, ZT-041)",
      state: { services: [svc()], workloads: [backend("b", "10.0.0.2", HBONE)] },
      to: "10.96.0.1",
      expected: "hbone 10.0.0.2:15008 for 10.0.0.2:8080 at b of svc",
    },
    {
      claim: "a service without endpoints fails, no passthrough (ZT-022)",
      state: { services: [svc()] },
      to: "10.96.0.1",
      expected: "refused no healthy upstream: 10.96.0.1:80",
    },
    {
      claim: "a port that the service does not define fails (ZT-022, ZT-027)",
      state: { services: [svc()], workloads: [backend("b", "10.0.0.2")] },
      to: "10.96.0.1",
      port: 81,
      expected: "refused no healthy upstream: 10.96.0.1:81",
    },
    {
      claim: "only unhealthy endpoints count as none (ZT-137)",
      state: { services: [svc()], workloads: [backend("b", "10.0.0.2", { healthy: false })] },
      to: "10.96.0.1",
      expected: "refused no healthy upstream: 10.96.0.1:80",
    },
    {
      claim: "mode PASSTHROUGH goes to the original address without service (ZT-021)",
      state: {
        services: [svc({ loadBalancing: { mode: 3, routingPreference: [], allowUnhealthy: true } })],
        workloads: [backend("b", "10.0.0.2", HBONE)],
      },
      to: "10.96.0.1",
      port: 9999,
      expected: "passthrough 10.96.0.1:9999",
    },
    {
      // The original sends it there in the clear: peers cannot tell ours from a mesh without the range.
      claim: "a range in mode PASSTHROUGH takes mTLS from no workload in it (ZT-021, ZT-041)",
      state: {
        services: [service("all", "10.0.0.0/8", "80:8080", {
          loadBalancing: { mode: LoadBalancingMode.PASSTHROUGH, routingPreference: [], allowUnhealthy: true },
        })],
        workloads: [workload("b", "10.0.0.2", HBONE)],
      },
      to: "10.0.0.2",
      expected: "hbone 10.0.0.2:15008 for 10.0.0.2:80 at b",
    },
    {
      claim: "a host-network workload is reached through its service (ZT-023)",
      state: { services: [svc()], workloads: [backend("b", "192.168.0.1", { hostNetwork: true })] },
      to: "10.96.0.1",
      expected: "tcp 192.168.0.1:8080 at b of svc",
    },
    {
      claim: "a node's address is passthrough (ZT-023)",
      state: { services: [svc()], workloads: [backend("b", "192.168.0.1", { hostNetwork: true })] },
      to: "192.168.0.1",
      expected: "passthrough 192.168.0.1:80",
    },
    {
      claim: "a pod's address inside a service's range is balanced over the service, keeping no waypoint rule (ZT-019)",
      state: {
        services: [service("svc", "10.0.0.0/24", "80:8080")],
        workloads: [backend("b", "10.0.0.2")],
      },
      to: "10.0.0.2",
      expected: "tcp 10.0.0.2:8080 at b of svc",
    },
    {
      claim: "a service that the client may not see does not exist (ZT-141)",
      state: { services: [svc({ namespace: "other", namespaceOnly: true })] },
      to: "10.96.0.1",
      expected: "passthrough 10.96.0.1:80",
    },
  ]);
});

Deno.test("resolve() maps named ports per endpoint (ZT-027)", () => {
  const named = service("svc", "10.96.0.1", "80:0");
  const mapping = backend("maps", "10.0.0.2", { services: serving({ "ns1/svc.example": "80:1234" }) });
  const without = backend("without", "10.0.0.3", { services: serving({ "ns1/svc.example": "" }) });
  for (const random of [0, 0.5, 0.999]) {
    check([{
      claim: `only the endpoint that maps the port, draw ${random}`,
      state: { services: [named], workloads: [without, mapping] },
      to: "10.96.0.1",
      random,
      expected: "tcp 10.0.0.2:1234 at maps of svc",
    }]);
  }
});

Deno.test("resolve() keeps the dialled address of a dual-stack workload (ZT-032)", () => {
  const dual = workload("w", "10.0.0.2 2001:db8::2", HBONE);
  for (const to of ["10.0.0.2", "2001:db8::2"]) {
    const chosen = route({ state: { workloads: [dual] }, to });
    assertEquals(chosen.kind === "hbone" && chosen.ip, ip(to));
  }
});

Deno.test("resolve() picks the endpoint's address by the service's families (ZT-032)", () => {
  const dual = (order: string) => backend("b", order);
  const cases: [number, string, string, string][] = [
    [0, "10.0.0.2 2001:db8::2", "10.96.0.1", "tcp 10.0.0.2:8080 at b of svc"],
    [0, "10.0.0.2 2001:db8::2", "2001:db8:96::1", "tcp [2001:db8::2]:8080 at b of svc"],
    [3, "10.0.0.2 2001:db8::2", "2001:db8:96::1", "tcp [2001:db8::2]:8080 at b of svc"],
    [1, "2001:db8::2 10.0.0.2", "10.96.0.1", "tcp 10.0.0.2:8080 at b of svc"],
    [1, "2001:db8::2 10.0.0.2", "2001:db8:96::1", "tcp 10.0.0.2:8080 at b of svc"],
    [2, "10.0.0.2 2001:db8::2", "10.96.0.1", "tcp [2001:db8::2]:8080 at b of svc"],
    [2, "10.0.0.2", "10.96.0.1", "refused no valid routing destination for workload: cluster1//Pod/ns1/b"],
  ];
  for (const [ipFamilies, addresses, to, expected] of cases) {
    const both = service("svc", "10.96.0.1 2001:db8:96::1", "80:8080", { ipFamilies: ipFamilies as 0 | 1 | 2 | 3 });
    check([{ claim: `${ipFamilies} ${to}`, state: { services: [both], workloads: [dual(addresses)] }, to, expected }]);
  }
});

Deno.test("resolve() sends to waypoints (ZT-034 to ZT-040)", () => {
  const wp = workload("wp", "10.0.0.9", HBONE);
  const wpService = service("waypoint", "10.96.0.9", "15008:15008");
  const wpBackend = workload("wp", "10.0.0.9", { services: serving({ "ns1/waypoint.example": "15008:15018" }) });
  const w = workload("w", "10.0.0.2", { ...HBONE, waypoint: reference("10.0.0.9") });
  check([
    {
      claim: "a workload's waypoint, asked for the original address (ZT-037)",
      state: { workloads: [w, wp] },
      to: "10.0.0.2",
      expected: "hbone 10.0.0.9:15008 for 10.0.0.2:80 at wp via waypoint",
    },
    {
      claim: "a waypoint of the other family than the destination (ZT-036)",
      state: { workloads: [workload("w", "2001:db8::2", { waypoint: reference("10.0.0.9") }), wp] },
      to: "2001:db8::2",
      expected: "hbone 10.0.0.9:15008 for [2001:db8::2]:80 at wp via waypoint",
    },
    {
      claim: "a service's waypoint keeps the VIP as authority, even if the waypoint speaks no HBONE (ZT-034)",
      state: { services: [svc({ waypoint: reference("10.0.0.9") })], workloads: [workload("wp", "10.0.0.9")] },
      to: "10.96.0.1",
      expected: "hbone 10.0.0.9:15008 for 10.96.0.1:80 at wp of svc via waypoint",
    },
    {
      claim: "a service's waypoint beats mode PASSTHROUGH (ZT-034)",
      state: {
        services: [svc({
          waypoint: reference("10.0.0.9"),
          loadBalancing: { mode: LoadBalancingMode.PASSTHROUGH, routingPreference: [], allowUnhealthy: false },
        })],
        workloads: [wp],
      },
      to: "10.96.0.1",
      expected: "hbone 10.0.0.9:15008 for 10.96.0.1:80 at wp of svc via waypoint",
    },
    {
      claim: "a range in mode PASSTHROUGH leads around no workload's waypoint (ZT-021, ZT-037)",
      state: {
        services: [service("all", "10.0.0.0/29", "80:8080", {
          loadBalancing: { mode: LoadBalancingMode.PASSTHROUGH, routingPreference: [], allowUnhealthy: true },
        })],
        workloads: [backend("b", "10.0.0.2", { ...HBONE, waypoint: reference("10.0.0.9") }), wp],
      },
      to: "10.0.0.2",
      expected: "hbone 10.0.0.9:15008 for 10.0.0.2:80 at wp via waypoint",
    },
    {
      claim: "a waypoint by VIP is balanced, its port resolved (ZT-036)",
      state: { services: [svc({ waypoint: reference("10.96.0.9") }), wpService], workloads: [wpBackend] },
      to: "10.96.0.1",
      expected: "hbone 10.0.0.9:15018 for 10.96.0.1:80 at wp of svc via waypoint",
    },
    {
      claim: "a waypoint by service hostname (ZT-036)",
      state: {
        services: [svc({ waypoint: reference("ns1/waypoint.example") }), wpService],
        workloads: [wpBackend],
      },
      to: "10.96.0.1",
      expected: "hbone 10.0.0.9:15018 for 10.96.0.1:80 at wp of svc via waypoint",
    },
    {
      claim: "a hostname is looked for in its own namespace only (ZT-036, ZT-140)",
      state: { services: [svc({ waypoint: reference("ns2/waypoint.example") }), wpService], workloads: [wpBackend] },
      to: "10.96.0.1",
      expected: "refused unknown waypoint: ns2/waypoint.example",
    },
    {
      claim: "a waypoint by workload hostname, port as is (ZT-036)",
      state: {
        services: [svc({ waypoint: reference("ns1/wp.host", 15009) })],
        workloads: [workload("wp", "10.0.0.9", { hostname: "wp.host" })],
      },
      to: "10.96.0.1",
      expected: "hbone 10.0.0.9:15009 for 10.96.0.1:80 at wp of svc via waypoint",
    },
    {
      claim: "a service of a hidden namespace still serves as waypoint (ZT-141)",
      state: {
        services: [
          svc({ waypoint: reference("infra/waypoint.example") }),
          service("waypoint", "", "15008:15008", { namespace: "infra", namespaceOnly: true }),
        ],
        workloads: [workload("wp", "10.0.0.9", { services: serving({ "infra/waypoint.example": "" }) })],
      },
      to: "10.96.0.1",
      expected: "hbone 10.0.0.9:15008 for 10.96.0.1:80 at wp of svc via waypoint",
    },
    {
      claim: "an unknown waypoint fails, it is never bypassed (ZT-036)",
      state: { workloads: [workload("w", "10.0.0.2", { ...HBONE, waypoint: reference("10.0.0.8") })] },
      to: "10.0.0.2",
      expected: "refused unknown waypoint: /10.0.0.8:15008",
    },
    {
      claim: "a waypoint without usable endpoint fails",
      state: { services: [svc({ waypoint: reference("10.96.0.9") }), wpService] },
      to: "10.96.0.1",
      expected: "refused no healthy upstream: /10.96.0.9:15008",
    },
    {
      claim: "an application tunnel stands in for a port that the waypoint's service lacks (ZT-028)",
      state: {
        services: [svc({ waypoint: reference("10.96.0.9") }), service("waypoint", "10.96.0.9", "")],
        workloads: [
          workload("plain", "10.0.0.8", { services: serving({ "ns1/waypoint.example": "" }) }),
          workload("wp", "10.0.0.9", {
            services: serving({ "ns1/waypoint.example": "" }),
            applicationTunnel: { protocol: 1, port: 15088 },
          }),
        ],
      },
      to: "10.96.0.1",
      expected: "hbone 10.0.0.9:15008 for 10.96.0.1:80 at wp of svc via waypoint",
    },
    {
      claim: "service traffic ignores the endpoint's own waypoint (ZT-038)",
      state: {
        services: [svc()],
        workloads: [backend("b", "10.0.0.2", { ...HBONE, waypoint: reference("10.0.0.9") }), wp],
      },
      to: "10.96.0.1",
      expected: "hbone 10.0.0.2:15008 for 10.0.0.2:8080 at b of svc",
    },
    {
      claim: "a pod of a headless service follows its own waypoint, not the service's (ZT-025)",
      state: {
        services: [service("svc", "", "80:80", { waypoint: reference("10.0.0.7") })],
        workloads: [backend("b", "10.0.0.2", { ...HBONE, waypoint: reference("10.0.0.9") }), wp],
      },
      to: "10.0.0.2",
      expected: "hbone 10.0.0.9:15008 for 10.0.0.2:80 at wp via waypoint",
    },
    {
      claim: "the waypoint itself is not sent back to itself (ZT-039)",
      state: { workloads: [w] },
      source: wp,
      to: "10.0.0.2",
      expected: "hbone 10.0.0.2:15008 for 10.0.0.2:80 at w",
    },
    {
      claim: "any endpoint of the waypoint's service is the waypoint (ZT-039)",
      state: {
        services: [wpService],
        workloads: [workload("w", "10.0.0.2", { waypoint: reference("ns1/waypoint.example") })],
      },
      source: wpBackend,
      to: "10.0.0.2",
      expected: "tcp 10.0.0.2:80 at w",
    },
    {
      claim: "the waypoint's identity on another address does not pass as the waypoint (ZT-039)",
      state: { workloads: [w, wp] },
      source: workload("other", "10.0.0.7", { serviceAccount: "wp" }),
      to: "10.0.0.2",
      expected: "hbone 10.0.0.9:15008 for 10.0.0.2:80 at wp via waypoint",
    },
  ]);
});

Deno.test("resolve() draws weighted waypoints by weight (ZT-035)", () => {
  const workloads = [workload("a", "10.0.0.8"), workload("b", "10.0.0.9"), workload("c", "10.0.0.7")];
  const drawn = (weights: [string, number][], random: number) => {
    const weightedWaypoints = weights.map(([text, weight]) => ({ destination: reference(text), weight }));
    const services = [svc({ waypoint: reference("10.0.0.7"), weightedWaypoints })];
    const chosen = route({ state: { services, workloads }, to: "10.96.0.1", random });
    return chosen.kind === "hbone" ? chosen.workload.name : summary(chosen);
  };
  assertEquals(drawn([], 0.5), "c");
  assertEquals(drawn([["10.0.0.8", 0], ["10.0.0.9", 0]], 0.5), "c");
  const split: [string, number][] = [["10.0.0.8", 75], ["10.0.0.9", 25]];
  assertEquals([0, 0.74, 0.76, 0.999].map((random) => drawn(split, random)), ["a", "a", "b", "b"]);
  const zeroAround: [string, number][] = [["10.0.0.7", 0], ["10.0.0.8", 1], ["10.0.0.9", 0]];
  for (const random of [0, 0.5, 0.999999]) assertEquals(drawn(zeroAround, random), "a");
});

Deno.test("resolve() accepts the service's SPIFFE names and the workload's own identity upstream (ZT-042)", () => {
  const subjectAltNames = ["spiffe://td/ns/a/sa/b", "example.org", "spiffe://td/ns/a"];
  const identities = (state: MeshState, to: string) => {
    const chosen = route({ state, to });
    return chosen.kind === "hbone" ? chosen.identities : summary(chosen);
  };
  const own = "spiffe://cluster.local/ns/ns1/sa/b";
  assertEquals(identities({ workloads: [backend("b", "10.0.0.2", HBONE)] }, "10.0.0.2"), [own]);
  assertEquals(
    identities({ services: [svc({ subjectAltNames })], workloads: [backend("b", "10.0.0.2", HBONE)] }, "10.96.0.1"),
    ["spiffe://td/ns/a/sa/b", own],
  );
  const throughWaypoint = {
    services: [
      svc({ subjectAltNames, waypoint: reference("10.96.0.9") }),
      service("waypoint", "10.96.0.9", "15008:15008", { subjectAltNames: ["spiffe://td/ns/w/sa/w"] }),
    ],
    workloads: [workload("wp", "10.0.0.9", { services: serving({ "ns1/waypoint.example": "" }) })],
  };
  assertEquals(identities(throughWaypoint, "10.96.0.1"), [
    "spiffe://td/ns/w/sa/w",
    "spiffe://cluster.local/ns/ns1/sa/wp",
  ]);
});

Deno.test("resolve() goes by a workload's hostname where it has no address that may be used (ZT-032, ZT-033)", () => {
  const hostname = "db.example", local = backend("b", "", { hostname });
  check([
    {
      claim: "a plain workload",
      state: { services: [svc()], workloads: [local] },
      to: "10.96.0.1",
      expected: "by db.example: tcp 192.0.2.1:8080 at b of svc",
    },
    {
      claim: "an HBONE workload, asked for the address that was found",
      state: { services: [svc()], workloads: [{ ...local, ...HBONE }] },
      to: "10.96.0.1",
      expected: "by db.example: hbone 192.0.2.1:15008 for 192.0.2.1:8080 at b of svc",
    },
    {
      claim: "the family that was dialled is wanted",
      state: { services: [service("svc", "fd00::9", "80:8080")], workloads: [local] },
      to: "fd00::9",
      expected: "by db.example: tcp [2001:db8::1]:8080 at b of svc",
    },
    {
      claim: "addresses that the service's families leave out do not count",
      state: { services: [svc({ ipFamilies: 2 })], workloads: [backend("b", "10.0.0.9", { hostname })] },
      to: "10.96.0.1",
      expected: "by db.example: tcp 192.0.2.1:8080 at b of svc",
    },
    {
      claim: "an address that there is comes first",
      state: { services: [svc()], workloads: [backend("b", "10.0.0.9", { hostname })] },
      to: "10.96.0.1",
      expected: "tcp 10.0.0.9:8080 at b of svc",
    },
    {
      claim: "a waypoint, asked for what was dialled",
      state: {
        services: [svc({ waypoint: reference("ns1/wp.host") })],
        workloads: [workload("wp", "", { hostname: "wp.host" })],
      },
      to: "10.96.0.1",
      expected: "by wp.host: hbone 192.0.2.1:15008 for 10.96.0.1:80 at wp of svc via waypoint",
    },
    {
      claim: "neither address nor hostname is no endpoint",
      state: { services: [svc()], workloads: [backend("b", "")] },
      to: "10.96.0.1",
      expected: "refused no healthy upstream: 10.96.0.1:80",
    },
  ]);
});
