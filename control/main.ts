/** Role istiod: a folder of Kubernetes objects in, delta ADS and certificates out. */
import type { Logger } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { AUTHORIZATION_TYPE_URL } from "../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL } from "../mesh/proto/workload_codec.ts";
import { AmbientIndex } from "./ambient/index.ts";
import { CertificateAuthority } from "./ca/authority.ts";
import { addCertificateService } from "./ca/ca_grpc.ts";
import { Authenticator } from "./ca/caller.ts";
import { CertificateService } from "./ca/certificate_service.ts";
import { type KeyMaterial, loadPluggedIn, loadSelfSigned } from "./ca/key_material.ts";
import { watchMaterial } from "./ca/material_watch.ts";
import { NodePods } from "./ca/node_pods.ts";
import { openStateFolder, publishFile } from "./ca/state_files.ts";
import type { IstiodConfig } from "./config.ts";
import { serveDebugPages } from "./debug_pages.ts";
import { FolderSource } from "./folder/folder_source.ts";
import { Metrics } from "./metrics.ts";
import type { ObjectChange } from "./objects.ts";
import { TokenIssuer } from "./tokens.ts";
import { AdsService } from "./xds/ads_service.ts";
import { Debouncer } from "./xds/debounce.ts";
import type { ResourceChange } from "./xds/resources.ts";
import { createServer, ListenerCredentials, listenSecure, type ServerTls, stopServer } from "./xds/secure_server.ts";

