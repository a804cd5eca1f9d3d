/** Findings, each by a mesh that has just that wrong with it; and the mesh without it, which has none (CP-699). */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { changeOf, objectsOf } from "../ambient/testing.ts";
import { AmbientIndex } from "../ambient/index.ts";
import { analyse } from "./analyse.ts";
import { inOrder, jsonOf, lineOf } from "./findings.ts";

/** A mesh in which all is well. */
const GOOD = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {containers: []}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.1.0.1, clusterIPs: [10.1.0.1], selector: {app: cart}, ports: [{port: 80}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: few, namespace: shop}
spec: {selector: {matchLabels: {app: cart}}, rules: [{from: [{source: {namespaces: [shop]}}]}]}
`;

/** The findings of the good mesh with this beside it. */
function findings(yaml: string, remote = ""): string[] {
  const index = new AmbientIndex({ multiNetwork: true });
  index.apply([
    ...objectsOf(yaml === "" ? GOOD : `${GOOD}---\n${yaml}`).map((it) => changeOf(it)),
    ...remote === "" ? [] : objectsOf(remote).map((it) => changeOf(it, "other")),
  ]);
  return analyse(index.graph).map(lineOf);
}

const entry = (name: string, spec: string) => `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ${name}, namespace: shop}
spec: ${spec}
`;
const policy = (spec: string, namespace = "shop") => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: it, namespace: ${namespace}}
spec: ${spec}
`;
const GATEWAY_POD = `
apiVersion: v1
kind: Pod
metadata: {name: gw-1, namespace: shop, labels: {app: gw, gateway.networking.k8s.io/gateway-name: gw}}
spec: {containers: []}
`;

const CASES: Readonly<Record<string, readonly [code: string, object: string, yaml: string, says: string]>> = {
  "a waypoint that a namespace names is not there": [
    "Error [IST0101]",
    "Namespace/lost",
    "{apiVersion: v1, kind: Namespace, metadata: {name: lost, labels: {istio.io/use-waypoint: wp}}}",
    'Gateway not found: "lost/wp"',
  ],
  "a canary is not there": [
    "Error [IST0101]",
    "Service/shop/two",
    `
apiVersion: v1
kind: Service
metadata:
  {name: two, namespace: shop, labels: {istio.io/use-waypoint-canary: next, istio.io/use-waypoint-canary-namespace: gws}}
spec: {clusterIP: 10.1.0.2, clusterIPs: [10.1.0.2], selector: {app: cart}, ports: [{port: 80}]}
`,
    'Gateway not found: "gws/next"',
  ],
  "a policy's target is not there": [
    "Error [IST0101]",
    "AuthorizationPolicy/shop/it",
    policy("{targetRefs: [{kind: Service, name: none, group: ''}]}"),
    'Service not found: "none"',
  ],
  "a Gateway's class is not there": [
    "Error [IST0101]",
    "Gateway/shop/wp",
    `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: none, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`,
    'GatewayClass not found: "none"',
  ],
  "a selector matches nobody": [
    "Warning [IST0127]",
    "AuthorizationPolicy/shop/it",
    policy("{selector: {matchLabels: {app: bill}}}"),
    "labels: app=bill",
  ],
  "a PeerAuthentication's selector matches nobody": [
    "Warning [IST0127]",
    "PeerAuthentication/shop/it",
    policy("{selector: {matchLabels: {app: bill}}, mtls: {mode: STRICT}}").replace(
      "AuthorizationP",
      "PeerAuthentication",
    )
      .replace("Authenticationolicy", "Authentication"),
    "labels: app=bill",
  ],
  "an entry of plain TCP has no address": [
    "Warning [IST0134]",
    "ServiceEntry/shop/db",
    entry("db", "{hosts: [db.example], resolution: DNS, ports: [{number: 5432, name: db, protocol: TCP}]}"),
    "addresses are required",
  ],
  "a selector chooses a Gateway's pods": [
    "Warning [IST0166]",
    "AuthorizationPolicy/shop/it",
    `${GATEWAY_POD}---${policy("{selector: {matchLabels: {app: gw}}}")}`,
    "Gateway gw. Use the targetRefs",
  ],
  "a policy asks of HTTP what ztunnel does not see": [
    "Warning [IST0167]",
    "AuthorizationPolicy/shop/it",
    policy("{selector: {matchLabels: {app: cart}}, rules: [{to: [{operation: {methods: [GET]}}]}]}"),
    "methods",
  ],
  "a condition says no": [
    "Warning [IST0171]",
    "AuthorizationPolicy/shop/it",
    policy("{selector: {matchLabels: {app: cart}}, action: AUDIT, rules: [{}]}"),
    "type=ZtunnelAccepted, reason=UnsupportedValue",
  ],
  "entries disagree on a protocol": [
    "Warning [IST0177]",
    "ServiceEntry/shop/b",
    `${
      entry(
        "a",
        "{hosts: [x.example], addresses: [10.2.0.1], resolution: DNS, ports: [{number: 80, name: p, protocol: HTTP}]}",
      )
    }---${
      entry(
        "b",
        "{hosts: [x.example], addresses: [10.2.0.1], resolution: DNS, ports: [{number: 80, name: p, protocol: TCP}]}",
      )
    }`,
    "(shop/a, shop/b)",
  ],
};

