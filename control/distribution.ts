/** The trust bundle in every namespace, and as an object of the cluster where that is asked for: the leader's work (CP-510 to CP-512). */
import { BundleDistributor } from "./ca/bundle_distributor.ts";
import { keepClusterTrustBundle } from "./ca/cluster_trust_bundle.ts";
import { type RemoteWork, workRemotely } from "./ca/remote_bundles.ts";
import { anySelectorMatches } from "../kube/label_selector.ts";
import type { Role } from "./role.ts";
import type { Signing } from "./signing.ts";
import type { Controllers } from "./status/controllers.ts";
import { NAMESPACE_LOCK } from "./status/locks.ts";

/** Adds it to what one istiod of several does. */
export function addDistribution(controllers: Controllers, role: Role, { bundle }: Signing): void {
  const { config, mesh, clusters, log } = role;
  controllers.add(NAMESPACE_LOCK, (api, metrics) => {
    const options = { api, bundle, metrics, log: log.child("ca") };
    const distributor = {
      ...options,
      selects: (labels: ReadonlyMap<string, string>) => anySelectorMatches(mesh.now.discoverySelectors, labels),
      onSelectors: (listener: () => void) => mesh.subscribe(listener),
      revocations: config.revocations,
    };
    return async (signal) => {
      const work = [new BundleDistributor(distributor).run(signal)];
      if (config.externalIstiod) {
        const remotely: RemoteWork = ({ id: cluster, api }, end) =>
          new BundleDistributor({ ...distributor, api, cluster }).run(end);
        work.push(workRemotely(clusters, remotely, signal));
      }
      if (config.clusterTrustBundles) work.push(keepClusterTrustBundle(options, signal));
      await Promise.all(work);
    };
  });
}
