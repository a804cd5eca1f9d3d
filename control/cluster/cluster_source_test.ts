/** A cluster source over an API server in memory: what it waits for, what it says, and what comes and goes. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  AUTHORIZATION_POLICIES,
  CUSTOM_RESOURCE_DEFINITIONS,
  GATEWAYS,
  NAMESPACES,
  NODES,
  PODS,
} from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { allowNothing, define, namespace, pod, smallMesh, SourceRig, undefine, until } from "./testing.ts";

const CART = "c1//Pod/shop/cart", CLOSED = "shop/closed";

Deno.test("ClusterSource tells nothing before it is opened, then all there is and each change, and asks only for what is used (CP-011, CP-101)", async () => {
  await using rig = new SourceRig();
  rig.begin();
  await rig.source.settled;
  assertEquals([rig.batches, rig.names()], [0, []]);
  await rig.source.open();
  assertEquals([rig.batches, rig.names()], [1, [CART, CLOSED]]);
  rig.api.put(PODS, pod("shop", "till", "10.0.0.6"));
  await until("the new pod is served", () => rig.names().includes("c1//Pod/shop/till"));
  rig.api.remove(PODS, "shop", "cart");
  await until("the deleted pod is gone", () => !rig.names().includes(CART));
  const asked = new Set(rig.api.calls.map(({ type }) => type.plural));
  assert(!asked.has("secrets") && !asked.has("serviceaccounts") && !asked.has("deployments"), [...asked].join());
});

Deno.test("ClusterSource leaves failed pods and slices of no service to the API server", async () => {
  const api = smallMesh();
  const failed = pod("shop", "dead", "10.0.0.9") as { status: Record<string, unknown> };
  failed.status.phase = "Failed";
  api.put(PODS, failed);
  await using rig = await new SourceRig(api).open();
  assertEquals(rig.names(), [CART, CLOSED]);
  assertEquals(rig.source.status().find(({ kind }) => kind === "Pod")?.objects, 1);
});

Deno.test("a kind that is forbidden and needed keeps the source from settling, and the log has the rule to add (CP-102)", async () => {
  const api = smallMesh(), allow = api.deny(AUTHORIZATION_POLICIES);
  await using rig = new SourceRig(api);
  rig.begin();
  await until("it is said", () => rig.log().includes("kind cannot be watched"));
  assertStringIncludes(rig.log(), 'resource="authorizationpolicies.security.istio.io" status=403');
  assertStringIncludes(rig.log(), "istiod does not get ready without it");
  assertStringIncludes(
    rig.log(),
    '{apiGroups: [\\"security.istio.io\\"], resources: [\\"authorizationpolicies\\"], verbs:',
  );
  await until(
    "every other kind is read",
    () => rig.source.status().every(({ kind, state }) => state === "synced" || kind === "AuthorizationPolicy"),
  );
  assertEquals(rig.batches, 0);
  allow();
  await rig.source.settled;
  await rig.source.open();
  assertEquals(rig.names(), [CART, CLOSED]);
  await until("it is said that all is well", () => rig.log().includes("kind can be watched again"));
  assertEquals(rig.troubles, 1);
});

Deno.test("a kind that is forbidden and can be done without does not hold up the others (CP-102)", async () => {
  const api = smallMesh();
  api.deny(NODES);
  await using rig = await new SourceRig(api).open();
  assertEquals(rig.names(), [CART, CLOSED]);
  await until("it is said", () => rig.log().includes("the mesh is served without it"));
  assertEquals(rig.source.status().find(({ kind }) => kind === "Node")?.trouble?.status, 403);
});

Deno.test("a kind whose CRD is not there is not waited for, is read once it comes, and gone once it goes (CP-100)", async () => {
  const api = smallMesh();
  undefine(api, AUTHORIZATION_POLICIES);
  await using rig = await new SourceRig(api).open();
  assertEquals(rig.names(), [CART]);
  assertEquals(rig.api.calls.filter(({ type }) => type.plural === "authorizationpolicies"), []);
  for (let round = 0; round < 2; round++) {
    define(api, AUTHORIZATION_POLICIES);
    api.put(AUTHORIZATION_POLICIES, allowNothing("shop", "closed"));
    await until("the policy is served", () => rig.names().includes(CLOSED));
    undefine(api, AUTHORIZATION_POLICIES);
    await until("the policy is gone", () => !rig.names().includes(CLOSED));
  }
});

Deno.test("a Gateway API older than the minimum counts as absent, and as there once it is upgraded (CP-100)", async () => {
  const api = smallMesh();
  define(api, GATEWAYS, { "gateway.networking.k8s.io/bundle-version": "v0.8.1" });
  await using rig = await new SourceRig(api).open();
  const state = () => rig.source.status().find(({ kind }) => kind === "Gateway")?.state;
  assertEquals(state(), "absent");
  assertStringIncludes(
    rig.log(),
    'its Gateway API is too old\tresource="gateways.gateway.networking.k8s.io" version="v0.8.1"',
  );
  define(api, GATEWAYS, { "gateway.networking.k8s.io/bundle-version": "v1.0.0-rc2" });
  await until("Gateways are read", () => state() === "synced");
});

Deno.test("without leave to see CRDs every optional kind is asked for itself, and one that is not there is absent (CP-100)", async () => {
  const api = smallMesh();
  api.deny(CUSTOM_RESOURCE_DEFINITIONS);
  api.serve(GATEWAYS, false);
  await using rig = await new SourceRig(api).open();
  assertEquals(rig.names(), [CART, CLOSED]);
  assertEquals(rig.source.status().find(({ kind }) => kind === "Gateway")?.state, "absent");
  await until("it is said", () => rig.log().includes("optional kinds are asked for one by one"));
});

Deno.test("after a cut and an expired version the source is as a fresh one would be (CP-101)", async () => {
  await using rig = await new SourceRig().open();
  rig.api.unreachable = true;
  rig.api.remove(PODS, "shop", "cart");
  rig.api.put(PODS, pod("shop", "till", "10.0.0.6"));
  rig.api.expireVersions();
  rig.api.unreachable = false;
  await until("it has caught up", () => rig.names().join() === ["c1//Pod/shop/till", CLOSED].join());
});

Deno.test("discovery selectors bring and take the objects of a namespace with its labels (CP-104)", async () => {
  await using rig = new SourceRig();
  const mesh = (value: string) => ({ matchLabels: new Map([["mesh", value]]), matchExpressions: [] });
  rig.source.select([mesh("on")]);
  await rig.open();
  assertEquals(rig.names(), []);
  assertEquals(rig.source.admits("shop"), false);
  rig.api.put(NAMESPACES, namespace("shop", { mesh: "on" }));
  await until("its objects are there", () => rig.names().length === 2);
  rig.api.put(NAMESPACES, namespace("shop", { mesh: "off" }));
  await until("its objects are gone", () => rig.names().length === 0);
  rig.apply(rig.source.select([mesh("on"), mesh("off")]));
  assertEquals(rig.names(), [CART, CLOSED]);
  rig.apply(rig.source.select([]));
  assertEquals(rig.names(), [CART, CLOSED]);
});

Deno.test("ClusterSource ends with its signal, before it has settled too, and leaves no watch open (CP-660)", async () => {
  const api = new InMemoryKubeApi();
  api.unreachable = true;
  const unsettled = new SourceRig(api);
  unsettled.begin();
  await unsettled[Symbol.asyncDispose]();
  await assertRejects(() => unsettled.source.settled, DOMException, "the test is over");
  const rig = await new SourceRig().open();
  await rig[Symbol.asyncDispose]();
  assertEquals([PODS, NAMESPACES, AUTHORIZATION_POLICIES].map((type) => rig.api.watching(type)), [0, 0, 0]);
});
