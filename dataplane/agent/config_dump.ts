/** The JSON of `/config_dump`: what istioctl and people read of the agent's state (ZT-208 to ZT-215). */
import { formatIp, formatSocketAddress, type IpWords } from "../../base/address.ts";
import type { IpMatch, Policy, PolicyMatch, StringMatch } from "../../mesh/policy.ts";
import { IpFamilies, LoadBalancingMode, type Service, serviceKey } from "../../mesh/service.ts";
import {
  ApplicationTunnelProtocol,
  type GatewayAddress,
  type PortMapping,
  TunnelProtocol,
} from "../../mesh/workload.ts";
import { type Workload, WORKLOAD_TYPE_NAMES } from "../../mesh/workload.ts";
import type { Tables } from "../tables/handles.ts";
import { CONNECTION, CONNECTION_KIND_NAMES, ConnectionState, Direction } from "../tables/layout.ts";
import type { MeshState, PodFacts } from "./state.ts";

/** JSON as it is written; undefined members are left out. */
export type Json = string | number | boolean | null | undefined | readonly Json[] | { readonly [key: string]: Json };

/** A certificate as the dump shows it (ZT-212). */
export interface DumpedCertificate {
  readonly identity: string;
  /** `Initializing`, `Available`, or `Unavailable: <error>`. */
  readonly state: string;
  readonly certChain: readonly CertificateDetails[];
  readonly rootCerts: readonly CertificateDetails[];
}

export interface CertificateDetails {
  readonly pem: string;
  /** Decimal. */
  readonly serialNumber: string;
  readonly validFromMs: number;
  readonly expirationTimeMs: number;
}

/** An enrolled pod for `workloadState` (ZT-213). */
export interface DumpedPod {
  readonly uid: string;
  /** -1 while it is pending. */
  readonly podRow: number;
  readonly up: boolean;
  readonly facts: PodFacts;
}

/** Everything the dump is made of. What other parts of the agent hold comes in already as they show it. */
export interface ConfigDumpSources {
  readonly state: MeshState;
  /** Resources of the local file (ZT-145), as they were read. */
  readonly staticConfig?: { readonly workloads: Json; readonly services: Json; readonly policies: Json };
  readonly version: Json;
  /** Every setting in camelCase; never a secret (ZT-214). */
  readonly config: Json;
  readonly certificates: readonly DumpedCertificate[];
  /** undefined in dedicated mode. */
  readonly pods: readonly DumpedPod[] | undefined;
  readonly tables: Tables;
}

/** The dump as pretty JSON. */
export function configDump(sources: ConfigDumpSources): string {
  return JSON.stringify(configDumpObject(sources), undefined, 2);
}

/** The dump before it becomes text. */
export function configDumpObject(sources: ConfigDumpSources): Json {
  const { state } = sources;
  const services = sorted(values(state.services), (service) => `${service.hostname}\u0000${service.namespace}`);
  return {
    workloads: sorted(values(state.workloads), (workload) => workload.uid).map(dumpWorkload),
    services: services.map((service) =>
      dumpService(service, state.storedEndpoints(serviceKey(service.namespace, service.hostname)))
    ),
    policies: sorted(values(state.policies), (policy) => policy.key).map(dumpPolicy),
    stagedServices: Object.fromEntries(
      [...state.stagedEndpoints()].map(([key, members]) => [key, dumpEndpoints(key, members)]),
    ),
    staticConfig: sources.staticConfig ?? { workloads: [], services: [], policies: [] },
    version: sources.version,
    config: sources.config,
    certificates: sorted(sources.certificates, (certificate) => certificate.identity).map(dumpCertificate),
    workloadState: sources.pods && dumpPods(sources.pods, sources.tables),
  };
}

/** ZT-209: some members always, the others if not default. */
export function dumpWorkload(workload: Workload): Json {
  const { locality, applicationTunnel } = workload;
  const services = [...workload.services.keys()].sort();
  return {
    workloadIps: workload.addresses.map(ipText),
    waypoint: dumpGateway(workload.waypoint),
    networkGateway: dumpGateway(workload.networkGateway),
    protocol: workload.tunnelProtocol === TunnelProtocol.HBONE ? "HBONE" : "TCP",
    networkMode: workload.hostNetwork ? "HostNetwork" : "Standard",
    uid: some(workload.uid),
    name: workload.name,
    namespace: workload.namespace,
    trustDomain: some(workload.trustDomain),
    serviceAccount: some(workload.serviceAccount),
    network: some(workload.network),
    workloadName: some(workload.workloadName),
    workloadType: some(WORKLOAD_TYPE_NAMES[workload.workloadType]),
    canonicalName: some(workload.canonicalName),
    canonicalRevision: some(workload.canonicalRevision),
    hostname: some(workload.hostname),
    node: some(workload.node),
    nativeTunnel: workload.nativeTunnel ? true : undefined,
    applicationTunnel: applicationTunnel && {
      protocol: applicationTunnel.protocol === ApplicationTunnelProtocol.PROXY ? "PROXY" : "NONE",
      port: applicationTunnel.port === 0 ? null : applicationTunnel.port,
    },
    authorizationPolicies: someList(workload.authorizationPolicies),
    status: statusOf(workload),
    clusterId: workload.clusterId,
    locality: locality.region + locality.zone + locality.subzone === "" ? undefined : { ...locality },
    services: someList(services),
    capacity: workload.capacity,
  };
}

