import { assertEquals, assertStringIncludes } from "@std/assert";
import type { Plain } from "../../base/plain.ts";
import {
  AUTHORIZATION_POLICIES,
  PEER_AUTHENTICATIONS,
  SERVICE_ENTRIES,
  WORKLOAD_ENTRIES,
} from "../../kube/resource_types.ts";
import { parseYaml } from "../folder/yaml.ts";
import { judgeObject } from "./judge.ts";
import { GROUPS, judge, refused, type Row, type Spec, table, warned } from "./judge_testing.ts";

const target = (kind: string, group: string, more: Spec = {}) => ({ kind, group, name: "x", ...more });
const from = (source: Spec) => [{ from: [{ source }] }];
const to = (operation: Spec) => [{ to: [{ operation }] }];
const when = (key: string, values: Spec) => [{ when: [{ key, ...values }] }];

Deno.test("judgeObject() judges by group and kind, and knows what is in an object at its top (CP-691)", () => {
  const of = (group: string, kind: string, more: Spec = {}) =>
    judgeObject(group, kind, { apiVersion: "x/v9", kind, metadata: { generateName: "a-" }, spec: {}, ...more });
  assertEquals(
    of("security.istio.io", "AuthorizationPolicy"),
    of("security.istio.io", "AuthorizationPolicy", { status: { x: 1 } }),
  );
  assertEquals(of("security.istio.io", "AuthorizationPolicy").problems, []);
  assertStringIncludes(
    of("security.istio.io", "AuthorizationPolicy", { sepc: {} }).problems.join(),
    "sepc: is not a field known here",
  );
  assertStringIncludes(
    of("security.istio.io", "AuthorizationPolicy", { spec: { ruels: [] } }).problems.join(),
    "spec.ruels: is not a field known here",
  );
  for (
    const [group, kind] of [["", "Pod"], ["networking.istio.io", "AuthorizationPolicy"], [
      "security.istio.io",
      "toString",
    ]]
  ) {
    assertStringIncludes(of(group!, kind!).problems.join(), "is not known here");
  }
  const stored = of("networking.istio.io", "VirtualService", { spec: { anything: [1] } });
  assertEquals(stored.problems, []);
  assertStringIncludes(stored.warnings.join(), "neither checked nor used");
  assertStringIncludes(of("networking.istio.io", "VirtualService", { speck: {} }).problems.join(), "speck");
});

Deno.test("judgeObject() refuses what asks for it, of any kind (CP-692)", () => {
  const annotations = { "internal.istio.io/webhook-always-reject": "" };
  for (const kind of Object.keys(GROUPS)) {
    assertStringIncludes(judge(kind, {}, { name: "a", annotations }).problems.join(), "asks for this refusal");
  }
});

Deno.test("AuthorizationPolicy is attached in one way, to what can be a target (CP-694)", () => {
  const gateway = target("Gateway", "gateway.networking.k8s.io");
  table("AuthorizationPolicy", [
    [{}, "taken"],
    [{ selector: { matchLabels: { app: "a" } } }, "taken"],
    [{ selector: {} }, warned("has no labels")],
    [{ selector: { matchLabels: { app: "a*" } } }, refused("must not hold a wildcard")],
    [{ selector: { matchLabels: { "a*": "b" } } }, refused("must not hold a wildcard")],
    [{ selector: { matchLabels: { "": "b" } } }, refused("holds an empty key")],
    [{ targetRef: gateway }, "taken"],
    [{
      targetRefs: [
        gateway,
        target("Service", ""),
        target("Service", "core"),
        target("ServiceEntry", "networking.istio.io"),
        target("GatewayClass", "gateway.networking.k8s.io"),
      ],
    }, "taken"],
    [{ targetRef: gateway, targetRefs: [gateway] }, refused("only one of")],
    [{ targetRef: gateway, selector: { matchLabels: { a: "b" } } }, refused("only one of")],
    [{ targetRefs: [gateway], selector: { matchLabels: { a: "b" } } }, refused("only one of")],
    [{ targetRef: target("Service", "apps") }, refused("of its own group")],
    [{ targetRef: target("Gateway", "networking.istio.io") }, refused("of its own group")],
    [{ targetRef: target("Pod", "") }, refused("of its own group")],
    [{ targetRef: target("toString", "") }, refused("of its own group")],
    [{ targetRef: { kind: "Service", group: "" } }, refused("spec.targetRef.name")],
    [{ targetRef: target("Service", "", { namespace: "other" }) }, refused("must be absent")],
  ]);
});

