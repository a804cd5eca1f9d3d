/** What NetworkPolicies keep from the mesh, each by a folder of objects (CNI-190). */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { KubeError } from "../../kube/api.ts";
import { NETWORK_POLICIES, PODS } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { namespace, pod } from "../cluster/testing.ts";
import { NAMESPACES } from "../../kube/resource_types.ts";
import { findingsOf } from "./command.ts";
import { lineOf } from "./findings.ts";
import { loadCluster, loadFiles } from "./loaded.ts";

const HERE = { systemNamespace: "istio-system", revision: "" };
const AMBIENT = "labels: {istio.io/dataplane-mode: ambient}";

interface PodFields {
  readonly namespace?: string;
  readonly labels?: string;
  readonly spec?: string;
  readonly ips?: string;
  readonly annotations?: string;
}

function podOf(name: string, { namespace = "shop", labels = "", spec = "", ips, annotations = "" }: PodFields = {}) {
  return `
apiVersion: v1
kind: Pod
metadata: {name: ${name}, namespace: ${namespace}, labels: {app: ${name}, ${labels}}, annotations: {${annotations}}}
spec: ${spec === "" ? "{containers: [{name: it}]}" : spec}
status: {phase: Running, podIPs: [${ips ?? "{ip: 10.0.0.1}"}]}
`;
}

const policy = (spec: string, name = "it", namespace = "shop") => `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: ${name}, namespace: ${namespace}}
spec: ${spec}
`;

/** A mesh of `web` and `cart` in `shop`, `bill` in `books`, and `old` in a namespace that is not in it. */
const MESH = [
  `{apiVersion: v1, kind: Namespace, metadata: {name: shop, ${AMBIENT}}}`,
  `{apiVersion: v1, kind: Namespace, metadata: {name: books, ${AMBIENT}}}`,
  "{apiVersion: v1, kind: Namespace, metadata: {name: old}}",
  podOf("web", { spec: "{containers: [{name: it, ports: [{name: http, containerPort: 8080}]}]}" }),
  podOf("cart"),
  podOf("bill", { namespace: "books" }),
  podOf("old", { namespace: "old" }),
];

/** Of the mesh with these beside it: codes, policies and the rule that is meant. */
async function found(...documents: string[]): Promise<string[]> {
  return (await lines(...documents)).map((line) => {
    const [, code, object, rule] = /\[(\w+)\] \(([^)]*)\) (\S+)/.exec(line) ?? [];
    return `${code} ${object} ${rule}`;
  });
}