/** ZT-210. */
export function dumpService(service: Service, endpoints: readonly Workload[]): Json {
  const exact = service.addresses.filter((address) => address.prefixLength === undefined);
  const ranges = service.addresses.filter((address) => address.prefixLength !== undefined);
  const { loadBalancing } = service;
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    vips: exact.map(({ network, ip }) => `${network}/${ipText(ip)}`),
    cidrVips: someList(
      ranges.map(({ network, ip, prefixLength }) => ({ network, cidr: `${ipText(ip)}/${prefixLength}` })),
    ),
    ports: dumpPorts(service.ports),
    endpoints: dumpEndpoints(serviceKey(service.namespace, service.hostname), endpoints),
    subjectAltNames: service.subjectAltNames,
    waypoint: dumpGateway(service.waypoint),
    weightedWaypoints: someList(
      service.weightedWaypoints.map(({ destination, weight }) => ({ destination: dumpGateway(destination), weight })),
    ),
    loadBalancer: loadBalancing && {
      routingPreferences: loadBalancing.routingPreference.map((scope) => SCOPE_NAMES[scope]),
      mode: MODE_NAMES[loadBalancing.mode],
      healthPolicy: loadBalancing.allowUnhealthy ? "AllowAll" : "OnlyHealthy",
    },
    ipFamilies: FAMILY_NAMES[service.ipFamilies],
    canonical: service.canonical,
    visibility: service.namespaceOnly ? "Namespace" : "Public",
  };
}

/** ZT-211. */
export function dumpPolicy(policy: Policy): Json {
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: (["Global", "Namespace", "WorkloadSelector"] as const)[policy.scope],
    action: (["Allow", "Deny"] as const)[policy.action],
    rules: policy.rules.map((rule) => rule.clauses.map((clause) => clause.map(dumpMatch))),
    dryRun: policy.dryRun,
  };
}

const SCOPE_NAMES = [undefined, "Region", "Zone", "Subzone", "Node", "Cluster", "Network"] as const; // by value
const MODE_NAMES = {
  [LoadBalancingMode.UNSPECIFIED]: "Standard",
  [LoadBalancingMode.STRICT]: "Strict",
  [LoadBalancingMode.FAILOVER]: "Failover",
  [LoadBalancingMode.PASSTHROUGH]: "Passthrough",
} as const;
const FAMILY_NAMES = {
  [IpFamilies.AUTOMATIC]: undefined,
  [IpFamilies.IPV4_ONLY]: "IPv4",
  [IpFamilies.IPV6_ONLY]: "IPv6",
  [IpFamilies.DUAL]: "Dual",
} as const;

function dumpMatch(match: PolicyMatch): Json {
  return {
    namespaces: someList(match.namespaces.map(dumpStringMatch)),
    notNamespaces: someList(match.notNamespaces.map(dumpStringMatch)),
    serviceAccounts: someList(match.serviceAccounts.map((it) => ({ ...it }))),
    notServiceAccounts: someList(match.notServiceAccounts.map((it) => ({ ...it }))),
    principals: someList(match.principals.map(dumpStringMatch)),
    notPrincipals: someList(match.notPrincipals.map(dumpStringMatch)),
    sourceIps: someList(match.sourceIps.map(dumpIpMatch)),
    notSourceIps: someList(match.notSourceIps.map(dumpIpMatch)),
    destinationIps: someList(match.destinationIps.map(dumpIpMatch)),
    notDestinationIps: someList(match.notDestinationIps.map(dumpIpMatch)),
    destinationPorts: someList(match.destinationPorts),
    notDestinationPorts: someList(match.notDestinationPorts),
  };
}

function dumpStringMatch({ kind, value }: StringMatch): Json {
  if (kind === "exact") return { Exact: value };
  if (kind === "prefix") return { Prefix: value };
  return kind === "suffix" ? { Suffix: value } : { Presence: [] };
}

function dumpIpMatch({ ip, prefixLength }: IpMatch): string {
  return `${ipText(ip)}/${prefixLength}`;
}

