import { assert, assertEquals } from "@std/assert";
import { principalOf } from "./identity.ts";
import { PlainMeshView } from "./plain_view.ts";
import {
  authorize,
  type ConnectionFacts,
  dryRunVerdicts,
  type IpMatch,
  type Policy,
  type PolicyMatch,
  policyMatches,
  type PolicyRule,
  type StringMatch,
} from "./policy.ts";
import { ip, match, policy, workload } from "./testing.ts";

/** A connection from 10.0.0.1 to 10.0.1.2:80, as `namespace/account` or plaintext. */
function connection(
  who?: string,
  fields: { source?: string; destination?: string; port?: number; trustDomain?: string } = {},
): ConnectionFacts {
  const [namespace, serviceAccount] = who?.split("/") ?? [];
  const identity = namespace === undefined
    ? undefined
    : { trustDomain: fields.trustDomain ?? "td", namespace, serviceAccount: serviceAccount! };
  const [source0, source1, source2, source3] = ip(fields.source ?? "10.0.0.1");
  const [destination0, destination1, destination2, destination3] = ip(fields.destination ?? "10.0.1.2");
  return {
    identity,
    principal: identity === undefined ? undefined : principalOf(identity),
    source0,
    source1,
    source2,
    source3,
    destination0,
    destination1,
    destination2,
    destination3,
    destinationPort: fields.port ?? 80,
  };
}

const exact = (value: string): StringMatch => ({ kind: "exact", value });
const prefix = (value: string): StringMatch => ({ kind: "prefix", value });
const suffix = (value: string): StringMatch => ({ kind: "suffix", value });
const presence: StringMatch = { kind: "presence", value: "" };
const cidr = (text: string): IpMatch => {
  const [address, length] = text.split("/");
  return { ip: ip(address!), prefixLength: Number(length) };
};
const allMatches = (...clauses: PolicyMatch[][]): PolicyRule => ({ clauses });
const one = (fields: Partial<PolicyMatch>): PolicyRule => allMatches([match(fields)]);
const holds = (rule: PolicyRule, facts: ConnectionFacts) => policyMatches(policy("p", { rules: [rule] }), facts);

const PLAINTEXT = connection();
const A = connection("a/x");

Deno.test("policyMatches() of the empty cases (ZT-110, ZT-111, ZT-112)", () => {
  assertEquals(policyMatches(policy("p", { rules: [] }), A), false);
  assertEquals(holds(allMatches(), A), true);
  assertEquals(holds(allMatches([]), A), true);
  assertEquals(holds(allMatches([match()]), A), false);
  assertEquals(holds(allMatches([], [match()]), A), false);
  assertEquals(holds(allMatches([match(), match({ namespaces: [exact("a")] })]), A), true);
});

Deno.test("policyMatches() joins rules by OR, clauses by AND, matches by OR (ZT-110, ZT-111, CP-330)", () => {
  const inA = match({ namespaces: [exact("a")] }), inB = match({ namespaces: [exact("b")] });
  const port80 = match({ destinationPorts: [80] }), port81 = match({ destinationPorts: [81] });
  assertEquals(holds(allMatches([inA], [port80]), A), true);
  assertEquals(holds(allMatches([inA], [port81]), A), false);
  assertEquals(holds(allMatches([inB, inA], [port81, port80]), A), true);
  assertEquals(holds(allMatches([inB], [port80]), A), false);
  const rules = (...list: PolicyRule[]) => policyMatches(policy("p", { rules: list }), A);
  assertEquals(rules(allMatches([inB]), allMatches([inA])), true);
  assertEquals(rules(allMatches([inB]), allMatches([port81])), false);
});

