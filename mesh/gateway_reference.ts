/** References to waypoints and gateways: what they name, and whom they lead to (ZT-036, ZT-039). */
import { formatSocketAddress, type IpWords } from "../base/address.ts";
import type { Service } from "./service.ts";
import type { MeshView } from "./view.ts";
import type { GatewayAddress, Workload } from "./workload.ts";

/** The service that a reference names, whatever its visibility (ZT-141); by address, VIPs come before workloads (ZT-019). */
export function referencedService(view: MeshView, reference: GatewayAddress): Service | undefined {
  if (reference.hostname !== undefined) {
    return view.serviceNamed(reference.hostname.namespace, reference.hostname.hostname);
  }
  if (reference.address === undefined) return undefined;
  const { network, ip } = reference.address;
  return view.serviceAt(network, ip[0], ip[1], ip[2], ip[3], undefined);
}

/** The workload that a reference names; asked when it names no service. */
export function referencedWorkload(view: MeshView, reference: GatewayAddress): Workload | undefined {
  if (reference.hostname !== undefined) {
    return view.workloadNamed(reference.hostname.namespace, reference.hostname.hostname);
  }
  if (reference.address === undefined) return undefined;
  const { network, ip } = reference.address;
  return view.workloadAt(network, ip[0], ip[1], ip[2], ip[3]);
}

/** Whether the reference leads to a workload that `is` accepts: the one it names, or an endpoint of the service it names. */
export function referenceLeadsTo(
  view: MeshView,
  reference: GatewayAddress,
  is: (workload: Workload) => boolean,
): boolean {
  const service = referencedService(view, reference);
  if (service !== undefined && view.endpointsOf(service).some(is)) return true;
  const workload = referencedWorkload(view, reference);
  return workload !== undefined && is(workload);
}

export function ownsAddress(workload: Workload, word0: number, word1: number, word2: number, word3: number): boolean {
  return addressIn(workload.addresses, word0, word1, word2, word3);
}

/** Whether both are on one network and have an address in common. */
export function sharesAddress(left: Workload, right: Workload): boolean {
  if (left.network !== right.network) return false;
  return left.addresses.some((ip) => addressIn(right.addresses, ip[0], ip[1], ip[2], ip[3]));
}

function addressIn(list: readonly IpWords[], word0: number, word1: number, word2: number, word3: number): boolean {
  for (const ip of list) {
    if (ip[3] === word3 && ip[2] === word2 && ip[1] === word1 && ip[0] === word0) return true;
  }
  return false;
}

/** For reasons: `namespace/hostname`, or network, address and port. */
export function formatReference(reference: GatewayAddress): string {
  if (reference.hostname !== undefined) return `${reference.hostname.namespace}/${reference.hostname.hostname}`;
  if (reference.address === undefined) return "nothing";
  return `${reference.address.network}/${formatSocketAddress(reference.address.ip, reference.hboneMtlsPort)}`;
}
