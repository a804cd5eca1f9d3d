import { assertEquals } from "@std/assert";
import { AUTHORIZATION_TYPE_URL } from "../../mesh/proto/authorization_codec.ts";
import { expandPrincipal } from "./authorization_policy.ts";
import { TestMesh } from "./testing.ts";
import { POD, podUid, SERVICE, SERVICE_ENTRY, WORKLOAD_ENTRY } from "./waypoint_testing.ts";

const ENTRY = SERVICE_ENTRY("e", { spec: "resolution: STATIC, workloadSelector: { labels: { app: a } }" });
const MESH = ENTRY + SERVICE("s", { spec: "selector: { app: a }" }) + POD("p", { labels: "app: a" }) +
  WORKLOAD_ENTRY("vm", { labels: "app: a" });
const VM = "c1/networking.istio.io/WorkloadEntry/shop/vm";

function servicesOf(mesh: TestMesh, name: string): string[] {
  return Object.keys(mesh.address(name)?.services ?? {}).map((it) => it.split(/[/.]/)[1]!).sort();
}

Deno.test("ServiceEntries select pods, and Services WorkloadEntries, unless that is switched off (CP-208, CP-212)", () => {
  const both = (options: ConstructorParameters<typeof TestMesh>[1]) => {
    const mesh = new TestMesh(MESH, options);
    return [servicesOf(mesh, podUid("p")), servicesOf(mesh, VM)];
  };
  assertEquals(both({}), [["e", "s"], ["e", "s"]]);
  assertEquals(both({ serviceEntriesSelectPods: false }), [["s"], ["e", "s"]]);
  assertEquals(both({ servicesSelectWorkloadEntries: false }), [["e", "s"], ["e"]]);
});

Deno.test("a ServiceEntry's port on a pod: a container port of its name, else its target, else its number (CP-211)", () => {
  const entry = (ports: string) => `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: e, namespace: shop }
spec: { hosts: [e.example], resolution: STATIC, workloadSelector: { labels: { app: a } }, ports: [${ports}] }
---
apiVersion: v1
kind: Pod
metadata: { name: p, namespace: shop, labels: { app: a } }
spec: { containers: [{ ports: [{ name: web, containerPort: 8080 }, { name: udp, containerPort: 9, protocol: UDP }] }] }
status: { podIP: 10.0.0.1 }
---`;
  const portsOf = (ports: string) => new TestMesh(entry(ports)).address(podUid("p"))?.services;
  assertEquals(portsOf("{ name: web, number: 80 }"), { "shop/e.example": ["80:8080"] });
  assertEquals(portsOf("{ name: web, number: 80, targetPort: 81 }"), { "shop/e.example": ["80:8080"] });
  assertEquals(portsOf("{ name: other, number: 80, targetPort: 81 }"), { "shop/e.example": ["80:81"] });
  assertEquals(portsOf("{ name: other, number: 80 }"), { "shop/e.example": ["80:80"] });
  assertEquals(
    portsOf("{ name: udp, number: 80 }"),
    { "shop/e.example": ["80:80"] },
    "UDP container ports do not count",
  );
});

Deno.test("locality is absent where nothing is known of it (CP-203)", () => {
  const node = (labels: string) => `
apiVersion: v1
kind: Node
metadata: { name: n1, labels: { ${labels} } }
---`;
  const pod = POD("p").replace("spec: {", "spec: { nodeName: n1,");
  const localityOf = (yaml: string, name = podUid("p")) => new TestMesh(yaml).address(name)?.locality;
  assertEquals(localityOf(pod), undefined, "an unknown node");
  assertEquals(localityOf(pod + node("a: b")), undefined, "a node without the labels");
  assertEquals(localityOf(pod + node("topology.kubernetes.io/zone: z")), { zone: "z" });
  assertEquals(localityOf(WORKLOAD_ENTRY("vm"), VM), undefined);
  const stated = WORKLOAD_ENTRY("vm", { spec: "address: 10.1.0.1, locality: r/z/s" });
  assertEquals(localityOf(stated, VM), { region: "r", zone: "z", subzone: "s" });
});

Deno.test("expandPrincipal(): a principal of one of the mesh's trust domains, or of cluster.local, is of all of them (CP-344)", () => {
  const domains = ["td", "old"];
  const cases: [text: string, expected: string[]][] = [
    ["td/ns/a/sa/b", ["td/ns/a/sa/b", "old/ns/a/sa/b"]],
    ["old/ns/a/sa/b", ["td/ns/a/sa/b", "old/ns/a/sa/b"]],
    ["cluster.local/ns/a/sa/b", ["td/ns/a/sa/b", "old/ns/a/sa/b"]],
    ["cluster.local/ns/a/*", ["td/ns/a/*", "old/ns/a/*"]],
    ["other/ns/a/sa/b", ["other/ns/a/sa/b"]],
    ["*", ["*"]],
    ["*/sa/b", ["*/sa/b"]],
    ["cluster.local", ["cluster.local"]],
  ];
  for (const [text, expected] of cases) assertEquals(expandPrincipal(text, domains), expected, text);
  assertEquals(expandPrincipal("cluster.local/ns/a/sa/b", []), ["cluster.local/ns/a/sa/b"], "as written by default");
});

