import { assertEquals, assertMatch } from "@std/assert";
import { type ApiServer, startApiServer } from "./api_server.ts";
import { installManifests, Istiod, SYSTEM } from "./istiod.ts";
import { account, authorizationPolicy, namespace, pod, service } from "./objects.ts";
import { refusedCalls, rightsOf, unusedRights } from "./rights.ts";
import { until } from "./until.ts";

const ACCOUNT = `system:serviceaccount:${SYSTEM}:istiod`;
const ACCESS = new URL("../../deploy/kubernetes/access.yaml", import.meta.url);
const WEBHOOK = new URL("../../deploy/kubernetes/webhook.yaml", import.meta.url).pathname;
const DEADLINE_MS = 120_000;

Deno.test("unusedRights() finds what no call needed, and prefers the narrower of two that fit", () => {
  const yaml = `
kind: ClusterRole
metadata: { name: a }
rules: [{ apiGroups: [""], resources: [pods, configmaps], verbs: [list] }]
---
kind: Role
metadata: { name: a, namespace: n }
rules: [{ apiGroups: [""], resources: [configmaps], verbs: [list] }]
`;
  const call = (resource: string, space: string, allowed = true) => {
    return { user: "", verb: "list", group: "", resource, namespace: space, name: "", allowed, status: 200 };
  };
  assertEquals(unusedRights(rightsOf(yaml), [call("pods", ""), call("configmaps", "n")]), ["list configmaps"]);
  assertEquals(unusedRights(rightsOf(yaml), [call("configmaps", "m")]), ["list configmaps in n", "list pods"]);
  const named = yaml.replace("[configmaps]", "[configmaps], resourceNames: [a]");
  assertEquals(unusedRights(rightsOf(named), [call("configmaps", "n")]), ["list configmaps a in n", "list pods"]);
  assertEquals(refusedCalls([call("secrets", "n", false), call("pods", "")]), ["list secrets in n"]);
});

/** A mesh in which each part of istiod has something to do. */
async function everything(server: ApiServer): Promise<void> {
  await server.apply(namespace("shop"), account("shop", "cart"));
  await server.apply(
    pod(SYSTEM, "ztunnel-1", { ip: "10.0.0.1", account: "ztunnel" }),
    pod("shop", "cart", { ip: "10.1.0.1", account: "cart", labels: { app: "cart" } }),
    service("shop", "cart", { app: "cart" }),
    authorizationPolicy("shop", "methods", { rules: [{ to: [{ operation: { methods: ["GET"] } }] }] }),
    {
      apiVersion: "gateway.networking.k8s.io/v1",
      kind: "Gateway",
      metadata: { namespace: "shop", name: "waypoint" },
      spec: {
        gatewayClassName: "istio-waypoint",
        listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }],
      },
    },
    {
      apiVersion: "networking.istio.io/v1",
      kind: "ServiceEntry",
      metadata: { namespace: "shop", name: "bank", labels: { "istio.io/use-waypoint": "waypoint" } },
      spec: { hosts: ["bank.example.com"], resolution: "DNS", ports: [{ name: "tls", number: 443, protocol: "TLS" }] },
    },
    {
      apiVersion: "networking.istio.io/v1",
      kind: "WorkloadEntry",
      metadata: { namespace: "shop", name: "machine", labels: { "istio.io/use-waypoint": "waypoint" } },
      spec: { address: "172.16.0.1" },
    },
  );
  const labelled = { metadata: { labels: { "istio.io/use-waypoint": "waypoint" } } };
  await server.kubectl(["patch", "service", "cart", "-n", "shop", "-p", JSON.stringify(labelled)]);
  // Somebody else's hand in what all trust.
  await server.kubectl(["wait", "--for=create", "--timeout=180s", "configmap/istio-ca-root-cert", "-n", "shop"]);
  const other = JSON.stringify({ data: { "root-cert.pem": "none" } });
  await server.kubectl(["patch", "configmap", "istio-ca-root-cert", "-n", "shop", "-p", other]);
  await server.kubectl(["apply", "--server-side", "-f", WEBHOOK]);
}