Deno.test("AuthorizationPolicy: DENY and CUSTOM need rules, CUSTOM a provider, which matches requests without an identity (CP-694)", () => {
  const provider = { name: "opa" }, rules: Plain = [{}];
  table("AuthorizationPolicy", [
    [{ action: "DENY", rules }, "taken"],
    [{ action: "DENY" }, refused("without rules would never match")],
    [{ action: "DENY", rules: [] }, refused("without rules would never match")],
    [{ action: "ALLOW" }, "taken"],
    [{ action: "AUDIT", rules }, "taken"],
    [{ action: "BLOCK" }, refused("must be one of")],
    [{ action: "CUSTOM", rules, provider }, "taken"],
    [{ action: "CUSTOM", provider }, refused("without rules would never match")],
    [{ action: "CUSTOM", rules }, refused("spec.provider.name: must be set")],
    [{ action: "CUSTOM", rules, provider: { name: "" } }, refused("spec.provider.name: must be set")],
    [{ action: "ALLOW", provider }, refused("unless the action is CUSTOM")],
    [{ provider }, refused("unless the action is CUSTOM")],
    ...[
      "principals",
      "notPrincipals",
      "requestPrincipals",
      "notRequestPrincipals",
      "namespaces",
      "notNamespaces",
      "serviceAccounts",
      "notServiceAccounts",
      "trustDomains",
      "notTrustDomains",
    ]
      .map((
        name,
      ): Row => [
        { action: "CUSTOM", provider, rules: from({ [name]: ["a"] }) },
        refused("cannot be matched by CUSTOM"),
      ]),
    ...[
      "source.principal",
      "source.namespace",
      "source.serviceAccount",
      "source.trustDomain",
      "request.auth.claims[iss]",
      "request.auth.principal",
    ]
      .map((
        key,
      ): Row => [
        { action: "CUSTOM", provider, rules: when(key, { values: ["a"] }) },
        refused("cannot be matched by CUSTOM"),
      ]),
    [{
      action: "CUSTOM",
      provider,
      rules: [
        ...from({ ipBlocks: ["10.0.0.1"] }),
        ...to({ paths: ["/a"] }),
        ...when("request.headers[x]", { values: ["y"] }),
      ],
    }, "taken"],
  ]);
});

Deno.test("AuthorizationPolicy: nothing is present and empty, and each value is one (CP-694)", () => {
  table("AuthorizationPolicy", [
    [{ rules: [{}] }, "taken"],
    [{ rules: [null] }, refused("rules[0]")],
    [{ rules: [{ from: [] }] }, refused("must hold at least one entry")],
    [{ rules: [{ to: [] }] }, refused("must hold at least one entry")],
    [{ rules: [{ from: [{}] }] }, refused("from[0].source")],
    [{ rules: [{ from: [{ source: {} }] }] }, refused("must hold at least one field")],
    [{ rules: [{ to: [{ operation: {} }] }] }, refused("must hold at least one field")],
    [{ rules: from({ principals: [] }) }, refused("must hold at least one value")],
    [{ rules: from({ principals: [""] }) }, refused("must not be empty")],
    [{ rules: from({ principal: ["a"] }) }, refused("is not a field known here")],
    [{ rules: from({ ipBlocks: ["10.0.0.0/8", "fd00::/8", "1.2.3.4"] }) }, "taken"],
    [{ rules: from({ ipBlocks: ["10.0.0.0/33"] }) }, refused("must be an IP address or a prefix")],
    [{ rules: from({ notRemoteIpBlocks: ["a"] }) }, refused("must be an IP address or a prefix")],
    [{ rules: from({ serviceAccounts: ["sa", "ns/sa"] }) }, "taken"],
    [{ rules: from({ serviceAccounts: ["a/b/c"] }) }, refused("must be an account")],
    [{ rules: from({ serviceAccounts: ["*"] }) }, refused("must be an account")],
    [{ rules: from({ serviceAccounts: ["a"], namespaces: ["b"] }) }, refused("beside principals or namespaces")],
    [{ rules: from({ notServiceAccounts: ["a"], notPrincipals: ["b"] }) }, refused("beside principals or namespaces")],
    [{ rules: from({ trustDomains: ["td"], namespaces: ["b"] }) }, "taken"],
    [{ rules: to({ ports: ["0", "65535"] }) }, "taken"],
    [{ rules: to({ ports: ["65536"] }) }, refused("must be a port")],
    [{ rules: to({ notPorts: ["http"] }) }, refused("must be a port")],
    [{ rules: to({ ports: [80] }) }, refused("must be a string")],
    [{ rules: to({ methods: [""] }) }, refused("must not be empty")],
  ]);
});

