/** Gateways as ways into other networks (CP-124), and the workloads that stand for them (CP-216). Pure. */
import { formatIp, parseIp } from "../../base/address.ts";
import type { GatewayAddress, Locality, Workload } from "../../mesh/workload.ts";
import { BARE_WORKLOAD } from "./bare_workload.ts";
import type { GatewayObject } from "../objects.ts";

/** One address of a network's gateway. */
export interface NetworkGateway {
  /** `namespace/name/address`: of two clusters that name the same, the config cluster's counts. */
  readonly identity: string;
  readonly network: string;
  /** An IP address in canonical form, or a hostname. */
  readonly address: string;
  /** 0 where the port is the far cluster's own business: 15008 is meant then. */
  readonly hbonePort: number;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** The cluster that names it. */
  readonly clusterId: string;
}

const NETWORK_LABEL = "topology.istio.io/network";
const SERVICE_ACCOUNT = "gateway.istio.io/service-account";
const REMOTE_CLASS = "istio-remote", EAST_WEST_CLASS = "istio-east-west";
const HBONE = "HBONE", HBONE_PORT = 15008;

/** The network that a namespace's or Gateway's labels name; undefined without the label, which is not the same as empty. */
export function networkLabel(labels: ReadonlyMap<string, string>): string | undefined {
  return labels.get(NETWORK_LABEL);
}

/**
 * The addresses at which a Gateway leads into another network. In the config cluster Gateways of class istio-remote
 * stand for the far side; in another cluster its own east-west gateways do.
 */
export function networkGatewaysOf(
  gateway: GatewayObject,
  cluster: { readonly clusterId: string; readonly remote: boolean },
): NetworkGateway[] {
  const { meta, className, listeners } = gateway, network = networkLabel(meta.labels) ?? "";
  if (network === "" || className !== (cluster.remote ? EAST_WEST_CLASS : REMOTE_CLASS)) return [];
  const listener = listeners.find(({ protocol, tlsMode }) =>
    protocol === HBONE && (!cluster.remote || tlsMode === "Terminate")
  );
  if (listener === undefined) return [];
  // The name that the class's deployment gives the account; an istio-remote one has none here.
  const generated = cluster.remote ? meta.name : `${meta.name}-${className}`;
  const known = gateway.statusAddresses.filter(({ type, value }) =>
    value !== "" && (type === "Hostname" || (type === "IPAddress" && parseIp(value) !== undefined))
  );
  return known.map(({ value }) => {
    const ip = parseIp(value), address = ip === undefined ? value : formatIp(ip[0], ip[1], ip[2], ip[3]);
    return {
      identity: `${meta.namespace}/${meta.name}/${address}`,
      network,
      address,
      hbonePort: cluster.remote ? 0 : listener.port,
      namespace: meta.namespace,
      serviceAccount: meta.annotations.get(SERVICE_ACCOUNT) || generated,
      clusterId: cluster.clusterId,
    };
  });
}

/** How proxies are told to reach it. */
export function gatewayAddress({ address, network, namespace, hbonePort }: NetworkGateway): GatewayAddress {
  const ip = parseIp(address), hboneMtlsPort = hbonePort || HBONE_PORT;
  return ip === undefined
    ? { hostname: { namespace, hostname: address }, hboneMtlsPort }
    : { address: { network, ip }, hboneMtlsPort };
}

/** The gateway that workloads of a network name: the first whose port is known (CP-207). */
export function gatewayOfWorkloads(gateways: readonly NetworkGateway[]): GatewayAddress | undefined {
  const first = gateways.find(({ hbonePort }) => hbonePort !== 0);
  return first && gatewayAddress(first);
}

const NO_LOCALITY: Locality = { region: "", zone: "", subzone: "" };

/** The key of {@link workloadOfGateway}. */
export function gatewayUid({ network, address, hbonePort }: NetworkGateway): string {
  return `NetworkGateway/${network}/${address}/${hbonePort}`;
}

/** The gateway itself as a workload, so that proxies know whom to expect behind its address (CP-216, CP-283). */
export function workloadOfGateway(gateway: NetworkGateway, trustDomain: string): Workload {
  const uid = gatewayUid(gateway), ip = parseIp(gateway.address);
  return {
    ...BARE_WORKLOAD,
    uid,
    name: uid,
    namespace: gateway.namespace,
    addresses: ip === undefined ? [] : [ip],
    hostname: ip === undefined ? gateway.address : "",
    network: gateway.network,
    trustDomain,
    serviceAccount: gateway.serviceAccount,
    healthy: true,
    clusterId: "",
    locality: NO_LOCALITY,
    services: new Map(),
    hostNetwork: false,
  };
}
