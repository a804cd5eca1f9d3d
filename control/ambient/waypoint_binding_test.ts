import { assertEquals } from "@std/assert";
import { TestMesh } from "./testing.ts";
import {
  GATEWAY,
  GATEWAY_CLASS,
  NAMED,
  NAMESPACE,
  POD,
  podUid,
  SERVICE,
  SERVICE_ENTRY,
  serviceName,
  WORKLOAD_ENTRY,
} from "./waypoint_testing.ts";

const USE = "istio.io/use-waypoint", CANARY = "istio.io/use-waypoint-canary";
const TO = (name: string, namespace = "shop") => ({
  destination: `${namespace}/${name}.${namespace}.svc.cluster.local`,
  hboneMtlsPort: 15008,
});
const OPEN = "{ name: mesh, port: 15008, protocol: HBONE, allowedRoutes: { namespaces: { from: All } } }";
const GATEWAYS = GATEWAY("own") + GATEWAY("other", { listeners: OPEN }) +
  GATEWAY("far", { namespace: "infra", listeners: OPEN }) + GATEWAY("closed", { namespace: "infra" }) +
  GATEWAY("unready", { status: "" }) + GATEWAY("for-pods", { labels: "istio.io/waypoint-for: workload" });

const reasons = (mesh: TestMesh) => [...mesh.index.graph.problems.entries()].map(([, it]) => it.reason);

Deno.test("a service's waypoint is what its own label says, else its namespace's; a refused one is not made up for (CP-262, CP-263, CP-110)", () => {
  const cases: [object: string, namespace: string, waypoint: object | undefined, reason?: string][] = [
    ["", "", undefined],
    [`${USE}: own`, "", TO("own")],
    ["", `${USE}: own`, TO("own")],
    [`${USE}: other`, `${USE}: own`, TO("other")],
    [`${USE}: none`, `${USE}: own`, undefined],
    [`${USE}: far, ${USE}-namespace: infra`, "", TO("far", "infra")],
    ["", `${USE}: far, ${USE}-namespace: infra`, TO("far", "infra")],
    [`${USE}: own`, `${USE}: far, ${USE}-namespace: infra`, TO("own")],
    [`${USE}: unready`, `${USE}: own`, undefined, "WaypointIsNotReady"],
    [`${USE}: nobody`, `${USE}: own`, undefined, "WaypointIsNotReady"],
    [`${USE}: ""`, `${USE}: own`, undefined, "WaypointIsNotReady"],
    [`${USE}: closed, ${USE}-namespace: infra`, `${USE}: own`, undefined, "AttachmentDenied"],
    ["", `${USE}: closed, ${USE}-namespace: infra`, undefined, "AttachmentDenied"],
    [`${USE}: for-pods`, `${USE}: own`, undefined, "UnsupportedTrafficType"],
    [`${USE}: own, gateway.istio.io/managed: istio.io-mesh-controller`, "", undefined],
    ["gateway.istio.io/managed: istio.io-eastwest-controller", `${USE}: own`, undefined],
    [`${USE}: own, gateway.istio.io/managed: another`, "", TO("own")],
  ];
  for (const [labels, ofNamespace, waypoint, reason] of cases) {
    const objects = GATEWAYS + NAMESPACE("shop", { labels: ofNamespace });
    const said = `${labels} | ${ofNamespace}`;
    const service = new TestMesh(objects + SERVICE("s", { labels }));
    assertEquals(service.address(serviceName("s"))?.waypoint, waypoint, said);
    assertEquals(reasons(service), reason === undefined ? [] : [reason], said);
    const entry = new TestMesh(objects + SERVICE_ENTRY("e", { labels }));
    assertEquals(entry.address("shop/e.example")?.waypoint, waypoint, said);
  }
  const annotated = new TestMesh(GATEWAYS + SERVICE("s", { annotations: `${USE}: own` }));
  assertEquals(annotated.address(serviceName("s"))?.waypoint, undefined, "annotations have no say");
});

