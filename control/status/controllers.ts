/**
 * What istiod writes to the cluster, and which of several istiods does: the composition of this folder.
 *
 * What it asks of the API server, beside the lists and watches of what the mesh is made of:
 *
 * | who | where | verbs |
 * |---|---|---|
 * | elections | leases (coordination.k8s.io) of the system namespace | get, create, update |
 * | elections | configmaps of the system namespace | get, create, update |
 * | conditions | services/status | patch |
 * | conditions | serviceentries, workloadentries (networking.istio.io), authorizationpolicies (security.istio.io) | get |
 * | conditions | the same, /status | patch |
 * | addresses | serviceentries | get; /status: patch |
 * | analysis, if asked for | serviceentries/status, workloadentries/status, authorizationpolicies/status | patch |
 * | gateways | gateways, gatewayclasses (gateway.networking.k8s.io) | get; /status: patch |
 * | classes | gatewayclasses | create |
 * | tags | mutatingwebhookconfigurations, validatingwebhookconfigurations (admissionregistration.k8s.io) | list, watch |
 * | tags | services of the system namespace | list, watch |
 * | trust bundle | namespaces | list, watch |
 * | trust bundle | configmaps of its two names, everywhere | get, list, watch, create, update |
 * | trust bundle, if asked for | clustertrustbundles (certificates.k8s.io) | get, list, watch, create, update |
 * | untaint, if asked for | nodes | list, watch, patch |
 * | untaint, if asked for | pods of the node agents' namespace | list, watch |
 */
import { assert } from "../../base/assert.ts";
import { AnalysisWriter } from "../analysis/status_writer.ts";
import { ClassKeeper } from "../gateway/class_keeper.ts";
import { builtInClasses } from "../gateway/classes.ts";
import { GatewayWriter } from "../gateway/gateway_writer.ts";
import type { KubeApi } from "../../kube/api.ts";
import type { Metrics } from "../../base/metrics.ts";
import type { Part, Role } from "../role.ts";
import { AddressAllocator } from "./address_allocator.ts";
import { ConditionWriter } from "./condition_writer.ts";
import { ControllerMetrics } from "./controller_metrics.ts";
import { type ElectionStatus, type ElectionTiming, runElection } from "./election.ts";
import { ADDRESS_LOCK, ANALYSIS_LOCK, gatewayStatusLock, type Lock, NODE_UNTAINT_LOCK, STATUS_LOCK } from "./locks.ts";
import { NodeUntainter } from "./node_untainter.ts";
import { RevisionTags } from "./revision_tags.ts";
import { watchTags } from "./tag_watch.ts";

type Lead = (signal: AbortSignal) => Promise<void>;

/** Construct it before the source tells of anything, {@link start} it once all is read. */
export class Controllers implements Part {
  readonly #role: Role;
  readonly #api: KubeApi;
  readonly #tags: RevisionTags;
  readonly #metrics: ControllerMetrics;
  readonly #leads: (readonly [Lock, Lead])[] = [];
  readonly #statuses = new Map<string, ElectionStatus>();
  readonly #identity: string;
  #classes: ClassKeeper | undefined;
  #stopped: Promise<unknown> = Promise.resolve();

  /** @throws MeshError AMB0260 */
  constructor(role: Role, api: KubeApi) {
    const { config, self, metrics } = role;
    this.#role = role;
    this.#api = api;
    this.#tags = new RevisionTags(self.revision);
    this.#metrics = new ControllerMetrics(metrics);
    // Two processes on one host, outside a cluster, must not take each other for themselves.
    this.#identity = config.podName ?? `${self.podName}-${crypto.randomUUID().slice(0, 8)}`;
    if (config.ambientStatus && config.ambient) this.#addConditions();
    if (config.addressAllocation) this.#addAddresses();
    if (config.gatewayStatus) this.#addGateways();
    if (config.gatewayClasses) this.#addClasses();
    if (config.nodeUntaint) this.#addUntaint();
    if (config.analysisStatus) this.#addAnalysis();
    this.#describe(metrics);
  }

  /** Adds work that is made elsewhere, before {@link start}. */
  add(lock: Lock, work: (api: KubeApi, metrics: ControllerMetrics) => Lead): void {
    this.#leads.push([lock, work(this.#api, this.#metrics)]);
  }

