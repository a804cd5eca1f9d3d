/** The cluster of the configuration as a source of objects: its mesh settings, its kinds, and how all of it fares. */
import type { Logger } from "../../base/log.ts";
import { CONFIG_MAPS } from "../../kube/resource_types.ts";
import type { Labels as MetricLabels, Metrics } from "../../base/metrics.ts";
import type { MeshConfigObject, ObjectChange } from "../objects.ts";
import type { Readiness, ReadinessLine } from "../readiness.ts";
import type { Part } from "../role.ts";
import type { StatusMirror } from "../status/status_mirror.ts";
import { ClusterSource } from "./cluster_source.ts";
import type { KindStatus } from "./kind_watch.ts";
import { resourceName } from "./kinds.ts";
import { configMapName, MeshConfigWatch } from "./mesh_config_watch.ts";
import type { RemoteClusters } from "./remote_clusters.ts";
import type { WatchHealth } from "./trouble_log.ts";

export interface OwnClusterOptions {
  readonly clusterId: string;
  readonly systemNamespace: string;
  readonly revision: string;
  readonly meshConfigFile: string;
  readonly sharedMeshConfig: string;
  readonly metrics: Metrics;
  readonly readiness: Readiness;
  readonly log: Logger;
  /** The namespace whose policies hold for the mesh, as settings have it now. */
  readonly rootNamespace: () => string;
  readonly onChange: (changes: readonly ObjectChange[]) => void;
  /** Is told of the status of objects. */
  readonly statuses?: StatusMirror;
  /** The clusters that Secrets of this one name; by it this one is read, too. */
  readonly remotes: RemoteClusters;
}

/** Construct it, then {@link start} it. */
export class OwnCluster implements Part {
  readonly #options: OwnClusterOptions;
  readonly #source: ClusterSource;
  readonly #settings: MeshConfigWatch;
  readonly #shutOut: ShutOut;
  #open = false;