Deno.test("principals of policies are expanded where that is asked for, and follow the mesh's trust domains (CP-344)", () => {
  const policy = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p, namespace: shop }
spec:
  rules:
    - from: [{ source: { principals: [cluster.local/ns/a/sa/b] } }, { source: { notPrincipals: [td/ns/c/sa/d] } }]
      when: [{ key: source.principal, values: [td/ns/e/sa/f] }]
---`;
  const rulesOf = (mesh: TestMesh) => mesh.get(AUTHORIZATION_TYPE_URL, "shop/p")?.rules;
  assertEquals(rulesOf(new TestMesh(policy, { trustDomain: "td" })), [[
    [{ principals: ["cluster.local/ns/a/sa/b"] }, { notPrincipals: ["td/ns/c/sa/d"] }],
    [{ principals: ["td/ns/e/sa/f"] }],
  ]]);
  const mesh = new TestMesh(policy, { trustDomain: "td", expandTrustDomains: true });
  assertEquals(rulesOf(mesh), [[
    [{ principals: ["td/ns/a/sa/b"] }, { notPrincipals: ["td/ns/c/sa/d"] }],
    [{ principals: ["td/ns/e/sa/f"] }],
  ]]);
  assertEquals(
    mesh.set(`
apiVersion: v1
kind: ConfigMap
metadata: { name: istio, namespace: istio-system }
data: { mesh: "trustDomain: new\\ntrustDomainAliases: [td]" }
`),
    ["+shop/p"],
  );
  assertEquals(rulesOf(mesh), [[
    [{ principals: ["new/ns/a/sa/b", "td/ns/a/sa/b"] }, { notPrincipals: ["new/ns/c/sa/d", "td/ns/c/sa/d"] }],
    [{ principals: ["new/ns/e/sa/f", "td/ns/e/sa/f"] }],
  ]]);
});

Deno.test("ZtunnelAccepted may be kept to policies that a workload of the mesh comes under (CP-346)", () => {
  const policy = (name: string, namespace: string, spec: string) => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: ${namespace} }
spec: { ${spec} }
---`;
  const enrolled = POD("p", { labels: "app: a" }).replace(
    "metadata: {",
    "metadata: { annotations: { ambient.istio.io/redirection: enabled },",
  );
  const policies = policy("mesh", "istio-system", "rules: [{}]") + policy("ns", "shop", "rules: [{}]") +
    policy("far", "far", "rules: [{}]") + policy("hit", "shop", "selector: { matchLabels: { app: a } }, rules: [{}]") +
    policy("miss", "shop", "selector: { matchLabels: { app: b } }, rules: [{}]") +
    policy("audit", "shop", "action: AUDIT");
  const said = (mesh: TestMesh) =>
    [...mesh.index.graph.conditions.entries()].filter(([, it]) => it.conditions.length > 0)
      .map(([, it]) => it.resource.name).sort();
  const mesh = new TestMesh(policies + POD("plain", { ip: "10.0.0.2" }), { conditionsOfMatchingPoliciesOnly: true });
  assertEquals(said(mesh), [], "a pod outside of the mesh comes under none");
  mesh.set(enrolled);
  assertEquals(said(mesh), ["audit", "hit", "mesh", "ns"]);
  mesh.remove("Pod/shop/p");
  assertEquals(said(mesh), []);
  assertEquals(said(new TestMesh(policies)), ["audit", "far", "hit", "mesh", "miss", "ns"], "of all by default");
});

Deno.test("service accounts of a policy are a namespace's, or of the policy's own (CP-338)", () => {
  const rulesOf = (accounts: string) =>
    new TestMesh(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p, namespace: shop }
spec: { rules: [{ from: [{ source: ${accounts} }] }] }`).get(AUTHORIZATION_TYPE_URL, "shop/p")?.rules;
  assertEquals(rulesOf("{ serviceAccounts: [a, far/b] }"), [[[{ serviceAccounts: ["shop/a", "far/b"] }]]]);
  assertEquals(rulesOf("{ notServiceAccounts: [a] }"), [[[{ notServiceAccounts: ["shop/a"] }]]]);
});
