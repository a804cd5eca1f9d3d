import { assertEquals } from "@std/assert";
import { objectsOf, TestMesh } from "./testing.ts";
import { parseInboundBinding, waypointOf } from "./waypoint.ts";
import {
  GATEWAY,
  GATEWAY_CLASS,
  NAMED,
  NAMESPACE,
  POD,
  podUid,
  SERVICE,
  serviceName,
  WORKLOAD_ENTRY,
} from "./waypoint_testing.ts";

const waypoints = (mesh: TestMesh) => [...mesh.index.graph.waypoints.usable.entries()].map(([, it]) => it);

Deno.test("a Gateway of any class is a waypoint once its status has an address, by name before number (CP-260)", () => {
  const cases: [status: string, destination: string | undefined][] = [
    ["", undefined],
    ["addresses: []", undefined],
    ["addresses: [{ type: IPAddress, value: 10.0.0.3 }]", "net/10.0.0.3"],
    ["addresses: [{ value: 10.0.0.3 }]", "net/10.0.0.3"],
    ["addresses: [{ value: 10.0.0.3 }, { type: Hostname, value: w.shop.svc }]", "shop/w.shop.svc"],
    ["addresses: [{ value: nothing }, { value: 'fd00::3' }]", "net/fd00::3"],
    ["addresses: [{ type: example.com/own, value: 10.0.0.3 }]", undefined],
  ];
  for (const [status, destination] of cases) {
    for (const className of ["istio-waypoint", "anybody-s"]) {
      const mesh = new TestMesh(
        GATEWAY("w", { status, className }) + SERVICE("s", { labels: "istio.io/use-waypoint: w" }),
        {
          network: "net",
        },
      );
      const expected = destination && { destination, hboneMtlsPort: 15008 };
      assertEquals(mesh.address(serviceName("s"))?.waypoint, expected, status);
    }
  }
});

Deno.test("a Gateway whose addresses are none is told of, and no waypoint (CP-260)", () => {
  const [gateway] = objectsOf(GATEWAY("w", { status: "addresses: [{ value: nothing }]" }));
  const outcome = gateway?.kind === "Gateway" ? waypointOf(gateway, undefined, "") : undefined;
  assertEquals([outcome?.items, outcome?.problems.map((it) => it.reason)], [[], ["BadAddress"]]);
});

Deno.test("what a waypoint serves is its own label, else its class's, else services (CP-261, CP-110)", () => {
  const serves = (label: string, ofClass: string) =>
    waypoints(new TestMesh(GATEWAY("w", { labels: label }) + GATEWAY_CLASS({ labels: ofClass })))[0]?.serves;
  assertEquals(serves("", ""), "service");
  assertEquals(serves("", "istio.io/waypoint-for: workload"), "workload");
  assertEquals(serves("istio.io/waypoint-for: all", "istio.io/waypoint-for: workload"), "all");
  assertEquals(serves("istio.io/waypoint-for: none", ""), "none");
});

Deno.test("each value of waypoint-for decides whether services, workloads, both or neither get the waypoint (CP-261 to CP-264)", () => {
  const cases: [value: string, service: boolean, workload: boolean][] = [
    ["service", true, false],
    ["workload", false, true],
    ["all", true, true],
    ["none", false, false],
    ["nonsense", false, false],
  ];
  for (const [value, service, workload] of cases) {
    const use = { labels: "istio.io/use-waypoint: w" };
    const mesh = new TestMesh(
      GATEWAY("w", { labels: `istio.io/waypoint-for: ${value}` }) + SERVICE("s", use) + POD("p", use) +
        WORKLOAD_ENTRY("vm", use),
    );
    assertEquals(mesh.address(serviceName("s"))?.waypoint !== undefined, service, value);
    assertEquals(mesh.address(podUid("p"))?.waypoint !== undefined, workload, value);
    assertEquals(mesh.address("c1/networking.istio.io/WorkloadEntry/shop/vm")?.waypoint !== undefined, workload, value);
  }
});

Deno.test("parseInboundBinding() knows NONE, PROXY and a port, and nothing else (CP-266)", () => {
  const cases: [text: string, expected: [protocol: number, port: number] | undefined][] = [
    ["NONE", [0, 0]],
    ["PROXY", [1, 0]],
    ["PROXY/15088", [1, 15088]],
    ["NONE/80", [0, 80]],
    ["", undefined],
    ["proxy", undefined],
    ["PROXY/", undefined],
    ["PROXY/x", undefined],
    ["PROXY/65536", undefined],
    ["PROXY/1/2", undefined],
    ["TCP", undefined],
  ];
  for (const [text, expected] of cases) {
    const binding = parseInboundBinding(text);
    assertEquals(binding && [binding.protocol, binding.port], expected, text);
  }
});

