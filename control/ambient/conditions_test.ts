import { assert, assertEquals } from "@std/assert";
import { visibilityCondition } from "./conditions.ts";
import { TestMesh } from "./testing.ts";
import {
  GATEWAY,
  GATEWAY_CLASS,
  NAMED,
  NAMESPACE,
  POD,
  SERVICE,
  SERVICE_ENTRY,
  WORKLOAD_ENTRY,
} from "./waypoint_testing.ts";

const USE = "istio.io/use-waypoint", CANARY = "istio.io/use-waypoint-canary";

/** `type status/reason` of each condition that is wanted of an object by one purpose; undefined if it is not looked after. */
function said(mesh: TestMesh, fieldManager: string, object: string): string[] | undefined {
  return mesh.index.graph.conditions.get(`${fieldManager}|${object}`)?.conditions
    .map(({ type, status, reason }) => `${type} ${status}/${reason}`);
}

function messageOf(mesh: TestMesh, fieldManager: string, object: string): string | undefined {
  return mesh.index.graph.conditions.get(`${fieldManager}|${object}`)?.conditions[0]?.message;
}

const BOUND = "istio.io/WaypointBound True/WaypointAccepted";
const unbound = (reason: string) => `istio.io/WaypointBound False/${reason}`;

Deno.test("WaypointBound on Services and ServiceEntries says what came of their labels (CP-241, CP-262 to CP-268, CP-275)", () => {
  const gateways = GATEWAY("w") + GATEWAY("other") + GATEWAY("unready", { status: "" }) +
    GATEWAY("far", { namespace: "infra" }) + GATEWAY("for-pods", { labels: "istio.io/waypoint-for: workload" });
  const cases: [labels: string, expected: string[], message: RegExp][] = [
    ["", [], /^undefined$/],
    [`${USE}: none`, [], /^undefined$/],
    [`${USE}: w`, [BOUND], /^bound to waypoint shop\/w$/],
    [
      `${USE}: w, istio.io/ingress-use-waypoint: "true"`,
      [BOUND],
      /shop\/w; traffic from ingress goes through it too$/,
    ],
    [`${USE}: w, istio.io/ingress-use-waypoint: "no"`, [BOUND], /ingress goes past it; set the label/],
    [`${USE}: w, ${CANARY}: other`, [BOUND], /^bound to waypoint shop\/w$/],
    [`${USE}: w, ${CANARY}: unready`, [BOUND], /its canary is not used: waypoint shop\/unready is not ready/],
    [`${USE}: w, ${CANARY}: w`, [BOUND], /its canary is not used: canary waypoint shop\/w is the waypoint itself/],
    [`${USE}: unready`, [unbound("WaypointIsNotReady")], /shop\/unready is not ready/],
    [`${USE}: far, ${USE}-namespace: infra`, [unbound("AttachmentDenied")], /infra\/far .* allowedRoutes/],
    [`${USE}: for-pods`, [unbound("UnsupportedTrafficType")], /"workload", not for a service/],
  ];
  for (const [labels, expected, message] of cases) {
    const mesh = new TestMesh(gateways + SERVICE("s", { labels }) + SERVICE_ENTRY("e", { labels }));
    for (const object of ["Service/shop/s", "ServiceEntry/shop/e"]) {
      assertEquals(said(mesh, "istio-ambient-service", object), expected, `${object} ${labels}`);
      const text = String(messageOf(mesh, "istio-ambient-service", object));
      assert(message.test(text), `${labels}: ${text}`);
    }
  }
});

Deno.test("conditions carry the object's generation, and say which object it is (CP-275)", () => {
  const mesh = new TestMesh(GATEWAY("w") + SERVICE_ENTRY("e", { labels: `${USE}: w` }));
  assertEquals(mesh.index.graph.conditions.get("istio-ambient-service|ServiceEntry/shop/e"), {
    object: "ServiceEntry/shop/e",
    resource: { kind: "ServiceEntry", namespace: "shop", name: "e" },
    fieldManager: "istio-ambient-service",
    conditions: [{
      type: "istio.io/WaypointBound",
      status: "True",
      reason: "WaypointAccepted",
      message: "bound to waypoint shop/w",
      observedGeneration: 5,
    }],
  });
});