function dumpGateway(gateway: GatewayAddress | undefined): Json {
  if (gateway === undefined) return undefined;
  const { address, hostname, hboneMtlsPort } = gateway;
  const destination = address !== undefined
    ? `${address.network}/${ipText(address.ip)}`
    : `${hostname?.namespace}/${hostname?.hostname}`;
  return { destination, hboneMtlsPort };
}

function dumpEndpoints(key: string, members: readonly Workload[]): Json {
  return Object.fromEntries(
    sorted(members, (workload) => workload.uid).map((workload) => [workload.uid, {
      workloadUid: workload.uid,
      port: dumpPorts(workload.services.get(key) ?? []),
      status: statusOf(workload),
    }]),
  );
}

function dumpPorts(ports: readonly PortMapping[]): Json {
  return Object.fromEntries(ports.map(({ servicePort, targetPort }) => [String(servicePort), targetPort]));
}

function dumpCertificate({ identity, state, certChain, rootCerts }: DumpedCertificate): Json {
  return { identity, state, certChain: certChain.map(dumpDetails), rootCerts: rootCerts.map(dumpDetails) };
}

function dumpDetails({ pem, serialNumber, validFromMs, expirationTimeMs }: CertificateDetails): Json {
  return { pem: btoa(pem), serialNumber, validFrom: timeText(validFromMs), expirationTime: timeText(expirationTimeMs) };
}

/** RFC 3339 in whole seconds. */
function timeText(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

/** ZT-213: pods with their live connections, read from the workers' rows as they are now. */
function dumpPods(pods: readonly DumpedPod[], tables: Tables): Json {
  const connections = connectionsByPod(tables);
  return Object.fromEntries(
    sorted(pods, (pod) => pod.uid).map(({ uid, podRow, up, facts }) => [uid, {
      state: up ? "Up" : "Pending",
      info: { name: facts.name, namespace: facts.namespace, serviceAccount: facts.serviceAccount },
      connections: connections.get(podRow) ?? { inbound: [], outbound: [] },
    }]),
  );
}

interface PodConnections {
  readonly [direction: string]: Json[];
  readonly inbound: Json[];
  readonly outbound: Json[];
}

function connectionsByPod(tables: Tables): Map<number, PodConnections> {
  const byPod = new Map<number, PodConnections>(), decoder = new TextDecoder();
  for (const rows of tables.connections) {
    for (let row = 0; row < rows.rowCount; row++) {
      const epoch = rows.get(row, CONNECTION.epoch);
      if (rows.load(row, CONNECTION.state) !== ConnectionState.OPEN) continue;
      const address = (field: typeof CONNECTION.sourceIp, port: typeof CONNECTION.sourcePort) => {
        const word = (at: number) => rows.getAt(row, field, at);
        return formatSocketAddress([word(0), word(1), word(2), word(3)], rows.get(row, port));
      };
      const outbound = rows.get(row, CONNECTION.direction) === Direction.OUTBOUND;
      const host = decoder.decode(rows.readBytes(row, CONNECTION.host, rows.get(row, CONNECTION.hostBytes)));
      const connection: Json = {
        src: address(CONNECTION.sourceIp, CONNECTION.sourcePort),
        originalDst: outbound ? address(CONNECTION.destinationIp, CONNECTION.destinationPort) : some(host) ?? null,
        // An inbound one went to the application; port 15008, which was dialled for it, says nothing.
        actualDst: outbound
          ? address(CONNECTION.actualIp, CONNECTION.actualPort)
          : address(CONNECTION.destinationIp, CONNECTION.destinationPort),
        protocol: CONNECTION_KIND_NAMES[rows.get(row, CONNECTION.kind)],
      };
      const pod = rows.getI32(row, CONNECTION.podRow);
      // The worker goes on meanwhile; a row that changed hands under us is somebody else's by now.
      if (rows.load(row, CONNECTION.state) !== ConnectionState.OPEN || rows.get(row, CONNECTION.epoch) !== epoch) {
        continue;
      }
      let lists = byPod.get(pod);
      if (lists === undefined) byPod.set(pod, lists = { inbound: [], outbound: [] });
      (outbound ? lists.outbound : lists.inbound).push(connection);
    }
  }
  return byPod;
}

function statusOf(workload: Workload): string {
  return workload.healthy ? "Healthy" : "Unhealthy";
}

function ipText(ip: IpWords): string {
  return formatIp(...ip);
}

function some(text: string | undefined): string | undefined {
  return text === "" ? undefined : text;
}

function someList<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length === 0 ? undefined : list;
}

function values<T>(resources: ReadonlyMap<string, { readonly resource: T }>): T[] {
  return [...resources.values()].map(({ resource }) => resource);
}

function sorted<T>(items: readonly T[], key: (item: T) => string): T[] {
  return items.toSorted((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
}
