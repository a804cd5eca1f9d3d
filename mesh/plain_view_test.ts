import { assertEquals } from "@std/assert";
import { PlainMeshView } from "./plain_view.ts";
import type { Service } from "./service.ts";
import { ip, policy, service, serving, workload } from "./testing.ts";

const at = (services: Service[], address: string, clientNamespace: string | undefined, network = "") =>
  new PlainMeshView({ services }).serviceAt(network, ...ip(address), clientNamespace)?.namespace;

Deno.test("workloadAt() prefers an HBONE pod, a pod, HBONE, any (ZT-024)", () => {
  const order = [
    workload("any", "10.0.0.1", { uid: "c/x/WorkloadEntry/ns1/any" }),
    workload("hbone", "10.0.0.1", { uid: "c/x/WorkloadEntry/ns1/hbone", tunnelProtocol: 1 }),
    workload("pod", "10.0.0.1"),
    workload("hbone-pod", "10.0.0.1", { tunnelProtocol: 1 }),
  ];
  for (let count = 1; count <= order.length; count++) {
    for (const workloads of [order.slice(0, count), order.slice(0, count).reverse()]) {
      const found = new PlainMeshView({ workloads }).workloadAt("", ...ip("10.0.0.1"));
      assertEquals(found?.name, order[count - 1]!.name);
    }
  }
});

Deno.test("workloadAt() goes by network, and never finds the host's network (ZT-023)", () => {
  const view = new PlainMeshView({
    workloads: [workload("a", "10.0.0.1", { network: "net1" }), workload("h", "10.0.0.2", { hostNetwork: true })],
  });
  assertEquals(view.workloadAt("net1", ...ip("10.0.0.1"))?.name, "a");
  assertEquals(view.workloadAt("", ...ip("10.0.0.1")), undefined);
  assertEquals(view.workloadAt("", ...ip("10.0.0.2")), undefined);
});

Deno.test("serviceAt() chooses among services that share a VIP (ZT-018, ZT-140, ZT-141)", () => {
  const inNs = (namespace: string, fields: Partial<Service> = {}) =>
    service("s", "10.96.0.1", "", { namespace, ...fields });
  assertEquals(at([inNs("b"), inNs("a")], "10.96.0.1", "b"), "b");
  assertEquals(at([inNs("b", { canonical: true }), inNs("a")], "10.96.0.1", "c"), "b");
  assertEquals(at([inNs("b"), inNs("a")], "10.96.0.1", "c"), "a");
  assertEquals(at([inNs("a")], "10.96.0.1", "b"), "a");
  assertEquals(at([inNs("a", { namespaceOnly: true })], "10.96.0.1", "b"), undefined);
  assertEquals(at([inNs("a", { namespaceOnly: true })], "10.96.0.1", "a"), "a");
  assertEquals(at([inNs("a", { namespaceOnly: true })], "10.96.0.1", undefined), "a");
  assertEquals(at([inNs("a", { namespaceOnly: true, canonical: true }), inNs("b")], "10.96.0.1", "c"), "b");
});

Deno.test("serviceAt() matches ranges: exact first, namespace before length, canonical last (ZT-018)", () => {
  const range = (namespace: string, vips: string, fields: Partial<Service> = {}) =>
    service("s", vips, "", { namespace, ...fields });
  const nested = [range("wide", "10.0.0.0/8"), range("narrow", "10.1.0.0/16"), range("exact", "10.1.0.1")];
  assertEquals(at(nested, "10.1.0.1", "c"), "exact");
  assertEquals(at(nested, "10.1.0.2", "c"), "narrow");
  assertEquals(at(nested, "10.2.0.2", "c"), "wide");
  assertEquals(at(nested, "11.0.0.1", "c"), undefined);
  assertEquals(at(nested, "10.1.0.2", "wide"), "wide"); // The client's namespace beats a longer prefix.
  assertEquals(at(nested, "10.1.0.1", "wide"), "exact");
  const v6 = [range("wide", "2001:db8::/32"), range("narrow", "2001:db8:1::/48"), range("v4", "0.0.0.0/0")];
  assertEquals(at(v6, "2001:db8:1::1", "c"), "narrow");
  assertEquals(at(v6, "2001:db8:2::1", "c"), "wide");
  assertEquals(at(v6, "2001:db9::1", "c"), undefined);
  assertEquals(at(v6, "10.0.0.1", "c"), "v4");
  const equal = [range("a", "10.0.0.0/8"), range("b", "10.0.0.0/8", { canonical: true })];
  assertEquals(at(equal, "10.0.0.1", "c"), "b");
  assertEquals(at(equal, "10.0.0.1", "a"), "a");
  const hidden = [range("a", "10.1.0.1", { namespaceOnly: true }), range("b", "10.0.0.0/8")];
  assertEquals(at(hidden, "10.1.0.1", "c"), "b"); // A hidden exact match falls through to the ranges.
  assertEquals(at(hidden, "10.1.0.1", "c", "net1"), undefined);
});

Deno.test("endpointsOf() filters by health unless the service takes all (ZT-137), in any order of arrival (ZT-138)", () => {
  const services = serving({ "ns1/s.example": "80:80" });
  const workloads = [
    workload("up", "10.0.0.1", { services }),
    workload("down", "10.0.0.2", { services, healthy: false }),
    workload("other", "10.0.0.3"),
  ];
  const names = (svc: Service) =>
    new PlainMeshView({ workloads, services: [svc] }).endpointsOf(svc).map((endpoint) => endpoint.name);
  assertEquals(names(service("s", "", "")), ["up"]);
  const loadBalancing = { mode: 0, routingPreference: [], allowUnhealthy: true } as const;
  assertEquals(names(service("s", "", "", { loadBalancing })), ["up", "down"]);
  assertEquals(names(service("s", "", "", { namespace: "ns2" })), []); // ZT-140
});

Deno.test("names are found by namespace and hostname (ZT-036, ZT-140)", () => {
  const view = new PlainMeshView({
    services: [service("s", "", "", { namespace: "b" }), service("s", "", "", { namespace: "a" })],
    workloads: [workload("w", "", { hostname: "w.host" })],
  });
  assertEquals(view.serviceNamed("b", "s.example")?.namespace, "b");
  assertEquals(view.serviceNamed("c", "s.example"), undefined);
  assertEquals(view.servicesOfHostname("s.example").map((found) => found.namespace), ["a", "b"]);
  assertEquals(view.workloadNamed("ns1", "w.host")?.name, "w");
  assertEquals(view.workloadNamed("a", "w.host"), undefined);
});

Deno.test("policiesFor() gives the mesh's, the namespace's and the named ones, once each (ZT-106)", () => {
  const view = new PlainMeshView({
    policies: [
      policy("selected", { scope: 2 }),
      policy("unselected", { scope: 2 }),
      policy("ns", { scope: 1 }),
      policy("other", { scope: 1, namespace: "ns2" }),
      policy("mesh", { scope: 0, namespace: "istio-system" }),
    ],
  });
  const authorizationPolicies = ["ns1/selected", "ns1/unknown", "ns1/ns"];
  const keys = view.policiesFor(workload("w", "", { authorizationPolicies })).map((found) => found.key);
  assertEquals(keys, ["istio-system/mesh", "ns1/ns", "ns1/selected"]);
});
