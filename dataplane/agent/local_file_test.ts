import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { dumpPolicy, dumpService, dumpWorkload } from "./config_dump.ts";
import { seeds } from "../../mesh/testing.ts";
import { randomOf } from "../tables/testing.ts";
import { applyLocal, parseLocal, readLocalFile } from "./local_file.ts";
import { expandTags } from "./local_tags.ts";
import { MeshState } from "./state.ts";

const LOCAL = `
workloads:
- uid: cluster1//v1/Pod/shop/cart
  name: cart
  namespace: shop
  serviceAccount: cart
  workloadIps: ["127.0.0.1", "fd00::1"]
  protocol: HBONE
  node: here
  waypoint: { destination: mesh/10.0.0.9, hboneMtlsPort: 15008 }
  applicationTunnel: { protocol: PROXY, port: 15088 }
  locality: { region: r, zone: z, subzone: "" }
  services:
    shop/cart.example:
      80: 8080
- uid: two
  name: plain
  namespace: shop
  trustDomain: other.example
  workloadIps: ["127.0.0.2"]
  status: Unhealthy
  capacity: 3
  services: {}
services:
- name: cart
  namespace: shop
  hostname: cart.example
  vips: [/127.10.0.1, mesh/127.10.0.2]
  cidrVips: [{ network: "", cidr: 10.9.0.0/16 }]
  ports: { 80: 8080, 443: 0 }
  subjectAltNames: [spiffe://cluster.local/ns/shop/sa/cart]
  waypoint: { destination: shop/waypoint.example, hboneMtlsPort: 15008 }
  loadBalancer: { routingPreferences: [Region, Node], mode: Failover, healthPolicy: AllowAll }
  ipFamilies: IPv4
  canonical: true
  visibility: Namespace
policies:
- name: only-frontend
  namespace: shop
  scope: WorkloadSelector
  action: Deny
  dryRun: false
  rules:
  - - - notPrincipals: [!Exact cluster.local/ns/shop/sa/frontend, !Prefix "cluster.local/ns/ops/"]
        namespaces:
        - !Suffix -test # of every team
        - !Presence []
        sourceIps: [10.0.0.0/8, 192.168.0.1]
        notDestinationPorts: [9999]
        serviceAccounts: [{ namespace: shop, serviceAccount: cart }]
`;

function stateOf(text: string): MeshState {
  const state = new MeshState("here");
  applyLocal(state, parseLocal(text, "test.yaml"));
  return state;
}

Deno.test("parseLocal() reads workloads with the names of the config dump (ZT-145, ZT-146)", () => {
  const state = stateOf(LOCAL);
  assertEquals(JSON.parse(JSON.stringify(dumpWorkload(state.workload("cluster1//v1/Pod/shop/cart")!.resource))), {
    workloadIps: ["127.0.0.1", "fd00::1"],
    waypoint: { destination: "mesh/10.0.0.9", hboneMtlsPort: 15008 },
    protocol: "HBONE",
    networkMode: "Standard",
    uid: "cluster1//v1/Pod/shop/cart",
    name: "cart",
    namespace: "shop",
    trustDomain: "cluster.local",
    serviceAccount: "cart",
    workloadType: "deployment",
    node: "here",
    applicationTunnel: { protocol: "PROXY", port: 15088 },
    status: "Healthy",
    clusterId: "Kubernetes",
    locality: { region: "r", zone: "z", subzone: "" },
    services: ["shop/cart.example"],
    capacity: 1,
  });
  const plain = state.workload("two")!.resource;
  assertEquals([plain.healthy, plain.capacity, plain.trustDomain], [false, 3, "other.example"]);
});

Deno.test("parseLocal() reads services, and workloads become their endpoints (ZT-146, ZT-137)", () => {
  const state = stateOf(LOCAL), { resource } = state.service("shop/cart.example")!;
  assertEquals(JSON.parse(JSON.stringify(dumpService(resource, state.storedEndpoints("shop/cart.example")))), {
    name: "cart",
    namespace: "shop",
    hostname: "cart.example",
    vips: ["/127.10.0.1", "mesh/127.10.0.2"],
    cidrVips: [{ network: "", cidr: "10.9.0.0/16" }],
    ports: { "80": 8080, "443": 0 },
    endpoints: {
      "cluster1//v1/Pod/shop/cart": {
        workloadUid: "cluster1//v1/Pod/shop/cart",
        port: { "80": 8080 },
        status: "Healthy",
      },
    },
    subjectAltNames: ["spiffe://cluster.local/ns/shop/sa/cart"],
    waypoint: { destination: "shop/waypoint.example", hboneMtlsPort: 15008 },
    loadBalancer: { routingPreferences: ["Region", "Node"], mode: "Failover", healthPolicy: "AllowAll" },
    ipFamilies: "IPv4",
    canonical: true,
    visibility: "Namespace",
  });
});

