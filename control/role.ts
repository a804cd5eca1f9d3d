/** What the parts of role istiod share. Each part is a `start…` or `open…` function that takes it and ends with its signal. */
import type { Logger } from "../base/log.ts";
import type { KubeApi } from "../kube/api.ts";
import type { OpenedApi } from "./api_access.ts";
import type { Surroundings } from "./listening.ts";
import type { AmbientIndex } from "./ambient/index.ts";
import type { CallerClusters } from "./ca/caller_clusters.ts";
import type { NodePods } from "./ca/node_pods.ts";
import type { IstiodConfig } from "./config.ts";
import type { MeshSettings } from "./mesh_settings.ts";
import type { Metrics } from "../base/metrics.ts";
import type { ObjectFeed } from "./object_feed.ts";
import type { Readiness } from "./readiness.ts";
import type { StatusMirror } from "./status/status_mirror.ts";

/** Who this istiod is, to its cluster and to other istiods. */
export interface Self {
  /** The system namespace: what istiod writes and reads for itself is there. */
  readonly namespace: string;
  readonly podName: string;
  /** Empty if there is but one. */
  readonly revision: string;
}

export interface Role {
  readonly config: IstiodConfig;
  readonly self: Self;
  /** For {@link listenOn}. */
  readonly around: Surroundings;
  /** The API server; undefined with a folder of files, where nothing can be asked or written. */
  readonly api: KubeApi | undefined;
  /** Opens the API server that a remote cluster's kubeconfig names. @throws MeshError if it is not to be used. */
  readonly openRemote: (kubeconfig: string, source: string) => Promise<OpenedApi>;
  readonly index: AmbientIndex;
  /** What changed in the index, batch by batch. */
  readonly feed: ObjectFeed;
  /** The status that objects of our own cluster have now. */
  readonly statuses: StatusMirror;
  /** The mesh's own settings, live; the index follows them by itself. */
  readonly mesh: MeshSettings;
  /** Which pods a node runs, for the CA: those of our own cluster, among {@link Role.clusters}. */
  readonly pods: NodePods;
  /** The clusters whose tokens and pods the CA believes. */
  readonly clusters: CallerClusters;
  readonly readiness: Readiness;
  readonly metrics: Metrics;
  /** A part makes its own child of it. */
  readonly log: Logger;
  /** Aborted when the role stops, and when its start fails. */
  readonly signal: AbortSignal;
}

/** A part that runs until the role's signal. */
export interface Part {
  /** Resolves once it has let go of all it had, after the signal. */
  readonly stopped: Promise<void>;
}
