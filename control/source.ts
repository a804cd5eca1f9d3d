/** Where the objects come from: a folder of YAML, or a Kubernetes cluster. Both feed the index and the CA's view of nodes. */
import { MeshError } from "../base/errors.ts";
import type { KubeApi } from "../kube/api.ts";
import type { IstiodConfig } from "./config.ts";
import { FolderSource } from "./folder/folder_source.ts";
import type { ObjectChange } from "./objects.ts";
import type { Part, Role } from "./role.ts";

/** A source of objects. */
export interface Source {
  /** The keys of all objects that are in force, sorted. */
  objects(): readonly string[];
  /** Reads all there is, and goes on following it. @returns Once that is in the index. @throws MeshError AMB0350 */
  start(): Promise<Part>;
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
  return { objects: () => [...keys].sort(), start: () => startFolder(role, onChange) };
}

type OnChange = (changes: readonly ObjectChange[]) => void;

async function startFolder({ config, metrics, log, signal }: Role, onChange: OnChange): Promise<Part> {
  const directory = config.configDir ?? "";
  log.info("watching a folder of Kubernetes objects", { directory });
  const refusals = metrics.counter("ambit_config_refusals", "Documents of the folder that were refused.");
  const source = new FolderSource(directory, {
    log: log.child("folder"),
    onChange,
    onRefused: () => refusals.increment(),
  });
  metrics.gauge("ambit_config_refused_documents", "Documents that are refused now.", () => source.refusals().length);
  await source.start(signal);
  return source;
}