Deno.test("policyMatches() wants every pair of one match, positive and negative (ZT-113)", () => {
  const every: Partial<PolicyMatch> = {
    namespaces: [exact("a")],
    notNamespaces: [exact("b")],
    principals: [exact("td/ns/a/sa/x")],
    notPrincipals: [exact("td/ns/a/sa/y")],
    serviceAccounts: [{ namespace: "a", serviceAccount: "x" }],
    notServiceAccounts: [{ namespace: "a", serviceAccount: "y" }],
    sourceIps: [cidr("10.0.0.1/32")],
    notSourceIps: [cidr("10.0.0.2/32")],
    destinationIps: [cidr("10.0.1.2/32")],
    notDestinationIps: [cidr("10.0.1.1/32")],
    destinationPorts: [80],
    notDestinationPorts: [81],
  };
  assert(holds(one(every), A));
  const broken: Partial<PolicyMatch>[] = [
    { namespaces: [exact("b")] },
    { notNamespaces: [exact("a")] },
    { principals: [exact("td/ns/a/sa/y")] },
    { notPrincipals: [exact("td/ns/a/sa/x")] },
    { serviceAccounts: [{ namespace: "a", serviceAccount: "y" }] },
    { notServiceAccounts: [{ namespace: "a", serviceAccount: "x" }] },
    { sourceIps: [cidr("10.0.0.2/32")] },
    { notSourceIps: [cidr("10.0.0.1/32")] },
    { destinationIps: [cidr("10.0.1.1/32")] },
    { notDestinationIps: [cidr("10.0.1.2/32")] },
    { destinationPorts: [81] },
    { notDestinationPorts: [80] },
  ];
  for (const fields of broken) {
    assert(!holds(one({ ...every, ...fields }), A), `with ${JSON.stringify(fields)}`);
    assert(!holds(one(fields), A), `only ${JSON.stringify(fields)}`);
  }
});

Deno.test("policyMatches() by field, with and without identity (ZT-114 to ZT-118)", () => {
  const withTd = (trustDomain: string) => connection("a/x", { trustDomain });
  const cases: [string, Partial<PolicyMatch>, ConnectionFacts, boolean][] = [
    ["namespace", { namespaces: [exact("a")] }, A, true],
    ["namespace of another", { namespaces: [exact("b")] }, A, false],
    ["namespace of plaintext", { namespaces: [exact("a")] }, PLAINTEXT, false],
    ["not namespace", { notNamespaces: [exact("a")] }, A, false],
    ["not namespace of another", { notNamespaces: [exact("b")] }, A, true],
    ["not namespace of plaintext", { notNamespaces: [exact("a")] }, PLAINTEXT, true],
    ["empty prefix of plaintext namespace (ZT-115)", { namespaces: [prefix("")] }, PLAINTEXT, true],
    ["namespace presence of plaintext", { namespaces: [presence] }, PLAINTEXT, false],
    ["namespace presence", { namespaces: [presence] }, A, true],
    ["principal", { principals: [exact("td/ns/a/sa/x")] }, A, true],
    ["principal with its scheme never", { principals: [exact("spiffe://td/ns/a/sa/x")] }, A, false],
    ["principal prefix", { principals: [prefix("td/ns/a/")] }, A, true],
    ["principal suffix", { principals: [suffix("/sa/x")] }, A, true],
    ["principal presence", { principals: [presence] }, A, true],
    ["principal presence of plaintext", { principals: [presence] }, PLAINTEXT, false],
    ["principal empty prefix of plaintext (ZT-114)", { principals: [prefix("")] }, PLAINTEXT, false],
    ["not principal", { notPrincipals: [exact("td/ns/a/sa/x")] }, A, false],
    ["not principal of plaintext", { notPrincipals: [exact("td/ns/a/sa/x")] }, PLAINTEXT, true],
    ["STRICT peer authentication, mTLS (ZT-102)", { notPrincipals: [presence] }, A, false],
    ["STRICT peer authentication, plaintext (ZT-102)", { notPrincipals: [presence] }, PLAINTEXT, true],
    ["account", { serviceAccounts: [{ namespace: "a", serviceAccount: "x" }] }, A, true],
    [
      "account, any trust domain",
      { serviceAccounts: [{ namespace: "a", serviceAccount: "x" }] },
      withTd("other"),
      true,
    ],
    ["account of another namespace", { serviceAccounts: [{ namespace: "b", serviceAccount: "x" }] }, A, false],
    ["account of plaintext", { serviceAccounts: [{ namespace: "", serviceAccount: "" }] }, PLAINTEXT, false],
    ["not account", { notServiceAccounts: [{ namespace: "a", serviceAccount: "x" }] }, withTd("other"), false],
    ["not account of plaintext", { notServiceAccounts: [{ namespace: "a", serviceAccount: "x" }] }, PLAINTEXT, true],
    ["port", { destinationPorts: [79, 80] }, PLAINTEXT, true],
    ["not port", { notDestinationPorts: [80] }, PLAINTEXT, false],
  ];
  for (const [claim, fields, facts, expected] of cases) assertEquals(holds(one(fields), facts), expected, claim);
});