Deno.test("instances of a Gateway have its inbound binding, of the class unless it has its own, and no waypoint (CP-266, CP-110)", () => {
  const binding = "ambient.istio.io/waypoint-inbound-binding";
  const instance = POD("w-1", { labels: `${NAMED}: w, istio.io/use-waypoint: other` });
  const other = GATEWAY("other", { labels: "istio.io/waypoint-for: all" });
  const tunnelOf = (gateway: string, ofClass: string) => {
    const mesh = new TestMesh(
      GATEWAY("w", { annotations: gateway }) + GATEWAY_CLASS({ annotations: ofClass }) + instance + other,
    );
    const found = mesh.address(podUid("w-1"));
    assertEquals(found?.waypoint, undefined);
    return found?.applicationTunnel;
  };
  assertEquals(tunnelOf("", ""), undefined);
  assertEquals(tunnelOf("", `${binding}: PROXY/15088`), { protocol: 1, port: 15088 });
  assertEquals(tunnelOf(`${binding}: NONE`, `${binding}: PROXY/15088`), { protocol: 0, port: 0 });
  assertEquals(
    tunnelOf(`${binding}: PROXY/15088/1`, `${binding}: PROXY`),
    undefined,
    "malformed: none, not the class's",
  );
  const mesh = new TestMesh(GATEWAY("w", { status: "" }) + instance + other);
  assertEquals(mesh.address(podUid("w-1"))?.waypoint !== undefined, true, "not an instance of what is not usable yet");
});

Deno.test("a malformed inbound binding is told of (CP-266)", () => {
  const mesh = new TestMesh(GATEWAY("w", { annotations: "ambient.istio.io/waypoint-inbound-binding: PROX" }));
  assertEquals([...mesh.index.graph.problems.entries()].map(([, it]) => [it.object, it.reason]), [
    ["Gateway/shop/w", "BadInboundBinding"],
  ]);
});

Deno.test("who may attach is what the listener lets: of HBONE, or of the inbound binding (CP-265)", () => {
  const BINDING = "ambient.istio.io/waypoint-inbound-binding";
  const from = (name: string, port: number, protocol: string, namespaces: string) =>
    `{ name: ${name}, port: ${port}, protocol: ${protocol}, allowedRoutes: { namespaces: ${namespaces} } }`;
  const hbone = (namespaces: string) => from("mesh", 15008, "HBONE", namespaces);
  const proxy = (namespaces: string, port = 15088) => from("proxy", port, "istio.io/PROXY", namespaces);
  const all = "{ from: All }", same = "{ from: Same }";
  const selector = (text: string) => `{ from: Selector, selector: ${text} }`;
  const cases: [what: string, listeners: string, annotation: string, near: boolean, far: boolean][] = [
    ["All", hbone(all), "", true, true],
    ["Same", hbone(same), "", true, false],
    ["no allowedRoutes", "{ name: mesh, port: 15008, protocol: HBONE }", "", true, false],
    ["no HBONE listener", from("http", 80, "HTTP", all), "", true, false],
    ["HBONE on another port", from("mesh", 15009, "HBONE", all), "", true, false],
    ["None", hbone("{ from: None }"), "", false, false],
    ["a selector of the client's namespace", hbone(selector("{ matchLabels: { team: far } }")), "", false, true],
    [
      "an expression",
      hbone(selector("{ matchExpressions: [{ key: team, operator: Exists }] }")),
      "",
      false,
      true,
    ],
    ["an empty selector", hbone(selector("{}")), "", true, true],
    ["a selector that is not there", hbone("{ from: Selector }"), "", false, false],
    ["the bound port's", `${hbone(same)}, ${proxy(all)}`, `${BINDING}: PROXY/15088`, true, true],
    ["PROXY without a port", `${hbone(same)}, ${proxy(all, 1)}`, `${BINDING}: PROXY`, true, true],
    ["NONE without a port: HBONE's", `${hbone(all)}, ${proxy(same)}`, `${BINDING}: NONE`, true, true],
    ["a binding to no listener: HBONE's", hbone(all), `${BINDING}: PROXY/9`, true, true],
  ];
  for (const [what, listeners, annotations, near, far] of cases) {
    const use = "istio.io/use-waypoint: w, istio.io/use-waypoint-namespace: shop";
    const mesh = new TestMesh(
      NAMESPACE("shop", { labels: "team-of: near" }) + NAMESPACE("far", { labels: "team: far" }) +
        GATEWAY("w", { listeners, annotations }) + SERVICE("near", { labels: use }) +
        SERVICE("away", { labels: use, namespace: "far" }),
    );
    assertEquals(mesh.address(serviceName("near"))?.waypoint !== undefined, near, `${what}: near`);
    assertEquals(mesh.address(serviceName("away", "far"))?.waypoint !== undefined, far, `${what}: far`);
    const denied = [...mesh.index.graph.problems.entries()].map(([, it]) => `${it.object} ${it.reason}`).sort();
    assertEquals(denied, [
      ...far ? [] : ["Service/far/away AttachmentDenied"],
      ...near ? [] : ["Service/shop/near AttachmentDenied"],
    ], what);
  }
});

Deno.test("a waypoint's accounts are those of its live pods (CP-267)", () => {
  const pod = (name: string, account: string, phase = "Running") =>
    POD(name, { labels: `${NAMED}: w`, account, phase });
  const mesh = new TestMesh(
    GATEWAY("w") + pod("w-1", "b") + pod("w-2", "a") + pod("w-3", "b") + pod("w-4", "gone", "Failed"),
  );
  const accounts = () => mesh.index.graph.waypoints.accounts.get("shop/w");
  assertEquals(accounts(), ["a", "b"]);
  mesh.remove("Pod/shop/w-2");
  assertEquals(accounts(), ["b"]);
});