/** Rights that are needed where no test can be sure to come by. */
const SELDOM = [
  "get pods", // Of a pod whose certificate is asked for sooner than the watch tells of it.
  "update secrets istio-ca-secret in istio-system", // When the root is due.
  // To look at an object that somebody else has changed a moment before its status was to be written.
  "get authorizationpolicies.security.istio.io",
  "get gatewayclasses.gateway.networking.k8s.io",
  "get gateways.gateway.networking.k8s.io",
  "get serviceentries.networking.istio.io",
  "get workloadentries.networking.istio.io",
];

Deno.test("istiod does what it has to with the rights of its manifest, and needs every one of them", async () => {
  // The old etcd, since without streaming lists there is a list before each watch.
  await using server = await startApiServer({ etcd: "3.4", audit: true, definitions: ["istio", "gateway"] });
  await installManifests(server);
  await using istiod = await Istiod.start(server);
  await everything(server);
  const token = await server.accountToken(SYSTEM, "ztunnel", "istio-ca", "ztunnel-1");
  using _reader = await istiod.reader(token);
  await istiod.certificate(token, "spiffe://cluster.local/ns/shop/sa/cart");
  const rights = rightsOf(await Deno.readTextFile(ACCESS));
  const calls = async () => (await server.calls()).filter(({ user, resource }) => user === ACCOUNT && resource !== "");
  const unused = async () => unusedRights(rights, await calls()).filter((right) => !SELDOM.includes(right));
  await until(async () => (await unused()).length === 0, "all rights were used", DEADLINE_MS)
    .catch(() => {}); // Said better by the next lines.
  assertEquals(refusedCalls(await calls()), []);
  assertEquals(await unused(), []);
});

Deno.test("CP-102: a right that is taken away is told of with its cure, degrades readiness, and heals when it is back", async () => {
  await using server = await startApiServer({ definitions: ["istio", "gateway"] });
  await installManifests(server);
  await server.apply(namespace("shop"), account("shop", "default"));
  await using istiod = await Istiod.start(server);
  using reader = await istiod.reader();
  const role = "istiod-istio-system", before = await server.kubectl(["get", "clusterrole", role, "-o", "json"]);
  const { rules, ...rest } = JSON.parse(before) as { rules: { resources: string[] }[] };
  const without = rules.map((rule) => ({ ...rule, resources: rule.resources.filter((name) => name !== "services") }))
    .filter(({ resources }) => resources.length > 0);
  await server.kubectl(["replace", "-f", "-"], { stdin: JSON.stringify({ ...rest, rules: without }) });
  await server.apiServer.kill(); // Rights are looked at when a watch begins.
  await server.apiServer.start();
  const troubled = /kind cannot be watched.*resource="?services"?.*status=403.*fix=.*resources: \[\\?"services/;
  await until(async () => (await istiod.log()).some((line) => troubled.test(line)), "the log says so", DEADLINE_MS);
  await server.apply(pod("shop", "cart", { ip: "10.1.0.1" }));
  await reader.until(() => reader.names().includes("Kubernetes//Pod/shop/cart"), "other kinds are followed");
  const page = () => istiod.page("/debug/readyz");
  await until(async () => /\[-\]Service .*403/.test((await page()).text), "its state says so", DEADLINE_MS);
  const { status, text } = await page();
  assertEquals(status, 200, "what was known is served on");
  assertMatch(text, /\[-\]Service .*403/);
  assertMatch(text, /degraded/);

  await server.kubectl(["apply", "--server-side", "--force-conflicts", "-k", istiod.manifests]);
  await server.apply(service("shop", "late", { app: "late" }));
  await reader.until(() => reader.names().includes("shop/late.shop.svc.cluster.local"), "services are followed again");
  const isWell = async () => (await istiod.page("/debug/readyz")).text.endsWith("\nready\n");
  await until(isWell, "all is well", DEADLINE_MS);
});

Deno.test("CP-102: without the right to list what the mesh is made of, istiod does not say that it is ready", async () => {
  await using server = await startApiServer({ definitions: ["istio", "gateway"] });
  await installManifests(server);
  await server.kubectl(["delete", "clusterrolebinding", "istiod-istio-system"]);
  await using istiod = await Istiod.prepare(server);
  const started = istiod.process.start();
  const told = async () => (await istiod.log()).some((line) => line.includes("403") && line.includes("pods"));
  await until(() => told().catch(() => false), "the log names what is missing", DEADLINE_MS);
  assertEquals((await istiod.page("/ready")).status, 503);
  await server.kubectl(["apply", "--server-side", "-k", istiod.manifests]);
  await started;
});
