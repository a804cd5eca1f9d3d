/** Codec of istio.workload.Address (workload.proto) from and to the domain's types (ZT section 7.4). */
import { ipFromBytes, ipToBytes, type IpWords, isIpv4 } from "../../base/address.ts";
import type {
  AppProtocol,
  IpFamilies,
  LoadBalancing,
  LoadBalancingMode,
  LoadBalancingScope,
  Service,
  ServiceAddress,
  ServicePort,
} from "../service.ts";
import type {
  ApplicationTunnelProtocol,
  GatewayAddress,
  Locality,
  PortMapping,
  TunnelProtocol,
  Workload,
  WorkloadType,
} from "../workload.ts";
import { type MessageReader, readMessage, RESOURCE_BYTES_MAX } from "./message_reader.ts";
import { MessageWriter, sortedEntries } from "./message_writer.ts";
import { WireFormatError } from "./wire_format_error.ts";

export const ADDRESS_TYPE_URL = "type.googleapis.com/istio.workload.Address";

/** What an Address carries: one of the two. */
export type Address =
  | { readonly workload: Workload; readonly service?: undefined }
  | { readonly service: Service; readonly workload?: undefined };

type WeightedWaypoint = Service["weightedWaypoints"][number];
type ApplicationTunnel = NonNullable<Workload["applicationTunnel"]>;
type Writable<T> = { -readonly [K in keyof T]: T[K] };

const NO_LOCALITY: Locality = { region: "", zone: "", subzone: "" };
const NO_POLICIES: readonly string[] = Object.freeze([]);
const NO_SERVICES: ReadonlyMap<string, readonly PortMapping[]> = new Map();
const DEFAULT_TRUST_DOMAIN = "cluster.local";
const DEFAULT_SERVICE_ACCOUNT = "default";
const APP_PROTOCOL_MAX = 5;
const DEFAULT_CLUSTER_ID = "Kubernetes";

/** Decodes an Address and applies the defaults of ZT section 7.4. @throws WireFormatError */
export function decodeAddress(bytes: Uint8Array): Address {
  return readMessage(bytes, RESOURCE_BYTES_MAX, "istio.workload.Address", readAddress);
}

function readAddress(reader: MessageReader): Address {
  let address: Address | undefined;
  while (reader.next()) {
    if (reader.field === 1) address = { workload: reader.message(readWorkload) };
    else if (reader.field === 2) address = { service: reader.message(readService) };
    else reader.skip();
  }
  if (address === undefined) throw new WireFormatError("an Address holds neither a workload nor a service");
  return address;
}

function readWorkload(reader: MessageReader): Workload {
  const addresses: IpWords[] = [], policies: string[] = [], services = new Map<string, readonly PortMapping[]>();
  // One literal with every field, so that all workloads share one shape.
  const workload: Writable<Workload> = {
    uid: "",
    name: "",
    namespace: "",
    addresses,
    hostname: "",
    network: "",
    tunnelProtocol: 0,
    trustDomain: "",
    serviceAccount: "",
    waypoint: undefined,
    networkGateway: undefined,
    node: "",
    canonicalName: "",
    canonicalRevision: "",
    workloadType: 0,
    workloadName: "",
    nativeTunnel: false,
    applicationTunnel: undefined,
    authorizationPolicies: policies,
    healthy: true,
    clusterId: "",
    locality: NO_LOCALITY,
    services,
    hostNetwork: false,
    capacity: 1,
  };
  while (reader.next()) readWorkloadField(reader, workload, addresses, policies, services);
  // Ten thousand of them are kept: nothing is empty of its own, and lists that grew are cut to their length.
  workload.addresses = addresses.slice();
  workload.authorizationPolicies = policies.length === 0 ? NO_POLICIES : policies.slice();
  if (services.size === 0) workload.services = NO_SERVICES;
  workload.trustDomain ||= DEFAULT_TRUST_DOMAIN;
  workload.serviceAccount ||= DEFAULT_SERVICE_ACCOUNT;
  workload.clusterId ||= DEFAULT_CLUSTER_ID;
  return workload;
}