for (const [what, [code, object, yaml, says]] of Object.entries(CASES)) {
  Deno.test(`analyse() finds that ${what} (CP-699)`, () => {
    const found = findings(yaml), wanted = found.filter((line) => line.startsWith(`${code} (${object})`));
    assertEquals(wanted.length, 1, found.join("\n"));
    assertStringIncludes(wanted[0]!, says);
  });
}

Deno.test("analyse() finds nothing in a mesh that is well, nor that a root policy selects another namespace's pods (CP-699)", () => {
  assertEquals(findings(""), []);
  assertEquals(findings(policy("{selector: {matchLabels: {app: cart}}}", "istio-system")), []);
});

Deno.test("analyse() finds that a global service has other ports elsewhere (CP-281, CP-699)", () => {
  const service = (port: number) => `
apiVersion: v1
kind: Service
metadata: {name: both, namespace: shop, labels: {istio.io/global: "true"}}
spec: {clusterIP: 10.1.0.9, clusterIPs: [10.1.0.9], selector: {app: cart}, ports: [{port: ${port}}]}
`;
  const settings = `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    serviceScopeConfigs:
    - {scope: GLOBAL, servicesSelector: {matchExpressions: [{key: istio.io/global, operator: In, values: ["true"]}]}}
`;
  const system = ["istio-system", "shop"].map((name) =>
    `{apiVersion: v1, kind: Namespace, metadata: {name: ${name}}}\n---\n`
  )
    .join("");
  const found = findings(`${service(80)}---${settings}`, system + service(81));
  assertEquals(found.map((line) => line.split(")")[0]), ["Warning [IST0170] (Service/shop/both"], found.join("\n"));
  assertEquals(findings(`${service(80)}---${settings}`, system + service(80)), []);
});

Deno.test("findings come worst first, each once, and as istioctl has them in JSON (CP-699)", () => {
  const warning = { code: "IST0127", object: "AuthorizationPolicy/a/b", message: "m" } as const;
  const error = { code: "IST0101", object: "Namespace//x", message: "n" } as const;
  assertEquals(inOrder([warning, error, warning]), [error, warning]);
  assertEquals(lineOf(error), "Error [IST0101] (Namespace/x) n");
  assertEquals(jsonOf(warning), {
    code: "IST0127",
    level: "WARNING",
    name: "NoMatchingWorkloadsFound",
    origin: "AuthorizationPolicy/a/b",
    message: "m",
  });
});
