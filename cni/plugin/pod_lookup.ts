/** Asks the API server about a pod, by the kubeconfig that the agent keeps in its run folder (CNI-007). */
import { KUBECONFIG_FILE, parsePluginKubeconfig } from "../kubeconfig_file.ts";
import { factsOf, nodePodOf } from "../kubernetes/node_pod.ts";
import type { Texts } from "../enablement.ts";
import { openKubeApi } from "../../kube/client.ts";
import { NAMESPACES, PODS } from "../../kube/resource_types.ts";
import type { Logger } from "../../base/log.ts";
import type { PodLookup } from "./plugin.ts";
import type { PluginConfig } from "./plugin_config.ts";

/** Reads the kubeconfig anew for each look: its token is renewed under us. */
export function kubePodLookup(log: Logger): (config: PluginConfig) => PodLookup {
  return ({ runDir }) => ({
    async pod(namespace, name) {
      const api = openKubeApi(parsePluginKubeconfig(await Deno.readTextFile(`${runDir}/${KUBECONFIG_FILE}`)), { log });
      try {
        const [object, space] = await Promise.all([
          api.get(PODS, { namespace, name }),
          api.get(NAMESPACES, { namespace: "", name: namespace }),
        ]);
        const pod = object && nodePodOf(object);
        return pod && space && factsOf(pod, (space.metadata.labels ?? {}) as Texts);
      } finally {
        api.close();
      }
    },
  });
}