Deno.test("AuthorizationPolicy: conditions have a key that is known, and values; path templates are in order (CP-694)", () => {
  const values = { values: ["a"] };
  table("AuthorizationPolicy", [
    ...[
      "request.headers[x]",
      "source.namespace",
      "source.serviceAccount",
      "source.principal",
      "source.trustDomain",
      "request.auth.principal",
      "request.auth.audiences",
      "request.auth.presenter",
      "request.auth.claims[iss]",
      "request.auth.claims[a][b]",
      "connection.sni",
      "experimental.envoy.filters.network.mysql[x]",
    ]
      .map((key): Row => [{ rules: when(key, values) }, "taken"]),
    ...["remote.ip", "source.ip", "destination.ip"].map((
      key,
    ): Row => [{ rules: when(key, { values: ["10.0.0.1"] }) }, "taken"]),
    [{ rules: when("destination.port", { notValues: ["80"] }) }, "taken"],
    [{ rules: when("destination.port", { values: ["70000"] }) }, refused("must be a port")],
    [{ rules: when("source.ip", { values: ["a"] }) }, refused("must be an IP address")],
    ...[
      "source.ips",
      "request.headers",
      "request.headers[]",
      "request.headersx]",
      "destination.labels[x]",
      "experimental.envoy.filters.",
      "request.auth.claims",
    ]
      .map((key): Row => [{ rules: when(key, values) }, refused("is not known")]),
    [{ rules: when("", values) }, refused("must not be empty")],
    [{ rules: when("source.namespace", {}) }, refused("must have values or notValues")],
    [{ rules: when("source.namespace", { values: [], notValues: [] }) }, refused("must have values or notValues")],
    ...["/a", "/a*", "*a", "/{*}", "/{**}", "/a/{*}/b", "/a/{*}/{**}", "/{**}/b"].map((
      path,
    ): Row => [{ rules: to({ paths: [path] }) }, "taken"]),
    ...["{*}", "/a{*}", "/{*}b", "/{a}", "/{*", "/a}", "/{***}"].map((
      path,
    ): Row => [{ rules: to({ paths: [path] }) }, refused("{*}")]),
    [{ rules: to({ notPaths: ["/{**}/{**}"] }) }, refused("may hold {**} once")],
    [{ rules: to({ notPaths: ["/{**}/{*}"] }) }, refused("may not hold {*} after {**}")],
    [{ rules: to({ notPaths: ["/{*}/b*"] }) }, refused("may not hold * beside")],
  ]);
});

Deno.test("AuthorizationPolicy: DENY by HTTP attributes alone is warned of: ztunnel denies nothing by it, a waypoint all TCP (CP-694)", () => {
  const deny = (rules: Plain): Spec => ({ action: "DENY", rules });
  table("AuthorizationPolicy", [
    [deny(to({ paths: ["/admin"] })), warned("ztunnel denies nothing by it")],
    [
      { ...deny(to({ paths: ["/admin"] })), targetRefs: [{ group: "", kind: "Service", name: "a" }] },
      warned("of TCP it denies everything"),
    ],
    [deny(from({ requestPrincipals: ["*"] })), warned("ztunnel denies nothing by it")],
    [
      deny([{ from: [{ source: { principals: ["a"] } }], to: [{ operation: { methods: ["GET"] } }] }]),
      warned("ztunnel denies nothing by it"),
    ],
    [deny(to({ paths: ["/admin"], ports: ["80"] })), "taken"],
    [deny(from({ principals: ["a"] })), "taken"],
    [deny([{}]), "taken"],
    [{ action: "ALLOW", rules: to({ paths: ["/a"] }) }, "taken"],
  ]);
});

