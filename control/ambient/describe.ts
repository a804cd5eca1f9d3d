/** The index as plain JSON for people: what the debug endpoints show. */
import { formatIp, type IpWords } from "../../base/address.ts";
import { type Policy, PolicyAction, type PolicyMatch, PolicyScope } from "../../mesh/policy.ts";
import { AppProtocol, LoadBalancingMode, LoadBalancingScope, type Service } from "../../mesh/service.ts";
import { type GatewayAddress, TunnelProtocol, type Workload, WORKLOAD_TYPE_NAMES } from "../../mesh/workload.ts";
import { addressAlias } from "./addresses.ts";
import type { AmbientIndex } from "./index.ts";

export type Json = string | number | boolean | readonly Json[] | { readonly [key: string]: Json };
type JsonMap = { readonly [key: string]: Json };

/** Leaves out what is empty: absent, "", 0, false, no items. */
function compact(fields: Readonly<Record<string, Json | undefined>>): JsonMap {
  const kept: Record<string, Json> = {};
  for (const [name, value] of Object.entries(fields)) {
    const empty = value === undefined || value === "" || value === 0 || value === false ||
      (typeof value === "object" && Object.keys(value).length === 0);
    if (!empty) kept[name] = value;
  }
  return kept;
}

function nameOf(values: Readonly<Record<string, number>>, value: number): string {
  return Object.keys(values).find((name) => values[name] === value) ?? String(value);
}

const text = (ip: IpWords) => formatIp(ip[0], ip[1], ip[2], ip[3]);

function describeGateway(gateway: GatewayAddress | undefined): Json | undefined {
  if (gateway === undefined) return undefined;
  const target = gateway.address !== undefined
    ? addressAlias(gateway.address.network, gateway.address.ip)
    : `${gateway.hostname?.namespace}/${gateway.hostname?.hostname}`;
  return { destination: target, hboneMtlsPort: gateway.hboneMtlsPort };
}

/** A workload, field by field; what is empty is left out. */
export function describeWorkload(workload: Workload): JsonMap {
  return compact({
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    addresses: workload.addresses.map(text),
    hostname: workload.hostname,
    network: workload.network,
    tunnelProtocol: nameOf(TunnelProtocol, workload.tunnelProtocol),
    trustDomain: workload.trustDomain,
    serviceAccount: workload.serviceAccount,
    waypoint: describeGateway(workload.waypoint),
    networkGateway: describeGateway(workload.networkGateway),
    node: workload.node,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    workloadType: WORKLOAD_TYPE_NAMES[workload.workloadType],
    workloadName: workload.workloadName,
    nativeTunnel: workload.nativeTunnel,
    applicationTunnel: workload.applicationTunnel && { ...workload.applicationTunnel },
    authorizationPolicies: workload.authorizationPolicies,
    status: workload.healthy ? "HEALTHY" : "UNHEALTHY",
    clusterId: workload.clusterId,
    locality: compact({ ...workload.locality }),
    services: Object.fromEntries(
      [...workload.services].sort(([a], [b]) => a < b ? -1 : 1).map((
        [key, ports],
      ) => [key, ports.map(({ servicePort, targetPort }) => `${servicePort}:${targetPort}`)]),
    ),
    networkMode: workload.hostNetwork ? "HOST_NETWORK" : "STANDARD",
    capacity: workload.capacity,
  });
}

/** A service, field by field; what is empty is left out. */
export function describeService(service: Service): JsonMap {
  const balancing = service.loadBalancing;
  return compact({
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    addresses: service.addresses.map(({ network, ip, prefixLength }) => addressAlias(network, ip, prefixLength)),
    ports: service.ports.map(({ servicePort, targetPort, appProtocol }) =>
      `${servicePort}:${targetPort}${appProtocol === undefined ? "" : ` ${nameOf(AppProtocol, appProtocol)}`}`
    ),
    subjectAltNames: service.subjectAltNames,
    waypoint: describeGateway(service.waypoint),
    weightedWaypoints: service.weightedWaypoints.map(({ destination, weight }) => ({
      destination: describeGateway(destination) ?? "",
      weight,
    })),
    loadBalancing: balancing && {
      mode: nameOf(LoadBalancingMode, balancing.mode),
      routingPreference: balancing.routingPreference.map((scope) => nameOf(LoadBalancingScope, scope)),
      healthPolicy: balancing.allowUnhealthy ? "ALLOW_ALL" : "ONLY_HEALTHY",
    },
    ipFamilies: ["AUTOMATIC", "IPV4_ONLY", "IPV6_ONLY", "DUAL"][service.ipFamilies],
    canonical: service.canonical,
    ingressUseWaypoint: service.ingressUseWaypoint,
    visibility: service.namespaceOnly ? "NAMESPACE" : "PUBLIC",
  });
}

function describeMatch(match: PolicyMatch): JsonMap {
  const strings = (list: PolicyMatch["principals"]) =>
    list.map(({ kind, value }) =>
      kind === "presence" ? "*" : kind === "prefix" ? `${value}*` : kind === "suffix" ? `*${value}` : value
    );
  const ips = (list: PolicyMatch["sourceIps"]) => list.map(({ ip, prefixLength }) => `${text(ip)}/${prefixLength}`);
  const accounts = (list: PolicyMatch["serviceAccounts"]) =>
    list.map(({ namespace, serviceAccount }) => `${namespace}/${serviceAccount}`);
  return compact({
    namespaces: strings(match.namespaces),
    notNamespaces: strings(match.notNamespaces),
    principals: strings(match.principals),
    notPrincipals: strings(match.notPrincipals),
    serviceAccounts: accounts(match.serviceAccounts),
    notServiceAccounts: accounts(match.notServiceAccounts),
    sourceIps: ips(match.sourceIps),
    notSourceIps: ips(match.notSourceIps),
    destinationIps: ips(match.destinationIps),
    notDestinationIps: ips(match.notDestinationIps),
    destinationPorts: match.destinationPorts,
    notDestinationPorts: match.notDestinationPorts,
  });
}

/** A policy; rules, clauses and matches keep their nesting, and an empty match shows as `{}`. */
export function describePolicy(policy: Policy): JsonMap {
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: nameOf(PolicyScope, policy.scope),
    action: nameOf(PolicyAction, policy.action),
    dryRun: policy.dryRun,
    rules: policy.rules.map((rule) => rule.clauses.map((clause) => clause.map(describeMatch))),
  };
}

function sorted<T>(entries: Iterable<[string, T]>): [string, T][] {
  return [...entries].sort(([left], [right]) => left < right ? -1 : 1);
}

/** Everything in the index, in stable order, with the problems and the conditions of objects. */
export function describeIndex(index: AmbientIndex): JsonMap {
  const { workloads, services, policies, conditions, problems } = index.graph;
  return {
    workloads: sorted(workloads.entries()).map(([, it]) => describeWorkload(it)),
    services: sorted(services.entries()).map(([, it]) => describeService(it)),
    policies: sorted(policies.entries()).map(([, it]) => describePolicy(it)),
    conditions: Object.fromEntries(
      sorted(conditions.entries()).flatMap(([key, { conditions: said }]) =>
        said.length === 0 ? [] : [[key, said.map((it) => ({ ...it }))] as const]
      ),
    ),
    problems: sorted(problems.entries()).map(([, it]) => ({ ...it })),
  };
}