export interface RoleOptions {
  /** Aborting it stops the role gracefully. */
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/** A control plane that is up and serves. */
export interface RunningIstiod {
  readonly secureGrpcPort: number;
  readonly httpPort: number;
  readonly monitoringPort: number;
  /** The trust bundle that clients need, also in the state folder as root-cert.pem. */
  readonly rootsPem: string;
  /** Resolves when everything is closed after the signal. */
  readonly done: Promise<void>;
}

const IDLE_QUIET_MS = 10; // a folder pass commits at once; this joins what the next turn still brings (CP-440)
const SHUTDOWN_GRACE_MS = 5_000; // well under the 30 s that supervisors usually give
const STREAMS_PER_SECOND_BASE = 15; // CP-400, with the next two
const STREAMS_PER_SECOND_PER_CPU = 5;
const STREAMS_PER_SECOND_MAX = 100;
const CONVERGENCE_SECONDS = [0.1, 0.5, 1, 3, 5, 10, 20, 30]; // CP-025

/** Runs until the signal. @throws MeshError if it cannot start. */
export async function runIstiod(config: IstiodConfig, options: RoleOptions): Promise<void> {
  const running = await startIstiod(config, options);
  await running.done;
}

/** Starts the role and returns once it serves (CP-011). @throws MeshError if it cannot. */
export async function startIstiod(config: IstiodConfig, { signal: outer, log }: RoleOptions): Promise<RunningIstiod> {
  const own = new AbortController(); // Ends what was started when a later step fails.
  const signal = AbortSignal.any([outer, own.signal]);
  try {
    return await start(config, { signal, log });
  } catch (error) {
    own.abort();
    throw error;
  }
}

async function start(config: IstiodConfig, { signal, log }: RoleOptions): Promise<RunningIstiod> {
  const metrics = new Metrics(), pods = new NodePods(), objects = new Set<string>();
  const { clusterId, trustDomain, network, rootNamespace } = config;
  await openStateFolder(config.stateDir);
  const authority = await openAuthority(config);
  await publishFile(`${config.stateDir}/root-cert.pem`, authority.material.rootsPem);
  const tokens = await TokenIssuer.open(config.stateDir);
  const authenticator = new Authenticator({ tokens, trustDomain, clusterId, now: Date.now });
  const index = new AmbientIndex({ clusterId, network, trustDomain, rootNamespace }, log.child("ambient"));
  const ads = new AdsService({
    view: index,
    authenticator,
    metrics,
    log: log.child("xds"),
    newStreamsPerSecond: config.newStreamsPerSecond ?? defaultStreamsPerSecond(),
    trustedNodeAccounts: config.trustedNodeAccounts,
    controlPlane: JSON.stringify({ Component: "istiod", ID: Deno.hostname(), Info: { version: VERSION } }),
    now: Date.now,
  });
  const debouncer = createDebouncer(config, { metrics, push: (changes) => ads.push(changes) });
  const unsubscribe = index.subscribe((change) => debouncer.add(change));
  let ready = false;
  const pages = {
    ready: () => ready,
    metrics,
    version: VERSION,
    clusterId,
    streams: () => ads.status(),
    objects: () => [...objects].sort(),
  };
  describeMetrics(metrics, { index, startedAtMs: Date.now() });
  const http = serveDebugPages(config.httpAddress, pages, signal);
  const monitoring = serveDebugPages(config.monitoringAddress, pages, signal);
  log.info("watching a folder of Kubernetes objects", { directory: config.configDir });
  const refusals = metrics.counter("ambit_config_refusals", "Documents of the folder that were refused.");
  const source = new FolderSource(config.configDir, {
    log: log.child("folder"),
    onChange: (changes) => {
      noteObjects(objects, changes);
      for (const change of changes) pods.apply(change);
      index.apply(changes);
    },
    onRefused: () => refusals.increment(),
  });
  metrics.gauge("ambit_config_refused_documents", "Documents that are refused now.", () => source.refusals().length);
  await source.start(signal);

  const server = createServer(config);
  ads.addTo(server);
  const certificates = new CertificateService({
    authority,
    authenticator,
    pods,
    rules: { trustedAccounts: new Set(config.trustedNodeAccounts), trustDomain },
    defaultTtlMs: config.defaultCertificateTtlMs,
    maxTtlMs: config.maxCertificateTtlMs,
    metrics,
    log: log.child("ca"),
  });
  addCertificateService(server, certificates, log.child("ca"));
  ads.open();
  const hosts = [...ownHosts(rootNamespace), ...config.serverHosts];
  const credentials = new ListenerCredentials(await serverTls(authority, hosts));
  const secureGrpcPort = await listenSecure(server, config.secureGrpcAddress, credentials);
  const onChange = async (material: KeyMaterial) => {
    await authority.replace(material);
    credentials.update(await serverTls(authority, hosts));
    await publishFile(`${config.stateDir}/root-cert.pem`, material.rootsPem);
  };
  const watched = config.caDir === undefined
    ? undefined
    : watchMaterial({ folder: config.caDir, material: authority.material, onChange, log: log.child("ca") }, signal);
  ready = true;
  log.info("istiod is ready", { version: VERSION, secureGrpcPort, clusterId, trustDomain, objects: objects.size });

  const stop = async () => {
    ready = false;
    log.info("istiod stops");
    unsubscribe();
    debouncer.stop();
    ads.close();
    await stopServer(server, SHUTDOWN_GRACE_MS);
    await Promise.all([http.finished, monitoring.finished, source.stopped, watched]);
  };
  const done = aborted(signal).then(stop);
  return {
    secureGrpcPort,
    httpPort: (http.addr as Deno.NetAddr).port,
    monitoringPort: (monitoring.addr as Deno.NetAddr).port,
    rootsPem: authority.material.rootsPem,
    done,
  };
}

async function openAuthority({ caDir, stateDir, trustDomain }: IstiodConfig): Promise<CertificateAuthority> {
  const material = caDir === undefined
    ? await loadSelfSigned(stateDir, trustDomain, Date.now())
    : await loadPluggedIn(caDir, Date.now()); // CP-500: never a root of our own in its stead.
  return await CertificateAuthority.create(material);
}

async function serverTls(authority: CertificateAuthority, hosts: readonly string[]): Promise<ServerTls> {
  return { ...await authority.issueServer(hosts), rootsPem: authority.material.rootsPem };
}

/** The names that clients in a cluster use (CP-004). */
function ownHosts(namespace: string): string[] {
  return ["istiod", "istiod-remote", "istio-pilot"].map((name) => `${name}.${namespace}.svc`);
}

function defaultStreamsPerSecond(): number {
  const wanted = STREAMS_PER_SECOND_BASE + STREAMS_PER_SECOND_PER_CPU * navigator.hardwareConcurrency;
  return Math.min(wanted, STREAMS_PER_SECOND_MAX);
}

function createDebouncer(
  config: IstiodConfig,
  { metrics, push }: { metrics: Metrics; push: (changes: readonly ResourceChange[]) => void },
): Debouncer {
  const waited = metrics.histogram(
    "pilot_debounce_time",
    "Seconds that changes waited to be pushed.",
    CONVERGENCE_SECONDS,
  );
  return new Debouncer({
    quietMs: config.debounceQuietMs,
    idleQuietMs: IDLE_QUIET_MS,
    maxMs: config.debounceMaxMs,
    now: () => performance.now(),
    schedule: (callback, ms) => {
      const timer = setTimeout(callback, ms);
      return () => clearTimeout(timer);
    },
    flush: (changes, waitedMs) => {
      waited.observe(waitedMs / 1_000);
      push(changes);
    },
  });
}

function describeMetrics(metrics: Metrics, { index, startedAtMs }: { index: AmbientIndex; startedAtMs: number }): void {
  metrics.gauge("istiod_uptime_seconds", "Seconds since the start.", () => (Date.now() - startedAtMs) / 1_000);
  metrics.gauge("pilot_info", "Version.", () => [[{ version: VERSION }, 1]]);
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

function noteObjects(objects: Set<string>, changes: readonly ObjectChange[]): void {
  for (const { key, object } of changes) {
    if (object === undefined) objects.delete(key);
    else objects.add(key);
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
}