Deno.test("a workload's waypoint: pods, WorkloadEntries, and endpoints by labels of their own (CP-262, CP-264)", () => {
  const gateways = GATEWAY("w", { labels: "istio.io/waypoint-for: workload" }) +
    GATEWAY("services", { labels: "istio.io/waypoint-for: service" });
  const cases: [labels: string, namespace: string, bound: boolean, reason?: string][] = [
    ["", "", false],
    [`${USE}: w`, "", true],
    ["", `${USE}: w`, true],
    [`${USE}: none`, `${USE}: w`, false],
    [`${USE}: services`, `${USE}: w`, false, "UnsupportedTrafficType"],
    ["", `${USE}: services`, false],
    [`${USE}: nobody`, `${USE}: w`, false, "WaypointIsNotReady"],
  ];
  for (const [labels, ofNamespace, bound, reason] of cases) {
    const objects = gateways + NAMESPACE("shop", { labels: ofNamespace });
    const expected = bound ? TO("w") : undefined, problems = reason === undefined ? [] : [reason];
    const pod = new TestMesh(objects + POD("p", { labels }));
    assertEquals(pod.address(podUid("p"))?.waypoint, expected, `pod ${labels} | ${ofNamespace}`);
    assertEquals(reasons(pod), problems);
    const merged = [
      WORKLOAD_ENTRY("vm", { labels }),
      WORKLOAD_ENTRY("vm", { spec: `address: 10.1.0.1, labels: { ${labels} }` }),
    ];
    for (const yaml of merged) {
      const entry = new TestMesh(objects + yaml);
      const address = entry.address("c1/networking.istio.io/WorkloadEntry/shop/vm");
      assertEquals(address?.waypoint, expected, `entry ${labels} | ${ofNamespace}`);
      assertEquals(reasons(entry), problems);
    }
    const inlined = `resolution: STATIC, endpoints: [{ address: 10.2.0.1, labels: { ${labels} } }]`;
    const endpoint = new TestMesh(objects + SERVICE_ENTRY("e", { labels: `${USE}: none`, spec: inlined }));
    const uid = "c1/networking.istio.io/ServiceEntry/shop/e/10.2.0.1";
    assertEquals(endpoint.address(uid)?.waypoint, expected, `endpoint ${labels} | ${ofNamespace}`);
  }
});

Deno.test("a ServiceEntry's implied endpoint has no waypoint, whatever its namespace says (CP-213)", () => {
  const mesh = new TestMesh(
    GATEWAY("w", { labels: "istio.io/waypoint-for: all" }) + NAMESPACE("shop", { labels: `${USE}: w` }) +
      SERVICE_ENTRY("e", { spec: "resolution: DNS" }),
  );
  assertEquals(mesh.address("shop/e.example")?.waypoint, TO("w"));
  assertEquals(mesh.address("c1/networking.istio.io/ServiceEntry/shop/e/e.example")?.waypoint, undefined);
});

Deno.test("pods behind a service with a waypoint stay unattached (CP-263)", () => {
  const mesh = new TestMesh(
    GATEWAYS + SERVICE("s", { labels: `${USE}: own`, spec: "selector: { app: a }" }) + POD("p", { labels: "app: a" }),
  );
  assertEquals(mesh.address(serviceName("s"))?.waypoint, TO("own"));
  assertEquals(mesh.address(podUid("p"))?.waypoint, undefined);
});