Deno.test("WaypointBound on WorkloadEntries; an instance of a Gateway asks for none (CP-264, CP-266, CP-275)", () => {
  const gateways = GATEWAY("w", { labels: "istio.io/waypoint-for: all" }) + GATEWAY("for-services");
  const cases: [labels: string, namespace: string, expected: string[]][] = [
    ["", "", []],
    [`${USE}: w`, "", [BOUND]],
    ["", `${USE}: w`, [BOUND]],
    ["", `${USE}: for-services`, []],
    [`${USE}: for-services`, "", [unbound("UnsupportedTrafficType")]],
    ["", `${USE}: nobody`, [unbound("WaypointIsNotReady")]],
    [`${NAMED}: w`, `${USE}: w`, []],
  ];
  for (const [labels, ofNamespace, expected] of cases) {
    const mesh = new TestMesh(
      gateways + NAMESPACE("shop", { labels: ofNamespace }) + WORKLOAD_ENTRY("vm", { labels }),
    );
    const object = "WorkloadEntry/shop/vm";
    assertEquals(said(mesh, "istio-ambient-workloadentry", object), expected, `${labels} | ${ofNamespace}`);
  }
});

Deno.test("WaypointMissing on ServiceEntries that need one (CP section 3.5, CP-275)", () => {
  const race = "istio.io/connect-strategy: race_first_tcp_connect";
  const missing = (reason: string) => [`istio.io/WaypointMissing True/${reason}`];
  const cases: [hosts: string, annotations: string, labels: string, expected: string[]][] = [
    ["a.example", "", "", []],
    ["*.example", "", "", missing("NoWaypointForWildcardService")],
    ["a.example", race, "", missing("NoWaypointForRacingConnectStrategy")],
    ["*.example", race, "", missing("NoWaypointForRacingConnectStrategy")],
    ["a.example", "istio.io/connect-strategy: DEFAULT", "", []],
    ["*.example", race, `${USE}: w`, [BOUND]],
    ["*.example", "", `${USE}: nobody`, [
      unbound("WaypointIsNotReady"),
      ...missing("NoWaypointForWildcardService"),
    ]],
  ];
  for (const [hosts, annotations, labels, expected] of cases) {
    const mesh = new TestMesh(GATEWAY("w") + SERVICE_ENTRY("e", { hosts, annotations, labels }));
    const object = "ServiceEntry/shop/e";
    assertEquals(said(mesh, "istio-ambient-service", object), expected, `${hosts} ${annotations} ${labels}`);
  }
});

Deno.test("VisibilityApplied says who sees a ServiceEntry, once the mesh has rules for it (CP-112)", () => {
  const reasonOf = (visibility: Parameters<typeof visibilityCondition>[0]) =>
    visibilityCondition(visibility).map(({ type, status, reason }) => `${type} ${status}/${reason}`);
  assertEquals(reasonOf(undefined), []);
  assertEquals(reasonOf("PUBLIC"), ["istio.io/VisibilityApplied True/Public"]);
  assertEquals(reasonOf("NAMESPACE"), ["istio.io/VisibilityApplied True/Namespace"]);
  assertEquals(reasonOf("NONE"), ["istio.io/VisibilityApplied True/None"]);
});

Deno.test("what is left out of the mesh says so itself, and for what (CP section 11.3)", () => {
  const young = { created: "2026-02-01T00:00:00Z", labels: `${USE}: w` };
  const mesh = new TestMesh(
    GATEWAY("w") + SERVICE_ENTRY("old", { hosts: "a.example" }) +
      SERVICE_ENTRY("late", { ...young, hosts: "a.example" }) +
      SERVICE_ENTRY("half", { ...young, hosts: `a.example", "b.example` }) + SERVICE("s") +
      SERVICE_ENTRY("guest", { hosts: "s.shop.svc.cluster.local" }),
  );
  const of = (name: string) => said(mesh, "istio-ambient-service", `ServiceEntry/shop/${name}`);
  const taken = "ambit/InMesh False/HostnameTaken";
  assertEquals(of("old"), []);
  assertEquals(of("late"), [taken], "nothing of it is in force, its waypoint neither");
  assertEquals(of("half"), [BOUND, taken]);
  assertEquals(of("guest"), [taken]);
  const text = messageOf(mesh, "istio-ambient-service", "ServiceEntry/shop/guest");
  assertEquals(text, "Service s has host s.shop.svc.cluster.local, before this one");
  mesh.remove("ServiceEntry/shop/old", "Service/shop/s");
  // Of those left, all as old, the first by name has it now.
  assertEquals([of("late"), of("half"), of("guest")], [[taken], [BOUND], []]);
});

