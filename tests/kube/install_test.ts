/** `ambit install` and `uninstall` against a real API server: every object is one that it takes, again and again (CNI-032, CNI-050). */
import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { selectingNothing } from "../../cli/install/agent_selector.ts";
import { applyAll } from "../../cli/install/apply.ts";
import { placeText, typeOf } from "../../cli/install/kinds.ts";
import { fitManifests, readManifests } from "../../cli/install/manifests.ts";
import { profileOf } from "../../cli/install/profiles.ts";
import { removeAll } from "../../cli/install/remove.ts";
import { openKubeApi } from "../../kube/client.ts";
import { loadKubeconfig } from "../../kube/kubeconfig_access.ts";
import { DAEMON_SETS, DEPLOYMENTS } from "../../kube/resource_types.ts";
import { startApiServer } from "./api_server.ts";

Deno.test("a real API server takes every object of the installation, twice, and gives them all up again", async () => {
  await using server = await startApiServer({ definitions: ["istio"] });
  const client = openKubeApi(await loadKubeconfig(server.kubeconfig), { log: new Logger("kube", { sink: () => {} }) });
  using api = Object.assign(client, { [Symbol.dispose]: () => client.close() });
  const said: string[] = [];
  let nowMs = 0;
  const options = {
    waitMs: 60_000,
    say: (line: string) => void said.push(line),
    now: () => nowMs,
    /** No controllers run here: what they would write is written while somebody waits. */
    async sleep(ms: number) {
      nowMs += ms;
      for (const type of [DEPLOYMENTS, DAEMON_SETS]) {
        for (const { metadata, spec } of (await api.list(type, {}, { limit: 100 })).items) {
          const { generation: observedGeneration, namespace, name } = metadata as {
            generation: number;
            namespace: string;
            name: string;
          };
          const replicas = (spec as { replicas?: number }).replicas ?? 1;
          const status = type === DAEMON_SETS
            ? {
              observedGeneration,
              currentNumberScheduled: 1,
              numberMisscheduled: 0,
              desiredNumberScheduled: 1,
              updatedNumberScheduled: 1,
              numberReady: 1,
            }
            : { observedGeneration, replicas, updatedReplicas: replicas, readyReplicas: replicas };
          await api.patch(type, { namespace, name, subresource: "status" }, { status });
        }
      }
    },
  };
  const profile = profileOf("microk8s"), image = "registry.example/ambit:1";
  const objects = fitManifests(readManifests(), { namespace: "mesh-system", image, profile });
  await applyAll(api, objects, options);
  assertEquals(said.filter((line) => line.startsWith("note:")), [], "the CRDs are there");
  await applyAll(api, objects, options);
  const find = (object: typeof objects[number]) => {
    const { namespace = "", name } = object.metadata;
    return api.get(typeOf(object), { namespace, name });
  };
  for (const object of objects) assert(await find(object) !== undefined, placeText(object));
  const agent = await api.get(DAEMON_SETS, { namespace: "mesh-system", name: "istio-cni-node" });
  assert(JSON.stringify(agent).includes(profile.confDir!) && JSON.stringify(agent).includes(image));
  // An uninstallation that was broken off while pods left the mesh: installing again has them in it again.
  const place = { namespace: "mesh-system", name: "istio-cni-node" };
  await api.replace(DAEMON_SETS, place, selectingNothing((await api.get(DAEMON_SETS, place))!));
  assert(JSON.stringify(await api.get(DAEMON_SETS, place)).includes("AMBIENT_ENABLEMENT_SELECTOR"));
  await applyAll(api, objects, options);
  assert(!JSON.stringify(await api.get(DAEMON_SETS, place)).includes('AMBIENT_ENABLEMENT_SELECTOR","value"'));
  await removeAll(api, objects, { ...options, namespace: "mesh-system", unmeshPods: true, purge: false });
  for (const object of objects) {
    assertEquals(await find(object) !== undefined, object.kind === "Namespace", placeText(object));
  }
});
