/** Where the objects come from: a folder of YAML, or a Kubernetes cluster. Both feed the index and the CA's view of nodes. */
import { assert } from "../base/assert.ts";
import type { KubeApi } from "../kube/api.ts";
import type { NodePods } from "./ca/node_pods.ts";
import { kindsOf } from "./cluster/kinds.ts";
import { NamespaceGate } from "./cluster/gate.ts";
import { OwnCluster } from "./cluster/own_cluster.ts";
import type { RemoteListener } from "./cluster/remote_cluster.ts";
import { RemoteClusters, type RemoteStatus } from "./cluster/remote_clusters.ts";
import { FolderSource } from "./folder/folder_source.ts";
import type { ObjectChange } from "./objects.ts";
import type { Part, Role } from "./role.ts";

/** A source of objects. */
export interface Source extends Part {
  /** The keys of all objects that are in force, sorted. */
  objects(): readonly string[];
  /** The remote clusters that are asked for, as `istioctl remote-clusters` reads them. */
  remotes(): readonly RemoteStatus[];
  /** Reads all there is, and goes on following it. @returns Once that is in the index. @throws MeshError AMB0350 */
  start(): Promise<void>;
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
    role.feed.tell(changes);
  };
  const remotes = role.api === undefined ? undefined : openRemotes(role, role.api);
  const source = remotes === undefined ? openFolder(role, onChange) : openCluster(role, remotes, onChange);
  return {
    objects: () => [...keys].sort(),
    remotes: () => remotes?.status() ?? [],
    start: () => source.start(role.signal),
    get stopped() {
      return source.stopped;
    },
  };
}

type OnChange = (changes: readonly ObjectChange[]) => void;

function openRemotes(role: Role, api: KubeApi): RemoteClusters {
  const { config, self, metrics } = role;
  return new RemoteClusters({
    api,
    systemNamespace: self.namespace,
    ownId: config.clusterId,
    folder: config.remoteKubeconfigs,
    kinds: kindsOf({ ignore: config.ignoredResources, include: config.includedResources }),
    open: role.openRemote,
    timeoutMs: config.remoteClusterTimeoutMs,
    listener: new RemoteObjects(role),
    metrics,
    log: role.log.child("cluster"),
  });
}

function openCluster(role: Role, remotes: RemoteClusters, onChange: OnChange): OwnCluster {
  const { config, self, mesh, metrics, readiness } = role, log = role.log.child("cluster");
  const own = new OwnCluster({
    remotes,
    clusterId: config.clusterId,
    systemNamespace: self.namespace,
    revision: self.revision,
    meshConfigFile: config.meshConfigFile,
    sharedMeshConfig: config.sharedMeshConfig,
    metrics,
    readiness,
    log,
    rootNamespace: () => mesh.now.rootNamespace,
    statuses: role.statuses,
    onChange,
  });
  role.clusters.restrict(config.clusterId, (namespace) => own.admits(namespace));
  return own;
}

/** What remote clusters are for: their objects enter the index, if it takes any, and the CA learns whose tokens count and which pods their nodes run (CP-280, CP-482). */
class RemoteObjects implements RemoteListener {
  readonly #role: Role;
  readonly #pods = new Map<string, NodePods>();

  constructor(role: Role) {
    this.#role = role;
  }

  takeOver({ id, api, admits }: Parameters<RemoteListener["takeOver"]>[0]): void {
    this.#pods.set(id, this.#role.clusters.set(id, api, { selects: admits }));
  }

  change(id: string, changes: readonly ObjectChange[]): void {
    const pods = this.#pods.get(id);
    assert(pods !== undefined, "a remote cluster that tells has taken over");
    for (const change of changes) pods.apply(change);
    this.#role.index.apply(changes.map((change) => ({ ...change, cluster: id })));
  }

  gone(id: string): void {
    this.#pods.delete(id);
    this.#role.clusters.remove(id);
    this.#role.index.withdraw(id);
  }
}

function openFolder({ config, metrics, log }: Role, onChange: OnChange): FolderSource {
  const gate = new NamespaceGate();
  gate.open().next(); // Empty yet; from here on it lets through.
  const refusals = metrics.counter("ambit_config_refusals", "Documents of the folder that were refused.");
  const source = new FolderSource(config.configDir ?? "", {
    log: log.child("folder"),
    onChange: (changes) => {
      const settings = changes.findLast(({ kind }) => kind === "MeshConfig"), passing = gate.apply(changes);
      if (settings === undefined) return onChange(passing);
      const selectors = settings.object?.kind === "MeshConfig" ? settings.object.discoverySelectors : [];
      onChange([...passing, ...gate.select(selectors)]);
    },
    onRefused: () => refusals.increment(),
  });
  metrics.gauge("ambit_config_refused_documents", "Documents that are refused now.", () => source.refusals().length);
  return source;
}