Deno.test("parseLocal() reads policies with tagged string matches (ZT-146)", () => {
  const { resource } = stateOf(LOCAL).policy("shop/only-frontend")!;
  assertEquals(JSON.parse(JSON.stringify(dumpPolicy(resource))), {
    name: "only-frontend",
    namespace: "shop",
    scope: "WorkloadSelector",
    action: "Deny",
    dryRun: false,
    rules: [[[{
      namespaces: [{ Suffix: "-test" }, { Presence: [] }],
      serviceAccounts: [{ namespace: "shop", serviceAccount: "cart" }],
      notPrincipals: [{ Exact: "cluster.local/ns/shop/sa/frontend" }, { Prefix: "cluster.local/ns/ops/" }],
      sourceIps: ["10.0.0.0/8", "192.168.0.1/32"],
      notDestinationPorts: [9999],
    }]]],
  });
});

Deno.test("parseLocal() reads back what the config dump shows of policies (ZT-146, ZT-211)", () => {
  const policy = dumpPolicy(stateOf(LOCAL).policy("shop/only-frontend")!.resource);
  const again = stateOf(JSON.stringify({ policies: [policy] })).policy("shop/only-frontend")!.resource;
  assertEquals(dumpPolicy(again), policy);
});

const WORKLOAD = "workloads:\n- { uid: a, namespace: n, workloadIps: [10.0.0.1], services: {} ";
const POLICY = "policies:\n- { name: p, namespace: n, scope: Global, action: Allow, dryRun: false, ";
const SERVICE = "services:\n- { name: s, namespace: n, hostname: h, ";
const WRONG: readonly (readonly [text: string, told: string])[] = [
  ["workloads: [", "at line"],
  ["pods: []", "pods: no such field"],
  ["workloads: &a [*a]", "an alias of it contains itself"],
  ["[".repeat(100_000), "it is nested too deeply"],
  [`${WORKLOAD}, capacity: .inf }`, "Infinity is no number to use"],
  ["workloads:\n- { uid: a, namespace: n, workloadIps: [10.0.0.1] }", "workloads[0].services: is missing"],
  ["workloads:\n- { uid: a, namespace: n, services: {} }", "workloads[0].workloadIps: is missing"],
  ["workloads:\n- { namespace: n, workloadIps: [], services: {} }", "workloads[0].uid: is missing"],
  [`${WORKLOAD}, protocol: UDP }`, 'workloads[0].protocol: "UDP" is none of TCP, HBONE'],
  [`${WORKLOAD}, name: 7 }`, "workloads[0].name: is no text: 7"],
  [`${WORKLOAD}, waypoint: { destination: nowhere, hboneMtlsPort: 1 } }`, "workloads[0].waypoint.destination: nowhere"],
  [`${WORKLOAD} }\n- { uid: a, namespace: n, workloadIps: [], services: {} }`, "workloads[1]: a is there twice"],
  [
    "workloads:\n- { uid: a, namespace: n, workloadIps: [10.0.0], services: {} }",
    "workloads[0].workloadIps[0]: 10.0.0",
  ],
  [`${SERVICE} vips: [10.0.0.1], ports: {} }`, "services[0].vips[0]: 10.0.0.1 is not NETWORK/IP"],
  [`${SERVICE} vips: [], ports: { http: 80 } }`, "services[0].ports.http: is not named by a port"],
  [`${SERVICE} vips: [], ports: { 80: 65536 } }`, "services[0].ports.80: is not a whole number"],
  [`${SERVICE} vips: [], ports: {}, port: {} }`, "services[0].port: no such field"],
  [`${POLICY} rules: [[[{ hosts: [a] }]]] }`, "policies[0].rules[0][0][0].hosts: no such field"],
  [`${POLICY} rules: [[[{ principals: [a] }]]] }`, "policies[0].rules[0][0][0].principals[0]: is no object"],
  [`${POLICY} rules: [[[{ sourceIps: [10.0.0.0/33] }]]] }`, "sourceIps[0]: a length of 33 is over 32"],
  [`${POLICY} }`, "policies[0].rules: is missing"],
];

