import { assertEquals, assertStrictEquals } from "@std/assert";
import { EMPTY_FILE, readFileState } from "../folder/file_state.ts";
import { MESH_CONFIG_KEY, type MeshConfigObject } from "../objects.ts";
import { EMPTY_MESH_CONFIG, readMeshConfig } from "./mesh_config.ts";

const FULL = `
rootNamespace: mesh-root
trustDomain: corp.example
trustDomainAliases: [old.example, older.example]
enableTracing: true
defaultConfig: { discoveryAddress: "istiod.mesh.svc:15012", proxyMetadata: { A: b } }
discoverySelectors: [{ matchLabels: { mesh: "on" } }, { matchExpressions: [{ key: team, operator: Exists }] }]
serviceScopeConfigs:
- { servicesSelector: { matchExpressions: [{ key: istio.io/global, operator: In, values: ["true"] }] }, scope: GLOBAL }
- { namespaceSelector: { matchLabels: { a: b } } }
serviceEntryVisibility:
  defaultVisibility: NAMESPACE
  policies:
  - { visibility: PUBLIC, matchingRules: [{ namespaceSelector: { matchLabels: { a: b } } }, { hostnameSuffix: x }] }
  - { visibility: NONE }
caCertificates: [{ pem: P, certSigners: [s], trustDomains: [far.example] }, { spiffeBundleUrl: "https://x" }]
`;
const label = (key: string, value: string) => ({ matchLabels: new Map([[key, value]]), matchExpressions: [] });
const expression = (key: string, operator: "In" | "Exists", ...values: string[]) => ({
  matchLabels: new Map(),
  matchExpressions: [{ key, operator, values }],
});
const ALL = { matchLabels: new Map(), matchExpressions: [] };
const DECODED: MeshConfigObject = {
  ...EMPTY_MESH_CONFIG,
  rootNamespace: "mesh-root",
  trustDomain: "corp.example",
  trustDomainAliases: ["old.example", "older.example"],
  discoveryAddress: "istiod.mesh.svc:15012",
  discoverySelectors: [label("mesh", "on"), expression("team", "Exists")],
  serviceScopes: [
    { services: expression("istio.io/global", "In", "true"), namespaces: ALL, global: true },
    { services: ALL, namespaces: label("a", "b"), global: false },
  ],
  serviceEntryVisibility: {
    fallback: "NAMESPACE",
    policies: [
      { visibility: "PUBLIC", namespaces: [label("a", "b"), undefined] },
      { visibility: "NONE", namespaces: [] },
    ],
  },
  caCertificates: [
    { pem: "P", spiffeBundleUrl: "", certSigners: ["s"], trustDomains: ["far.example"] },
    { pem: "", spiffeBundleUrl: "https://x", certSigners: [], trustDomains: [] },
  ],
};

Deno.test("readMeshConfig() reads what ambient uses and passes over the rest (CP-026, CP-027)", () => {
  assertEquals(readMeshConfig({ mesh: FULL }, undefined), { object: DECODED, refusals: [] });
  for (const mesh of ["", "{}", "# nothing", "trustDomain: ''\nserviceEntryVisibility: null"]) {
    assertEquals(readMeshConfig({ mesh }, DECODED), { object: EMPTY_MESH_CONFIG, refusals: [] }, mesh);
  }
});

Deno.test("readMeshConfig(): the shared settings count where the mesh's own are silent (CP-026)", () => {
  const shared = "trustDomain: shared.example\nrootNamespace: shared";
  const { object } = readMeshConfig({ mesh: "trustDomain: own.example", shared }, undefined);
  assertEquals([object?.trustDomain, object?.rootNamespace], ["own.example", "shared"]);
});

