/** Role ztunnel: joins agent and workers, and takes them down again. */
import { ignore, MeshError } from "../base/errors.ts";
import type { LogFilter, Logger } from "../base/log.ts";
import { AUTHORIZATION_TYPE_URL } from "../mesh/proto/authorization_codec.ts";
import type { DiscoveryNode } from "../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL } from "../mesh/proto/workload_codec.ts";
import { missingCapabilities } from "../os/capabilities.ts";
import { opensslVersion } from "../os/openssl.ts";
import { raiseOpenFileLimit } from "../os/limits.ts";
import { AccessLog } from "./agent/access_log.ts";
import { serveAdmin } from "./agent/admin.ts";
import { CaClient } from "./agent/ca_client.ts";
import { Certificates } from "./agent/certificates.ts";
import { dumpOf } from "./agent/dump_sources.ts";
import { type ControlEndpoint, parseRootSource, type TokenSource } from "./agent/control_channel.ts";
import { FlowTotals } from "./agent/flow_totals.ts";
import { Identities } from "./agent/identities.ts";
import { dataplaneMetrics } from "./agent/metrics.ts";
import { Pods } from "./agent/pods.ts";
import { Publisher } from "./agent/publisher.ts";
import { MeshState } from "./agent/state.ts";
import { trafficView } from "./agent/traffic_view.ts";
import { WorkerPool } from "./agent/worker_pool.ts";
import { XdsClient, type XdsState } from "./agent/xds_client.ts";
import { ZdsClient } from "./agent/zds_client.ts";
import type { ZtunnelConfig } from "./config.ts";
import { createTables, openTables } from "./tables/handles.ts";
import { SnapshotWriter } from "./tables/publish.ts";

/** Never connected to on behalf of anybody: our own listeners (ZT-006). */
const RESERVED_PORTS = [15001, 15006, 15008];
const COLLECT_MS = 50; // Access records and worker requests wait at most this long; rings hold far more.
const VERSION = "0.1.0";
/** The kernel maps at most 1 GiB below 2 GiB for us (MAP_32BIT); all workers share it. */
const WORKERS_MEMORY_MIB = 896;

