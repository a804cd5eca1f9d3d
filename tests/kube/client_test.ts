/** The client and its informers against a real API server; the same cases hold the one in memory to what this one does. */
import { assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { KubeUnreachable } from "../../kube/api.ts";
import { openKubeApi } from "../../kube/client.ts";
import { Mirror, until } from "../../kube/informer_testing.ts";
import { loadKubeconfig } from "../../kube/kubeconfig_access.ts";
import { CONFIG_MAPS, NAMESPACES } from "../../kube/resource_types.ts";
import { RIG_CASES } from "../../kube/rig_testing.ts";
import { type ApiServer, startApiServer } from "./api_server.ts";
import type { EtcdVersion } from "./parts.ts";

async function clientOf(server: ApiServer, kubeconfig = server.kubeconfig) {
  const api = openKubeApi(await loadKubeconfig(kubeconfig), { log: new Logger("kube", { sink: () => {} }) });
  return Object.assign(api, { [Symbol.dispose]: () => api.close() });
}

for (const etcd of ["3.6", "3.4"] as readonly EtcdVersion[]) {
  Deno.test(`every KubeApi does as a real API server on etcd ${etcd}`, async (t) => {
    await using server = await startApiServer({ etcd, definitions: ["istio"] });
    using api = await clientOf(server);
    for (const [row, { name, run, needsStreamingLists }] of RIG_CASES.entries()) {
      if (etcd === "3.4" && needsStreamingLists === true) continue; // What it does instead is the informer's to bear.
      const namespace = `rig-${row}`;
      await api.create(NAMESPACES, "", { metadata: { name: namespace } });
      await t.step(name, () => run({ api, namespace }));
    }
  });

  Deno.test(`an informer follows a real API server on etcd ${etcd} through its restart (CP-101, CP-102)`, async () => {
    await using server = await startApiServer({ etcd, watchCache: false, users: ["guest"] });
    using api = await clientOf(server);
    const scope = { namespace: "default", labelSelector: "mine" };
    const map = (name: string) => ({
      metadata: { name, labels: { mine: "" } },
      data: { at: String(performance.now()) },
    });
    const remove = (name: string) => api.delete(CONFIG_MAPS, { namespace: "default", name });
    for (const name of ["same", "gone"]) await api.create(CONFIG_MAPS, "default", map(name));
    await using mirror = new Mirror(api, CONFIG_MAPS, scope, {
      sleep: () => new Promise((resolve) => setTimeout(resolve, 100)),
    });
    await mirror.informer.synced;
    assertEquals(mirror.takeTold().sort(), ["+gone", "+same"]);
    await api.create(CONFIG_MAPS, "default", map("new"));
    await mirror.untilNames("same", "gone", "new");
    mirror.takeTold();
    const { lists } = mirror.informer.status();

    await server.apiServer.kill();
    await until("it is in trouble", () => mirror.informer.status().trouble !== undefined);
    await server.apiServer.start();
    await until("it is well", () => mirror.informer.status().trouble === undefined);
    await remove("gone");
    await mirror.untilNames("same", "new");
    assertEquals(mirror.takeTold(), ["-gone"]);
    assertEquals(mirror.informer.status().lists, lists, "the version it had still holds");

    using guest = await clientOf(server, `${server.folder}/guest.kubeconfig`);
    await using refused = new Mirror(guest, CONFIG_MAPS, scope, {
      sleep: () => new Promise((resolve) => setTimeout(resolve, 50)),
    });
    await until("it is refused", () => refused.informer.status().trouble?.status === 403);
    assertEquals([refused.informer.status().synced, refused.logged.length], [false, 1]);
  });
}

Deno.test("a version that etcd has compacted is answered with 410, and an informer lists again and tells what differs (CP-101)", async () => {
  await using server = await startApiServer({ watchCache: false });
  using api = await clientOf(server);
  const map = (name: string) => ({ metadata: { name, labels: { mine: "" } } });
  for (const name of ["same", "gone"]) await api.create(CONFIG_MAPS, "default", map(name));
  // It watches through a client that can be cut off, while another one changes what is there.
  using cut = await clientOf(server);
  let isCut = false;
  const through = {
    ...cut,
    list: cut.list.bind(cut),
    watch: (...args: Parameters<typeof cut.watch>) => {
      if (isCut) throw new KubeUnreachable("cut off by the test");
      return cut.watch(...args);
    },
  } as typeof cut;
  const scope = { namespace: "default", labelSelector: "mine" };
  await using mirror = new Mirror(through, CONFIG_MAPS, scope, {
    sleep: () => new Promise((resolve) => setTimeout(resolve, 50)),
  });
  await mirror.untilNames("same", "gone");
  mirror.takeTold();
  isCut = true;
  cut.close();
  await until("it is cut off", () => mirror.informer.status().trouble !== undefined);
  await api.delete(CONFIG_MAPS, { namespace: "default", name: "gone" });
  await api.create(CONFIG_MAPS, "default", map("new"));
  await server.compact();
  isCut = false;
  await mirror.untilNames("same", "new");
  assertEquals(mirror.takeTold().sort(), ["+new", "-gone"]);
  assertEquals(mirror.informer.status().lists, 2);
});
