/** Work that is done for each remote cluster, for as long as it is there: the trust bundle in its namespaces (CP-510). */
import { aborted } from "../../base/waiting.ts";
import type { KubeApi } from "../../kube/api.ts";
import type { CallerClusters } from "./caller_clusters.ts";

/** One cluster's work: with its API server as it is reached now, until the signal. */
export type RemoteWork = (
  cluster: { readonly id: string; readonly api: KubeApi },
  signal: AbortSignal,
) => Promise<void>;

/** Does the work of every remote cluster until the signal. One whose credentials change is begun anew. */
export async function workRemotely(clusters: CallerClusters, work: RemoteWork, signal: AbortSignal): Promise<void> {
  const running = new Map<KubeApi, AbortController>(), ending = new Set<Promise<void>>();
  const follow = () => {
    const wanted = new Map<KubeApi, string>();
    for (const { id, api } of clusters.remotes()) if (api !== undefined) wanted.set(api, id);
    for (const [api, stop] of running) {
      if (wanted.has(api)) continue;
      running.delete(api);
      stop.abort();
    }
    for (const [api, id] of wanted) {
      if (running.has(api)) continue;
      const stop = new AbortController();
      running.set(api, stop);
      const done = work({ id, api }, AbortSignal.any([signal, stop.signal])).finally(() => ending.delete(done));
      ending.add(done);
    }
  };
  const unsubscribe = clusters.subscribe(follow);
  follow();
  await aborted(signal);
  unsubscribe();
  await Promise.all(ending);
}
