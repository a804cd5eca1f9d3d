/** The CA against a real API server: whom it believes, what it keeps there, and what it tells every namespace. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import * as grpc from "@grpc/grpc-js";
import * as x509 from "@peculiar/x509";
import { makeRequest } from "../../dataplane/agent/workload_certificate.ts";
import { Istiod, pod, podToken, startMesh, until } from "./ca_rig.ts";

const { OK, UNAUTHENTICATED, INVALID_ARGUMENT, UNAVAILABLE } = grpc.status;
const CART = "spiffe://cluster.local/ns/shop/sa/cart";
const ZTUNNEL = ["istio-system", "ztunnel", "ztunnel-1"] as const;
const FAST = "--self-signed-ca-key=ecdsa";

function uriIn(pem: string): string {
  const names = new x509.X509Certificate(pem).getExtension(x509.SubjectAlternativeNameExtension)!;
  return names.names.items.map(({ value }) => value).join();
}

Deno.test("tokens of a real API server: its own identity for anybody, others' for a node's proxy, nothing for the rest (CP-475, CP-476, CP-480 to CP-485)", async () => {
  await using server = await startMesh();
  await server.apply(
    pod("istio-system", "ztunnel", "node-1"),
    pod("shop", "cart", "node-1"),
    pod("shop", "bill", "node-2"),
  );
  await using istiod = await Istiod.start(server, "istiod-1", FAST);
  const proxy = await podToken(server, ZTUNNEL), cart = await podToken(server, ["shop", "cart", "cart-1"]);
  const own = await istiod.ask(cart);
  assertEquals([own.code, uriIn(own.certChain[0]!)], [OK, CART]);
  assertEquals(own.certChain.at(-1), istiod.rootsPem);
  const theirs = await istiod.ask(proxy, { identity: CART, cluster: "Kubernetes" });
  assertEquals([theirs.code, uriIn(theirs.certChain[0]!)], [OK, CART]);

  const unbound = await server.accountToken("istio-system", "ztunnel", "istio-ca");
  const refused: [string, string | undefined, Parameters<typeof istiod.ask>[1], grpc.status][] = [
    ["no token", undefined, {}, UNAUTHENTICATED],
    ["another audience", await podToken(server, ZTUNNEL, "vault"), {}, UNAUTHENTICATED],
    ["the API server's own audience", await server.accountToken("istio-system", "ztunnel"), {}, UNAUTHENTICATED],
    ["changed", `${proxy.slice(0, -6)}AAAAAA`, {}, UNAUTHENTICATED],
    ["not of an account", server.adminToken, {}, UNAUTHENTICATED],
    ["another cluster", proxy, { cluster: "elsewhere" }, UNAUTHENTICATED],
    ["an account that is not trusted", cart, { identity: CART }, UNAUTHENTICATED],
    ["a token of no pod", unbound, { identity: CART }, UNAUTHENTICATED],
    ["a pod of another node", proxy, { identity: "spiffe://cluster.local/ns/shop/sa/bill" }, UNAUTHENTICATED],
    ["no pod at all", proxy, { identity: "spiffe://cluster.local/ns/shop/sa/new" }, UNAUTHENTICATED],
    ["another trust domain", proxy, { identity: "spiffe://evil.test/ns/shop/sa/cart" }, UNAUTHENTICATED],
    ["oversized", proxy, { csr: "x".repeat(30_000), identity: CART }, INVALID_ARGUMENT],
  ];
  for (const [what, token, options, code] of refused) {
    const answer = await istiod.ask(token, options);
    assertEquals([what, answer.code, answer.certChain], [what, code, []]);
  }
  assertEquals(await istiod.metric("citadel_server_success_cert_issuance_count"), "2");
  assertEquals(await istiod.metric("citadel_server_authentication_failure_count"), "11");
  const log = istiod.lines.join("\n");
  assertStringIncludes(log, "no pod of shop/bill is bound to node node-1");
  for (const secret of [proxy, cart, unbound]) assert(!log.includes(secret.split(".")[2]!), "no token in the log");

  // A pod that was bound a moment ago, and one that has gone with its token.
  await server.apply(pod("shop", "new", "node-1"));
  assertEquals((await istiod.ask(proxy, { identity: "spiffe://cluster.local/ns/shop/sa/new" })).code, OK);
  await server.kubectl(["delete", "pod", "ztunnel-1", "-n", "istio-system", "--force", "--grace-period=0"]);
  await until("the pod is gone", async () => (await istiod.ask(proxy, { identity: CART })).code === UNAUTHENTICATED);
  await until("its token, too", async () => (await istiod.ask(proxy)).code === UNAUTHENTICATED);
});

Deno.test("10,000 bad requests over gRPC: each is refused, nothing is signed, and the API server hardly notices (CP-472, CP-476)", async () => {
  await using server = await startMesh({ audit: true });
  await server.apply(pod("istio-system", "ztunnel", "node-1"), pod("shop", "cart", "node-1"));
  await using istiod = await Istiod.start(server, "istiod-1", FAST);
  const proxy = await podToken(server, ZTUNNEL), vault = await podToken(server, ZTUNNEL, "vault");
  const { csrPem: csr } = await makeRequest(CART);
  const kinds = [
    () => istiod.ask("x.y.z", { client, csr }),
    () => istiod.ask(vault, { client, csr }),
    () => istiod.ask(`${proxy.slice(0, -6)}AAAAAA`, { client, csr }),
    () => istiod.ask(proxy, { client, identity: "spiffe://cluster.local/ns/shop/sa/none", csr: "x" }),
    () => istiod.ask(proxy, { client, csr: "x".repeat(20_000) }),
  ];
  const client = istiod.client(), codes = new Map<grpc.status, number>();
  let sent = 0;
  const worker = async () => {
    while (sent < 10_000) {
      const { code, certChain } = await kinds[sent++ % kinds.length]!();
      assertEquals(certChain, []);
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: 100 }, worker));
  const good = await istiod.ask(proxy, { client, identity: CART });
  client.close();
  assertEquals(good.code, OK, "and then it serves as before");
  const unavailable = codes.get(UNAVAILABLE) ?? 0; // Those for whom there was no room to look their pod up.
  assertEquals([codes.get(INVALID_ARGUMENT), codes.get(UNAUTHENTICATED)! + unavailable], [2_000, 8_000]);
  assertEquals(await istiod.metric("citadel_server_success_cert_issuance_count"), "1");
  const reviews = (await server.calls()).filter(({ resource }) => resource === "tokenreviews").length;
  assert(reviews < 200, `${reviews} reviews for two tokens`);
});

Deno.test("istiods that start at once share one root in a Secret, and a restart keeps it (CP-501, CP-502)", async () => {
  await using server = await startMesh();
  let root: string;
  {
    await using one = await Istiod.start(server, "istiod-1");
    const others = await Promise.all(["istiod-2", "istiod-3"].map((name) => Istiod.start(server, name)));
    root = one.rootsPem;
    assertEquals(others.map(({ rootsPem }) => rootsPem), [root, root]);
    for (const other of others) await other[Symbol.asyncDispose]();
  }
  await using again = await Istiod.start(server, "istiod-4");
  assertEquals(again.rootsPem, root);
  const type = ["get", "secret", "istio-ca-secret", "-n", "istio-system", "-o", "jsonpath={.type}"];
  assertEquals(await server.kubectl(type), "istio.io/ca-root");
});

Deno.test("every namespace has the roots, one istiod writes them, and another takes over (CP-510, CP-650)", async () => {
  await using server = await startMesh({ controllers: ["namespace-controller"] });
  const roots = async () => {
    const path = 'jsonpath={range .items[?(@.metadata.name=="istio-ca-root-cert")]}{.metadata.namespace} {end}';
    return (await server.kubectl(["get", "configmaps", "-A", "-o", path])).trim().split(/\s+/).sort().join(" ");
  };
  const one = await Istiod.start(server, "istiod-1", FAST);
  await using two = await Istiod.start(server, "istiod-2", FAST);
  await until("all have them", async () => await roots() === "default istio-system kube-system shop");
  const text = ["get", "configmap", "istio-ca-root-cert", "-n", "shop", "-o", "jsonpath={.data.root-cert\\.pem}"];
  assertEquals(await server.kubectl(text), two.rootsPem);
  await server.kubectl(["delete", "configmap", "istio-ca-root-cert", "-n", "shop"]);
  await until("it is back", async () => (await roots()).includes("shop"));
  await one[Symbol.asyncDispose]();
  await server.apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: "late" } });
  await until("the other one writes", async () => (await roots()).includes("late"));
  await server.kubectl(["delete", "namespace", "late"]);
  assert(!two.lines.some((line) => line.includes("\terror\t")), two.lines.join("\n"));
});
