import { assertEquals } from "@std/assert";
import { type ApiServer, startApiServer } from "./api_server.ts";
import { installManifests, Istiod, SYSTEM } from "./istiod.ts";
import { account, namespace, pod } from "./objects.ts";
import { until } from "./until.ts";

const DEADLINE_MS = 180_000;

/** A kubeconfig that holds everything itself, as a Secret's must. */
async function kubeconfigOf(server: ApiServer, user: object): Promise<string> {
  const ca = await Deno.readTextFile(server.rootsPath);
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "far", cluster: { server: server.url, "certificate-authority-data": btoa(ca) } }],
    users: [{ name: "far", user }],
    contexts: [{ name: "far", context: { cluster: "far", user: "far" } }],
    "current-context": "far",
  });
}

function secret(kubeconfig: string): object {
  const metadata = { name: "far", namespace: SYSTEM, labels: { "istio/multiCluster": "true" } };
  return { apiVersion: "v1", kind: "Secret", metadata, stringData: { far: kubeconfig } };
}

Deno.test("istiod serves a second cluster while its Secret is there, by new credentials too, and runs no program of it (CP-120, CP-121)", async () => {
  await using near = await startApiServer({ definitions: ["istio", "gateway"] });
  await using far = await startApiServer();
  await installManifests(near);
  for (const server of [near, far]) await server.apply(namespace("shop"), account("shop", "cart"));
  await near.apply(pod("shop", "near", { ip: "10.0.0.5", account: "cart" }));
  await far.apply(pod("shop", "far", { ip: "10.0.0.6", account: "cart" }), account("shop", "reader"));
  await far.kubectl([
    "create",
    "clusterrolebinding",
    "reader",
    "--clusterrole=cluster-admin",
    "--serviceaccount=shop:reader",
  ]);
  await using istiod = await Istiod.start(near, "istiod-1", ["--multi-network"]);
  const served = async () =>
    /ambit_resources\{type="wds"\} (\d+)/.exec((await istiod.page("/metrics", istiod.monitoringUrl)).text)?.[1];
  const said = async (text: string) => (await istiod.log()).some((line) => line.includes(text));
  const fares = async () =>
    (await istiod.page("/debug/readyz")).text.split("\n").find((line) => line.includes("cluster far"));
  const alone = Number(await served()); // Services that the API server makes by itself are among them.

  await near.apply(secret(await kubeconfigOf(far, { token: await far.accountToken("shop", "reader") })));
  await until(async () => Number(await served()) === alone + 1, "the pod of the second cluster is served", DEADLINE_MS);
  await until(async () => await fares() === "[+]cluster far synced", "its state says so", DEADLINE_MS);

  const exec = { apiVersion: "client.authentication.k8s.io/v1", command: "/bin/true", interactiveMode: "Never" };
  await near.apply(secret(await kubeconfigOf(far, { exec })));
  await until(() => said("remote cluster refused"), "the program is refused", DEADLINE_MS);
  const isRefused = async () => (await fares())?.startsWith("[-]cluster far ") === true;
  await until(isRefused, "its state says that it is refused", DEADLINE_MS);
  assertEquals(Number(await served()), alone + 1);

  await near.apply(secret(await kubeconfigOf(far, { token: await far.accountToken("shop", "reader") })));
  await until(async () => await fares() === "[+]cluster far synced", "the new credentials are used", DEADLINE_MS);
  await far.apply(pod("shop", "later", { ip: "10.0.0.7", account: "cart" }));
  await until(async () => Number(await served()) === alone + 2, "what comes there is followed", DEADLINE_MS);

  await near.kubectl(["delete", "secret", "far", "-n", SYSTEM]);
  await until(async () => Number(await served()) === alone, "the second cluster is gone", DEADLINE_MS);
});