function readWorkloadField(
  reader: MessageReader,
  workload: Writable<Workload>,
  addresses: IpWords[],
  policies: string[],
  services: Map<string, readonly PortMapping[]>,
): void {
  switch (reader.field) {
    case 1:
      return void (workload.name = reader.text());
    case 2:
      return void (workload.namespace = reader.text());
    case 3:
      return void addresses.push(toIp(reader.bytes()));
    case 4:
      return void (workload.network = reader.text());
    case 5: // LEGACY_ISTIO_MTLS (2) is refused with the unknown ones.
      return void (workload.tunnelProtocol = reader.enumeration("tunnel protocol", 1) as TunnelProtocol);
    case 6:
      return void (workload.trustDomain = reader.text());
    case 7:
      return void (workload.serviceAccount = reader.text());
    case 8:
      return void (workload.waypoint = reader.message(readGatewayAddress));
    case 9:
      return void (workload.node = reader.text());
    case 10:
      return void (workload.canonicalName = reader.text());
    case 11:
      return void (workload.canonicalRevision = reader.text());
    case 12: { // Telemetry only: an unknown type is a deployment.
      const type = reader.int32();
      return void (workload.workloadType = (type >= 0 && type <= 3 ? type : 0) as WorkloadType);
    }
    case 13:
      return void (workload.workloadName = reader.text());
    case 14:
      return void (workload.nativeTunnel = reader.bool());
    case 16:
      return void policies.push(reader.text());
    case 17:
      return void (workload.healthy = reader.enumeration("workload status", 1) === 0);
    case 18:
      return void (workload.clusterId = reader.text());
    case 19:
      return void (workload.networkGateway = reader.message(readGatewayAddress));
    case 20:
      return void (workload.uid = reader.text());
    case 21:
      return void (workload.hostname = reader.text());
    case 22: {
      const [key, ports] = reader.message(readServicesEntry);
      return void services.set(key, ports);
    }
    case 23:
      return void (workload.applicationTunnel = reader.message(readApplicationTunnel));
    case 24:
      return void (workload.locality = reader.message(readLocality));
    case 25:
      return void (workload.hostNetwork = reader.enumeration("network mode", 1) === 1);
    case 27:
      return void (workload.capacity = reader.presentUint32());
    default:
      return reader.skip();
  }
}

function readService(reader: MessageReader): Service {
  const addresses: ServiceAddress[] = [], ports: ServicePort[] = [], subjectAltNames: string[] = [];
  const weightedWaypoints: WeightedWaypoint[] = [];
  const service: Writable<Service> = {
    name: "",
    namespace: "",
    hostname: "",
    addresses,
    ports,
    subjectAltNames,
    waypoint: undefined,
    weightedWaypoints,
    loadBalancing: undefined,
    ipFamilies: 0,
    canonical: false,
    ingressUseWaypoint: false,
    namespaceOnly: false,
  };
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        service.name = reader.text();
        break;
      case 2:
        service.namespace = reader.text();
        break;
      case 3:
        service.hostname = reader.text();
        break;
      case 4:
        addresses.push(reader.message(readNetworkAddress));
        break;
      case 5:
        ports.push(reader.message(readServicePort));
        break;
      case 6:
        subjectAltNames.push(reader.text());
        break;
      case 7:
        service.waypoint = reader.message(readGatewayAddress);
        break;
      case 8:
        service.loadBalancing = reader.message(readLoadBalancing);
        break;
      case 9:
        service.ipFamilies = reader.enumeration("IP families", 3) as IpFamilies;
        break;
      case 11:
        service.canonical = reader.bool();
        break;
      case 12:
        service.ingressUseWaypoint = reader.bool();
        break;
      case 13:
        weightedWaypoints.push(reader.message(readWeightedWaypoint));
        break;
      case 14: // An unknown visibility counts as public (ZT-141).
        service.namespaceOnly = reader.int32() === 1;
        break;
      default:
        reader.skip();
    }
  }
  return service;
}

