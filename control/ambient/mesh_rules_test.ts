import { assertEquals } from "@std/assert";
import { readMeshConfig } from "../decode/mesh_config.ts";
import { TestMesh } from "./testing.ts";
import { isGlobal, visibilityOf } from "./mesh_rules.ts";
import { GATEWAY, MESH, NAMESPACE, SERVICE, SERVICE_ENTRY } from "./waypoint_testing.ts";

const settings = (mesh: string) => readMeshConfig({ mesh }, undefined).object!;
const labels = (text: string) =>
  new Map(text.split(" ").filter((it) => it !== "").map((it) => it.split("=") as [string, string]));

Deno.test("visibilityOf(): the first policy whose rules all hold, else the default, else public (CP-112)", () => {
  const { serviceEntryVisibility: setting } = settings(`
serviceEntryVisibility:
  defaultVisibility: NAMESPACE
  policies:
  - { visibility: PUBLIC, matchingRules: [{ namespaceSelector: { matchLabels: { a: "1" } } }, { namespaceSelector: { matchLabels: { b: "1" } } }] }
  - { visibility: PUBLIC, matchingRules: [{ someLaterMatcher: x }] }
  - { visibility: NONE, matchingRules: [{ namespaceSelector: { matchLabels: { a: "1" } } }] }`);
  assertEquals(visibilityOf(setting, labels("a=1 b=1")), "PUBLIC");
  assertEquals(visibilityOf(setting, labels("a=1")), "NONE");
  assertEquals(visibilityOf(setting, labels("b=1")), "NAMESPACE");
  assertEquals(visibilityOf(undefined, labels("a=1")), "PUBLIC");
  assertEquals(
    visibilityOf(
      settings("serviceEntryVisibility: { policies: [{ visibility: NONE }] }").serviceEntryVisibility,
      labels(""),
    ),
    "NONE",
  );
});

Deno.test("isGlobal(): some GLOBAL rule matches the service and its namespace; the label alone does nothing (CP-111)", () => {
  const { serviceScopes: rules } = settings(`
serviceScopeConfigs:
- { scope: LOCAL }
- { scope: GLOBAL, servicesSelector: { matchExpressions: [{ key: istio.io/global, operator: In, values: ["true"] }] } }
- { scope: GLOBAL, namespaceSelector: { matchLabels: { team: a } }, servicesSelector: { matchLabels: { x: y } } }`);
  const global = (service: string, namespace = "") => isGlobal(rules, labels(service), labels(namespace));
  assertEquals([global("istio.io/global=true"), global("istio.io/global=yes"), global("")], [true, false, false]);
  assertEquals([global("x=y", "team=a"), global("x=y"), global("", "team=a")], [true, false, false]);
  assertEquals(isGlobal([], labels("istio.io/global=true"), labels("")), false);
  assertEquals(
    isGlobal(settings("serviceScopeConfigs: [{ scope: GLOBAL }]").serviceScopes, labels(""), labels("")),
    true,
  );
});

const ENTRY = (name: string, namespace: string, created: string) =>
  SERVICE_ENTRY(name, {
    namespace,
    created,
    hosts: "api.example",
    spec: "resolution: STATIC, addresses: [10.9.0.1], endpoints: [{ address: 10.8.0.1 }]",
  });
const POLICY = (visibility: string) =>
  MESH(
    `serviceEntryVisibility: { policies: [{ visibility: ${visibility}, matchingRules: [{ namespaceSelector: { matchLabels: { kept: 'yes' } } }] }] }`,
  );

Deno.test("AmbientIndex: a namespace's ServiceEntries are public, its own, or nothing at all, live (CP-112, CP-235)", () => {
  const mesh = new TestMesh(
    NAMESPACE("shop", { labels: "kept: 'yes'" }) + NAMESPACE("far") +
      ENTRY("old", "shop", "2026-01-01T00:00:00Z") + ENTRY("young", "far", "2026-01-02T00:00:00Z"),
  );
  const ours = "shop/api.example",
    theirs = "far/api.example",
    endpoint = "c1/networking.istio.io/ServiceEntry/shop/old/10.8.0.1";
  const seen = () => [ours, theirs].map((it) => mesh.address(it)).map((it) => it && `${it.visibility} ${it.canonical}`);
  assertEquals(seen(), ["PUBLIC true", "PUBLIC undefined"]);
  assertEquals(mesh.set(POLICY("NAMESPACE")), [`+${theirs}`, `+${ours}`]);
  assertEquals(
    seen(),
    ["NAMESPACE undefined", "PUBLIC true"],
    "what its namespace alone sees is nobody's canonical one",
  );
  assertEquals(mesh.set(POLICY("NONE")), [`-${endpoint}`, `-${ours}`]);
  assertEquals(seen(), [undefined, "PUBLIC true"]);
  assertEquals(mesh.set(NAMESPACE("shop")), [`+${endpoint}`, `+${theirs}`, `+${ours}`]);
  assertEquals(seen(), ["PUBLIC true", "PUBLIC undefined"]);
});

Deno.test("AmbientIndex: a ServiceEntry that only its namespace sees uses no other namespace's waypoint (CP-112, CP-263)", () => {
  const mesh = new TestMesh(
    NAMESPACE("shop", { labels: "kept: 'yes'" }) + NAMESPACE("far") +
      GATEWAY("w", {
        namespace: "far",
        listeners: "{ name: mesh, port: 15008, protocol: HBONE, allowedRoutes: { namespaces: { from: All } } }",
      }) +
      SERVICE_ENTRY("e", { labels: "istio.io/use-waypoint: w, istio.io/use-waypoint-namespace: far" }) +
      SERVICE("other"),
  );
  assertEquals(mesh.address("shop/e.example")?.waypoint !== undefined, true);
  assertEquals(mesh.set(POLICY("NAMESPACE")), ["+shop/e.example"]);
  assertEquals(mesh.address("shop/e.example")?.waypoint, undefined);
  assertEquals([...mesh.index.graph.problems.entries()].map(([, it]) => it.reason), [
    "CrossNamespaceWaypointForbidden",
  ]);
});

Deno.test("AmbientIndex: a ServiceEntry's status says who sees it, as long as the mesh has rules for that (CP-112, CP-275)", () => {
  const mesh = new TestMesh(
    NAMESPACE("shop", { labels: "kept: 'yes'" }) + ENTRY("e", "shop", "2026-01-01T00:00:00Z") +
      ENTRY("e", "far", "2026-01-02T00:00:00Z"),
  );
  const said = (namespace: string) =>
    mesh.index.graph.conditions.get(`istio-ambient-service|ServiceEntry/${namespace}/e`)?.conditions
      .map(({ type, status, reason }) => `${type} ${status}/${reason}`);
  assertEquals([said("shop"), said("far")], [[], []]);
  for (const [visibility, reason] of [["NAMESPACE", "Namespace"], ["NONE", "None"], ["PUBLIC", "Public"]]) {
    mesh.set(POLICY(visibility!));
    assertEquals([said("shop"), said("far")], [[`istio.io/VisibilityApplied True/${reason}`], [
      "istio.io/VisibilityApplied True/Public",
    ]]);
  }
});
