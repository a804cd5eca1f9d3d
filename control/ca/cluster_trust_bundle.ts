/** The roots as a ClusterTrustBundle, which pods mount without a ConfigMap of their namespace (CP-512). */
import type { Logger } from "../../base/log.ts";
import type { KubeApi, KubeObject } from "../../kube/api.ts";
import { startInformer } from "../../kube/informer.ts";
import { CLUSTER_TRUST_BUNDLES } from "../../kube/resource_types.ts";
import type { Clock } from "../status/clock.ts";
import type { ControllerMetrics } from "../status/controller_metrics.ts";
import { WorkQueue } from "../status/work_queue.ts";
import type { TrustBundle } from "./trust_bundle.ts";

const OBJECT_NAME = "istio.io:istiod-ca:root-cert";
const SIGNER = "istio.io/istiod-ca";
const NAME = "cluster-trust-bundle";

export interface ClusterTrustBundleOptions {
  readonly api: KubeApi;
  readonly bundle: TrustBundle;
  readonly metrics: ControllerMetrics;
  readonly log: Logger;
  readonly clock?: Clock;
}

/** Keeps the object right until the signal. */
export async function keepClusterTrustBundle(options: ClusterTrustBundleOptions, signal: AbortSignal): Promise<void> {
  const { api, bundle, metrics, log, clock } = options;
  const queue = new WorkQueue({ name: NAME, reconcile: () => write(options), metrics, log, clock });
  metrics.watchQueue(NAME, () => queue.size);
  const look = () => queue.add(OBJECT_NAME);
  const scope = { fieldSelector: `metadata.name=${OBJECT_NAME}` };
  const informer = startInformer(api, CLUSTER_TRUST_BUNDLES, scope, { onChange: look, log }, signal);
  const unsubscribe = bundle.subscribe(look);
  look();
  await queue.run(signal);
  unsubscribe();
  await informer.stopped;
}

/** Throws KubeError and KubeUnreachable. */
async function write({ api, bundle, metrics }: ClusterTrustBundleOptions): Promise<void> {
  const place = { namespace: "", name: OBJECT_NAME }, trustBundle = bundle.now.rootsPem;
  const found = await api.get(CLUSTER_TRUST_BUNDLES, place);
  const spec = specOf(found);
  if (spec.trustBundle === trustBundle && spec.signerName === SIGNER) return;
  const metadata = found?.metadata ?? { name: OBJECT_NAME };
  const { group, version, kind } = CLUSTER_TRUST_BUNDLES;
  const object = { apiVersion: `${group}/${version}`, kind, metadata, spec: { signerName: SIGNER, trustBundle } };
  if (found === undefined) await api.create(CLUSTER_TRUST_BUNDLES, "", object);
  else await api.replace(CLUSTER_TRUST_BUNDLES, place, object);
  metrics.wrote(NAME, "written");
}

function specOf(found: KubeObject | undefined): { trustBundle?: unknown; signerName?: unknown } {
  return typeof found?.spec === "object" && found.spec !== null ? found.spec : {};
}