function readLoadBalancing(reader: MessageReader): LoadBalancing {
  const scopes: number[] = [];
  let mode = 0, healthPolicy = 0;
  while (reader.next()) {
    if (reader.field === 1) reader.repeatedUint32(scopes);
    else if (reader.field === 2) mode = reader.enumeration("load balancing mode", 3);
    else if (reader.field === 3) healthPolicy = reader.enumeration("health policy", 1);
    else reader.skip();
  }
  for (const scope of scopes) {
    if (scope < 1 || scope > 6) throw new WireFormatError(`unknown load balancing scope ${scope}`);
  }
  return {
    routingPreference: scopes as LoadBalancingScope[],
    mode: mode as LoadBalancingMode,
    allowUnhealthy: healthPolicy === 1,
  };
}

function readServicesEntry(reader: MessageReader): [string, readonly PortMapping[]] {
  let key = "", ports: readonly PortMapping[] = [];
  while (reader.next()) {
    if (reader.field === 1) key = reader.text();
    else if (reader.field === 2) ports = reader.message(readPortList);
    else reader.skip();
  }
  if (!key.includes("/")) throw new WireFormatError(`service key ${JSON.stringify(key)} is not namespace/hostname`);
  return [key, ports];
}

function readPortList(reader: MessageReader): readonly PortMapping[] {
  const ports: PortMapping[] = [];
  while (reader.next()) {
    if (reader.field === 1) ports.push(reader.message(readPort));
    else reader.skip();
  }
  return ports;
}

/** A service's own port; in a workload's the protocol is not looked at. An unknown protocol counts as none. */
function readServicePort(reader: MessageReader): ServicePort {
  let servicePort = 0, targetPort = 0, appProtocol = 0;
  while (reader.next()) {
    if (reader.field === 1) servicePort = reader.port();
    else if (reader.field === 2) targetPort = reader.port();
    else if (reader.field === 3) appProtocol = reader.int32();
    else reader.skip();
  }
  if (appProtocol <= 0 || appProtocol > APP_PROTOCOL_MAX) return { servicePort, targetPort };
  return { servicePort, targetPort, appProtocol: appProtocol as AppProtocol };
}

function readPort(reader: MessageReader): PortMapping {
  let servicePort = 0, targetPort = 0;
  while (reader.next()) {
    if (reader.field === 1) servicePort = reader.port();
    else if (reader.field === 2) targetPort = reader.port();
    else reader.skip();
  }
  return { servicePort, targetPort };
}

function readApplicationTunnel(reader: MessageReader): ApplicationTunnel {
  let protocol = 0, port = 0;
  while (reader.next()) {
    if (reader.field === 1) protocol = reader.enumeration("application tunnel protocol", 1);
    else if (reader.field === 2) port = reader.port();
    else reader.skip();
  }
  return { protocol: protocol as ApplicationTunnelProtocol, port };
}

function readLocality(reader: MessageReader): Locality {
  let region = "", zone = "", subzone = "";
  while (reader.next()) {
    if (reader.field === 1) region = reader.text();
    else if (reader.field === 2) zone = reader.text();
    else if (reader.field === 3) subzone = reader.text();
    else reader.skip();
  }
  return { region, zone, subzone };
}

