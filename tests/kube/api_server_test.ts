import { assertEquals, assertRejects } from "@std/assert";
import { startApiServer } from "./api_server.ts";
import type { EtcdVersion } from "./parts.ts";
import { until } from "./until.ts";

const namespace = (name: string) => ({ apiVersion: "v1", kind: "Namespace", metadata: { name } });
const configMap = (name: string, value: string) => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, namespace: "default" },
  data: { value },
});

for (const etcd of ["3.6", "3.4"] as readonly EtcdVersion[]) {
  Deno.test(`startApiServer() serves on etcd ${etcd}, keeps what it has over restarts of both, and leaves nothing`, async () => {
    let folder: string, pids: (number | undefined)[];
    {
      await using server = await startApiServer({ etcd });
      folder = server.folder;
      await server.apply(namespace("shop"), configMap("kept", "1"));
      await server.apiServer.kill();
      await server.apiServer.start();
      await server.etcd.kill();
      await server.etcd.start();
      const value = ["get", "configmap", "kept", "-n", "default", "-o", "jsonpath={.data.value}"];
      // An API server takes a moment to find its etcd again.
      const kept = async () => await server.kubectl(value).catch(() => "") === "1";
      await until(kept, "what was there is there", 60_000);
      pids = [server.etcd.pid, server.apiServer.pid];
    }
    assertEquals(pids.map((pid) => pid !== undefined && isAlive(pid)), [false, false]);
    await assertRejects(() => Deno.stat(folder), Deno.errors.NotFound);
  });
}

Deno.test("startApiServer() has users without rights, service account tokens, controllers and definitions", async () => {
  const options = { users: ["guest"], controllers: ["serviceaccount-controller"], audit: true } as const;
  await using server = await startApiServer({ ...options, definitions: ["istio", "gateway"] });
  const kinds = await server.kubectl(["api-resources", "-o", "name"]);
  for (const kind of ["workloadentries.networking.istio.io", "gateways.gateway.networking.k8s.io"]) {
    assertEquals(kinds.includes(kind), true, kind);
  }
  const kubeconfig = `${server.folder}/guest.kubeconfig`;
  await assertRejects(() => server.kubectl(["get", "pods"], { kubeconfig }), Error, "forbidden");
  const account = ["wait", "--for=create", "--timeout=120s", "serviceaccount/default", "-n", "default"];
  await server.kubectl(account);
  const claims = (await server.accountToken("default", "default", "istio-ca")).split(".")[1]!;
  const { aud, sub } = JSON.parse(atob(claims.replaceAll("-", "+").replaceAll("_", "/"))) as Record<string, unknown>;
  assertEquals({ aud, sub }, { aud: ["istio-ca"], sub: "system:serviceaccount:default:default" });
  const asGuest = async () =>
    (await server.calls()).filter(({ user, resource }) => user === "guest" && resource !== "");
  await until(async () => (await asGuest()).length > 0, "it is written down", 60_000);
  const refused = await asGuest();
  assertEquals(refused.map(({ verb, resource, allowed, status }) => [verb, resource, allowed, status]), [
    ["list", "pods", false, 403],
  ]);
});

Deno.test("compact() makes an old version be answered with 410", async () => {
  await using server = await startApiServer({ watchCache: false });
  await server.apply(configMap("churned", "0"));
  const version = ["get", "configmap", "churned", "-n", "default", "-o", "jsonpath={.metadata.resourceVersion}"];
  const old = await server.kubectl(version);
  for (const value of ["1", "2"]) await server.apply(configMap("churned", value));
  await server.compact();
  const watched = await server.kubectl(["get", "--raw", `/api/v1/configmaps?watch=1&resourceVersion=${old}`])
    .catch((error: Error) => error.message);
  assertEquals(watched.includes("410") || watched.includes("Expired") || watched.includes("too old"), true, watched);
});

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
