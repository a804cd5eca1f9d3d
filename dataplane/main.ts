/** Role ztunnel: joins agent and workers, and takes them down again. */
import { chain, MeshError } from "../base/errors.ts";
import type { LogFilter, Logger } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { aborted } from "../base/waiting.ts";
import { formatIdentity } from "../mesh/identity.ts";
import { AUTHORIZATION_TYPE_URL } from "../mesh/proto/authorization_codec.ts";
import type { DiscoveryNode } from "../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL } from "../mesh/proto/workload_codec.ts";
import type { Workload } from "../mesh/workload.ts";
import { RedirectedPods } from "../os/bpf/redirected_pods.ts";
import { missingCapabilities } from "../os/capabilities.ts";
import { checkPolicy, opensslVersion } from "../os/openssl.ts";
import { OPENSSL } from "../os/openssl_library.ts";
import { limitHeaps } from "../os/allocator.ts";
import { raiseOpenFileLimit } from "../os/limits.ts";
import { Poller } from "../os/poller.ts";
import { notifyReady } from "../os/service_notify.ts";
import { AccessLog } from "./agent/access_log.ts";
import { serveAdmin } from "./agent/admin.ts";
import { Answers } from "./agent/answers.ts";
import { CaClient } from "./agent/ca_client.ts";
import { Certificates } from "./agent/certificates.ts";
import { Dedicated } from "./agent/dedicated.ts";
import { OnDemandResources } from "./agent/on_demand.ts";
import { parseListenAddress } from "./agent/dns/listen_address.ts";
import { DnsProxy } from "./agent/dns/proxy.ts";
import { readResolvConf } from "./agent/dns/resolv_conf.ts";
import { dnsSettings } from "./agent/dns/settings.ts";
import { type ControlEndpoint, parseRootSource, parseTokenSource } from "./agent/control_channel.ts";
import { FlowTotals } from "./agent/flow_totals.ts";
import { Hostnames } from "./agent/hostnames.ts";
import { Identities } from "./agent/identities.ts";
import { applyLocal, readLocalFile } from "./agent/local_file.ts";
import { dataplaneMetrics } from "./agent/metrics.ts";
import { checkMissingSettings } from "./agent/missing_settings.ts";
import { POD_PORTS } from "./agent/pod_listeners.ts";
import { Pods } from "./agent/pods.ts";
import { MemoryTrim } from "./agent/memory_trim.ts";
import { Publisher } from "./agent/publisher.ts";
import { RevocationFile } from "./agent/revocation_lists.ts";
import { checkServers, dedicatedWorkload, type SettingsSources } from "./agent/settings_sources.ts";
import { MeshState, type PodFacts } from "./agent/state.ts";
import { workerCountOf } from "./agent/worker_count.ts";
import { tlsPolicyOf } from "./agent/tls_policy.ts";
import { trafficView } from "./agent/traffic_view.ts";
import { onceFree, Succession } from "./agent/takeover/succession.ts";
import { WorkerPool } from "./agent/worker_pool.ts";
import { XdsClient, type XdsState } from "./agent/xds_client.ts";
import { ZdsClient } from "./agent/zds_client.ts";
import type { ZtunnelConfig } from "./config.ts";
import { createTables, openTables } from "./tables/handles.ts";
import { SnapshotWriter } from "./tables/publish.ts";
import { QuestionKind } from "./tables/questions.ts";

/** Never connected to on behalf of anybody: our own listeners (ZT-006). */
const RESERVED_PORTS = [15001, 15006, 15008];
/** Each worker has listeners of its own in every pod, and a row in the tables. */
const WORKERS_MAX = 16;
const PACKET_MARK = 1337; // The node agent's rules let it pass (ZT-173).
const HEAPS_MAX = 4; // Of the C library: agent, workers and the runtime's own threads share them.
const FORGET_MS = 60_000; // Totals of workloads that have gone go at this pace.
const COLLECT_MS = 50; // Access records and worker requests wait at most this long; rings hold far more.
/** The kernel maps at most 1 GiB below 2 GiB for us (MAP_32BIT); all workers share it. */
const WORKERS_MEMORY_MIB = 896;

