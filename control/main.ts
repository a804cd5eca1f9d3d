/** Role istiod: Kubernetes objects in, delta ADS and certificates out. This file is the composition; the parts have their own. */
import type { Logger } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { aborted } from "../base/waiting.ts";
import type { KubeApi } from "../kube/api.ts";
import { AUTHORIZATION_TYPE_URL } from "../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL } from "../mesh/proto/workload_codec.ts";
import { openOwnApi, remoteOpener } from "./api_access.ts";
import { lookAround } from "./listening.ts";
import { AmbientIndex } from "./ambient/index.ts";
import { ambientOptions } from "./ambient/settings.ts";
import { aliasesOf, CallerClusters } from "./ca/caller_clusters.ts";
import type { IstiodConfig } from "./config.ts";
import { addDistribution } from "./distribution.ts";
import { MeshSettings } from "./mesh_settings.ts";
import { Metrics } from "../base/metrics.ts";
import { idleSettings } from "./idle_settings.ts";
import { ObjectFeed } from "./object_feed.ts";
import { Readiness } from "./readiness.ts";
import type { Role } from "./role.ts";
import { openControllers } from "./status/controllers.ts";
import { StatusMirror } from "./status/status_mirror.ts";
import { openXds, startGrpc, startHttp } from "./serving.ts";
import { RevokedCertificates } from "./ca/revoked_certificates.ts";
import { openAuthenticator, openSigning, startRotation } from "./signing.ts";
import { openSource } from "./source.ts";
import { startWebhook } from "./webhook/part.ts";

export interface RoleOptions {
  /** Aborting it stops the role gracefully. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** For tests: stands in for the API server that the settings name. */
  readonly api?: KubeApi;
  /** For tests: the environment, of which settings that do nothing here are told. */
  readonly env?: (name: string) => string | undefined;
  /** For tests: as {@link Role.openRemote}. */
  readonly openRemote?: Role["openRemote"];
}

/** A control plane that is up and serves. */
export interface RunningIstiod {
  readonly secureGrpcPort: number;
  /** Of the plaintext listener; undefined without --grpc-address. */
  readonly grpcPort: number | undefined;
  readonly httpPort: number;
  readonly monitoringPort: number;
  /** The trust bundle that clients need, also in the state folder as root-cert.pem. */
  readonly rootsPem: string;
  /** Resolves when everything is closed after the signal. */
  readonly done: Promise<void>;
}

/** Runs until the signal, which may come before it is ready. @throws MeshError if it cannot start. */
export async function runIstiod(config: IstiodConfig, options: RoleOptions): Promise<void> {
  try {
    const running = await startIstiod(config, options);
    await running.done;
  } catch (error) {
    if (!options.signal.aborted) throw error;
    options.log.info("istiod ended before it was ready");
  }
}

/** Starts the role and returns once it serves (CP-011). @throws MeshError if it cannot, or the signal's reason. */
export async function startIstiod(config: IstiodConfig, options: RoleOptions): Promise<RunningIstiod> {
  const own = new AbortController(), ending = new AsyncDisposableStack();
  const signal = AbortSignal.any([options.signal, own.signal]);
  try {
    return await start(config, { ...options, signal }, ending);
  } catch (error) {
    own.abort(); // Ends what was started before the step that failed.
    await ending.disposeAsync();
    throw error;
  }
}