const BAD: readonly [yaml: string, field: string][] = [
  ["trustDomain: Corp/x", "trustDomain"],
  ["trustDomain: [a]", "trustDomain"],
  ["trustDomainAliases: [a, 7]", "trustDomainAliases[1]"],
  ["rootNamespace: No_Good", "rootNamespace"],
  ["discoverySelectors: [{ matchLabel: {} }]", "discoverySelectors[0].matchLabel"],
  ["serviceScopeConfigs: [{ scope: WIDE }]", "serviceScopeConfigs[0].scope"],
  ["serviceEntryVisibility: { defaultVisibility: ALL }", "serviceEntryVisibility.defaultVisibility"],
  [
    "serviceEntryVisibility: { policies: [{ matchingRules: [{ namespaceSelector: { matchExpressions: [{ key: a, operator: Any }] } }] }] }",
    "serviceEntryVisibility.policies[0].matchingRules[0].namespaceSelector.matchExpressions[0].operator",
  ],
  ["caCertificates: [{ pem: 1 }]", "caCertificates[0].pem"],
  ["defaultConfig: { discoveryAddress: {} }", "defaultConfig.discoveryAddress"],
];

Deno.test("readMeshConfig(): a bad value keeps its last good one and no other is lost; without one there is no answer (CP-026, CP-112)", () => {
  for (const [yaml, field] of BAD) {
    const name = (yaml.split(":")[0]!.replace("defaultConfig", "discoveryAddress").replace(
      "Configs",
      "s",
    )) as keyof MeshConfigObject;
    const other = name === "trustDomainAliases" ? "rootNamespace: other" : "trustDomainAliases: [new.example]";
    const { object, refusals } = readMeshConfig({ mesh: `${yaml}\n${other}` }, DECODED);
    assertEquals(refusals.map((it) => it.field), [field]);
    assertEquals(object?.[name], DECODED[name]);
    assertEquals(
      object?.[other.split(":")[0] as keyof MeshConfigObject],
      readMeshConfig({ mesh: other }, undefined).object?.[other.split(":")[0] as keyof MeshConfigObject],
    );
    assertEquals(readMeshConfig({ mesh: yaml }, undefined).object, undefined, "a guess would be worse");
  }
  for (const mesh of ["a: [", "- list", "text", "a: &a [*a]"]) {
    const { object, refusals } = readMeshConfig({ mesh }, DECODED);
    assertStrictEquals(object, DECODED);
    assertEquals(refusals.map((it) => it.field), [""]);
    assertEquals(readMeshConfig({ mesh }, undefined).object, undefined);
  }
});

Deno.test("readFileState(): ConfigMap istio of a folder is the mesh's settings; other ConfigMaps are none of ours (CP-026)", () => {
  const read = (yaml: string, previous = EMPTY_FILE) =>
    readFileState("mesh.yaml", new TextEncoder().encode(yaml), previous);
  const map = (name: string, mesh: string) =>
    `apiVersion: v1\nkind: ConfigMap\nmetadata: { name: ${name}, namespace: istio-system }\ndata:\n  mesh: |\n${
      mesh.replaceAll(/^/gm, "    ")
    }\n`;
  const good = read(map("istio", FULL));
  assertEquals([...good.held].map(([key, { object }]) => [key, object]), [[MESH_CONFIG_KEY, DECODED]]);
  assertEquals(read(map("other", "trustDomain: x")).held.size, 0);
  const bad = read(map("istio", "trustDomain: No/Good"), good);
  assertEquals([...bad.held.values()].map((it) => it.object), [DECODED]);
  assertEquals(bad.refusals.map(({ field, reason }) => `${field}: ${reason}`), [
    "data.mesh: trustDomain: must be lower-case letters, digits, dots, hyphens, underscores",
  ]);
  assertEquals(read(map("istio", "a: [")).refusals.map((it) => it.field), ["data.mesh"]);
  assertEquals(
    read("apiVersion: v1\nkind: MeshConfig\nmetadata: { name: istio }").held.size,
    0,
    "only a ConfigMap holds it",
  );
});
