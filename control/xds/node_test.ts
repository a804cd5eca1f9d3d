/** Node ids, and which identities bear them out. */
import { assert, assertEquals } from "@std/assert";
import type { DiscoveryNode } from "../../mesh/proto/discovery_codec.ts";
import { type ClientNode, identityFits, parseNode } from "./node.ts";
import { StreamLimit } from "./stream_limit.ts";

function good(node: DiscoveryNode): ClientNode {
  const parsed = parseNode(node);
  if ("invalid" in parsed) throw new Error(parsed.invalid);
  return parsed;
}

Deno.test("parseNode() reads what a ztunnel sends, and needs none of the optional metadata (CP-401)", () => {
  const id = "ztunnel~10.1.2.3~ztunnel-abc.istio-system~istio-system.svc.cluster.local";
  assertEquals(parseNode({ id, metadata: {} }), {
    type: "ztunnel",
    ip: "10.1.2.3",
    pod: "ztunnel-abc",
    namespace: "istio-system",
    name: "ztunnel-abc.istio-system",
    serviceAccount: "",
    node: "",
    clusterId: "",
    version: "",
    labels: {},
    metadata: {},
  });
  const metadata = { NODE_NAME: "n1", CLUSTER_ID: "c", SERVICE_ACCOUNT: "s", ISTIO_VERSION: "1", NAMESPACE: "other" };
  const node = good({ id, metadata });
  assertEquals([node.node, node.clusterId, node.serviceAccount, node.version], ["n1", "c", "s", "1"]);
  assertEquals(node.namespace, "other");
});

Deno.test("parseNode() refuses other ids, however odd (CP-400, CP-401)", () => {
  const odd = [
    "",
    "ztunnel",
    "ztunnel~1~a.b",
    "ztunnel~1~a.b~c~d",
    "proxy~1~a.b~c",
    "ztunnel~1~ab~c",
    `ztunnel~1~a.b~${"x".repeat(2_000)}`,
  ];
  for (const id of odd) assert("invalid" in parseNode({ id, metadata: {} }), id);
  assert("invalid" in parseNode(undefined));
  const node = good({ id: "ztunnel~1~a.b.c~d", metadata: { NODE_NAME: 7, NAMESPACE: null, SERVICE_ACCOUNT: [] } });
  assertEquals([node.pod, node.namespace, node.node, node.serviceAccount], ["a.b", "c", "", ""]);
});

Deno.test("parseNode() refuses what is kept of a client as long as its stream, if it is long (CP-401)", () => {
  const id = "ztunnel~10.1.2.3~ztunnel-abc.istio-system~d";
  for (const key of ["NAMESPACE", "SERVICE_ACCOUNT", "NODE_NAME", "CLUSTER_ID", "ISTIO_VERSION"]) {
    assertEquals("invalid" in parseNode({ id, metadata: { [key]: "x".repeat(1_024) } }), false, key);
    assertEquals("invalid" in parseNode({ id, metadata: { [key]: "x".repeat(1_025) } }), true, key);
  }
  assertEquals(good({ id, metadata: { OWNER: "x".repeat(10_000) } }).metadata, {}, "what is only shown is left out");
});

Deno.test("identityFits() asks for one identity of the namespace and, if named, of the account (CP-431)", () => {
  const node = (account: string) => good({ id: "ztunnel~1~p.shop~d", metadata: { SERVICE_ACCOUNT: account } });
  const cart = "spiffe://cluster.local/ns/shop/sa/cart", other = "spiffe://cluster.local/ns/bank/sa/cart";
  assertEquals(identityFits(node(""), [other, cart]), true);
  assertEquals(identityFits(node("cart"), [cart]), true);
  assertEquals(identityFits(node("admin"), [cart]), false);
  assertEquals(identityFits(node(""), [other]), false);
  assertEquals(identityFits(node(""), []), false);
  assertEquals(identityFits(node(""), ["shop"]), false);
});

Deno.test("StreamLimit lets a second's worth in at once, then at the rate, and refuses who would wait longer (CP-400)", () => {
  let nowMs = 5_000;
  const limit = new StreamLimit({ perSecond: 10, waitMsMax: 1_000, now: () => nowMs });
  const waits = Array.from({ length: 22 }, () => limit.take());
  assertEquals(waits.slice(0, 11), Array(11).fill(0));
  assertEquals(waits.slice(11, 21), [100, 200, 300, 400, 500, 600, 700, 800, 900, 1_000]);
  assertEquals(waits[21], undefined);
  nowMs += 10_000;
  assertEquals(limit.take(), 0);
});