/** @param ending what is waited for at the end, the last started first; all of it ends with the signal. */
async function start(
  config: IstiodConfig,
  options: RoleOptions,
  ending: AsyncDisposableStack,
): Promise<RunningIstiod> {
  const startedAtMs = performance.now();
  const own = options.api === undefined ? await openOwnApi(config, options.log) : { api: options.api, close: () => {} };
  ending.defer(() => own?.close());
  const role = await makeRole(config, options, own?.api), { log, self, readiness, signal } = role;
  log.info("istiod starts", { version: VERSION, clusterId: config.clusterId, ...self });
  for (const idle of idleSettings(options.env ?? ((name) => Deno.env.get(name)), config)) {
    log.warn("a setting is ignored", { ...idle });
  }
  const source = openSource(role), controllers = openControllers(role);
  const revoked = new RevokedCertificates();
  const authenticator = await openAuthenticator(role, revoked);
  const xds = openXds(role, authenticator, source, () => controllers?.leaders() ?? []);
  ending.defer(() => xds.close()); // A start that fails leaves no push to come.

  // Probes first (CP-011): they say 503 until everything that is there is in the index, and may be served.
  const http = await startHttp(role, xds, authenticator);
  ending.defer(() => http.stopped);
  ending.defer(() => source.stopped);
  await source.start();
  const signing = await openSigning(role, authenticator, revoked); // Now that the mesh's name and its own address are known.
  const rotation = startRotation(role, signing);
  ending.defer(() => rotation.stopped);
  const grpc = await startGrpc(role, xds, signing);
  let stopping: Promise<void> | undefined;
  const stopStreams = () => {
    xds.close();
    return stopping ??= grpc.stop();
  };
  ending.defer(stopStreams);
  const webhook = await startWebhook(role, signing);
  ending.defer(() => webhook?.stopped);
  readiness.open();
  if (controllers !== undefined) addDistribution(controllers, role, signing);
  controllers?.start();
  ending.defer(() => controllers?.stopped);
  const { secureGrpcPort, grpcPort } = grpc, { trustDomain, rootNamespace } = role.mesh.now;
  const objects = source.objects().length, tookMs = Math.round(performance.now() - startedAtMs);
  log.info("istiod is ready", { secureGrpcPort, trustDomain, rootNamespace, objects, tookMs });

  const stop = async () => {
    readiness.close();
    log.info("istiod stops");
    await stopStreams(); // First: clients that are told early are with another istiod when the rest has ended (CP-660).
    await ending.disposeAsync();
  };
  const { httpPort, monitoringPort } = http, { rootsPem } = signing.authority.material;
  return { secureGrpcPort, grpcPort, httpPort, monitoringPort, rootsPem, done: aborted(signal).then(stop) };
}

async function makeRole(config: IstiodConfig, options: RoleOptions, api: KubeApi | undefined): Promise<Role> {
  const { signal, log } = options, { clusterId, trustDomain, network, rootNamespace, revision } = config;
  const around = await lookAround(api !== undefined);
  const self = {
    namespace: config.systemNamespace ?? rootNamespace,
    podName: config.podName ?? Deno.hostname(),
    revision,
  };
  const { clusterDomain } = config, multiNetwork = config.multiNetwork && config.ambient;
  const systemNamespace = self.namespace;
  const ambient = { clusterId, network, trustDomain, rootNamespace, systemNamespace, revision, clusterDomain };
  const index = new AmbientIndex({ ...ambient, multiNetwork, ...ambientOptions(config) }, log.child("ambient"));
  const metrics = new Metrics();
  describeMetrics(metrics, { index, startedAtMs: Date.now() });
  const clusters = new CallerClusters(clusterId, aliasesOf(config.clusterAliases)), readiness = new Readiness();
  const pods = clusters.set(clusterId, api), mesh = new MeshSettings({ trustDomain, rootNamespace });
  const openRemote = options.openRemote ?? remoteOpener(config, log);
  const feed = new ObjectFeed(), statuses = new StatusMirror();
  const parts = { index, feed, statuses, mesh, pods, clusters, readiness, metrics };
  return { config, self, around, api, openRemote, ...parts, log, signal };
}

function describeMetrics(metrics: Metrics, { index, startedAtMs }: { index: AmbientIndex; startedAtMs: number }): void {
  metrics.gauge("istiod_uptime_seconds", "Seconds since the start.", () => (Date.now() - startedAtMs) / 1_000);
  metrics.gauge("pilot_info", "Version.", () => [[{ version: VERSION }, 1]]);
  metrics.gauge("pilot_services", "Services of the mesh.", () => index.graph.services.size);
  metrics.gauge("ambit_resources", "Resources served, by type.", () => [
    [{ type: "wds" }, count(index.all(ADDRESS_TYPE_URL))],
    [{ type: "wads" }, count(index.all(AUTHORIZATION_TYPE_URL))],
  ]);
}

function count(items: Iterable<unknown>): number {
  let found = 0;
  for (const _ of items) found++;
  return found;
}