Deno.test("ingress_use_waypoint: the object's label, else the namespace's, as a boolean, if a waypoint is bound (CP-230)", () => {
  const label = "istio.io/ingress-use-waypoint";
  const cases: [object: string, namespace: string, expected: boolean][] = [
    ["", "", false],
    [`${label}: "true"`, "", true],
    [`${label}: "1"`, "", true],
    [`${label}: "T"`, "", true],
    [`${label}: "yes"`, "", false],
    ["", `${label}: "true"`, true],
    [`${label}: "false"`, `${label}: "true"`, false],
    [`${label}: "nonsense"`, `${label}: "true"`, false],
  ];
  for (const [labels, ofNamespace, expected] of cases) {
    const namespace = NAMESPACE("shop", { labels: ofNamespace });
    const bound = SERVICE("s", { labels: [`${USE}: own`, labels].filter((it) => it !== "").join(", ") });
    const mesh = new TestMesh(GATEWAYS + namespace + bound);
    assertEquals(mesh.address(serviceName("s"))?.ingressUseWaypoint === true, expected, `${labels} | ${ofNamespace}`);
    const unbound = new TestMesh(GATEWAYS + namespace + SERVICE("s", { labels }));
    assertEquals(unbound.address(serviceName("s"))?.ingressUseWaypoint, undefined, "not without a waypoint");
  }
});

Deno.test("a canary shares the traffic with the waypoint, or all goes to the waypoint (CP-268)", () => {
  const weight = `${CANARY}-weight`;
  const both = (canary: number) => [
    { destination: TO("own"), weight: 100 - canary },
    { destination: TO("other"), weight: canary },
  ];
  const cases: [labels: string, annotations: string, weighted: object[] | undefined, reason?: string][] = [
    [`${CANARY}: other`, "", both(0)],
    [`${CANARY}: other`, `${weight}: "10"`, both(10)],
    [`${CANARY}: other`, `${weight}: "100"`, both(100)],
    [`${CANARY}: ""`, `${weight}: "10"`, undefined],
    [`${CANARY}: none`, `${weight}: "10"`, undefined],
    [`${CANARY}: far, ${CANARY}-namespace: infra`, `${weight}: "1"`, [
      { destination: TO("own"), weight: 99 },
      { destination: TO("far", "infra"), weight: 1 },
    ]],
    [`${CANARY}: own`, `${weight}: "900"`, undefined, "CanarySameAsPrimary"],
    [`${CANARY}: unready`, `${weight}: "101"`, undefined, "CanaryInvalidWeight"],
    [`${CANARY}: other`, `${weight}: "-1"`, undefined, "CanaryInvalidWeight"],
    [`${CANARY}: other`, `${weight}: "1.5"`, undefined, "CanaryInvalidWeight"],
    [`${CANARY}: other`, `${weight}: ""`, undefined, "CanaryInvalidWeight"],
    [`${CANARY}: unready`, `${weight}: "10"`, undefined, "WaypointIsNotReady"],
    [`${CANARY}: closed, ${CANARY}-namespace: infra`, "", undefined, "AttachmentDenied"],
    [`${CANARY}: for-pods`, "", undefined, "UnsupportedTrafficType"],
  ];
  for (const [labels, annotations, weighted, reason] of cases) {
    for (const yaml of [SERVICE, SERVICE_ENTRY]) {
      const mesh = new TestMesh(GATEWAYS + yaml("s", { labels: `${USE}: own, ${labels}`, annotations }));
      const service = mesh.address(serviceName("s")) ?? mesh.address("shop/s.example");
      assertEquals(service?.waypoint, TO("own"), labels);
      assertEquals(service?.weightedWaypoints, weighted, `${labels} ${annotations}`);
      assertEquals(reasons(mesh), reason === undefined ? [] : [reason], `${labels} ${annotations}`);
    }
  }
});

Deno.test("a canary is inherited from the namespace only by what names no waypoint of its own (CP-268)", () => {
  const weightsOf = (labels: string, annotations: string) => {
    const namespace = NAMESPACE("shop", {
      labels: `${USE}: own, ${CANARY}: other`,
      annotations: `${CANARY}-weight: "30"`,
    });
    const mesh = new TestMesh(GATEWAYS + namespace + SERVICE("s", { labels, annotations }));
    const weighted = mesh.address(serviceName("s"))?.weightedWaypoints;
    return Array.isArray(weighted) ? weighted.map((it) => it.weight) : undefined;
  };
  assertEquals(weightsOf("", ""), [70, 30]);
  assertEquals(weightsOf("", `${CANARY}-weight: "5"`), [95, 5], "its own weight for the inherited canary");
  assertEquals(weightsOf(`${USE}: own`, ""), undefined);
  assertEquals(weightsOf(`${USE}: own, ${CANARY}: other`, ""), [100, 0], "nor is the weight inherited");
  assertEquals(weightsOf(`${CANARY}: none`, ""), undefined);
});

