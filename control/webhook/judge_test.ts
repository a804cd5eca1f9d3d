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

type Spec = { readonly [key: string]: Plain };

const GROUPS: Readonly<Record<string, string>> = {
  AuthorizationPolicy: "security.istio.io",
  PeerAuthentication: "security.istio.io",
  ServiceEntry: "networking.istio.io",
  WorkloadEntry: "networking.istio.io",
};

function judge(kind: string, spec: Plain, metadata: Spec = { name: "a", namespace: "n" }) {
  return judgeObject(GROUPS[kind]!, kind, { apiVersion: `${GROUPS[kind]}/v1`, kind, metadata, spec });
}

/** What should come of a spec: nothing, a refusal, or a warning that holds these words. */
type Row = readonly [
  spec: Spec,
  outcome: "taken" | { readonly refused: string } | { readonly warned: string },
  metadata?: Spec,
];

function table(kind: string, rows: readonly Row[]): void {
  for (const [spec, outcome, metadata] of rows) {
    const { problems, warnings } = judge(kind, spec, metadata),
      shown = `${JSON.stringify(spec)}: ${[...problems, ...warnings].join("; ")}`;
    if (outcome === "taken") assertEquals([problems, warnings], [[], []], shown);
    else if ("refused" in outcome) {
      assertEquals(problems.some((it) => it.includes(outcome.refused)), true, `${outcome.refused} <- ${shown}`);
    } else {assertEquals(
        [
          problems,
          warnings.some((it) => it.includes(outcome.warned)),
        ],
        [[], true],
        `${outcome.warned} <- ${shown}`,
      );}
  }
}

const refused = (words: string) => ({ refused: words });
const warned = (words: string) => ({ warned: words });
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

