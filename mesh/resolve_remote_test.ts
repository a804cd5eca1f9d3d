/** Ways to other networks: what resolve() decides of gateways, and when it refuses. */
import { assertEquals } from "@std/assert";
import type { MeshState } from "./plain_view.ts";
import { backend, check, HBONE, route, summary, svc } from "./resolve_testing.ts";
import { LoadBalancingMode, type Service } from "./service.ts";
import { ip, reference, service, serving, workload } from "./testing.ts";
import type { GatewayAddress, Workload } from "./workload.ts";

/** A service of which some endpoints are on network `remote`, behind a gateway that is there as well. */
const REMOTE_NAMES = ["spiffe://cluster.local/ns/ns1/sa/b", "spiffe://remote.local/ns/ns1/sa/b", "example.org"];
const remoteSvc = (fields: Partial<Service> = {}) => svc({ subjectAltNames: REMOTE_NAMES, ...fields });
const away = (address: string, gateway: GatewayAddress | undefined, fields: Partial<Workload> = {}) =>
  backend("b", address, { network: "remote", networkGateway: gateway, ...fields });
const gateway = workload("gw", "10.22.1.1", { network: "remote" });
const gatewayService = service("gw", "10.96.0.4", "15009:15009", { subjectAltNames: ["spiffe://td/ns/gw/sa/gw"] });
const gatewayEndpoint = workload("gw", "10.22.1.5 2001:db8::5", {
  network: "remote",
  services: serving({ "ns1/gw.example": "15009:15008" }),
});
const byIp = reference("10.22.1.1", 15009, "remote"), byName = reference("ns1/gw.example", 15009);

Deno.test("resolve() reaches another network through its gateway (ZT-044, ZT-045, ZT-046)", () => {
  check([
    {
      claim: "a gateway by IP, asked for the service's name and port (build_request_double_hbone)",
      state: { services: [remoteSvc()], workloads: [away("", byIp), gateway] },
      to: "10.96.0.1",
      expected: "doubleHbone 10.22.1.1:15009 for svc.example:80 at gw of svc",
    },
    {
      claim: "a gateway by service hostname: its endpoint's own port, 15009 to 15008",
      state: { services: [remoteSvc(), gatewayService], workloads: [away("10.0.0.6", byName), gatewayEndpoint] },
      to: "10.96.0.1",
      expected: "doubleHbone 10.22.1.5:15008 for svc.example:80 at gw of svc",
    },
    {
      claim: "a gateway by hostname follows the family of what was dialled (ZT-036)",
      state: {
        services: [
          remoteSvc({ addresses: [{ network: "", ip: ip("2001:db8:96::1") }] }),
          gatewayService,
        ],
        workloads: [away("", byName), gatewayEndpoint],
      },
      to: "2001:db8:96::1",
      expected: "doubleHbone [2001:db8::5]:15008 for svc.example:80 at gw of svc",
    },
    {
      claim: "a gateway by workload hostname, port as is",
      state: {
        services: [remoteSvc()],
        workloads: [away("", reference("ns1/gw.host", 15010)), workload("gw", "10.22.1.1", { hostname: "gw.host" })],
      },
      to: "10.96.0.1",
      expected: "doubleHbone 10.22.1.1:15010 for svc.example:80 at gw of svc",
    },
    {
      claim: "an application tunnel does not stand in for a gateway's port (ZT-045)",
      state: {
        services: [remoteSvc(), service("gw", "", "80:80")],
        workloads: [
          away("", byName),
          workload("gw", "10.22.1.5", {
            services: serving({ "ns1/gw.example": "" }),
            applicationTunnel: { protocol: 1, port: 15009 },
          }),
        ],
      },
      to: "10.96.0.1",
      expected: "refused unknown network gateway: ns1/gw.example",
    },
    {
      claim: "a waypoint on another network: still the service's name and port (ZT-034)",
      state: {
        services: [
          svc({ waypoint: reference("ns1/waypoint.example") }),
          service("waypoint", "10.96.0.9", "15008:15008", { subjectAltNames: ["spiffe://td/ns/w/sa/w"] }),
        ],
        workloads: [
          workload("wp", "", {
            network: "remote",
            networkGateway: byIp,
            services: serving({ "ns1/waypoint.example": "15008:15008" }),
          }),
          gateway,
        ],
      },
      to: "10.96.0.1",
      expected: "doubleHbone 10.22.1.1:15009 for svc.example:80 at gw of svc",
    },
    {
      claim: "no gateway is nowhere to go (build_request_wrong_network, ZT-044)",
      state: { services: [remoteSvc()], workloads: [away("10.0.0.6", undefined)] },
      to: "10.96.0.1",
      expected: "refused no valid routing destination for workload: cluster1//Pod/ns1/b",
    },
    {
      claim: "a gateway that nobody knows (ZT-045)",
      state: { services: [remoteSvc()], workloads: [away("", byIp)] },
      to: "10.96.0.1",
      expected: "refused unknown network gateway: remote/10.22.1.1:15009",
    },
    {
      claim: "a gateway is looked for in the reference's own network (ZT-036)",
      state: { services: [remoteSvc()], workloads: [away("", byIp), workload("gw", "10.22.1.1")] },
      to: "10.96.0.1",
      expected: "refused unknown network gateway: remote/10.22.1.1:15009",
    },
    {
      claim: "a gateway that has a hostname alone is found by DNS (ZT-033, ZT-045)",
      state: {
        services: [remoteSvc()],
        workloads: [away("", reference("ns1/gw.host", 15009)), workload("gw", "", { hostname: "gw.host" })],
      },
      to: "10.96.0.1",
      expected: "by gw.host: doubleHbone 192.0.2.1:15009 for svc.example:80 at gw of svc",
    },
    {
      claim: "a service without names cannot be reached there, nor with names that are no identities (ZT-046)",
      state: {
        services: [svc({ subjectAltNames: ["example.org"] })],
        workloads: [away("", byIp), gateway],
      },
      to: "10.96.0.1",
      expected: 'refused no valid routing destination for workload: cluster1//Pod/ns1/b is on network "remote", ' +
        "and service ns1/svc.example names no identity to expect there",
    },
    {
      claim: "a pod's own address never leads to another network, even inside a service's range (ZT-044)",
      state: {
        services: [service("svc", "10.0.0.0/24", "80:8080", { subjectAltNames: REMOTE_NAMES })],
        workloads: [away("", byIp), gateway, workload("local", "10.0.0.7")],
      },
      to: "10.0.0.7",
      expected: "refused no valid routing destination for workload: cluster1//Pod/ns1/b",
    },
    {
      claim: "nor through its own waypoint: the range's service is not what was asked for (ZT-019, ZT-044)",
      state: {
        services: [
          service("svc", "10.0.0.0/24", "80:8080", { subjectAltNames: REMOTE_NAMES }),
          service("waypoint", "10.96.0.9", "15008:15008", { subjectAltNames: ["spiffe://td/ns/w/sa/w"] }),
        ],
        workloads: [
          away("", byIp, { name: "w", uid: "w", services: serving({ "ns1/waypoint.example": "15008:15008" }) }),
          gateway,
          backend("b", "10.0.0.7", { waypoint: reference("ns1/waypoint.example") }),
        ],
      },
      to: "10.0.0.7",
      expected: "refused no valid routing destination for workload: w",
    },
  ]);
});