export interface ZtunnelOptions {
  /** Starts the drain. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly filter: LogFilter;
}

/** Runs until `signal` aborts and the drain is over. @throws MeshError when it cannot start, or a worker dies. */
export async function runZtunnel(config: ZtunnelConfig, { signal: outer, log, filter }: ZtunnelOptions): Promise<void> {
  requirePrivileges();
  const shutDown = new AbortController();
  const signal = AbortSignal.any([outer, shutDown.signal]);
  const openFilesMax = raiseOpenFileLimit();
  const workerCount = config.workers === undefined
    ? Math.max(2, Math.ceil(navigator.hardwareConcurrency / 4))
    : config.workers === 0
    ? Math.min(16, navigator.hardwareConcurrency)
    : config.workers;
  const handles = createTables(
    { workers: workerCount, connectionsPerWorker: config.connectionsPerWorker },
    config.network,
  );
  const tables = openTables(handles);
  const workers = new WorkerPool(handles, tables, log.child("workers"));
  const snapshots = new SnapshotWriter(tables, (worker) => workers.wake(worker), (Math.random() * 0x100000000) | 0);
  const state = new MeshState(config.nodeName);
  const publisher = new Publisher(snapshots, state, log.child("state"));
  const identities = new Identities(tables, workers);
  const caClient = new CaClient({
    endpoint: endpointOf(config, "ca"),
    ttlMs: config.secretTtl,
    impersonate: true,
    now: Date.now,
    log: log.child("ca"),
  });
  const certificates = new Certificates({
    fetch: (identity) => caClient.fetch(identity),
    onCertificate: (identity, certificate) => identities.onCertificate(identity, certificate),
    onUnavailable: (identity, error) => identities.onUnavailable(identity, error),
    now: Date.now,
    random: Math.random,
    schedule(callback, ms) {
      const timer = setTimeout(callback, ms);
      return () => clearTimeout(timer);
    },
    log: log.child("certificates"),
  });
  identities.useCertificates(certificates);
  const pods = new Pods({
    tables,
    workers,
    identities,
    state,
    trustDomain: config.trustDomain,
    packetMark: config.packetMark,
    ipv6: config.ipv6,
    reusePort: config.inpodPortReuse,
    originalSource: config.originalSource,
    log: log.child("pods"),
    onChange: publisher.soon,
  });
  const zds = new ZdsClient({ path: config.inpodUds, pods, log: log.child("zds") });
  const flows = new FlowTotals(tables);
  const accessLog = new AccessLog(log);
  const metrics = dataplaneMetrics({ tables, flows, version: VERSION, openFiles: () => openFiles(openFilesMax) });
  const xds = new XdsClient({
    endpoint: endpointOf(config, "xds"),
    node: nodeOf(config),
    state: applierOf(state, publisher),
    onDemand: false,
    log: log.child("xds"),
    onTermination: (reason) => metrics.xdsTerminations.add({ reason }),
    onMessage(url, { bytes }) {
      metrics.xdsMessages.add({ url });
      metrics.xdsMessageBytes.add({ url }, bytes);
    },
  });
  let synced = false;
  const collect = () => {
    workers.readRequests();
    flows.collect(accessLog.write);
  };
  const zdsCounters = zdsMetrics(zds, metrics);
  const servers = serveAdmin({
    adminPort: config.adminPort,
    statsPort: config.statsPort,
    readinessPort: config.readinessPort,
    ipv6: config.ipv6,
    log,
    filter,
    defaultLevel: config.logLevel,
    metrics() {
      collect();
      zdsCounters();
      return metrics.registry.text();
    },
    configDump: () => dumpOf({ config, state, certificates, pods, tables, version: VERSION }),
    traffic() {
      collect();
      return trafficView(tables, flows, pods);
    },
    pending: () => [...(synced ? [] : ["state manager"]), ...(zds.ready ? [] : ["workload proxy manager"])],
    shutDown: () => shutDown.abort(),
  }, signal);
  const timer = setInterval(collect, COLLECT_MS);
  workers.start(handles, snapshots, {
    network: config.network,
    packetMark: config.packetMark,
    keepalive: config.keepalive,
    streamsPerSessionMax: config.streamsPerSession,
    responseBaggage: config.responseBaggage,
    reservedPorts: RESERVED_PORTS,
  }, Math.min(config.workerMemoryMib, Math.floor(WORKERS_MEMORY_MIB / workerCount)) << 20);
  log.info("ztunnel started", { workers: workerCount, openssl: opensslVersion(), node: config.nodeName });
  const xdsDone = xds.run({ signal });
  // Nothing is proxied before the first full state (ZT-222).
  const zdsDone = Promise.race([xds.ready, aborted(signal)]).then(() => {
    if (signal.aborted) return;
    synced = true;
    log.info("mesh state complete", { workloads: state.workloads.size, services: state.services.size });
    return zds.run(signal);
  });
  try {
    await Promise.race([aborted(signal), workers.failure.promise, xdsDone, zdsDone]);
    log.info("draining", { deadlineMs: config.drainDeadline });
    await workers.drain(config.drainDeadline);
  } finally {
    shutDown.abort();
    clearInterval(timer);
    collect();
    publisher.stop();
    certificates.stop();
    caClient.close();
    await Promise.allSettled([xdsDone, zdsDone, ...servers]);
    zds[Symbol.dispose]();
  }
  log.info("ztunnel stopped");
}

function requirePrivileges(): void {
  const missing = missingCapabilities(["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW"]);
  if (missing.length === 0) return;
  throw new MeshError("AMB2405", `ztunnel lacks ${missing.join(", ")}`, {
    remedy: "run it as root, or give it these capabilities (ZT-172)",
  });
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

function endpointOf(config: ZtunnelConfig, service: "xds" | "ca"): ControlEndpoint {
  const xds = service === "xds";
  return {
    address: xds ? config.xdsAddress : config.caAddress,
    roots: parseRootSource(xds ? config.xdsRootCa : config.caRootCa),
    token: tokenOf(config.authToken),
    clusterId: config.clusterId,
    alternativeHostname: xds ? config.altXdsHostname : config.altCaHostname,
    headers: headersOf(xds ? "XDS_HEADER_" : "CA_HEADER_"),
  };
}

/** An existing path is a file, other text the token itself; the default path counts only if it is there (ZT-011). */
function tokenOf(value: string): TokenSource {
  try {
    Deno.statSync(value);
    return { kind: "file", path: value };
  } catch (error) {
    ignore(error, "not a path that exists");
  }
  return value.includes("/") ? { kind: "none" } : { kind: "static", token: value };
}

/** XDS_HEADER_x and CA_HEADER_x: further metadata of calls. */
function headersOf(prefix: string): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(Deno.env.toObject())) {
    if (name.startsWith(prefix)) headers[name.slice(prefix.length).toLowerCase()] = value;
  }
  return headers;
}

/** ZT-128. */
function nodeOf(config: ZtunnelConfig): DiscoveryNode {
  const { podName, podNamespace, instanceIp, nodeName } = config;
  return {
    id: `ztunnel~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`,
    metadata: { NAME: podName, NAMESPACE: podNamespace, INSTANCE_IPS: instanceIp, NODE_NAME: nodeName },
  };
}

function applierOf(state: MeshState, publisher: Publisher): XdsState {
  return {
    apply(typeUrl, resources, removed) {
      let rejected: readonly { name: string; reason: string }[] = [];
      if (typeUrl === ADDRESS_TYPE_URL) rejected = state.applyAddresses(resources, removed).rejections;
      else if (typeUrl === AUTHORIZATION_TYPE_URL) rejected = state.applyPolicies(resources, removed);
      publisher.soon();
      return { rejected };
    },
  };
}

function openFiles(max: number): { open: number; max: number } | undefined {
  let open = 0;
  for (const _ of Deno.readDirSync("/proc/self/fd")) open++;
  return { open, max };
}

/** Keeps the families of ZT-175 in step with the ZDS client. @returns What brings them up to date. */
function zdsMetrics(zds: ZdsClient, metrics: ReturnType<typeof dataplaneMetrics>): () => void {
  let started = 0, stopped = 0;
  return () => {
    const counts = zds.counts;
    metrics.activeProxies.set({}, counts.active);
    metrics.pendingProxies.set({}, counts.pending);
    metrics.proxiesStarted.add({}, counts.started - started);
    metrics.proxiesStopped.add({}, counts.stopped - stopped);
    started = counts.started;
    stopped = counts.stopped;
  };
}