function readGatewayAddress(reader: MessageReader): GatewayAddress {
  let address: GatewayAddress["address"], hostname: GatewayAddress["hostname"], hboneMtlsPort = 0;
  while (reader.next()) {
    if (reader.field === 1) [hostname, address] = [reader.message(readNamespacedHostname), undefined];
    else if (reader.field === 2) [hostname, address] = [undefined, reader.message(readNetworkAddress)];
    else if (reader.field === 3) hboneMtlsPort = reader.port();
    else reader.skip();
  }
  if (address !== undefined) return { address: { network: address.network, ip: address.ip }, hboneMtlsPort };
  if (hostname !== undefined) return { hostname, hboneMtlsPort };
  throw new WireFormatError("a gateway reference has neither hostname nor address");
}

function readNamespacedHostname(reader: MessageReader): { namespace: string; hostname: string } {
  let namespace = "", hostname = "";
  while (reader.next()) {
    if (reader.field === 1) namespace = reader.text();
    else if (reader.field === 2) hostname = reader.text();
    else reader.skip();
  }
  return { namespace, hostname };
}

function readNetworkAddress(reader: MessageReader): ServiceAddress {
  let network = "", address: Uint8Array = new Uint8Array(0), length: number | undefined;
  while (reader.next()) {
    if (reader.field === 1) network = reader.text();
    else if (reader.field === 2) address = reader.bytes();
    else if (reader.field === 3) length = reader.presentUint32();
    else reader.skip();
  }
  const ip = toIp(address);
  const full = isIpv4(ip[0], ip[1], ip[2]) ? 32 : 128;
  if (length === undefined || length === full) return { network, ip };
  if (length > full) throw new WireFormatError(`prefix length ${length} is above ${full}`);
  return { network, ip, prefixLength: length };
}

function readWeightedWaypoint(reader: MessageReader): WeightedWaypoint {
  let destination: GatewayAddress | undefined, weight = 0;
  while (reader.next()) {
    if (reader.field === 1) destination = reader.message(readGatewayAddress);
    else if (reader.field === 2) weight = reader.presentUint32();
    else reader.skip();
  }
  if (destination === undefined) throw new WireFormatError("a weighted waypoint has no destination");
  return { destination, weight };
}

function toIp(bytes: Uint8Array): IpWords {
  const ip = ipFromBytes(bytes);
  if (ip === undefined) throw new WireFormatError(`failed to parse address, had ${bytes.length} bytes`);
  return ip;
}

/** Encodes an Address that holds a workload. Trust domain `cluster.local` is left out (CP section 3.2). */
export function encodeWorkloadAddress(workload: Workload): Uint8Array {
  const writer = new MessageWriter();
  writer.message(1, workload, writeWorkload);
  return writer.finish();
}

/** Encodes an Address that holds a service. */
export function encodeServiceAddress(service: Service): Uint8Array {
  const writer = new MessageWriter();
  writer.message(2, service, writeService);
  return writer.finish();
}

function writeWorkload(writer: MessageWriter, workload: Workload): void {
  writer.text(1, workload.name);
  writer.text(2, workload.namespace);
  for (const ip of workload.addresses) writer.bytes(3, ipToBytes(ip));
  writer.text(4, workload.network);
  writer.uint32(5, workload.tunnelProtocol);
  if (workload.trustDomain !== DEFAULT_TRUST_DOMAIN) writer.text(6, workload.trustDomain);
  writer.text(7, workload.serviceAccount);
  if (workload.waypoint !== undefined) writer.message(8, workload.waypoint, writeGatewayAddress);
  writer.text(9, workload.node);
  writer.text(10, workload.canonicalName);
  writer.text(11, workload.canonicalRevision);
  writer.uint32(12, workload.workloadType);
  writer.text(13, workload.workloadName);
  writer.bool(14, workload.nativeTunnel);
  writer.texts(16, workload.authorizationPolicies);
  writer.uint32(17, workload.healthy ? 0 : 1);
  writer.text(18, workload.clusterId);
  if (workload.networkGateway !== undefined) writer.message(19, workload.networkGateway, writeGatewayAddress);
  writer.text(20, workload.uid);
  writer.text(21, workload.hostname);
  for (const entry of sortedEntries(workload.services)) writer.message(22, entry, writeServicesEntry);
  if (workload.applicationTunnel !== undefined) writer.message(23, workload.applicationTunnel, writeApplicationTunnel);
  const { region, zone, subzone } = workload.locality;
  if (region !== "" || zone !== "" || subzone !== "") writer.message(24, workload.locality, writeLocality);
  writer.uint32(25, workload.hostNetwork ? 1 : 0);
  if (workload.capacity !== 1) writer.message(27, workload.capacity, writeUint32Value);
}