Deno.test("resolve() expects the gateway outside and the service's names alone inside (ZT-045, ZT-046)", () => {
  const identities = (state: MeshState) => {
    const chosen = route({ state, to: "10.96.0.1" });
    return chosen.kind === "doubleHbone" ? [chosen.identities, chosen.innerIdentities] : summary(chosen);
  };
  assertEquals(
    identities({ services: [remoteSvc(), gatewayService], workloads: [away("", byName), gatewayEndpoint] }),
    [
      ["spiffe://td/ns/gw/sa/gw", "spiffe://cluster.local/ns/ns1/sa/gw"],
      ["spiffe://cluster.local/ns/ns1/sa/b", "spiffe://remote.local/ns/ns1/sa/b"],
    ],
  );
  assertEquals(
    identities({
      services: [
        remoteSvc({ waypoint: reference("ns1/waypoint.example") }),
        service("waypoint", "10.96.0.9", "15008:15008", { subjectAltNames: ["spiffe://td/ns/w/sa/w"] }),
      ],
      workloads: [
        workload("wp", "", {
          network: "remote",
          networkGateway: byIp,
          services: serving({ "ns1/waypoint.example": "" }),
        }),
        gateway,
      ],
    }),
    [["spiffe://cluster.local/ns/ns1/sa/gw"], ["spiffe://td/ns/w/sa/w"]],
    "of a waypoint the names of its own service: it is the peer behind the gateway",
  );
});

Deno.test("resolve() goes to another network when nothing near is healthy (build_request_failover_to_remote, ZT-030, ZT-137)", () => {
  const near = (healthy: boolean) => backend("near", "10.0.0.2", { ...HBONE, healthy });
  const services = [
    remoteSvc({ loadBalancing: { mode: LoadBalancingMode.FAILOVER, routingPreference: [6], allowUnhealthy: false } }),
  ];
  const far = [away("", byIp), gateway];
  for (const random of [0, 0.5, 0.999]) {
    check([
      {
        claim: "near while healthy",
        state: { services, workloads: [...far, near(true)] },
        to: "10.96.0.1",
        random,
        expected: "hbone 10.0.0.2:15008 for 10.0.0.2:8080 at near of svc",
      },
      {
        claim: "far once it is not",
        state: { services, workloads: [...far, near(false)] },
        to: "10.96.0.1",
        random,
        expected: "doubleHbone 10.22.1.1:15009 for svc.example:80 at gw of svc",
      },
    ]);
  }
});
