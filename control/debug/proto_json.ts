/** Workloads, services and policies in the JSON form of their messages, as tools of Istio's make know it. */
import { formatIp, ipToBytes, type IpWords } from "../../base/address.ts";
import { type Policy, PolicyAction, type PolicyMatch, PolicyScope, type StringMatch } from "../../mesh/policy.ts";
import { LoadBalancingMode, LoadBalancingScope, type Service } from "../../mesh/service.ts";
import { type GatewayAddress, TunnelProtocol, type Workload, WorkloadType } from "../../mesh/workload.ts";

/** How an address is written into a field of bytes: as it is on the wire, or as text for people, in base64 either way. */
export type AddressForm = (ip: IpWords) => string;

/** As on the wire. */
export const wireAddress: AddressForm = (ip) => btoa(String.fromCharCode(...ipToBytes(ip)));
/** As text: so `/debug/ambientz` writes it. */
export const textAddress: AddressForm = (ip) => btoa(formatIp(ip[0], ip[1], ip[2], ip[3]));

type Fields = Readonly<Record<string, unknown>>;

/** Leaves out what has its default, as the JSON form of messages does. */
function message(fields: Fields): Fields {
  const kept = Object.entries(fields).filter(([, value]) =>
    value !== undefined && value !== "" && value !== 0 && value !== false &&
    !(Array.isArray(value) && value.length === 0)
  );
  return Object.fromEntries(kept);
}

/** An enum's word; the default has none. */
function word(values: Readonly<Record<string, number>>, value: number): string | undefined {
  return value === 0 ? undefined : Object.keys(values).find((name) => values[name] === value) ?? String(value);
}

function gateway(reference: GatewayAddress | undefined, form: AddressForm): Fields | undefined {
  if (reference === undefined) return undefined;
  const { hostname, address, hboneMtlsPort } = reference;
  return message({
    hostname: hostname && message({ ...hostname }),
    address: address && message({ network: address.network, address: form(address.ip) }),
    hboneMtlsPort,
  });
}

/** Message istio.workload.Workload. */
export function workloadJson(workload: Workload, form: AddressForm): Fields {
  const { region, zone, subzone } = workload.locality;
  const services = [...workload.services].map(([key, ports]) =>
    [key, message({ ports: ports.map((port) => message({ ...port })) })] as const
  );
  const fields = message({
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    addresses: workload.addresses.map(form),
    hostname: workload.hostname,
    network: workload.network,
    tunnelProtocol: word(TunnelProtocol, workload.tunnelProtocol),
    trustDomain: workload.trustDomain === "cluster.local" ? "" : workload.trustDomain,
    serviceAccount: workload.serviceAccount,
    waypoint: gateway(workload.waypoint, form),
    networkGateway: gateway(workload.networkGateway, form),
    node: workload.node,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    workloadType: word(WorkloadType, workload.workloadType),
    workloadName: workload.workloadName,
    nativeTunnel: workload.nativeTunnel,
    authorizationPolicies: workload.authorizationPolicies,
    status: workload.healthy ? undefined : "UNHEALTHY",
    clusterId: workload.clusterId,
    services: services.length === 0 ? undefined : Object.fromEntries(services),
    applicationTunnel: workload.applicationTunnel && message({
      protocol: word({ PROXY: 1 }, workload.applicationTunnel.protocol),
      port: workload.applicationTunnel.port,
    }),
    locality: region + zone + subzone === "" ? undefined : message({ region, zone, subzone }),
    networkMode: workload.hostNetwork ? "HOST_NETWORK" : undefined,
  });
  return workload.capacity === 1 ? fields : { ...fields, capacity: workload.capacity }; // 0 says something of its own.
}

/** Message istio.workload.Service. */
export function serviceJson(service: Service, form: AddressForm): Fields {
  const { loadBalancing } = service;
  return message({
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    addresses: service.addresses.map(({ network, ip, prefixLength }) =>
      message({ network, address: form(ip), length: prefixLength })
    ),
    ports: service.ports.map((port) => message({ ...port })),
    subjectAltNames: service.subjectAltNames,
    waypoint: gateway(service.waypoint, form),
    loadBalancing: loadBalancing && message({
      routingPreference: loadBalancing.routingPreference.map((scope) => word(LoadBalancingScope, scope)),
      mode: word(LoadBalancingMode, loadBalancing.mode),
      healthPolicy: loadBalancing.allowUnhealthy ? "ALLOW_ALL" : undefined,
    }),
    ipFamilies: [undefined, "IPV4_ONLY", "IPV6_ONLY", "DUAL"][service.ipFamilies],
    canonical: service.canonical,
    weightedWaypoints: service.weightedWaypoints.map(({ destination, weight }) =>
      message({ destination: gateway(destination, form), weight })
    ),
    visibility: service.namespaceOnly ? "NAMESPACE" : undefined,
  });
}

function stringMatch({ kind, value }: StringMatch): Fields {
  return { [kind]: kind === "presence" ? {} : value };
}

function matchJson(match: PolicyMatch, form: AddressForm): Fields {
  const ranges = (list: PolicyMatch["sourceIps"]) =>
    list.map(({ ip, prefixLength }) => message({ address: form(ip), length: prefixLength }));
  const accounts = (list: PolicyMatch["serviceAccounts"]) => list.map((it) => message({ ...it }));
  return message({
    namespaces: match.namespaces.map(stringMatch),
    notNamespaces: match.notNamespaces.map(stringMatch),
    principals: match.principals.map(stringMatch),
    notPrincipals: match.notPrincipals.map(stringMatch),
    sourceIps: ranges(match.sourceIps),
    notSourceIps: ranges(match.notSourceIps),
    destinationIps: ranges(match.destinationIps),
    notDestinationIps: ranges(match.notDestinationIps),
    destinationPorts: match.destinationPorts,
    notDestinationPorts: match.notDestinationPorts,
    serviceAccounts: accounts(match.serviceAccounts),
    notServiceAccounts: accounts(match.notServiceAccounts),
  });
}

/** Message istio.security.Authorization. */
export function policyJson(policy: Policy, form: AddressForm): Fields {
  return message({
    name: policy.name,
    namespace: policy.namespace,
    scope: word(PolicyScope, policy.scope),
    action: word(PolicyAction, policy.action),
    rules: policy.rules.map(({ clauses }) =>
      message({ clauses: clauses.map((matches) => message({ matches: matches.map((it) => matchJson(it, form)) })) })
    ),
    dryRun: policy.dryRun,
  });
}
