import { assertEquals } from "@std/assert";
import { TestMesh } from "./testing.ts";
import { GATEWAY, GATEWAY_CLASS, SERVICE } from "./waypoint_testing.ts";

const MESH = "spec: { ports: [{ name: mesh, port: 15008 }]";
const CARRIER = (spec = "clusterIPs: [10.96.0.9, 'fd00:96::9']", status = "", name = "w") => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
${MESH}, ${spec} }
status: { ${status} }
---`;
const SLICE = (ready: string, { port = "mesh", service = "w" } = {}) => `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: ${service}-1, namespace: shop, labels: { kubernetes.io/service-name: ${service} } }
addressType: IPv4
endpoints: [{ addresses: [10.0.0.1], conditions: { ready: ${ready} } }]
ports: [{ name: ${port}, port: 15008 }]
---`;
const CLASS = GATEWAY_CLASS();
const NEW = GATEWAY("w", { status: "" });

const statusOf = (mesh: TestMesh) => mesh.index.graph.gatewayStatuses.get("Gateway/shop/w");

/** `addresses | Accepted | Programmed` */
function brief(mesh: TestMesh): string | undefined {
  const status = statusOf(mesh);
  if (status === undefined) return undefined;
  const said = (type: string) => {
    const found = status.conditions.find((it) => it.type === type);
    return `${found?.status}/${found?.reason}`;
  };
  return [status.addresses.map((it) => `${it.type}:${it.value}`).join(" "), said("Accepted"), said("Programmed")].join(
    " | ",
  );
}

const ADDRESSES = "IPAddress:10.96.0.9 IPAddress:fd00:96::9 Hostname:w.shop.svc.cluster.local";
const DONE = `${ADDRESSES} | True/Accepted | True/Programmed`;

Deno.test("a waypoint has its addresses once an endpoint is ready, and keeps them for good (CP-572, CP-573, CP-270)", () => {
  const mesh = new TestMesh(CLASS + NEW);
  assertEquals(brief(mesh), " | True/Accepted | False/NotDeployed", "no Service, and nobody makes one");
  mesh.set(CARRIER());
  assertEquals(brief(mesh), " | True/Accepted | False/AddressNotAssigned", "no endpoints");
  mesh.set(SLICE("false"));
  assertEquals(brief(mesh), " | True/Accepted | False/AddressNotAssigned", "none is ready");
  mesh.set(SLICE("true", { port: "other" }));
  assertEquals(brief(mesh), " | True/Accepted | False/AddressNotAssigned", "not on this port");
  mesh.set(SLICE("true"));
  assertEquals(brief(mesh), DONE);
  // What was said comes back as the Gateway's status.
  mesh.set(GATEWAY("w", {
    status:
      "addresses: [{ value: 10.96.0.9 }, { value: 'fd00:96::9' }, { type: Hostname, value: w.shop.svc.cluster.local }]",
  }));
  assertEquals(brief(mesh), DONE, "and changes nothing");
  mesh.remove("EndpointSlice/shop/w-1", "Service/shop/w");
  assertEquals(brief(mesh), `${ADDRESSES} | True/Accepted | False/NotDeployed`);
});

Deno.test("a Gateway of an unknown class, or another controller's, is none of ours (CP-550, CP-570)", () => {
  assertEquals(brief(new TestMesh(NEW)), undefined);
  assertEquals(brief(new TestMesh(NEW + GATEWAY_CLASS({ controller: "example.com/other" }))), undefined);
  assertEquals(brief(new TestMesh(NEW + GATEWAY_CLASS({ controller: "istio.io/gateway-controller" }))), undefined);
});

Deno.test("a remote Gateway's addresses are what it asks for (CP-573)", () => {
  const gateway = NEW.replace(
    "listeners:",
    "addresses: [{ value: 192.0.2.1 }, { type: Hostname, value: a.example }], listeners:",
  );
  const mesh = new TestMesh(gateway + GATEWAY_CLASS({ controller: "istio.io/unmanaged-gateway" }));
  assertEquals(brief(mesh), "IPAddress:192.0.2.1 Hostname:a.example | True/Accepted | True/Programmed");
  assertEquals(statusOf(mesh)?.listeners, []);
});

Deno.test("listeners are judged by what their class expects, which is said and not enforced (CP-571)", () => {
  const flaws = (listeners: string, controller = "istio.io/mesh-controller") => {
    const mesh = new TestMesh(
      GATEWAY("w", { status: "", listeners }) + GATEWAY_CLASS({ controller }) + CARRIER() + SLICE("true"),
    );
    const verdicts = statusOf(mesh)?.listeners.map(({ name, conditions }) => `${name} ${conditions[0]?.reason}`);
    return [verdicts?.join(", "), brief(mesh)?.split(" | ")[1]];
  };
  const mesh = "{ name: mesh, port: 15008, protocol: HBONE }";
  assertEquals(flaws(mesh), ["mesh Accepted", "True/Accepted"]);
  assertEquals(flaws("{ name: any, port: 15008, protocol: HBONE }"), ["any Accepted", "True/Accepted"]);
  assertEquals(flaws("{ name: mesh, port: 15009, protocol: HBONE }"), ["mesh UnsupportedProtocol", "True/Accepted"]);
  assertEquals(flaws("{ name: web, port: 80, protocol: HTTP }"), ["web UnsupportedProtocol", "True/Accepted"]);
  assertEquals(flaws(`${mesh}, { name: udp, port: 53, protocol: UDP }`), [
    "mesh Accepted, udp UnsupportedProtocol",
    "True/ListenersNotValid",
  ]);
  assertEquals(flaws("{ name: udp, port: 53, protocol: UDP }"), ["udp UnsupportedProtocol", "False/ListenersNotValid"]);
  const eastWest = "istio.io/eastwest-controller", terminate = "tls: { mode: Terminate }";
  assertEquals(flaws(`{ name: mesh, port: 15008, protocol: HBONE, ${terminate} }`, eastWest)[0], "mesh Accepted");
  assertEquals(flaws(mesh, eastWest)[0], "mesh UnsupportedProtocol");
  assertEquals(
    flaws("{ name: tls, port: 15443, protocol: TLS, tls: { mode: Passthrough } }", eastWest)[0],
    "tls Accepted",
  );
  assertEquals(
    flaws(`{ name: tls, port: 15443, protocol: TLS, ${terminate} }`, eastWest)[0],
    "tls UnsupportedProtocol",
  );
});

Deno.test("a listener that conflicts with one before it is not had, and stands in nobody's way (CP-574)", () => {
  const conflicts = (...rows: readonly string[]) => {
    const listeners = rows.map((row, at) => {
      const [port, protocol, hostname = ""] = row.split(" ");
      return `{ name: l${at}, port: ${port}, protocol: ${protocol}${hostname && `, hostname: ${hostname}`} }`;
    });
    const status = statusOf(new TestMesh(CLASS + GATEWAY("w", { status: "", listeners: listeners.join(", ") })));
    const lost = status?.listeners.filter(({ conditions }) => conditions[1]?.status === "True");
    return lost?.map(({ name, conditions }) =>
      `${name} ${conditions.map((it) => `${it.status} ${it.reason}`).join(", ")}`
    );
  };
  const of = (reason: string) => `False ${reason}, True ${reason}, False Invalid, True ResolvedRefs`;
  assertEquals(conflicts("80 HTTP a.test", "80 HTTP b.test", "443 HTTPS a.test"), []);
  assertEquals(conflicts("80 HTTP a.test", "80 HTTP A.test"), [`l1 ${of("HostnameConflict")}`]);
  assertEquals(conflicts("443 HTTPS a.test", "443 TLS b.test", "443 TLS a.test"), [`l2 ${of("HostnameConflict")}`]);
  assertEquals(conflicts("53 TCP", "53 UDP"), []);
  // The second loses to the first, so the third, which conflicts with the second alone, is had.
  assertEquals(conflicts("80 HTTP a.test", "80 TCP b.test", "80 HTTP b.test"), [`l1 ${of("ProtocolConflict")}`]);
  const two = "{ name: mesh, port: 15008, protocol: HBONE }, { name: second, port: 15008, protocol: TCP }";
  const mesh = new TestMesh(CLASS + GATEWAY("w", { status: "", listeners: two }) + CARRIER() + SLICE("true"));
  assertEquals(brief(mesh), `${ADDRESSES} | True/ListenersNotValid | True/Programmed`);
});

Deno.test("which Service carries a Gateway: its own name, an override, or the hostnames it asks for (CP-555, CP-560)", () => {
  const carried = (change: (yaml: string) => string) =>
    brief(
      new TestMesh(
        CLASS + change(NEW) + CARRIER("clusterIP: 10.96.0.9", "", "other") + SLICE("true", { service: "other" }),
      ),
    );
  const asking = (addresses: string) => (yaml: string) =>
    yaml.replace("listeners:", `addresses: [${addresses}], listeners:`);
  const there = "IPAddress:10.96.0.9 Hostname:other.shop.svc.cluster.local | True/Accepted | True/Programmed";
  assertEquals(carried((it) => it), " | True/Accepted | False/NotDeployed");
  assertEquals(
    carried((it) => it.replace("annotations: {", "annotations: { gateway.istio.io/name-override: other")),
    there,
  );
  assertEquals(carried(asking("{ type: Hostname, value: other }")), there);
  assertEquals(carried(asking("{ type: Hostname, value: other.shop.svc.cluster.local }")), there);
  assertEquals(
    carried(asking("{ type: Hostname, value: other.far.svc.cluster.local }")),
    " | True/Accepted | False/AddressNotUsable",
  );
  assertEquals(
    carried(asking("{ value: 192.0.2.1 }")),
    " | True/Accepted | False/NotDeployed",
    "its own would be made",
  );
  assertEquals(
    carried(asking("{ type: Hostname, value: other }, { value: 192.0.2.1 }")),
    there.replace("True/Accepted", "False/UnsupportedAddress"),
  );
  assertEquals(
    carried(asking("{ value: 192.0.2.2 }, { value: 192.0.2.1 }")),
    " | False/UnsupportedAddress | False/UnsupportedAddress",
  );
});

Deno.test("a load balancer's addresses come before the cluster's; while it has none it is waited for (CP-573)", () => {
  const balanced = (status: string, annotations = "") =>
    brief(
      new TestMesh(
        CLASS + GATEWAY("w", { status: "", annotations }) + SLICE("true") +
          CARRIER("clusterIP: 10.96.0.9, type: LoadBalancer", status),
      ),
    );
  assertEquals(
    balanced("loadBalancer: { ingress: [{ ip: 203.0.113.7 }, { hostname: lb.example }] }"),
    "IPAddress:203.0.113.7 Hostname:lb.example | True/Accepted | True/Programmed",
  );
  assertEquals(balanced(""), "IPAddress:10.96.0.9 | True/Accepted | False/AddressNotAssigned");
  const plain = (annotations: string) =>
    brief(
      new TestMesh(CLASS + GATEWAY("w", { status: "", annotations }) + SLICE("true") + CARRIER("clusterIP: 10.96.0.9")),
    )
      ?.split(" | ")[0];
  assertEquals(plain("networking.istio.io/address-type: Hostname"), "Hostname:w.shop.svc.cluster.local");
  assertEquals(plain("networking.istio.io/address-type: IPAddress"), "IPAddress:10.96.0.9");
});

Deno.test("conditions of a Gateway and its listeners carry its generation, and the routes a listener takes (CP-570)", () => {
  const status = statusOf(new TestMesh(CLASS + NEW + CARRIER() + SLICE("true") + SERVICE("else")));
  const all = [...status?.conditions ?? [], ...status?.listeners.flatMap(({ conditions }) => conditions) ?? []];
  assertEquals(all.map((it) => [it.type, it.status, it.observedGeneration]), [
    ["Accepted", "True", 4],
    ["Programmed", "True", 4],
    ["ResolvedRefs", "True", 4],
    ["Accepted", "True", 4],
    ["Conflicted", "False", 4],
    ["Programmed", "True", 4],
    ["ResolvedRefs", "True", 4],
  ]);
  assertEquals(status?.listeners[0]?.supportedKinds, []);
  assertEquals(status?.conditions[1]?.message, "programmed, at w.shop.svc.cluster.local:15008");
});