Deno.test("policyMatches() by kinds of string match (ZT-114, ZT-115)", () => {
  const cases: [StringMatch, string, boolean][] = [
    [exact("abc"), "abc", true],
    [exact("abc"), "abcd", false],
    [exact(""), "abc", false],
    [prefix("ab"), "abc", true],
    [prefix("abc"), "abc", true],
    [prefix("bc"), "abc", false],
    [prefix(""), "abc", true],
    [suffix("bc"), "abc", true],
    [suffix("ab"), "abc", false],
    [suffix(""), "abc", true],
    [presence, "abc", true],
    [presence, "", false],
  ];
  for (const [entry, text, expected] of cases) {
    assertEquals(
      holds(one({ namespaces: [entry] }), connection(`${text}/x`)),
      expected,
      `${entry.kind} ${entry.value}`,
    );
  }
});

// What a policy is asked about holds no network: equal addresses of two networks are judged alike (ZT-119).
Deno.test("policyMatches() by address ranges of either family (ZT-117)", () => {
  const cases: [string, string, boolean][] = [
    ["10.0.0.1/32", "10.0.0.1", true],
    ["10.0.0.1/32", "10.0.0.2", false],
    ["10.0.0.0/24", "10.0.0.255", true],
    ["10.0.0.0/24", "10.0.1.0", false],
    ["10.0.0.9/24", "10.0.0.1", true],
    ["0.0.0.0/0", "203.0.113.9", true],
    ["0.0.0.0/0", "2001:db8::1", false],
    ["::/0", "2001:db8::1", true],
    ["::/0", "10.0.0.1", false],
    ["2001:db8::/32", "2001:db8:ffff::1", true],
    ["2001:db8::/33", "2001:db8:ffff::1", false],
    ["128.0.0.0/1", "255.0.0.1", true],
  ];
  for (const [range, address, expected] of cases) {
    const claim = `${range} ${address}`;
    assertEquals(holds(one({ sourceIps: [cidr(range)] }), connection("a/x", { source: address })), expected, claim);
    assertEquals(holds(one({ notSourceIps: [cidr(range)] }), connection("a/x", { source: address })), !expected, claim);
    const destination = connection("a/x", { destination: address });
    assertEquals(holds(one({ destinationIps: [cidr(range)] }), destination), expected, claim);
    assertEquals(holds(one({ notDestinationIps: [cidr(range)] }), destination), !expected, claim);
  }
});

const ANYONE: PolicyRule[] = [{ clauses: [] }];
const NOBODY: PolicyRule[] = [];
const allow = (name: string, rules: PolicyRule[], fields: Partial<Policy> = {}) => policy(name, { rules, ...fields });
const deny = (name: string, rules: PolicyRule[], fields: Partial<Policy> = {}) =>
  policy(name, { rules, action: 1, ...fields });