export interface ZtunnelOptions {
  /** Starts the drain. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly filter: LogFilter;
  /** What the environment says beyond the settings: metadata and headers. */
  readonly sources: SettingsSources;
}

/** Runs until `signal` aborts and the drain is over. @throws MeshError when it cannot start, or a worker dies. */
export async function runZtunnel(config: ZtunnelConfig, options: ZtunnelOptions): Promise<void> {
  if (await serveUntilEnd(config, options) !== "handedOver" || !config.takeoverSurge) return;
  // A container that ends would be started again, and would take everything back from the successor.
  options.log.info("a successor has everything: waiting to be told to end");
  await aborted(options.signal);
}

async function serveUntilEnd(config: ZtunnelConfig, options: ZtunnelOptions): Promise<"handedOver" | "stopped"> {
  const { signal: outer, log, filter, sources } = options;
  const { proxyMode } = config, dedicated = proxyMode === "dedicated";
  checkServers({ proxy: config.enableProxy, dns: config.dnsCapture, onDemand: config.xdsOnDemand });
  checkMissingSettings(sources.environment, log);
  const tls = tlsPolicyOf(config);
  checkPolicy(tls);
  if (tls.postQuantumOnly) {
    log.warn("key exchange with the control plane is the control plane's choice", {
      offered: "X25519, X25519MLKEM768",
    });
  }
  const ownWorkload = dedicated ? dedicatedWorkload(config.proxyWorkloadInfo) : undefined;
  const local = await readLocalFile({ path: config.localXdsPath, text: config.localXds });
  if (dedicated && config.takeover) {
    throw new MeshError("AMB2422", "a ztunnel of one workload cannot take another over", {
      remedy: "use --takeover with --proxy-mode=shared, or restart the ordinary way",
    });
  }
  requirePrivileges();
  const shutDown = new AbortController();
  const signal = AbortSignal.any([outer, shutDown.signal]);
  const openFilesMax = raiseOpenFileLimit();
  limitHeaps(HEAPS_MAX);
  const workersWanted = workerCountOf(config.workers, {
    logicalCores: navigator.hardwareConcurrency,
    resourceLimit: config.resourceCpuLimit,
    cpuLimit: config.cpuLimit,
    resourceRequest: config.resourceCpuRequest,
  });
  const workerCount = Math.min(WORKERS_MAX, workersWanted);
  if (workerCount < workersWanted) log.warn("fewer workers than asked for", { wanted: workersWanted, workerCount });
  const packetMark = config.packetMark ?? (dedicated ? 0 : PACKET_MARK);
  const handles = createTables(
    { workers: workerCount, connectionsPerWorker: config.connectionsPerWorker },
    config.network,
  );
  const tables = openTables(handles);
  const workers = new WorkerPool(handles, tables, log.child("workers"));
  const indexSeed = crypto.getRandomValues(new Int32Array(1))[0]!; // Addresses come from outside: nobody may aim at a slot.
  const snapshots = new SnapshotWriter(tables, (worker) => workers.wake(worker), indexSeed);
  const state = new MeshState(config.nodeName);
  const memoryTrim = new MemoryTrim();
  const publisher = new Publisher(snapshots, state, log.child("state"), memoryTrim.soon);
  const localWorkloads = local === undefined ? [] : applyLocal(state, local);
  if (local !== undefined) {
    publisher.soon();
    if (local.ignored.length > 0) {
      log.warn("fields of the local file that nobody reads", { fields: local.ignored.join(", ") });
    }
  }
  const withXds = config.xdsAddress !== "", onDemand = withXds && config.xdsOnDemand; // ZT-009, ZT-127
  const identities = new Identities(tables, workers);
  const caClient = new CaClient({
    endpoint: endpointOf(config, sources, "ca"),
    ttlMs: config.secretTtl,
    impersonate: !dedicated,
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
  const prefetch = !dedicated && config.nodeName !== "";
  if (prefetch) prefetchFor(localWorkloads, state, identities);
  const flows = new FlowTotals(tables);
  const metrics = dataplaneMetrics({
    tables,
    flows,
    version: sources.buildTag(VERSION),
    openFiles: () => openFiles(openFilesMax),
  });
  const listenForDns = parseListenAddress(config.dnsProxyAddress);
  await using dns = config.dnsCapture
    ? new DnsProxy({
      ...dnsSettings(config, log.child("dns")),
      state,
      listen: listenForDns,
      mark: packetMark,
      metrics,
      log: log.child("dns"),
    })
    : undefined;
  const pods = new Pods({
    tables,
    workers,
    identities,
    state,
    packetMark,
    ipv6: config.ipv6,
    reusePort: config.inpodPortReuse,
    keepalive: config.keepalive,
    keepaliveTimes: keepaliveTimesOf(config),
    congestionControl: config.congestionControl,
    originalSource: config.originalSource,
    proxy: config.enableProxy,
    socks: config.socks,
    dns,
    redirected: () => RedirectedPods.open(config.bpfPins),
    log: log.child("pods"),
    onAdded: (pod) => onDemand && demand.expectPod(pod),
    onChange: publisher.soon,
  });
  await using poller = new Poller();
  using hostnames = new Hostnames({
    settings: () => readResolvConf(config.resolvConf),
    mark: dedicated ? packetMark : 0,
    ipv6: config.ipv6,
    poller,
    counter: metrics.onDemandDns,
  });
  using answers = new Answers(handles, workers, {
    [QuestionKind.SOCKS_NAME]: async ({ podRow, text, wantsIpv4 }) =>
      dns === undefined ? "unsupported" : await dns.lookup(pods.uidOf(podRow) ?? "", text, wantsIpv4) ?? "unknown",
    [QuestionKind.RESOURCE]: ({ text }) => demand.find(text),
    [QuestionKind.HOSTNAME]({ podRow, text, wantsIpv4 }) {
      const facts = pods.factsOf(podRow);
      return hostnames.find(text, wantsIpv4, facts && state.findLocal(facts));
    },
  }, poller);
  const zds = new ZdsClient({ path: config.inpodUds, pods, servesDns: config.dnsCapture, log: log.child("zds") });
  const accessLog = new AccessLog(log);
  const xds = new XdsClient({
    endpoint: endpointOf(config, sources, "xds"),
    node: nodeOf(config, sources, ownWorkload),
    state: applierOf(state, publisher, { pods, identities, prefetch }),
    onDemand,
    log: log.child("xds"),
    onTermination: (reason) => metrics.xdsTerminations.add({ reason }),
    onMessage(url, { bytes }) {
      metrics.xdsMessages.add({ url });
      metrics.xdsMessageBytes.add({ url }, bytes);
    },
  });
  const demand = new OnDemandResources({ xds, publisher, clusterId: config.clusterId, log: log.child("xds") });
  using own = ownWorkload === undefined ? undefined : new Dedicated(pods, ownWorkload);
  let synced = false;
  const collect = () => {
    workers.readRequests();
    accessLog.announce(tables.header, config.policyInfoLogging);
    flows.collect(accessLog.write);
  };
  const zdsCounters = zdsMetrics(zds, metrics);
  const serve = (signal: AbortSignal) =>
    serveAdmin({
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
      configDump: async () =>
        (await import("./agent/dump_sources.ts")).dumpOf({
          config,
          state,
          certificates,
          pods,
          tables,
          version: VERSION,
          local,
          pending: zds.pending(),
        }),
      traffic() {
        collect();
        return trafficView(tables, flows, pods);
      },
      pending: () => [
        ...(synced ? [] : ["state manager"]),
        ...(own === undefined || own.bound ? [] : ["proxy"]),
        ...(own === undefined || own.serving || dns === undefined ? [] : ["dns proxy"]),
        ...(own !== undefined || zds.ready ? [] : ["workload proxy manager"]),
      ],
      shutDown: () => shutDown.abort(),
    }, signal);
  await using succession = new Succession({
    path: dedicated ? "" : config.takeoverSocket,
    program: VERSION,
    tables,
    workers,
    pods,
    zds,
    publisher,
    goesOnBeside: config.takeoverSurge,
    log: log.child("takeover"),
  });
  // A predecessor has the ports until it has handed over.
  const servers = config.takeover ? [] : await serve(signal);
  const timer = setInterval(collect, COLLECT_MS);
  const forgetting = setInterval(() => flows.forgetGone(() => state.workloadNames()), FORGET_MS);
  workers.start(handles, snapshots, {
    network: config.network,
    packetMark,
    keepalive: config.keepalive,
    congestionControl: config.congestionControl,
    keepaliveTimes: keepaliveTimesOf(config),
    unusedReleaseMs: config.unusedRelease,
    streamsPerSessionMax: config.streamsPerSession,
    responseBaggage: config.responseBaggage,
    ownPorts: [config.statsPort, config.readinessPort],
    reservedPorts: config.socks ? [...RESERVED_PORTS, POD_PORTS.socks] : RESERVED_PORTS,
    localhostAppTunnel: config.localhostAppTunnel,
    onDemand,
  }, {
    memoryBytes: Math.min(config.workerMemoryMib, Math.floor(WORKERS_MEMORY_MIB / workerCount)) << 20,
    agentFd: answers.wakeFd,
    tls,
  });
  const revocations = config.crlPath === "" ? undefined : new RevocationFile(config.crlPath, workers, log.child("crl"));
  log.info("ztunnel started", {
    workers: workerCount,
    openssl: opensslVersion(),
    libssl: OPENSSL.libssl,
    node: config.nodeName,
  });
  notifyReady(); // Not later: a control plane that is away must not make systemd restart us.
  const caPrepared = prefetch ? caClient.prepare() : undefined;
  const xdsDone = withXds ? xds.run({ signal }) : aborted(signal);
  // Nothing is proxied before the first full state (ZT-222).
  const zdsDone = Promise.race([withXds ? xds.ready : undefined, aborted(signal)]).then(async () => {
    await revocations?.start(); // Nobody is let in before the lists are in force.
    if (signal.aborted) return;
    synced = true;
    log.info("mesh state complete", { workloads: state.workloads.size, services: state.services.size });
    if (own === undefined) {
      const taken = config.takeover && await succession.takeOver();
      if (config.takeover) servers.push(...await onceFree(serve, signal));
      await succession.awaitSuccessor(taken);
      await serveOwn(config, pods, log);
      return await zds.run(signal);
    }
    await own.start();
    await aborted(signal);
  });
  let handedOver = false;
  try {
    own?.bind();
    await Promise.race([
      aborted(signal),
      succession.handedOver.then(() => handedOver = true),
      workers.failure.promise,
      dns?.done ?? aborted(signal),
      poller.done,
      xdsDone,
      zdsDone,
    ]);
    shutDown.abort(); // Ports and the node agent's socket are free for a successor at once.
    log.info("draining", { deadlineMs: config.drainDeadline });
    // A successor reads the same DNS sockets; what we took from them is ours to answer.
    await Promise.all([workers.drain(config.drainDeadline), dns?.finish(config.drainDeadline)]);
  } finally {
    shutDown.abort();
    clearInterval(timer);
    clearInterval(forgetting);
    collect();
    publisher.stop();
    memoryTrim.stop();
    await revocations?.close();
    certificates.stop();
    caClient.close();
    await Promise.allSettled([xdsDone, zdsDone, caPrepared, ...servers]);
    zds[Symbol.dispose]();
  }
  log.info("ztunnel stopped");
  return handedOver ? "handedOver" : "stopped";
}

/** The user timeout, where it is on, lets keepalive finish first (ZT-049). */
function keepaliveTimesOf({ keepaliveTime, keepaliveInterval, keepaliveRetries: retries, userTimeout }: ZtunnelConfig) {
  const [idleS, intervalS] = [keepaliveTime, keepaliveInterval].map((ms) => Math.ceil(ms / 1_000)) as [number, number];
  return { idleS, intervalS, retries, userTimeoutMs: userTimeout ? keepaliveTime + retries * keepaliveInterval : 0 };
}

/** Lets metrics be read over mutual TLS, where the environment tells who we are (ZT-005). Without it pods are served as well. */
async function serveOwn(config: ZtunnelConfig, pods: Pods, log: Logger): Promise<void> {
  const { podName: name, podNamespace: namespace, serviceAccount, trustDomain } = config;
  if (name === "" || namespace === "" || serviceAccount === "" || !config.enableProxy) return;
  try {
    await pods.addOwn({ name, namespace, serviceAccount }, trustDomain);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    log.error("no metrics over mutual TLS", { code: error.code, error: chain(error), remedy: error.remedy });
  }
}

function requirePrivileges(): void {
  const missing = missingCapabilities(["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW"]);
  if (missing.length === 0) return;
  throw new MeshError("AMB2405", `ztunnel lacks ${missing.join(", ")}`, {
    remedy: "run it as root, or give it these capabilities (ZT-172)",
  });
}

function endpointOf(config: ZtunnelConfig, sources: SettingsSources, service: "xds" | "ca"): ControlEndpoint {
  const xds = service === "xds";
  return {
    address: xds ? config.xdsAddress : config.caAddress,
    roots: parseRootSource(xds ? config.xdsRootCa : config.caRootCa),
    token: parseTokenSource(config.authToken),
    clusterId: config.clusterId,
    tls12: config.tls12,
    alternativeHostname: xds ? config.altXdsHostname : config.altCaHostname,
    headers: sources.headers(service),
  };
}

/** ZT-128. In dedicated mode, unless it is told otherwise, we are the pod that we serve. */
function nodeOf(config: ZtunnelConfig, sources: SettingsSources, own: PodFacts | undefined): DiscoveryNode {
  const { instanceIp, nodeName } = config;
  const podName = config.podName || (own?.name ?? ""), podNamespace = config.podNamespace || (own?.namespace ?? "");
  return {
    id: `ztunnel~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`,
    metadata: {
      ...sources.nodeMetadata(),
      NAME: podName,
      NAMESPACE: podNamespace,
      INSTANCE_IPS: instanceIp,
      NODE_NAME: nodeName,
    },
  };
}

/** @param prefetch certificates of this node's workloads are fetched before a pod needs them (ZT-143). */
function applierOf(
  state: MeshState,
  publisher: Publisher,
  { pods, identities, prefetch }: { pods: Pods; identities: Identities; prefetch: boolean },
): XdsState {
  return {
    apply(typeUrl, resources, removed) {
      let rejected: readonly { name: string; reason: string }[] = [];
      if (typeUrl === ADDRESS_TYPE_URL) {
        const applied = state.applyAddresses(resources, removed);
        rejected = applied.rejections;
        pods.refreshIdentities();
        if (prefetch) {
          prefetchFor(applied.inserted, state, identities);
          for (const workload of applied.removed) {
            if (state.isIdentityUnused(workload)) identities.forgetUnused(formatIdentity(workload));
          }
        }
      } else if (typeUrl === AUTHORIZATION_TYPE_URL) rejected = state.applyPolicies(resources, removed);
      publisher.soon();
      return { rejected };
    },
  };
}

function prefetchFor(workloads: readonly Workload[], state: MeshState, identities: Identities): void {
  for (const workload of workloads) {
    if (state.wantsCertificate(workload)) identities.prefetch(formatIdentity(workload));
  }
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