  constructor(options: OwnClusterOptions) {
    this.#options = options;
    const { log, metrics } = options, { api, kinds, syncErrors } = options.remotes;
    const refusals = metrics.counter("ambit_kube_refusals", "Objects that could not be read.", { labelled: true });
    this.#source = new ClusterSource({
      api,
      kinds,
      log,
      onChange: (changes) => this.#tell(changes),
      onRefused: (kind) => refusals.increment({ kind }),
      onTrouble: () => syncErrors.increment({ cluster: options.clusterId }),
      statuses: options.statuses,
      others: () => [this.#settingsHealth(), options.remotes.health()],
    });
    this.#settings = new MeshConfigWatch({
      api,
      log,
      namespace: options.systemNamespace,
      name: configMapName(options.revision),
      sharedName: options.sharedMeshConfig,
      file: options.meshConfigFile,
      onChange: (change) => this.#configure(change),
    });
    this.#shutOut = new ShutOut(options);
    describe(metrics, options.clusterId, () => this.#source.status());
    options.readiness.report(() => [
      this.#settingsLine(),
      ...this.#source.status().map(lineOf),
      ...options.remotes.lines(),
    ]);
  }

  /** Reads all there is, and follows it until the signal. @returns Once that has been told. */
  async start(signal: AbortSignal): Promise<void> {
    const { log, clusterId: cluster, remotes } = this.#options, startedAtMs = performance.now();
    log.info("watching a cluster", { cluster, kinds: this.#source.status().map(({ kind }) => kind).join(",") });
    await this.#settings.start(signal);
    this.#source.start(signal);
    remotes.start(signal);
    await Promise.all([this.#settings.settled, this.#source.settled, remotes.settled]);
    this.#open = true;
    await this.#source.open();
    signal.throwIfAborted();
    for (const { kind, state, objects, refused, tookMs = 0 } of this.#source.status()) {
      if (state === "absent") log.info("kind is not in the cluster", { kind });
      else log.info("kind read", { kind, objects, refused, tookMs: Math.round(tookMs) });
    }
    log.info("cluster read", { cluster, tookMs: Math.round(performance.now() - startedAtMs) });
  }

  get stopped(): Promise<void> {
    return Promise.all([this.#source.stopped, this.#settings.stopped, this.#options.remotes.stopped]).then(() => {});
  }

  /** Whether the discovery selectors let a namespace in. */
  admits(namespace: string): boolean {
    return this.#source.admits(namespace);
  }

  #tell(changes: readonly ObjectChange[]): void {
    this.#options.onChange(changes);
    if (this.#open && changes.some(({ kind }) => kind === "Namespace" || kind === "MeshConfig")) {
      this.#shutOut.look((namespace) => this.#source.admits(namespace));
    }
  }

  #configure(change: ObjectChange): void {
    const { discoverySelectors } = change.object as MeshConfigObject; // The settings are edited, and never go.
    this.#tell([change, ...this.#source.select(discoverySelectors)]);
    this.#options.remotes.select(discoverySelectors);
  }

  #settingsHealth(): WatchHealth {
    const known = this.#settings.known;
    const consequence = known ? "its last known settings stay in force" : "istiod does not get ready without it";
    return {
      type: CONFIG_MAPS,
      namespace: this.#options.systemNamespace,
      trouble: this.#settings.trouble(),
      consequence,
    };
  }

  #settingsLine(): ReadinessLine {
    const trouble = this.#settings.trouble(), known = this.#settings.known;
    const detail = trouble?.error ?? (known ? "" : "not read yet, or cannot be read");
    return { name: "MeshConfig", well: known && trouble === undefined, detail };
  }
}

/** Says that a namespace of the mesh itself is shut out: policies for the mesh are as good as deleted then (CP-104). */
class ShutOut {
  readonly #options: OwnClusterOptions;
  readonly #said = new Set<string>();

  constructor(options: OwnClusterOptions) {
    this.#options = options;
  }

  look(admits: (namespace: string) => boolean): void {
    const { log, rootNamespace, systemNamespace } = this.#options, root = rootNamespace();
    for (const namespace of new Set([root, systemNamespace])) {
      if (admits(namespace)) {
        this.#said.delete(namespace);
        continue;
      }
      if (this.#said.has(namespace)) continue;
      this.#said.add(namespace);
      log.warn("the discovery selectors shut out a namespace of the mesh itself", {
        namespace,
        consequence: namespace === root ? "policies for the whole mesh are not in force" : "its objects are not read",
        fix: "label it so that one of meshConfig.discoverySelectors matches",
      });
    }
  }
}

/** The metrics of a cluster's kinds. */
function describe(metrics: Metrics, cluster: string, status: () => readonly KindStatus[]): void {
  const gauge = (name: string, help: string, read: (status: KindStatus) => number) => {
    metrics.gauge(
      name,
      help,
      () => status().map((it): [MetricLabels, number] => [{ cluster, kind: it.kind }, read(it)]),
    );
  };
  gauge(
    "ambit_kube_watch_trouble",
    "1 while a kind cannot be listed or watched.",
    (it) => it.trouble === undefined ? 0 : 1,
  );
  gauge("ambit_kube_objects", "Objects of a kind that the API server has told of.", (it) => it.objects);
  gauge("ambit_kube_refused_objects", "Objects that are not in force as written.", (it) => it.refused);
}

function lineOf(status: KindStatus): ReadinessLine {
  const { kind, state, trouble } = status;
  return { name: kind, well: state !== "waiting" && trouble === undefined, detail: detailOf(status) };
}

function detailOf({ row, state, trouble, objects, refused, tookMs }: KindStatus): string {
  if (trouble !== undefined) return `${resourceName(row.type)}: ${trouble.error} (status ${trouble.status})`;
  if (state === "absent") return "not in the cluster";
  if (state === "waiting") return "not read yet";
  const bad = refused === 0 ? "" : `, ${refused} refused`;
  return `${objects} objects${bad}, read in ${Math.round(tookMs ?? 0)} ms`;
}
