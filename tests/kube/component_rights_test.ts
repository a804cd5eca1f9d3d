/** The rights that the components of the manifests give, each held to what istiod asks of a real API server because of it. */
import { assertEquals } from "@std/assert";
import { type ApiServer, startApiServer } from "./api_server.ts";
import { installManifests, Istiod, SYSTEM } from "./istiod.ts";
import { pod } from "./objects.ts";
import { refusedCalls, rightsOf, unusedRights } from "./rights.ts";
import { until } from "./until.ts";

const ACCOUNT = `system:serviceaccount:${SYSTEM}:istiod`;
const COMPONENTS = new URL("../../deploy/kubernetes/components/", import.meta.url).pathname;
const DEADLINE_MS = 120_000;

/** Runs istiod with a component's rights besides its own until it has used all of them, and asks nothing more. */
async function usesAll(
  name: string,
  flags: readonly string[],
  prepare: (server: ApiServer) => Promise<void>,
  finished: (server: ApiServer) => Promise<boolean> = () => Promise.resolve(true),
) {
  await using server = await startApiServer({ etcd: "3.4", audit: true, definitions: ["istio", "gateway"] });
  await installManifests(server);
  const access = `${COMPONENTS}${name}/access.yaml`;
  await server.kubectl(["apply", "--server-side", "-f", access]);
  await prepare(server);
  await using _istiod = await Istiod.start(server, "istiod-1", flags);
  const rights = rightsOf(await Deno.readTextFile(access));
  const calls = async () => (await server.calls()).filter(({ user, resource }) => user === ACCOUNT && resource !== "");
  const unused = async () => unusedRights(rights, await calls());
  await until(async () => (await unused()).length === 0, "all rights were used", DEADLINE_MS)
    .catch(() => {}); // Said better by the next lines.
  await until(() => finished(server), `${name} has done its work`, DEADLINE_MS);
  assertEquals(await unused(), []);
  assertEquals(refusedCalls(await calls()), []);
}

Deno.test("istiod untaints a node with the rights of component node-untaint, and needs every one of them (CP-664)", async () => {
  await usesAll("node-untaint", ["--node-untaint"], async (server) => {
    const taints = [{ key: "cni.istio.io/not-ready", effect: "NoSchedule" }];
    await server.apply({ apiVersion: "v1", kind: "Node", metadata: { name: "node-1" }, spec: { taints } });
    await server.apply({ apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default", namespace: SYSTEM } });
    await server.apply(pod(SYSTEM, "agent", { ip: "10.0.0.1", labels: { "k8s-app": "istio-cni-node" } }));
  });
});

Deno.test("istiod leads as a revision with the rights of component revision, and needs every one of them (CP-650)", async () => {
  await usesAll("revision", ["--revision=canary"], () => Promise.resolve());
});

Deno.test("istiod writes what analysis finds with the rights of component analysis, and needs every one of them (CP-699)", async () => {
  const policy = { kind: "AuthorizationPolicy", apiVersion: "security.istio.io/v1" };
  await usesAll("analysis", ["--analysis-status"], async (server) => {
    const spec = { selector: { matchLabels: { app: "nobody" } } };
    await server.apply({ ...policy, metadata: { name: "idle", namespace: SYSTEM }, spec });
  }, async (server) => {
    const path = "jsonpath={.status.validationMessages[*].type.code}";
    return (await server.kubectl(["get", "authorizationpolicy", "idle", "-n", SYSTEM, "-o", path])).includes("IST0127");
  });
});