Deno.test("PeerAuthentication: ports need a selector, and are ports with modes (CP-695)", () => {
  const selector = { matchLabels: { app: "a" } };
  table("PeerAuthentication", [
    [{}, "taken"],
    [{ mtls: { mode: "STRICT" } }, "taken"],
    [{ mtls: { mode: "NEVER" } }, refused("must be one of")],
    [{ selector, portLevelMtls: { "80": { mode: "DISABLE" }, "65535": { mode: "UNSET" } } }, "taken"],
    [{ portLevelMtls: { "80": { mode: "STRICT" } } }, refused("needs a selector")],
    [{ selector: { matchLabels: {} }, portLevelMtls: { "80": { mode: "STRICT" } } }, refused("needs a selector")],
    [{ selector, portLevelMtls: {} }, refused("must hold at least one port")],
    [{ selector, portLevelMtls: { "0": { mode: "STRICT" } } }, refused("1 to 65535")],
    [{ selector, portLevelMtls: { "65536": { mode: "STRICT" } } }, refused("1 to 65535")],
    [{ selector, portLevelMtls: { http: { mode: "STRICT" } } }, refused("1 to 65535")],
    [{ selector, portLevelMtls: { "80": { mode: "x" } } }, refused("must be one of")],
    [{ selector: { matchLabels: {} } }, warned("has no labels")],
    [{ selector: { matchLabels: { app: "*" } } }, refused("must not hold a wildcard")],
    [{ selector: { matchLabels: { "": "a" } } }, refused("holds an empty key")],
    [{ mtsl: {} }, refused("is not a field known here")],
  ]);
});

Deno.test("judgeObject() tells everything that is wrong at once, and never throws", () => {
  const { problems } = judge("AuthorizationPolicy", {
    action: "DENY",
    selector: { matchLabels: { a: "*" } },
    targetRef: target("Pod", ""),
  });
  assertEquals(problems.length >= 3, true, problems.join("; "));
  const odd: readonly Plain[] = [
    null,
    1,
    "x",
    [],
    {},
    { hosts: 1 },
    { rules: 1 },
    { rules: [1] },
    { rules: [{ from: 1, to: [1], when: 1 }] },
    { selector: 1 },
    { targetRefs: 1 },
    { portLevelMtls: 1 },
    { ports: [1], endpoints: [1, null], hosts: [1] },
    { address: 1, ports: 1, labels: 1, locality: 1 },
    { workloadSelector: 1, exportTo: [1, 1] },
    { provider: 1, action: 1 },
  ];
  for (const kind of Object.keys(GROUPS)) {
    for (const spec of odd) judge(kind, spec);
    for (const metadata of [1, null, { labels: 1 }, { annotations: 1 }] as unknown as Spec[]) judge(kind, {}, metadata);
    for (const object of odd) judgeObject(GROUPS[kind]!, kind, object);
  }
});

Deno.test("the webhook's registration asks for what is judged and nothing else; Gateway API judges its own kinds (CP-698)", async () => {
  const text = await Deno.readTextFile(new URL("../../deploy/kubernetes/webhook.yaml", import.meta.url));
  const { webhooks } = parseYaml(text) as unknown as {
    webhooks: { rules: { apiGroups: string[]; resources: string[]; operations: string[] }[] }[];
  };
  const types = [AUTHORIZATION_POLICIES, PEER_AUTHENTICATIONS, SERVICE_ENTRIES, WORKLOAD_ENTRIES];
  for (const { rules } of webhooks) {
    for (const { apiGroups, resources, operations } of rules) {
      assertEquals(resources.toSorted(), types.map(({ plural }) => plural).toSorted());
      assertEquals(apiGroups.toSorted(), [...new Set(types.map(({ group }) => group))].toSorted());
      assertEquals(operations, ["CREATE", "UPDATE"]);
    }
  }
  for (const { group, kind } of types) assertEquals(GROUPS[kind], group);
  assertStringIncludes(judgeObject("gateway.networking.k8s.io", "Gateway", {}).problems.join(), "is not known here");
});
