/** Which API servers istiod talks to, and how: its own cluster's by the settings, others by their kubeconfigs. */
import { MeshError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { KubeApi } from "../kube/api.ts";
import type { IstiodConfig } from "./config.ts";

/** An API server's client, and what lets go of its connections. */
export interface OpenedApi {
  readonly api: KubeApi;
  close(): void;
}

/** The API server that the settings name; undefined if they name a folder. @throws MeshError AMB0230 if they name neither. */
export function openOwnApi(config: IstiodConfig, _log: Logger): Promise<OpenedApi | undefined> {
  if (config.configDir !== undefined) return Promise.resolve(undefined);
  throw new MeshError("AMB0230", "nothing says where the Kubernetes objects are", {
    remedy: "give --config-dir a folder of YAML",
  });
}

/** Opens what a remote cluster's kubeconfig names. @returns What throws MeshError if it is not to be used (CP-120). */
export function remoteOpener(
  _config: IstiodConfig,
  _log: Logger,
): (kubeconfig: string, source: string) => Promise<OpenedApi> {
  return (_kubeconfig, source) =>
    Promise.reject(
      new MeshError("AMB0231", `${source} cannot be used: kubeconfigs are not read yet`, {
        remedy: "remove the Secret's label istio/multiCluster",
      }),
    );
}
