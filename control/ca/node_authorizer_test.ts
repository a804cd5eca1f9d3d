/** Who may have whose certificate. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { KubeUnreachable } from "../../kube/api.ts";
import type { Caller } from "./caller.ts";
import { CallerClusters } from "./caller_clusters.ts";
import { podOn, QuestionedApi } from "./cluster_testing.ts";
import { NodeAuthorizer } from "./node_authorizer.ts";
import type { NodePods } from "./node_pods.ts";

const identity = (account: string, { namespace = "shop", domain = "mesh.test" } = {}) =>
  `spiffe://${domain}/ns/${namespace}/sa/${account}`;

function put(pods: NodePods, ...all: ReturnType<typeof podOn>[]): void {
  for (const pod of all) pods.apply({ kind: "Pod", key: `Pod/${pod.meta.namespace}/${pod.meta.name}`, object: pod });
}

function callerOf(part: Partial<NonNullable<Caller["token"]>> = {}): Caller {
  const token = {
    cluster: "own",
    namespace: "istio-system",
    serviceAccount: "ztunnel",
    pod: "ztunnel-1",
    podUid: "uid-ztunnel-1",
    node: "",
    ...part,
  };
  return { identities: [identity(token.serviceAccount, { namespace: token.namespace })], token };
}

function rig({ trusted = ["istio-system/ztunnel"], hidden = "" } = {}) {
  const api = new QuestionedApi(), clusters = new CallerClusters("own");
  const pods = clusters.set("own", api, { selects: (namespace) => namespace !== hidden });
  put(
    pods,
    podOn("node-1", "istio-system", "ztunnel"),
    podOn("node-1", "shop", "cart"),
    podOn("node-2", "shop", "bill"),
  );
  const isOurs = (domain: string) => ["mesh.test", "old.test"].includes(domain);
  const authorizer = new NodeAuthorizer({ clusters, trustedAccounts: new Set(trusted), isOurs });
  const refusal = async (requested: string, caller = callerOf()) =>
    (await authorizer.refusal(caller, requested))?.refused;
  return { api, clusters, pods, authorizer, refusal };
}

Deno.test("NodeAuthorizer lets a trusted proxy have its own node's identities, in the mesh's domain or an alias (CP-481, CP-484)", async () => {
  const { api, pods, refusal } = rig();
  assertEquals(await refusal(identity("cart")), undefined);
  assertEquals(await refusal(identity("cart", { domain: "old.test" })), undefined);
  put(pods, { ...podOn("node-1", "shop", "slow"), phase: "Pending" });
  put(pods, { ...podOn("node-1", "shop", "done"), phase: "Succeeded" });
  put(pods, { ...podOn("node-1", "shop", "host"), hostNetwork: true });
  for (const account of ["slow", "done", "host"]) assertEquals(await refusal(identity(account)), undefined, account);
  assertEquals(api.podCalls, [], "nothing had to be asked");
});

Deno.test("NodeAuthorizer refuses everybody and everything else (CP-480 to CP-482, CP-484)", async () => {
  const { api, pods, refusal, clusters } = rig({ trusted: ["istio-system/ztunnel", "shop/cart"] });
  api.addPod("node-1", "istio-system", "ztunnel");
  api.addPod("", "istio-system", "ztunnel", { name: "ztunnel-9" });
  put(pods, { ...podOn("node-1", "shop", "failed"), phase: "Failed" });
  put(pods, podOn("", "shop", "unscheduled"), podOn("", "istio-system", "ztunnel", { name: "ztunnel-9" }));
  put(clusters.set("remote", new QuestionedApi()), podOn("node-1", "shop", "afar"));
  const cases: [string, string, Caller?][] = [
    ["no pod of shop/bill is bound to node node-1", identity("bill")],
    ["no pod of shop/none", identity("none")],
    ["no pod of shop/failed", identity("failed")],
    ["no pod of shop/unscheduled", identity("unscheduled")],
    ["no pod of shop/afar", identity("afar")],
    ["no pod of other/cart", identity("cart", { namespace: "other" })],
    ["trust domain evil.test is not ours", identity("cart", { domain: "evil.test" })],
    ["is not spiffe://", `${identity("cart")}/x`],
    ["is not spiffe://", "spiffe://mesh.test/ns/shop/sa/"],
    ["is not spiffe://", "cart"],
    ["showed no token", identity("cart"), { identities: [identity("ztunnel")], token: undefined }],
    ["not among CA_TRUSTED_NODE_ACCOUNTS", identity("cart"), callerOf({ serviceAccount: "istiod" })],
    ["not among CA_TRUSTED_NODE_ACCOUNTS", identity("cart"), callerOf({ namespace: "shop" })],
    ["does not exist", identity("cart"), callerOf({ pod: "ztunnel-2" })],
    ["another uid", identity("cart"), callerOf({ podUid: "uid-old" })],
    ["not bound to a pod", identity("cart"), callerOf({ podUid: "" })],
    ["not bound to a pod", identity("cart"), callerOf({ pod: "" })],
    ["bound to no node", identity("cart"), callerOf({ pod: "ztunnel-9", podUid: "uid-ztunnel-9" })],
    [
      "another service account",
      identity("cart"),
      callerOf({ namespace: "shop", serviceAccount: "cart", pod: "bill-1", podUid: "uid-bill-1" }),
    ],
    ["cluster is unknown", identity("cart"), callerOf({ cluster: "nowhere" })],
    ["does not exist", identity("afar"), callerOf({ cluster: "remote" })],
  ];
  for (const [reason, requested, caller] of cases) {
    assertStringIncludes(await refusal(requested, caller) ?? "(allowed)", reason);
  }
  assertStringIncludes(await rig({ trusted: [] }).refusal(identity("cart")) ?? "", "CA_TRUSTED_NODE_ACCOUNTS is empty");
});

Deno.test("NodeAuthorizer counts no namespace outside the discovery selectors, neither known nor asked for (CP-481)", async () => {
  const shop = rig({ hidden: "shop" });
  shop.api.addPod("node-1", "shop", "cart");
  assertStringIncludes(await shop.refusal(identity("cart")) ?? "", "no pod of shop/cart");
  const system = rig({ hidden: "istio-system" });
  assertStringIncludes(await system.refusal(identity("cart")) ?? "", "outside the discovery selectors");
});

Deno.test("NodeAuthorizer asks the API server before it refuses what an informer may not know yet (CP-483)", async () => {
  const { api, refusal } = rig();
  api.addPod("node-1", "shop", "new");
  api.addPod("node-2", "shop", "elsewhere");
  api.addPod("node-7", "istio-system", "ztunnel", { name: "ztunnel-7" });
  api.addPod("node-7", "shop", "seven");
  assertEquals(await refusal(identity("new")), undefined);
  assertEquals(api.podCalls, ["list spec.nodeName=node-1"]);
  assertStringIncludes(await refusal(identity("elsewhere")) ?? "", "no pod of shop/elsewhere");
  api.podCalls.length = 0;
  const seven = callerOf({ pod: "ztunnel-7", podUid: "uid-ztunnel-7" });
  assertEquals(await refusal(identity("seven"), seven), undefined);
  assertEquals(api.podCalls, ["get istio-system/ztunnel-7", "list spec.nodeName=node-7"]);
  assertStringIncludes(await refusal(identity("cart"), seven) ?? "", "no pod of shop/cart is bound to node node-7");
  const impostor = callerOf({ pod: "ztunnel-7", podUid: "uid-other" });
  assertStringIncludes(await refusal(identity("seven"), impostor) ?? "", "another uid");
});

Deno.test("NodeAuthorizer asks once for all that wait, so many at once, and says when it could not ask (CP-483)", async () => {
  const { api, authorizer, refusal } = rig();
  const { promise, resolve } = Promise.withResolvers<void>();
  api.gate = promise;
  const same = Array.from({ length: 100 }, () => refusal(identity("none")));
  const others = Array.from({ length: 100 }, (_, at) => {
    const caller = callerOf({ pod: `ztunnel-${at + 10}` });
    return authorizer.refusal(caller, identity("cart"));
  });
  resolve();
  const refusals = await Promise.all(others);
  assertEquals(api.podCalls.length, 32);
  assertEquals(refusals.filter((it) => it?.unavailable).length, 100 - 31);
  for (const reason of await Promise.all(same)) assertStringIncludes(reason ?? "", "no pod of shop/none");
  api.failure = new KubeUnreachable("connection refused");
  const unsure = await authorizer.refusal(callerOf(), identity("none"));
  assertEquals(unsure?.unavailable, true);
  assertStringIncludes(unsure?.refused ?? "", "the API server does not say: connection refused");
  assertEquals(await authorizer.refusal(callerOf(), identity("cart")), undefined, "what is known needs no asking");
});