Deno.test("AuthorizationPolicy: DENY by HTTP attributes alone is warned of, since of TCP it denies all (CP-694)", () => {
  const deny = (rules: Plain): Spec => ({ action: "DENY", rules });
  table("AuthorizationPolicy", [
    [deny(to({ paths: ["/admin"] })), warned("of TCP it denies everything")],
    [deny(from({ requestPrincipals: ["*"] })), warned("of TCP it denies everything")],
    [
      deny([{ from: [{ source: { principals: ["a"] } }], to: [{ operation: { methods: ["GET"] } }] }]),
      warned("of TCP"),
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

Deno.test("WorkloadEntry: an address, or a network; ports, labels, weight and locality as they can be (CP-696)", () => {
  const address = "10.0.0.1";
  table("WorkloadEntry", [
    [{ address }, "taken"],
    [{ address: "fd00::1" }, "taken"],
    [{ address: "vm.example.com" }, "taken"],
    [{}, refused("is required unless a network is set")],
    [{ network: "" }, refused("is required unless a network is set")],
    [{ network: "n1" }, warned("reached through its network's gateway")],
    [{ address: "a b" }, refused("must be")],
    [{ address: "-a.com" }, refused("must be an IP address")],
    [{ address: "*.example.com" }, refused("must be an IP address")],
    [{ address: "unix:///run/a.sock" }, warned("does not carry")],
    [{ address: "unix://@abstract" }, warned("does not carry")],
    [{ address: "unix://relative" }, refused("absolute path")],
    [{ address: "unix:///a", ports: { http: 80 } }, refused("must be absent beside a socket")],
    [{ address, ports: { http: 80, "a-1": 65535 } }, "taken"],
    [{ address, ports: { Http: 80 } }, refused("1 to 63 lower-case")],
    [{ address, ports: { http: 0 } }, refused("1 to 65535")],
    [{ address, ports: { http: "80" } }, refused("1 to 65535")],
    [{ address, weight: 0 }, "taken"],
    [{ address, weight: -1 }, refused("weight")],
    [{ address, locality: "r/z/s" }, "taken"],
    [{ address, locality: "r" }, "taken"],
    [{ address, locality: "r//s" }, refused("may hold no empty part")],
    [{ address, locality: "a/b/c/d" }, refused("and no more")],
    [{ address, locality: "r/*" }, refused("no wildcard")],
    [{ address, labels: { app: "a", "x.io/y": "" } }, "taken"],
    [{ address, labels: { "a b": "c" } }, refused("is not named as a label can be")],
    [{ address, labels: { a: "b c" } }, refused("is no value of a label")],
    [{ address, adress: "b" }, refused("is not a field known here")],
  ]);
});

const port = (number: number, name: string, protocol?: string, more: Spec = {}): Spec => ({
  number,
  name,
  ...(protocol === undefined ? {} : { protocol }),
  ...more,
});
const HTTP = port(80, "http", "HTTP");

Deno.test("ServiceEntry: hosts, ports, addresses, and whom it is shown to (CP-697)", () => {
  const hosts = ["a.com"], ports = [HTTP];
  table("ServiceEntry", [
    [{ hosts, ports, resolution: "DNS" }, "taken"],
    [{ hosts: ["*.a.com"], ports }, "taken"],
    [{ hosts: [], ports }, refused("must hold at least one host")],
    [{ ports }, refused("spec.hosts")],
    [{ hosts: ["*"], ports }, refused("spec.hosts[0]")],
    [{ hosts: ["a.*.com"], ports }, refused("only its first part may be *")],
    [{ hosts: ["a b"], ports }, refused("must be a DNS name")],
    [{ hosts, ports: [HTTP, port(80, "x", "TCP")] }, refused("spec.ports[1].number: is used by an earlier port")],
    [{ hosts, ports: [HTTP, port(81, "http", "TCP")] }, refused("spec.ports[1].name: is used by an earlier port")],
    [{ hosts, ports: [port(80, "Http", "HTTP")] }, refused("1 to 63 lower-case")],
    [{ hosts, ports: [port(0, "a")] }, refused("1 to 65535")],
    [{ hosts, ports: [port(80, "a", "HTTP", { targetPort: 70_000 })] }, refused("1 to 65535")],
    [{ hosts, ports: [port(80, "a", "SPDY")] }, refused("must be one of HTTP")],
    ...["http", "HTTP2", "grpc", "GRPC-Web", "TLS", "https", "tcp", "MONGO", "REDIS", "MySQL", "UDP", ""].map((
      it,
    ): Row => [{ hosts, ports: [port(80, "a", it)] }, "taken"]),
    [{ hosts, ports: [port(80, "a", "TCP", { portt: 1 })] }, refused("is not a field known here")],
    [{ hosts, ports, addresses: ["10.0.0.1", "fd00::/64"] }, "taken"],
    [{ hosts, ports, addresses: ["a"] }, refused("must be an IP address or a prefix")],
    [{ hosts, ports, addresses: ["0.0.0.0/0"] }, warned("every address there is")],
    [{ hosts, ports, location: "MESH_INSIDE" }, refused("must be one of MESH_EXTERNAL")],
    [{ hosts, ports, resolution: "MAGIC" }, refused("must be one of NONE")],
    [{ hosts, ports, exportTo: ["."] }, "taken"],
    [{ hosts, ports, exportTo: [".", "other-ns"] }, "taken"],
    [{ hosts, ports, exportTo: ["*", "a"] }, refused("nothing beside * or ~")],
    [{ hosts, ports, exportTo: ["a", "a"] }, refused("is there twice")],
    [{ hosts, ports, exportTo: ["A/b"] }, refused("1 to 63 lower-case")],
    [{ hosts, ports, host: "b" }, refused("is not a field known here")],
  ]);
});

Deno.test("ServiceEntry: endpoints or a selector, and what each resolution wants of them (CP-697)", () => {
  const hosts = ["a.com"], ports = [HTTP], at = (address: string, more: Spec = {}) => ({ address, ...more });
  table("ServiceEntry", [
    [{ hosts, ports, resolution: "STATIC", workloadSelector: { labels: { a: "b" } } }, "taken"],
    [{ hosts, ports, resolution: "STATIC", workloadSelector: {} }, warned("has no labels")],
    [{ hosts, ports, resolution: "STATIC", workloadSelector: { labels: { a: "*" } } }, refused("wildcard")],
    [
      { hosts, ports, resolution: "STATIC", workloadSelector: { matchLabels: { a: "b" } } },
      refused("is not a field known here"),
    ],
    [
      { hosts, ports, resolution: "STATIC", workloadSelector: { labels: { a: "b" } }, endpoints: [at("10.0.0.1")] },
      refused("must be absent when workloadSelector is set"),
    ],
    [
      { hosts, ports, resolution: "NONE", workloadSelector: { labels: { a: "b" } } },
      warned("no effect with resolution NONE"),
    ],
    [{ hosts, ports, resolution: "NONE", endpoints: [at("10.0.0.1")] }, refused("must be absent with resolution NONE")],
    [{ hosts, ports, resolution: "STATIC", endpoints: [at("10.0.0.1", { ports: { http: 8080 } })] }, "taken"],
    [
      { hosts, ports, resolution: "STATIC", endpoints: [at("b.com")] },
      refused("must be an IP address with resolution STATIC"),
    ],
    [
      { hosts, ports, resolution: "STATIC", endpoints: [at("10.0.0.1", { ports: { other: 8080 } })] },
      refused("is named as no port of the service"),
    ],
    [
      { hosts, ports, resolution: "STATIC", endpoints: [at("10.0.0.1", { locality: "a//b" })] },
      refused("endpoints[0].locality"),
    ],
    [
      { hosts, ports, resolution: "STATIC", endpoints: [at("10.0.0.1", { labels: { "a b": "" } })] },
      refused("is not named as a label can be"),
    ],
    [{ hosts, ports, resolution: "STATIC", endpoints: [at("unix:///a")] }, warned("does not carry")],
    [
      { hosts, ports: [HTTP, port(81, "b", "HTTP")], resolution: "STATIC", endpoints: [at("unix:///a")] },
      refused("needs exactly one port"),
    ],
    [{ hosts, ports, resolution: "DNS", endpoints: [at("b.com"), at("10.0.0.1")] }, "taken"],
    [{ hosts: ["*.a.com"], ports, resolution: "DNS" }, refused("must be whole names")],
    [{ hosts: ["*.a.com"], ports, resolution: "DNS", endpoints: [at("b.com")] }, "taken"],
    [{ hosts, ports, resolution: "DNS", addresses: ["10.0.0.0/8"] }, refused("NONE or STATIC only")],
    [{ hosts, ports, resolution: "STATIC", addresses: ["10.0.0.0/8"] }, "taken"],
    [{ hosts, ports, resolution: "DNS_ROUND_ROBIN", endpoints: [at("b.com")] }, "taken"],
    [
      { hosts, ports, resolution: "DNS_ROUND_ROBIN", endpoints: [at("b.com"), at("c.com")] },
      refused("may be one at most"),
    ],
    [{ hosts: ["a.com", "b.com"], ports, resolution: "DNS" }, "taken"],
    [{ hosts: ["a.com", "b.com"], ports: [port(443, "a", "TLS")], resolution: "DNS" }, "taken"],
    [
      { hosts: ["a.com", "b.com"], ports: [HTTP, port(9, "a", "TCP")], resolution: "DNS" },
      refused("neither HTTP nor TLS"),
    ],
    [{ hosts: ["a.com", "b.com"], ports: [port(9, "a")], resolution: "STATIC" }, refused("neither HTTP nor TLS")],
    [{ hosts: ["a.com", "b.com"], ports: [port(9, "a", "TCP")], resolution: "NONE" }, "taken"],
    [
      { hosts: ["a.com", "b.com"], ports: [port(9, "a", "TCP")], addresses: ["10.0.0.1"] },
      warned("cannot be told apart"),
    ],
  ]);
});

Deno.test("ServiceEntry: DYNAMIC_DNS has wildcard hosts and nothing that would say where they are (CP-697)", () => {
  const hosts = ["*.a.com"], ports = [HTTP], resolution = "DYNAMIC_DNS";
  const waypoint = { name: "a", labels: { "istio.io/use-waypoint": "w" } };
  table("ServiceEntry", [
    [{ hosts, ports, resolution }, "taken"],
    [{ hosts: ["*.a.com", "a.com"], ports, resolution }, refused("must all be wildcards")],
    [{ hosts, ports, resolution, addresses: ["10.0.0.1"] }, refused("addresses: must be absent")],
    [{ hosts, ports, resolution, endpoints: [{ address: "10.0.0.1" }] }, refused("endpoints: must be absent")],
    ...["HTTP", "http2", "GRPC", "TLS"].map((it): Row => [{ hosts, ports: [port(80, "a", it)], resolution }, "taken"]),
    ...["TCP", "HTTPS", "MONGO", ""].map((
      it,
    ): Row => [{ hosts, ports: [port(80, "a", it)], resolution }, refused("must be HTTP, HTTP2, GRPC, TLS")]),
    [{ hosts, ports, resolution, location: "MESH_INTERNAL" }, "taken"],
    [{ hosts, ports, resolution, location: "MESH_INTERNAL" }, refused("must be MESH_EXTERNAL"), waypoint],
    [{ hosts, ports, resolution, location: "MESH_INTERNAL" }, "taken", {
      name: "a",
      labels: { "istio.io/use-waypoint": "None" },
    }],
    [{ hosts, ports, resolution, location: "MESH_EXTERNAL" }, "taken", waypoint],
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