Deno.test("authorize() decides in the order deny, no allow, allow, refuse (ZT-107)", () => {
  const cases: [string, Policy[], boolean, string, string | undefined][] = [
    ["no policy at all", [], true, "no allow policies", undefined],
    ["only a DENY that does not match", [deny("d", NOBODY)], true, "no allow policies", undefined],
    ["a DENY that matches", [deny("d", ANYONE)], false, "explicitly denied by: ns1/d", "ns1/d"],
    ["an ALLOW that matches", [allow("a", ANYONE)], true, "allowed by: ns1/a", "ns1/a"],
    [
      "ALLOW without rules refuses all",
      [allow("a", NOBODY)],
      false,
      "allow policies exist, but none allowed",
      undefined,
    ],
    ["one ALLOW of several is enough", [allow("a", NOBODY), allow("b", ANYONE)], true, "allowed by: ns1/b", "ns1/b"],
    ["DENY beats ALLOW", [allow("a", ANYONE), deny("d", ANYONE)], false, "explicitly denied by: ns1/d", "ns1/d"],
    ["a failed DENY leaves it to ALLOW", [deny("d", NOBODY), allow("a", ANYONE)], true, "allowed by: ns1/a", "ns1/a"],
  ];
  for (const [claim, policies, allowed, by, policyKey] of cases) {
    for (const order of [policies, policies.toReversed()]) {
      assertEquals(authorize(order, A), { allowed, by, policyKey }, claim);
    }
  }
});

Deno.test("authorize() never obeys dry runs, nor counts a dry-run ALLOW as one (ZT-109)", () => {
  const dryRun = { dryRun: true };
  assertEquals(authorize([deny("d", ANYONE, dryRun)], A).allowed, true);
  assertEquals(authorize([allow("a", NOBODY, dryRun)], A).by, "no allow policies");
  assertEquals(authorize([allow("a", NOBODY), allow("b", ANYONE, dryRun)], A).allowed, false);
});

Deno.test("dryRunVerdicts() says what dry runs would have done (ZT-109)", () => {
  const dryRun = { dryRun: true };
  assertEquals(dryRunVerdicts([deny("d", ANYONE), allow("a", ANYONE)], A), []);
  assertEquals(dryRunVerdicts([deny("d", NOBODY, dryRun)], A), []);
  assertEquals(dryRunVerdicts([deny("d", ANYONE, dryRun), allow("a", ANYONE, dryRun)], A), [
    { text: "dry-run: deny policy match", policyKey: "ns1/d" },
    { text: "dry-run: allow policy match", policyKey: "ns1/a" },
  ]);
  assertEquals(dryRunVerdicts([allow("a", NOBODY, dryRun)], A), [
    { text: "dry-run: no allow policies match", policyKey: undefined },
  ]);
});

Deno.test("authorize() judges by the policies of the destination workload (ZT-106)", () => {
  const named = deny("named", ANYONE, { scope: 2 });
  const policies = [
    named,
    deny("other", ANYONE, { scope: 2 }),
    deny("elsewhere", ANYONE, { scope: 1, namespace: "ns2" }),
    allow("global", ANYONE, { scope: 0, namespace: "istio-system" }),
  ];
  const view = new PlainMeshView({ policies });
  const verdictAt = (authorizationPolicies: string[], namespace = "ns1") =>
    authorize(view.policiesFor(workload("w", "10.0.1.2", { namespace, authorizationPolicies })), A).by;
  assertEquals(verdictAt([]), "allowed by: istio-system/global");
  assertEquals(verdictAt(["ns1/named"]), "explicitly denied by: ns1/named");
  assertEquals(verdictAt(["ns1/unknown"]), "allowed by: istio-system/global");
  assertEquals(verdictAt([], "ns2"), "explicitly denied by: ns2/elsewhere");
  // A policy that changes its scope applies by the new one only (ZT-142).
  const changed = new PlainMeshView({ policies: [{ ...named, scope: 1 }] });
  assertEquals(authorize(changed.policiesFor(workload("w", "10.0.1.2")), A).allowed, false);
});