Deno.test("every input of a binding re-evaluates what depends on it, and nothing else (CP-269, CP-217)", () => {
  const base = NAMESPACE("shop") + NAMESPACE("calm") + GATEWAY_CLASS() +
    GATEWAY("w", { labels: "istio.io/waypoint-for: all" }) + SERVICE("bound", { labels: `${USE}: w` }) +
    SERVICE("plain") + POD("bound", { labels: `${USE}: w` }) + POD("plain", { ip: "10.0.0.2" }) +
    POD("w-1", { labels: `${NAMED}: w`, ip: "10.0.0.3" }) + SERVICE("away", { namespace: "calm" });
  const both = [`+${podUid("bound")}`, `+${serviceName("bound")}`];
  const annotated = "ambient.istio.io/waypoint-inbound-binding: PROXY";
  const withLabel = { labels: "istio.io/waypoint-for: all" };
  const cases: [what: string, change: string | string[], announced: string[]][] = [
    ["the Gateway's address goes", GATEWAY("w", { ...withLabel, status: "" }), both],
    ["its address changes", GATEWAY("w", { ...withLabel, status: "addresses: [{ value: 10.9.9.9 }]" }), both],
    ["it serves services alone", GATEWAY("w"), [`+${podUid("bound")}`]],
    ["it serves workloads alone", GATEWAY("w", { labels: "istio.io/waypoint-for: workload" }), [
      `+${serviceName("bound")}`,
    ]],
    ["its listener lets nobody in", GATEWAY("w", { ...withLabel, listeners: OPEN.replace("All", "None") }), both],
    ["its listener lets all in: the same", GATEWAY("w", { ...withLabel, listeners: OPEN }), []],
    ["it is deleted", ["Gateway/shop/w"], both],
    ["its class binds instances", GATEWAY_CLASS({ annotations: annotated }), [`+${podUid("w-1")}`]],
    ["its class is deleted", ["GatewayClass//istio-waypoint"], []],
    ["the namespace asks for it", NAMESPACE("shop", { labels: `${USE}: w` }), [
      `+${podUid("plain")}`,
      `+${serviceName("plain")}`,
    ]],
    ["another namespace does", NAMESPACE("calm", { labels: `${USE}: w, ${USE}-namespace: shop` }), []],
    ["a service asks for it", SERVICE("plain", { labels: `${USE}: w` }), [`+${serviceName("plain")}`]],
    ["a pod asks no more", POD("bound"), [`+${podUid("bound")}`]],
    ["an instance's account", POD("w-1", { labels: `${NAMED}: w`, ip: "10.0.0.3", account: "x" }), [
      `+${podUid("w-1")}`,
    ]],
    ["another Gateway comes", GATEWAY("new"), []],
  ];
  for (const [what, change, announced] of cases) {
    const mesh = new TestMesh(base);
    assertEquals((typeof change === "string" ? mesh.set(change) : mesh.remove(...change)).sort(), announced, what);
  }
});

Deno.test("a waypoint is bound to when its Gateway has an address, and stays when its pods are gone (CP-260, CP-270)", () => {
  const mesh = new TestMesh(GATEWAY("w", { status: "" }) + SERVICE("s", { labels: `${USE}: w` }));
  assertEquals(mesh.set(POD("w-1", { labels: `${NAMED}: w` })), [`+${podUid("w-1")}`]);
  assertEquals(mesh.set(GATEWAY("w")), [`+${serviceName("s")}`]);
  assertEquals(mesh.remove("Pod/shop/w-1"), [`-${podUid("w-1")}`]);
  assertEquals(mesh.address(serviceName("s"))?.waypoint, TO("w"));
});
