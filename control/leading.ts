/** What one istiod of several does for all: each job has a lock, and whoever holds it works (CP-650). */
import { BundleDistributor } from "./ca/bundle_distributor.ts";
import { keepClusterTrustBundle } from "./ca/cluster_trust_bundle.ts";
import { anySelectorMatches } from "./label_selector.ts";
import type { Part, Role } from "./role.ts";
import type { Signing } from "./signing.ts";
import { ControllerMetrics } from "./status/controller_metrics.ts";
import { runElection } from "./status/election.ts";
import { type Lock, NAMESPACE_LOCK } from "./status/locks.ts";

/** A lock, and the work of who holds it, until the signal. */
interface Job {
  readonly lock: Lock;
  readonly lead: (signal: AbortSignal) => Promise<void>;
}

/** Takes part in the elections; with a folder there is nothing to write and nobody to agree with. */
export function startLeading(role: Role, signing: Signing): Part {
  const { api, config, self, signal } = role, log = role.log.child("leading");
  if (api === undefined) return { stopped: Promise.resolve() };
  const metrics = new ControllerMetrics(role.metrics);
  const jobs: readonly Job[] = [distribution(role, signing, metrics)];
  const elections = jobs.map(({ lock, lead }) =>
    runElection({
      api,
      lock,
      identity: self.podName,
      namespace: self.namespace,
      revision: self.revision,
      enabled: config.leaderElection,
      onLead: lead,
      log,
    }, signal)
  );
  return { stopped: Promise.all(elections).then(() => {}) };
}

/** The trust bundle in every namespace, and as an object of the cluster where that is asked for (CP-510 to CP-512). */
function distribution({ api, config, mesh, log }: Role, { bundle }: Signing, metrics: ControllerMetrics): Job {
  const options = { api: api!, bundle, metrics, log: log.child("ca") };
  const distributor = {
    ...options,
    selects: (labels: ReadonlyMap<string, string>) => anySelectorMatches(mesh.now.discoverySelectors, labels),
    onSelectors: (listener: () => void) => mesh.subscribe(listener),
    revocations: config.revocations,
  };
  const lead = async (signal: AbortSignal) => {
    const work = [new BundleDistributor(distributor).run(signal)];
    if (config.clusterTrustBundles) work.push(keepClusterTrustBundle(options, signal));
    await Promise.all(work);
  };
  return { lock: NAMESPACE_LOCK, lead };
}