Deno.test("an object of another revision is not ours to write of (CP-107, CP-275)", () => {
  const entry = (rev: string) => SERVICE_ENTRY("e", { labels: `istio.io/rev: ${rev}, ${USE}: w` });
  const mesh = new TestMesh(GATEWAY("w") + entry("canary"), { revision: "stable" });
  assertEquals(said(mesh, "istio-ambient-service", "ServiceEntry/shop/e"), undefined);
  mesh.set(entry("stable"));
  assertEquals(said(mesh, "istio-ambient-service", "ServiceEntry/shop/e"), [BOUND]);
});

const POLICY = (spec: string, { namespace = "shop", annotations = "", labels = "" } = {}) => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p, namespace: ${namespace}, generation: 7, annotations: { ${annotations} }, labels: { ${labels} } }
spec: { ${spec} }
---`;

Deno.test("ZtunnelAccepted is of every policy of ours without a target, WaypointAccepted of those with one (CP-331, CP-345, CP-346)", () => {
  const both = (mesh: TestMesh) => [
    said(mesh, "istio-ambient-ztunnel-policy", "AuthorizationPolicy/shop/p"),
    said(mesh, "istio-ambient-waypoint-policy", "AuthorizationPolicy/shop/p"),
  ];
  const target = "targetRefs: [{ kind: Service, name: s }]";
  const mesh = new TestMesh(POLICY("rules: [{}]"));
  assertEquals(both(mesh), [["ZtunnelAccepted True/Accepted"], []], "though no workload is there");
  mesh.set(POLICY(target));
  assertEquals(both(mesh), [[], ["WaypointAccepted False/TargetNotFound"]], "the other one goes");
  mesh.set(POLICY("action: AUDIT"));
  assertEquals(both(mesh), [["ZtunnelAccepted False/UnsupportedValue"], []]);
  mesh.set(POLICY("rules: [{}]", { annotations: `istio.io/dry-run: "true"` }));
  assertEquals(both(mesh), [["ZtunnelAccepted False/UnsupportedValue"], []]);
  const [condition] = mesh.index.graph.conditions
    .get("istio-ambient-ztunnel-policy|AuthorizationPolicy/shop/p")?.conditions ?? [];
  assertEquals(condition?.observedGeneration, 7);
});

Deno.test("WaypointAccepted judges each kind of target (CP-365)", () => {
  const objects = GATEWAY("w") + GATEWAY("unready", { status: "" }) + GATEWAY_CLASS() +
    SERVICE("bound", { labels: `${USE}: w` }) + SERVICE("plain") + SERVICE_ENTRY("bound", { labels: `${USE}: w` }) +
    SERVICE_ENTRY("plain") + GATEWAY("far", { namespace: "infra" });
  const ref = (kind: string, name: string) => `targetRefs: [{ kind: ${kind}, name: ${name} }]`;
  const cases: [target: string, namespace: string, expected: string, message: RegExp][] = [
    [ref("Gateway", "w"), "shop", "True/Accepted", /^bound to shop\/w$/],
    ["targetRef: { kind: Gateway, name: w }", "shop", "True/Accepted", /^bound to shop\/w$/],
    [
      ref("Gateway", "unready"),
      "shop",
      "False/TargetNotFound",
      /Gateway shop\/unready was not found, or has no address/,
    ],
    [ref("Gateway", "far"), "shop", "False/TargetNotFound", /shop\/far/],
    [ref("Service", "bound"), "shop", "True/Accepted", /^bound to shop\/w$/],
    [ref("Service", "plain"), "shop", "False/AncestorNotBound", /Service shop\/plain is not bound/],
    [ref("Service", "gone"), "shop", "False/TargetNotFound", /Service shop\/gone was not found/],
    [ref("ServiceEntry", "bound"), "shop", "True/Accepted", /^bound to shop\/w$/],
    [ref("ServiceEntry", "plain"), "shop", "False/AncestorNotBound", /not bound/],
    [ref("ServiceEntry", "gone"), "shop", "False/TargetNotFound", /not found/],
    [ref("GatewayClass", "istio-waypoint"), "shop", "False/Invalid", /root namespace, istio-system/],
    [ref("GatewayClass", "istio-waypoint"), "istio-system", "True/Accepted", /^bound to istio-waypoint$/],
    [ref("GatewayClass", "gone"), "istio-system", "False/TargetNotFound", /GatewayClass gone was not found/],
    [ref("Pod", "p"), "shop", "False/Invalid", /cannot be attached to a Pod/],
  ];
  for (const [target, namespace, expected, message] of cases) {
    const mesh = new TestMesh(objects + POLICY(target, { namespace }));
    const object = `AuthorizationPolicy/${namespace}/p`;
    assertEquals(said(mesh, "istio-ambient-waypoint-policy", object), [`WaypointAccepted ${expected}`], target);
    const text = String(messageOf(mesh, "istio-ambient-waypoint-policy", object));
    assert(message.test(text), text);
  }
  const other = new TestMesh(
    GATEWAY_CLASS({ controller: "example.com/other" }) +
      POLICY(ref("GatewayClass", "istio-waypoint"), { namespace: "istio-system" }),
  );
  assertEquals(said(other, "istio-ambient-waypoint-policy", "AuthorizationPolicy/istio-system/p"), [
    "WaypointAccepted False/Invalid",
  ]);
});

Deno.test("WaypointAccepted of several targets: all, some or none of them bound (CP-365)", () => {
  const objects = GATEWAY("w") + SERVICE("a", { labels: `${USE}: w` }) + SERVICE("b", { labels: `${USE}: w` }) +
    SERVICE("plain");
  const verdict = (...names: string[]) => {
    const targets = names.map((name) => `{ kind: Service, name: ${name} }`).join(", ");
    const mesh = new TestMesh(objects + POLICY(`targetRefs: [${targets}]`));
    const manager = "istio-ambient-waypoint-policy", object = "AuthorizationPolicy/shop/p";
    return [said(mesh, manager, object)?.[0], messageOf(mesh, manager, object)];
  };
  assertEquals(verdict("a", "b"), ["WaypointAccepted True/Accepted", "bound to all of its targets"]);
  assertEquals(verdict("a", "plain", "gone"), [
    "WaypointAccepted True/PartiallyInvalid",
    "invalid targetRefs: Service.core:shop/plain, Service.core:shop/gone",
  ]);
  assertEquals(verdict("plain", "gone"), [
    "WaypointAccepted False/Invalid",
    "invalid targetRefs: Service.core:shop/plain, Service.core:shop/gone",
  ]);
});

Deno.test("conditions follow their inputs: Gateway, class, namespace, target, winner (CP-269, CP-365)", () => {
  const mesh = new TestMesh(
    GATEWAY("w") + NAMESPACE("shop", { labels: `${USE}: w` }) + SERVICE("s") + POD("p") +
      POLICY("targetRefs: [{ kind: Service, name: s }]"),
  );
  const now = () => [
    said(mesh, "istio-ambient-service", "Service/shop/s"),
    said(mesh, "istio-ambient-waypoint-policy", "AuthorizationPolicy/shop/p"),
  ];
  assertEquals(now(), [[BOUND], ["WaypointAccepted True/Accepted"]]);
  mesh.remove("Gateway/shop/w");
  assertEquals(now(), [[unbound("WaypointIsNotReady")], ["WaypointAccepted False/AncestorNotBound"]]);
  mesh.set(NAMESPACE("shop"));
  assertEquals(now(), [[], ["WaypointAccepted False/AncestorNotBound"]]);
  mesh.remove("Service/shop/s");
  assertEquals(now(), [undefined, ["WaypointAccepted False/TargetNotFound"]]);
  mesh.remove("AuthorizationPolicy/shop/p");
  assertEquals([...mesh.index.graph.conditions.entries()], []);
});