  /** Takes part in the elections until the role's signal. */
  start(): void {
    const { config, self, log: parent, signal } = this.#role, log = parent.child("leader");
    const timing = timingOf(config.leaderLeaseMs);
    const tagWatch = watchTags({ api: this.#api, namespace: self.namespace, tags: this.#tags, log }, signal);
    const elections = this.#leads.map(([lock, onLead]) =>
      runElection({
        api: this.#api,
        lock,
        identity: this.#identity,
        namespace: self.namespace,
        revision: self.revision,
        defaultRevision: () => this.#tags.defaultRevision,
        enabled: config.leaderElection,
        onLead,
        onStatus: (status) => this.#statuses.set(lock.name, status),
        timing,
        log,
      }, signal)
    );
    this.#stopped = Promise.all([tagWatch.stopped, this.#classes?.run(signal), ...elections]);
  }

  get stopped(): Promise<void> {
    return this.#stopped.then(() => {});
  }

  /** Who leads where, as far as is known here; for debug pages. */
  leaders(): readonly ElectionStatus[] {
    return [...this.#statuses.values()];
  }

  #common() {
    const { statuses: mirror, index, log } = this.#role;
    return { api: this.#api, mirror, sources: index.graph.sources, metrics: this.#metrics, log: log.child("status") };
  }

  #addConditions(): void {
    const { index } = this.#role, wanted = index.graph.conditions;
    const writer = new ConditionWriter({ ...this.#common(), wanted });
    index.follow(wanted, (changes) => writer.changed(changes));
    this.#leads.push([STATUS_LOCK, (signal) => writer.lead(signal)]);
  }

  #addAddresses(): void {
    const { config, feed, metrics } = this.#role, common = this.#common();
    const prefixes = [config.ipv4Pool, config.ipv6Pool].filter((prefix) => prefix !== "");
    const allocator = new AddressAllocator({ ...common, entries: common.sources.ServiceEntry, prefixes });
    feed.subscribe((changes) => allocator.changed(changes));
    metrics.gauge(
      "ambit_addresses_used",
      "Addresses of ServiceEntries, by the prefix they are of; known to the leader alone.",
      () => allocator.used().map(([prefix, count]) => [{ prefix }, count] as const),
    );
    this.#leads.push([ADDRESS_LOCK, (signal) => allocator.lead(signal)]);
  }

  #addGateways(): void {
    const { index, feed, self } = this.#role, wanted = index.graph.gatewayStatuses;
    const writer = new GatewayWriter({ ...this.#common(), wanted, tags: this.#tags });
    index.follow(wanted, (changes) => writer.wantedChanged(changes));
    feed.subscribe((changes) => writer.changed(changes));
    this.#leads.push([gatewayStatusLock(self.revision || "default"), (signal) => writer.lead(signal)]);
  }

  #addClasses(): void {
    const { config, feed } = this.#role, common = this.#common(), existing = common.sources.GatewayClass;
    const keeper = new ClassKeeper({ ...common, existing, classes: builtInClasses(config.multiNetwork) });
    feed.subscribe((changes) => keeper.changed(changes));
    this.#classes = keeper;
  }

  #addAnalysis(): void {
    const { config: { analysisIntervalMs: intervalMs }, feed, index: { graph } } = this.#role;
    const writer = new AnalysisWriter({ ...this.#common(), graph, intervalMs });
    feed.subscribe(() => writer.changed());
    this.#leads.push([ANALYSIS_LOCK, (signal) => writer.lead(signal)]);
  }

  #addUntaint(): void {
    const { config, self } = this.#role, namespace = config.cniNamespace || self.namespace;
    const untainter = new NodeUntainter({ ...this.#common(), namespace, taint: config.nodeTaint });
    this.#leads.push([NODE_UNTAINT_LOCK, (signal) => untainter.lead(signal)]);
  }

  #describe(metrics: Metrics): void {
    const each = (read: (status: ElectionStatus) => number) => () =>
      this.leaders().map((status) => [{ lock: status.lock }, read(status)] as const);
    metrics.gauge("ambit_leader", "1 where this istiod leads.", each(({ leading }) => leading ? 1 : 0));
    metrics.gauge("ambit_leader_terms", "Times that this istiod began to lead.", each(({ won }) => won));
    metrics.gauge("ambit_leader_losses", "Times that it stopped against its will.", each(({ lost }) => lost));
    metrics.gauge("ambit_election_failures", "Looks at a lock that failed.", each(({ failures }) => failures));
  }
}

/** The controllers of a role over a cluster; a folder of files has nobody to write to. @throws MeshError AMB0260 */
export function openControllers(role: Role): Controllers | undefined {
  return role.api === undefined ? undefined : new Controllers(role, role.api);
}

/** Istio's proportions (CP-650). */
function timingOf(leaseMs: number): ElectionTiming {
  assert(leaseMs > 0, "a lease lasts");
  return { leaseMs, renewDeadlineMs: leaseMs / 2, retryMs: leaseMs / 4 };
}
