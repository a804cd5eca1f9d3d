/** Where the objects come from: a folder of YAML, or a Kubernetes cluster. Both feed the index and the CA's view of nodes. */
import { MeshError } from "../base/errors.ts";
import type { KubeApi } from "../kube/api.ts";
import { OwnCluster } from "./cluster/own_cluster.ts";
import type { IstiodConfig } from "./config.ts";
import { FolderSource } from "./folder/folder_source.ts";
import type { ObjectChange } from "./objects.ts";
import type { Part, Role } from "./role.ts";

/** A source of objects. */
export interface Source extends Part {
  /** The keys of all objects that are in force, sorted. */
  objects(): readonly string[];
  /** Reads all there is, and goes on following it. @returns Once that is in the index. @throws MeshError AMB0350 */
  start(): Promise<void>;
}

/** The API server that the settings name; undefined if they name a folder. @throws MeshError AMB0230 if they name neither. */
export function openApi(config: IstiodConfig): KubeApi | undefined {
  if (config.configDir !== undefined) return undefined;
  throw new MeshError("AMB0230", "nothing says where the Kubernetes objects are", {
    remedy: "give --config-dir a folder of YAML",
  });
}

/** The source that the settings name, not started. */
export function openSource(role: Role): Source {
  const keys = new Set<string>();
  const onChange = (changes: readonly ObjectChange[]) => {
    for (const change of changes) {
      if (change.object === undefined) keys.delete(change.key);
      else keys.add(change.key);
      role.pods.apply(change);
    }
    role.mesh.apply(changes);
    role.index.apply(changes);
  };
  const source = role.api === undefined ? openFolder(role, onChange) : openCluster(role, role.api, onChange);
  return {
    objects: () => [...keys].sort(),
    start: () => source.start(role.signal),
    get stopped() {
      return source.stopped;
    },
  };
}

type OnChange = (changes: readonly ObjectChange[]) => void;

function openCluster(role: Role, api: KubeApi, onChange: OnChange): OwnCluster {
  const { config, self, mesh, metrics, readiness } = role;
  return new OwnCluster({
    api,
    clusterId: config.clusterId,
    systemNamespace: self.namespace,
    revision: self.revision,
    meshConfigFile: config.meshConfigFile,
    sharedMeshConfig: config.sharedMeshConfig,
    ignoredResources: config.ignoredResources,
    includedResources: config.includedResources,
    metrics,
    readiness,
    log: role.log.child("cluster"),
    rootNamespace: () => mesh.now.rootNamespace,
    onChange,
  });
}

function openFolder({ config, metrics, log }: Role, onChange: OnChange): FolderSource {
  const refusals = metrics.counter("ambit_config_refusals", "Documents of the folder that were refused.");
  const source = new FolderSource(config.configDir ?? "", {
    log: log.child("folder"),
    onChange,
    onRefused: () => refusals.increment(),
  });
  metrics.gauge("ambit_config_refused_documents", "Documents that are refused now.", () => source.refusals().length);
  return source;
}