async function lines(...documents: string[]): Promise<string[]> {
  const folder = await Deno.makeTempDir({ prefix: "network-" });
  try {
    await Deno.writeTextFile(`${folder}/all.yaml`, [...MESH, ...documents].join("\n---\n"));
    return findingsOf(await loadFiles([folder]), HERE).map(lineOf);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const WEB = "podSelector: {matchLabels: {app: web}}", HBONE = "{port: 15008}";
const HIT = ["AMBIT001 NetworkPolicy/shop/it spec.ingress[0]"], OUT = ["AMBIT001 NetworkPolicy/shop/it spec.egress[0]"];

const CASES: Readonly<Record<string, readonly [expected: readonly string[], ...policies: string[]]>> = {
  "that admits a port and not HBONE's": [HIT, policy(`{${WEB}, ingress: [{ports: [{port: 8080}]}]}`)],
  "that admits a port by its name": [HIT, policy(`{${WEB}, ingress: [{ports: [{port: http}]}]}`)],
  "that admits a range which ends before": [
    HIT,
    policy(`{${WEB}, ingress: [{ports: [{port: 8000, endPort: 15007}]}]}`),
  ],
  "that admits from a pod of the mesh": [
    HIT,
    policy(`{${WEB}, ingress: [{from: [{podSelector: {matchLabels: {app: cart}}}], ports: [{port: 8080}]}]}`),
  ],
  "that admits HBONE from others only": [
    HIT,
    policy(
      `{${WEB}, ingress: [{from: [{podSelector: {}}], ports: [{port: 8080}]}, {from: [{podSelector: {matchLabels: {app: x}}}], ports: [${HBONE}]}]}`,
    ),
  ],
  "whose HBONE is UDP": [HIT, policy(`{${WEB}, ingress: [{ports: [{port: 8080}, {port: 15008, protocol: UDP}]}]}`)],
  "of another namespace by its labels": [
    HIT,
    policy(
      `{${WEB}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: books}}}], ports: [{port: 80}]}]}`,
    ),
  ],
  "that lets nothing but a port out": [OUT, policy(`{${WEB}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}`)],
  "whose egress alone makes it one of egress": [
    ["AMBIT001 NetworkPolicy/shop/it spec.egress[0]"],
    policy(`{${WEB}, ingress: [{}], egress: [{to: [{podSelector: {}}]  , ports: [{port: 80}]}]}`),
  ],
  // What follows is well.
  "that admits every port": [[], policy(`{${WEB}, ingress: [{}]}`)],
  "that admits HBONE beside": [[], policy(`{${WEB}, ingress: [{ports: [{port: 8080}, ${HBONE}]}]}`)],
  "that admits a range with it": [[], policy(`{${WEB}, ingress: [{ports: [{port: 8000, endPort: 15008}]}]}`)],
  "that admits HBONE by another policy": [
    [],
    policy(`{${WEB}, ingress: [{from: [{podSelector: {matchLabels: {app: cart}}}], ports: [{port: 8080}]}]}`),
    policy(`{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}], ports: [${HBONE}]}]}`, "hbone"),
  ],
  "that admits every port of TCP": [[], policy(`{${WEB}, ingress: [{ports: [{protocol: TCP}]}]}`)],
  "that admits nothing, in clear or not": [
    [],
    policy("{podSelector: {}}"),
    policy("{podSelector: {}, ingress: []}", "b"),
  ],
  "that is for pods outside the mesh": [[], policy("{podSelector: {}, ingress: [{ports: [{port: 1}]}]}", "it", "old")],
  "that selects none of these": [
    [],
    policy("{podSelector: {matchLabels: {app: no}}, ingress: [{ports: [{port: 1}]}]}"),
  ],
  "that admits from outside the mesh": [
    [],
    policy(
      `{${WEB}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}, {namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [old]}]}}], ports: [{port: 8080}]}]}`,
    ),
  ],
  "that admits UDP alone": [[], policy(`{${WEB}, ingress: [{ports: [{port: 53, protocol: UDP}]}]}`)],
  "of egress alone, whatever its rules of ingress": [
    [],
    policy(`{${WEB}, policyTypes: [Egress], ingress: [{ports: [{port: 8080}]}], egress: [{}]}`),
  ],
  "that lets DNS out": [
    [],
    policy(`{${WEB}, policyTypes: [Egress], egress: [{ports: [{port: 53}, {port: 53, protocol: UDP}]}]}`),
  ],
  "that lets out what no pod of the mesh serves": [
    [],
    policy(
      "{podSelector: {matchLabels: {app: cart}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 443}]}]}",
    ),
  ],
};

for (const [which, [expected, ...policies]] of Object.entries(CASES)) {
  const says = expected.length === 0 ? "finds nothing wrong with" : "tells of";
  Deno.test(`ambit analyze ${says} a NetworkPolicy ${which} (CNI-190)`, async () => {
    assertEquals(await found(...policies), [...expected]);
  });
}

Deno.test("ambit analyze says what a NetworkPolicy lacks for HBONE, once for a rule (CNI-190)", async () => {
  const said = await lines(
    policy("{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}, {port: 90, endPort: 99}]}]}"),
  );
  assertEquals(said, [
    "Warning [AMBIT001] (NetworkPolicy/shop/it) spec.ingress[0] admits TCP 80, 90-99, but nothing admits 15008, by " +
    "which pods of the mesh reach each other, here shop/cart and shop/web. Add {protocol: TCP, port: 15008} to the " +
    "ports of spec.ingress[0]; who may reach which port of the application an AuthorizationPolicy says.",
  ]);
});

const PROBED =
  "{containers: [{name: it, ports: [{name: http, containerPort: 8080}], readinessProbe: {httpGet: {port: http}}, livenessProbe: {tcpSocket: {port: 9000}}}]}";

Deno.test("ambit analyze tells of probes that no NetworkPolicy admits, by family and port (CNI-190)", async () => {
  const dual = podOf("probed", { spec: PROBED, ips: "{ip: 10.0.0.7}, {ip: 'fd00::7'}" });
  const probed = "podSelector: {matchLabels: {app: probed}}", from4 = "{ipBlock: {cidr: 169.254.7.127/32}}";
  const from6 = "{ipBlock: {cidr: 'fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128'}}";
  const said = await lines(dual, policy(`{${probed}}`));
  assertEquals(said.length, 2);
  assertStringIncludes(said[0]!, "[AMBIT002] (NetworkPolicy/shop/it) isolates pods of the mesh such as shop/probed");
  assertStringIncludes(said[0]!, "on port 8080, 9000 come from 169.254.7.127: it does not admit that");
  assertStringIncludes(said[1]!, '{ipBlock: {cidr: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128"}}');
  assertEquals(await found(dual, policy(`{${probed}, ingress: [{from: [${from4}, ${from6}]}]}`)), []);
  const half = await lines(dual, policy(`{${probed}, ingress: [{from: [${from4}, ${from6}], ports: [{port: http}]}]}`));
  assertEquals([half.length, half[0]!.includes("port 9000 come")], [2, true], "one port of the two");
  const but = "{ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}}";
  assertEquals((await found(dual, policy(`{${probed}, ingress: [{from: [${but}, ${from6}]}]}`))).length, 1);
  assertEquals(
    await found(podOf("asked", { spec: PROBED.replaceAll(/httpGet|tcpSocket/g, "exec") }), policy("{podSelector: {}}")),
    [],
  );
  assertEquals(
    await found(podOf("p", { spec: PROBED, namespace: "old" }), policy("{podSelector: {}}", "it", "old")),
    [],
  );
});

Deno.test("ambit analyze counts as in the mesh who is, and who is asked to be (CNI-190)", async () => {
  const one = policy("{podSelector: {matchLabels: {app: one}}, ingress: [{ports: [{port: 80}]}]}", "it", "old");
  const as = (fields: PodFields) => found(podOf("one", { namespace: "old", ...fields }), one);
  assertEquals((await as({ labels: "istio.io/dataplane-mode: ambient" })).length, 1);
  assertEquals((await as({ annotations: "ambient.istio.io/redirection: pending" })).length, 1);
  assertEquals((await as({ labels: "networking.istio.io/tunnel: http" })).length, 1);
  assertEquals(await as({}), []);
  assertEquals(
    await as({ labels: "istio.io/dataplane-mode: ambient", spec: "{hostNetwork: true, containers: []}" }),
    [],
  );
  const out = podOf("out", { labels: "istio.io/dataplane-mode: none" });
  assertEquals(
    await found(out, policy("{podSelector: {matchLabels: {app: out}}, ingress: [{ports: [{port: 80}]}]}")),
    [],
  );
});

Deno.test("ambit analyze reads the NetworkPolicies of a cluster, and tells the rest where it may not (CNI-190)", async () => {
  const api = new InMemoryKubeApi();
  api.put(NAMESPACES, namespace("shop", { "istio.io/dataplane-mode": "ambient" }));
  api.put(PODS, pod("shop", "cart", "10.0.0.1", { app: "cart" }));
  api.put(NETWORK_POLICIES, {
    metadata: { name: "it", namespace: "shop" },
    spec: { podSelector: {}, policyTypes: ["Ingress"], ingress: [{ ports: [{ port: 80, protocol: "TCP" }] }] },
  });
  const said = findingsOf(await loadCluster(api, HERE), HERE).map(lineOf);
  assertEquals(said.map((line) => line.split(")")[0]), ["Warning [AMBIT001] (NetworkPolicy/shop/it"]);
  const list = api.list.bind(api);
  api.list = (type, ...more) =>
    type === NETWORK_POLICIES ? Promise.reject(new KubeError(403, "Forbidden", "not yours")) : list(type, ...more);
  const forbidden = findingsOf(await loadCluster(api, HERE), HERE).map(lineOf);
  assertEquals(forbidden.map((line) => line.slice(0, 15)), ["Info [AMBIT003]"]);
});

Deno.test("ambit analyze refuses a NetworkPolicy that says nothing that can be understood (CNI-190)", async () => {
  const [said = ""] = await lines(policy(`{${WEB}, ingress: [{from: [{ipBlock: {cidr: everywhere}}]}]}`));
  assertStringIncludes(
    said,
    "Error [IST0106] (NetworkPolicy/shop/it) Schema validation error: spec.ingress[0].from[0]",
  );
});