function writeService(writer: MessageWriter, service: Service): void {
  writer.text(1, service.name);
  writer.text(2, service.namespace);
  writer.text(3, service.hostname);
  writer.messages(4, service.addresses, writeNetworkAddress);
  writer.messages(5, service.ports, writeServicePort);
  writer.texts(6, service.subjectAltNames);
  if (service.waypoint !== undefined) writer.message(7, service.waypoint, writeGatewayAddress);
  if (service.loadBalancing !== undefined) writer.message(8, service.loadBalancing, writeLoadBalancing);
  writer.uint32(9, service.ipFamilies);
  writer.bool(11, service.canonical);
  writer.bool(12, service.ingressUseWaypoint);
  writer.messages(13, service.weightedWaypoints, writeWeightedWaypoint);
  writer.uint32(14, service.namespaceOnly ? 1 : 0);
}

function writeLoadBalancing(writer: MessageWriter, loadBalancing: LoadBalancing): void {
  writer.packed(1, loadBalancing.routingPreference);
  writer.uint32(2, loadBalancing.mode);
  writer.uint32(3, loadBalancing.allowUnhealthy ? 1 : 0);
}

function writeServicesEntry(writer: MessageWriter, entry: readonly [string, readonly PortMapping[]]): void {
  writer.text(1, entry[0]);
  writer.message(2, entry[1], writePortList);
}

function writePortList(writer: MessageWriter, ports: readonly PortMapping[]): void {
  writer.messages(1, ports, writePort);
}

function writeServicePort(writer: MessageWriter, port: ServicePort): void {
  writePort(writer, port);
  writer.uint32(3, port.appProtocol ?? 0);
}

function writePort(writer: MessageWriter, port: PortMapping): void {
  writer.uint32(1, port.servicePort);
  writer.uint32(2, port.targetPort);
}

function writeApplicationTunnel(writer: MessageWriter, tunnel: ApplicationTunnel): void {
  writer.uint32(1, tunnel.protocol);
  writer.uint32(2, tunnel.port);
}

function writeLocality(writer: MessageWriter, locality: Locality): void {
  writer.text(1, locality.region);
  writer.text(2, locality.zone);
  writer.text(3, locality.subzone);
}

function writeGatewayAddress(writer: MessageWriter, gateway: GatewayAddress): void {
  if (gateway.hostname !== undefined) writer.message(1, gateway.hostname, writeNamespacedHostname);
  if (gateway.address !== undefined) writer.message(2, gateway.address, writeNetworkAddress);
  writer.uint32(3, gateway.hboneMtlsPort);
}

function writeNamespacedHostname(writer: MessageWriter, name: { namespace: string; hostname: string }): void {
  writer.text(1, name.namespace);
  writer.text(2, name.hostname);
}

function writeNetworkAddress(writer: MessageWriter, address: ServiceAddress): void {
  writer.text(1, address.network);
  writer.bytes(2, ipToBytes(address.ip));
  if (address.prefixLength !== undefined) writer.uint32EvenZero(3, address.prefixLength);
}

function writeWeightedWaypoint(writer: MessageWriter, waypoint: WeightedWaypoint): void {
  writer.message(1, waypoint.destination, writeGatewayAddress);
  writer.uint32(2, waypoint.weight);
}

function writeUint32Value(writer: MessageWriter, value: number): void {
  writer.uint32(1, value);
}
