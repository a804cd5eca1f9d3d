/** Which API servers istiod talks to, and how: its own cluster's by the settings, others by their kubeconfigs. */
import { MeshError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { KubeAccess } from "../kube/access.ts";
import type { KubeApi } from "../kube/api.ts";
import { openKubeApi } from "../kube/client.ts";
import { inClusterAccess, isInCluster } from "../kube/in_cluster.ts";
import { kubeconfigAccess, loadKubeconfig } from "../kube/kubeconfig_access.ts";
import type { IstiodConfig } from "./config.ts";

/** An API server's client, and what lets go of its connections. */
export interface OpenedApi {
  readonly api: KubeApi;
  close(): void;
}

/**
 * The API server that the settings name; undefined if they name a folder.
 * @throws MeshError AMB0230 if they name neither, AMB0800 to AMB0807 if what they name cannot be used
 */
export async function openOwnApi(
  config: Pick<IstiodConfig, "configDir" | "kubeconfig">,
  log: Logger,
): Promise<OpenedApi | undefined> {
  return config.configDir === undefined ? await openApi(config, log) : undefined;
}

/** A cluster's API server: of a kubeconfig, or of the pod that this runs in. @throws MeshError as {@link openOwnApi}. */
export async function openApi(
  { kubeconfig, context }: { readonly kubeconfig: string | undefined; readonly context?: string },
  log: Logger,
): Promise<OpenedApi> {
  if (kubeconfig !== undefined) return open(await loadKubeconfig(kubeconfig, context), log);
  if (isInCluster(Deno.env.toObject())) return open(await inClusterAccess(), log);
  throw new MeshError("AMB0230", "nothing says where the Kubernetes objects are", {
    remedy: "run it in a pod of a cluster, or give --kubeconfig a file, or --config-dir a folder of YAML",
  });
}

/** Opens what a remote cluster's kubeconfig names. @returns What throws MeshError if it is not to be used (CP-120). */
export function remoteOpener(
  config: IstiodConfig,
  log: Logger,
): (kubeconfig: string, source: string) => Promise<OpenedApi> {
  const allowed = new Set(config.insecureKubeconfigOptions);
  return async (kubeconfig, source) => open(await kubeconfigAccess(kubeconfig, { source, allowed }), log);
}

function open(access: KubeAccess, log: Logger): OpenedApi {
  const api = openKubeApi(access, { log: log.child("kube") });
  log.info("the API server is chosen", { source: access.source, server: access.server.host });
  return { api, close: () => api.close() };
}
