/** What is kept of an object, and what holds in place of one that cannot be read. */
import { assertEquals } from "@std/assert";
import type { Plain } from "../../base/plain.ts";
import type { KubeObject } from "../../kube/api.ts";
import type { AuthorizationPolicyObject, ObjectKind, PeerAuthenticationObject } from "../objects.ts";
import { decodeKubeObject } from "./decode.ts";
import { kindsOf } from "./kinds.ts";

type Spec = { readonly [key: string]: Plain };

function decoded(kind: ObjectKind, spec: Spec, metadata: object = {}) {
  return decodeKubeObject(kind, { metadata: { name: "it", namespace: "shop", ...metadata }, spec } as KubeObject);
}

function policy(spec: Spec, metadata: object = {}) {
  const { object, refusal } = decoded("AuthorizationPolicy", spec, metadata);
  const { action, rules, selector } = object as AuthorizationPolicyObject;
  return {
    action,
    rules: rules.length,
    selector: selector && [...selector],
    instead: refusal?.instead,
    field: refusal?.field,
  };
}

const GOOD = { from: [{ source: { principals: ["a/ns/b/sa/c"] } }] };
const BAD = { from: [{ source: { ipBlocks: ["10.0.0.0/99"] } }] };
const SELECTOR = { matchLabels: { app: "db" } };

Deno.test("decodeKubeObject() keeps what is used of the metadata and nothing else (CP-103)", () => {
  const annotations = {
    "kubectl.kubernetes.io/last-applied-configuration": "{}",
    "ambient.istio.io/redirection": "enabled",
    "istio.io/dry-run": "true",
    "evilistio.io/x": "1",
    plain: "1",
  };
  const labels = { app: "db", "topology.kubernetes.io/zone": "z1", "kubernetes.io/hostname": "n" };
  const managedFields = [{ manager: "kubectl" }];
  const pod = decoded("Pod", { containers: [] }, { annotations, labels, managedFields }).object!;
  assertEquals([...pod.meta.annotations.keys()], ["ambient.istio.io/redirection", "istio.io/dry-run"]);
  assertEquals(pod.meta.labels.size, 3);
  const node = decodeKubeObject("Node", { metadata: { name: "n", annotations, labels } }).object!;
  assertEquals([[...node.meta.labels], node.meta.annotations.size], [[["topology.kubernetes.io/zone", "z1"]], 0]);
});

Deno.test("an ALLOW policy with a rule that cannot be read allows what its other rules allow", () => {
  assertEquals(policy({ selector: SELECTOR, rules: [GOOD, BAD] }), {
    action: "ALLOW",
    rules: 1,
    selector: [["app", "db"]],
    instead: "the rule is left out",
    field: "spec.rules[1].from[0].source.ipBlocks[0]",
  });
  assertEquals(policy({ rules: [BAD] }).rules, 0);
});

Deno.test("a DENY policy with a rule that cannot be read denies everything it selects", () => {
  const { action, rules, selector, instead } = policy({ action: "DENY", selector: SELECTOR, rules: [GOOD, BAD] });
  assertEquals([action, rules, selector, instead], ["DENY", 2, [["app", "db"]], "a rule that denies everything"]);
  const { object } = decoded("AuthorizationPolicy", { action: "DENY", rules: [BAD] });
  assertEquals((object as AuthorizationPolicyObject).rules, [{ from: [], to: [], when: [] }]);
});

Deno.test("a policy whose head cannot be read denies whom it selects, or its namespace where that cannot be read either", () => {
  const heads: [Spec, Plain][] = [
    [{ action: "MAYBE", selector: SELECTOR, rules: [GOOD] }, [["app", "db"]]],
    [{ selector: SELECTOR, rules: "all" }, [["app", "db"]]],
    [{ selector: SELECTOR, newField: true, rules: [GOOD] }, [["app", "db"]]],
    [{ selector: { matchExpressions: [] }, rules: [GOOD] }, null],
    [{ selector: 7 }, null],
  ];
  for (const [spec, selector] of heads) {
    const found = policy(spec);
    assertEquals([found.action, found.rules, found.selector ?? null], ["DENY", 1, selector], JSON.stringify(spec));
  }
});

Deno.test("metadata that cannot be read does not keep a policy out", () => {
  const found = policy({ action: "DENY", selector: SELECTOR, rules: [GOOD] }, { labels: { x: 1 } });
  assertEquals([found.action, found.rules, found.selector], ["DENY", 1, [["app", "db"]]]);
});

Deno.test("a PeerAuthentication that cannot be read is strict for whom it selects", () => {
  for (const spec of [{ mtls: { mode: "SOMETIMES" } }, { mtls: { mode: "PERMISSIVE" }, portLevelMtls: { x: {} } }]) {
    const { object } = decoded("PeerAuthentication", { ...spec, selector: SELECTOR } as Spec);
    const { mode, selector, portModes } = object as PeerAuthenticationObject;
    assertEquals([mode, [...selector], portModes.size], ["STRICT", [["app", "db"]], 0]);
  }
});

Deno.test("another object that cannot be read counts as absent, and says which field it is", () => {
  const { object, refusal } = decoded("Service", { ports: [{ port: 0 }] });
  assertEquals([object, refusal?.field, refusal?.instead], [undefined, "spec.ports[0].port", ""]);
});

Deno.test("kindsOf() leaves out what is ignored, but for what is included and what every cluster has (CP-100)", () => {
  const names = (ignore: string[], include: string[] = []) => kindsOf({ ignore, include }).map(({ kind }) => kind);
  assertEquals(names([]).length, 11);
  assertEquals(names(["*.istio.io"], ["authorizationpolicies.security.istio.io"]).slice(5), [
    "AuthorizationPolicy",
    "Gateway",
    "GatewayClass",
  ]);
  assertEquals(names(["gateways.gateway.networking.k8s.io", "pods"]).includes("Pod"), true);
  assertEquals(names(["gateways.gateway.networking.k8s.io"]).includes("Gateway"), false);
});
