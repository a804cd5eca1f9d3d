import { assertEquals, assertStringIncludes } from "@std/assert";
import type { AuthorizationPolicyObject } from "../objects.ts";
import { convertAuthorizationPolicy, parseStringMatch } from "./authorization_policy.ts";
import { describePolicy, type Json } from "./describe.ts";
import { AMBIENT_DEFAULTS } from "./options.ts";
import { objectsOf } from "./testing.ts";

function policyObject(spec: string, metadata = "namespace: shop"): AuthorizationPolicyObject {
  const [object] = objectsOf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p, ${metadata} }
spec: ${spec}
`);
  if (object?.kind !== "AuthorizationPolicy") throw new Error("the text is a policy");
  return object;
}

/** Converts `spec`. @returns The rules: a list of rules, of clauses, of matches; undefined if nothing is sent. */
function rulesOf(spec: string, metadata?: string): Json | undefined {
  const { policy } = convertAuthorizationPolicy(policyObject(spec, metadata), AMBIENT_DEFAULTS);
  return policy && describePolicy(policy).rules;
}

function conditionOf(spec: string, metadata?: string): string {
  const { condition } = convertAuthorizationPolicy(policyObject(spec, metadata), AMBIENT_DEFAULTS);
  return condition === undefined ? "none" : `${condition.status}/${condition.reason}`;
}

Deno.test("convertAuthorizationPolicy() sends nothing for a policy with a target, and gives no condition (CP-331)", () => {
  for (
    const target of [
      "targetRef: { kind: Gateway, group: gateway.networking.k8s.io, name: w }",
      "targetRefs: [{ kind: Service, group: '', name: s }]",
    ]
  ) {
    const spec = `{ ${target}, rules: [{}] }`;
    assertEquals([rulesOf(spec), conditionOf(spec)], [undefined, "none"]);
  }
});

Deno.test("convertAuthorizationPolicy() sends dry runs only when asked, marked as such (CP-332)", () => {
  const dry = (value: string) => `namespace: shop, annotations: { istio.io/dry-run: "${value}" }`;
  assertEquals(rulesOf("{ rules: [{}] }", dry("true")), undefined);
  assertEquals(conditionOf("{ rules: [{}] }", dry("true")), "False/UnsupportedValue");
  for (const value of ["false", "perhaps"]) assertEquals(rulesOf("{ rules: [{}] }", dry(value)), [[]]);
  const { policy } = convertAuthorizationPolicy(policyObject("{ rules: [{}] }", dry("true")), {
    ...AMBIENT_DEFAULTS,
    dryRunPolicies: true,
  });
  assertEquals(policy?.dryRun, true);
});

Deno.test("convertAuthorizationPolicy() sends neither CUSTOM nor AUDIT (CP-333)", () => {
  for (const action of ["CUSTOM", "AUDIT"]) {
    const spec = `{ action: ${action}, rules: [{}] }`;
    assertEquals([rulesOf(spec), conditionOf(spec)], [undefined, "False/UnsupportedValue"]);
  }
});

Deno.test("convertAuthorizationPolicy() takes the scope from selector and namespace (CP-334)", () => {
  const scope = (spec: string, namespace: string) => {
    const { policy } = convertAuthorizationPolicy(policyObject(spec, `namespace: ${namespace}`), AMBIENT_DEFAULTS);
    return [describePolicy(policy!).scope, policy!.key];
  };
  assertEquals(scope("{}", "shop"), ["NAMESPACE", "shop/p"]);
  assertEquals(scope("{}", "istio-system"), ["GLOBAL", "istio-system/p"]);
  for (const namespace of ["shop", "istio-system"]) {
    for (const selector of ["{ matchLabels: { app: a } }", "{ matchLabels: {} }", "{}"]) {
      assertEquals(scope(`{ selector: ${selector} }`, namespace), ["WORKLOAD_SELECTOR", `${namespace}/p`]);
    }
  }
});

/** A spec and the rules it becomes; undefined where nothing is sent. */
const CONVERSIONS: readonly (readonly [claim: string, spec: string, rules: Json])[] = [
  ["no rules: allows nothing (CP-335)", "{}", []],
  ["a rule of nothing matches everything (CP-335)", "{ rules: [{}] }", [[]]],
  [
    "clauses stand in the order to, from, when (CP-335)",
    `{ rules: [{ when: [{ key: source.ip, values: [10.0.0.1] }, { key: destination.port, notValues: ["9"] }],
       from: [{ source: { namespaces: [a] } }, { source: { namespaces: [b] } }], to: [{ operation: { ports: ["80"] } }] }] }`,
    [[
      [{ destinationPorts: [80] }],
      [{ namespaces: ["a"] }, { namespaces: ["b"] }],
      [{ sourceIps: ["10.0.0.1/32"] }],
      [{ notDestinationPorts: [9] }],
    ]],
  ],
  [
    "every field of source and operation (CP-336)",
    `{ rules: [{ from: [{ source: { principals: [td/ns/a/sa/b], notPrincipals: [td/ns/c/sa/d], namespaces: [a], notNamespaces: [b],
       serviceAccounts: [x/y], notServiceAccounts: [z], ipBlocks: [10.0.0.0/8], notIpBlocks: ["fd00::/8"] } }],
       to: [{ operation: { ports: ["0", "65535"], notPorts: ["443"] } }] }] }`,
    [[
      [{ destinationPorts: [0, 65535], notDestinationPorts: [443] }],
      [{
        namespaces: ["a"],
        notNamespaces: ["b"],
        principals: ["td/ns/a/sa/b"],
        notPrincipals: ["td/ns/c/sa/d"],
        serviceAccounts: ["x/y"],
        notServiceAccounts: ["shop/z"],
        sourceIps: ["10.0.0.0/8"],
        notSourceIps: ["fd00::/8"],
      }],
    ]],
  ],
  [
    "every key of when, values and notValues (CP-336)",
    `{ rules: [{ when: [{ key: source.ip, values: [10.0.0.1], notValues: [10.0.0.2] },
       { key: source.namespace, values: [a], notValues: [b] }, { key: source.principal, values: [p], notValues: [q] },
       { key: destination.ip, values: [10.0.0.0/24], notValues: ["::1"] }, { key: destination.port, values: ["1"], notValues: ["2"] }] }] }`,
    [[
      [{ sourceIps: ["10.0.0.1/32"], notSourceIps: ["10.0.0.2/32"] }],
      [{ namespaces: ["a"], notNamespaces: ["b"] }],
      [{ principals: ["p"], notPrincipals: ["q"] }],
      [{ destinationIps: ["10.0.0.0/24"], notDestinationIps: ["::1/128"] }],
      [{ destinationPorts: [1], notDestinationPorts: [2] }],
    ]],
  ],
  [
    "ALLOW: a rule with anything of layer 7 is left out whole, the others stay (CP-340, CP-341)",
    `{ rules: [{ from: [{ source: { principals: [a] } }], to: [{ operation: { methods: [GET] } }] },
       { from: [{ source: { principals: [b] } }] }] }`,
    [[[{ principals: ["b"] }]]],
  ],
  [
    "ALLOW: when every rule vanishes it allows nothing (CP-341)",
    "{ rules: [{ to: [{ operation: { paths: [/admin] } }] }] }",
    [],
  ],
  [
    "DENY: an emptied clause becomes one empty match, so that its rule never matches (CP-342)",
    `{ action: DENY, rules: [{ from: [{ source: { principals: [a] } }], to: [{ operation: { methods: [GET] } }] }] }`,
    [[[{}], [{ principals: ["a"] }]]],
  ],
  [
    "DENY: what layer 7 and 4 share in one entry stays as layer 4 (CP-342)",
    `{ action: DENY, rules: [{ to: [{ operation: { methods: [GET], ports: ["80"] } }, { operation: { hosts: [h] } }] }] }`,
    [[[{ destinationPorts: [80] }]]],
  ],
  [
    "ALLOW: trust domains are not for ztunnel (CP-343)",
    "{ rules: [{ from: [{ source: { trustDomains: [td], namespaces: [a] } }] }] }",
    [],
  ],
  [
    "DENY: trust domains alone deny nothing (CP-343)",
    "{ action: DENY, rules: [{ from: [{ source: { notTrustDomains: [td] } }] }] }",
    [[[{}]]],
  ],
  [
    "principals are compared as written, aliases are not expanded (CP-344)",
    "{ rules: [{ from: [{ source: { principals: [cluster.local/ns/a/sa/b] } }] }] }",
    [[[{ principals: ["cluster.local/ns/a/sa/b"] }]]],
  ],
];

for (const [claim, spec, rules] of CONVERSIONS) {
  Deno.test(`convertAuthorizationPolicy(): ${claim}`, () => assertEquals(rulesOf(spec), rules));
}

Deno.test("convertAuthorizationPolicy(): every attribute of layer 7 leaves an ALLOW rule out (CP-340)", () => {
  const rules = [
    ...["hosts", "notHosts", "methods", "notMethods", "paths", "notPaths"].map((it) =>
      `{ to: [{ operation: { ${it}: [x], ports: ["1"] } }] }`
    ),
    ...["requestPrincipals", "notRequestPrincipals"].map((it) =>
      `{ from: [{ source: { ${it}: [x], namespaces: [n] } }] }`
    ),
    ...["remoteIpBlocks", "notRemoteIpBlocks"].map((it) => `{ from: [{ source: { ${it}: [10.0.0.1] } }] }`),
    ...[
      "source.serviceAccount",
      "source.trustDomain",
      "remote.ip",
      "connection.sni",
      "request.headers[x]",
      "experimental.a",
    ]
      .map((key) => `{ when: [{ key: "${key}", values: [x] }] }`),
  ];
  for (const rule of rules) {
    assertEquals(rulesOf(`{ rules: [${rule}, { from: [{ source: { namespaces: [kept] } }] }] }`), [[[{
      namespaces: ["kept"],
    }]]], rule);
    assertEquals(conditionOf(`{ rules: [${rule}] }`), "True/UnsupportedValue", rule);
  }
});

Deno.test("parseStringMatch(): presence, suffix, prefix, exact (CP-337)", () => {
  const cases: [string, string, string][] = [
    ["*", "presence", ""],
    ["*-admin", "suffix", "-admin"],
    ["team-*", "prefix", "team-"],
    ["exact", "exact", "exact"],
    ["*both*", "suffix", "both*"],
    ["mid*dle", "exact", "mid*dle"],
  ];
  for (const [text, kind, value] of cases) assertEquals<unknown>(parseStringMatch(text), { kind, value });
});

Deno.test("convertAuthorizationPolicy(): unparsable values are dropped; a list emptied by it counts as unsupported (CP-339)", () => {
  const convert = (action: "ALLOW" | "DENY", lists: [string, string[]][]) => {
    const object = { ...policyObject("{}"), action, rules: [{ from: [new Map(lists)], to: [], when: [] }] };
    const { policy, condition } = convertAuthorizationPolicy(object, AMBIENT_DEFAULTS);
    return [describePolicy(policy!).rules as Json, condition!.reason];
  };
  assertEquals(convert("ALLOW", [["ipBlocks", ["nonsense", "10.0.0.1"]]]), [
    [[[{ sourceIps: ["10.0.0.1/32"] }]]],
    "Accepted",
  ]);
  assertEquals(convert("ALLOW", [["ipBlocks", ["nonsense"]], ["namespaces", ["a"]]]), [[], "UnsupportedValue"]);
  assertEquals(convert("ALLOW", [["notIpBlocks", ["10.0.0.0/33"]]]), [[], "UnsupportedValue"]);
  assertEquals(convert("ALLOW", [["ports", ["70000"]]]), [[], "UnsupportedValue"]);
  // What is left out of an exception would be let in.
  assertEquals(convert("ALLOW", [["notIpBlocks", ["10.0.0.0/33", "10.1.0.0/16"]]]), [[], "UnsupportedValue"]);
  assertEquals(convert("ALLOW", [["notPorts", ["70000", "80"]]]), [[], "UnsupportedValue"]);
  assertEquals(convert("DENY", [["notIpBlocks", ["nonsense", "10.1.0.0/16"]]]), [
    [[[{ notSourceIps: ["10.1.0.0/16"] }]]],
    "UnsupportedValue",
  ]);
  assertEquals(convert("DENY", [["ipBlocks", ["nonsense"]], ["namespaces", ["a"]]]), [
    [[[{ namespaces: ["a"] }]]],
    "UnsupportedValue",
  ]);
});

Deno.test("convertAuthorizationPolicy(): ZtunnelAccepted names the attributes and says what becomes of the policy (CP-345)", () => {
  const message = (spec: string) =>
    convertAuthorizationPolicy(policyObject(spec), AMBIENT_DEFAULTS).condition?.message ?? "";
  assertEquals(conditionOf("{ rules: [{}] }"), "True/Accepted");
  const l7 = "to: [{ operation: { paths: [/x], methods: [GET] } }]";
  assertStringIncludes(
    message(`{ rules: [{ ${l7} }] }`),
    ": methods, paths. Within an ALLOW policy, rules that use them are omitted",
  );
  const partly = `{ action: DENY, rules: [{ ${l7} }, { to: [{ operation: { ports: ["1"] } }] }] }`;
  assertStringIncludes(message(partly), "more restrictive than written");
  assertStringIncludes(
    message(`{ action: DENY, rules: [{ ${l7}, from: [{ source: { namespaces: [a] } }] }] }`),
    "no effect at ztunnel",
  );
});