Deno.test("parseLocal() tells file, field and fault, and takes nothing then (ZT-145)", () => {
  for (const [text, told] of WRONG) {
    const error = assertThrows(() => parseLocal(text, "mesh.yaml"), MeshError);
    assertStringIncludes(error.message, "mesh.yaml");
    assertStringIncludes(error.message, told);
    assertEquals(error.code, "AMB0322");
  }
});

Deno.test("parseLocal() refuses whatever it does not take, seeded", () => {
  const pieces = [
    "{",
    "}",
    "[",
    "]",
    ": ",
    ", ",
    "\n",
    "- ",
    "!Exact ",
    "!Presence []",
    "*a",
    "&a ",
    "null",
    "~",
    "-1",
    '"',
    "'",
    "#",
  ];
  let taken = 0, refused = 0;
  for (const seed of seeds()) {
    const below = randomOf(seed);
    let text = LOCAL;
    for (let change = below(3); change >= 0; change--) {
      const at = below(text.length), cut = below(4) === 0 ? below(40) : 0;
      text = text.slice(0, at) + (below(4) === 0 ? "" : pieces[below(pieces.length)]) + text.slice(at + cut);
    }
    try {
      const resources = parseLocal(text, "f");
      applyLocal(new MeshState(""), resources);
      JSON.stringify(resources.shown);
      taken++;
    } catch (error) {
      if (!(error instanceof MeshError)) throw new Error(`seed ${seed}:\n${text}`, { cause: error });
      refused++;
    }
  }
  assertEquals([taken > 0, refused > 0], [true, true]);
});

Deno.test("parseLocal() lists fields of workloads that nobody reads (ZT-145)", () => {
  assertEquals(parseLocal(`${WORKLOAD}, colour: red }`, "f").ignored, ["workloads[0].colour"]);
});

Deno.test("readLocalFile() refuses both settings at once, and a file that is not there (ZT-008)", async () => {
  const both = await assertRejects(() => readLocalFile({ path: "a", text: "b" }), MeshError);
  assertEquals(both.message, "only one of LOCAL_XDS_PATH or LOCAL_XDS may be set");
  const missing = await assertRejects(() => readLocalFile({ path: "/nonexistent/mesh.yaml", text: "" }), MeshError);
  assertEquals(missing.code, "AMB0321");
  assertEquals(await readLocalFile({ path: "", text: "" }), undefined);
  assertEquals((await readLocalFile({ path: "", text: `${WORKLOAD} }` }))?.addresses.map((it) => it.name), ["a"]);
});

Deno.test("a workload of the file has the account and trust domain of xDS unless it says so, and no services (ZT-147)", () => {
  // The original leaves trust domain and account empty, and so gives the workload an identity that nobody issues.
  const state = stateOf(LOCAL), two = state.workload("two")!.resource;
  assertEquals([two.trustDomain, two.serviceAccount, two.clusterId], ["other.example", "default", "Kubernetes"]);
  assertEquals(state.workload("cluster1//v1/Pod/shop/cart")!.resource.trustDomain, "cluster.local");
  assertEquals(two.services.size, 0);
});

Deno.test("applyLocal() tells of this node's workloads, whose certificates are fetched ahead as those of xDS (ZT-143)", () => {
  const state = new MeshState("here"), workloads = applyLocal(state, parseLocal(LOCAL, "test.yaml"));
  assertEquals(workloads.map((workload) => [workload.name, state.wantsCertificate(workload)]), [["cart", true]]);
});

Deno.test("a control plane replaces and removes what the file said (ZT-145)", () => {
  const state = stateOf(LOCAL);
  state.applyAddresses([], ["two"]);
  assertEquals(state.workload("two"), undefined);
  assertEquals(state.workloads.size, 1);
});

Deno.test("expandTags() leaves quoted texts, comments and foreign tags alone", () => {
  const same = [
    "a: '!Exact b'",
    'a: "\\"!Exact b"',
    "a: b # - !Exact c",
    "a: !!str b",
    "a: it's !Exact",
    "a: !Exactly b",
  ];
  for (const text of same) assertEquals(expandTags(text), text);
  assertEquals(expandTags("[!Exact a, !Prefix 'b, c']"), `[{ "Exact": a }, { "Prefix": 'b, c' }]`);
  assertEquals(expandTags("- !Suffix a b # c"), `- { "Suffix": a b } # c`);
  assertEquals(expandTags("- !Presence"), `- { "Presence": [] }`);
});
