/** WorkloadEntries, ServiceEntry endpoints and EndpointSlice endpoints as workloads (CP-212 to CP-214). Pure. */
import { parseIp } from "../../base/address.ts";
import {
  type GatewayAddress,
  type Locality,
  type PortMapping,
  TunnelProtocol,
  type Workload,
  WorkloadType,
} from "../../mesh/workload.ts";
import {
  type EndpointSliceObject,
  type EntryEndpoint,
  keyOf,
  type Labels,
  type ServiceEntryObject,
  type WorkloadEntryObject,
} from "../objects.ts";
import { canonicalAddress, parseIps } from "./addresses.ts";
import { canonicalNameOf, canonicalRevisionOf, tunnelOf } from "./labels.ts";
import type { Outcome, Place, Problem } from "./options.ts";
import { BARE_WORKLOAD } from "./bare_workload.ts";
import { portsOnEntry } from "./port_mappings.ts";
import { claimedKey, type ServiceCandidate } from "./service_candidates.ts";
import type { WorkloadBinding } from "./waypoint_binding.ts";
import { NO_WORKLOAD_BINDING } from "./waypoint_binding.ts";
import { boundFields, NO_LOCALITY, workloadProblems, type WorkloadSurroundings } from "./workload_pod.ts";

type Services = ReadonlyMap<string, readonly PortMapping[]>;

/** `region/zone/subzone`. */
function localityOfText(text: string): Locality {
  const [region = "", zone = "", ...subzone] = text.split("/");
  return { region, zone, subzone: subzone.join("/") };
}

/** The config cluster's place, and how any network is reached, since an endpoint may name one of its own. */
export interface EndpointPlace {
  readonly place: Place;
  readonly gatewayOf: (network: string) => GatewayAddress | undefined;
}

interface Described {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly labels: Labels;
  readonly annotations: Labels;
  readonly workloadName: string;
}

function workloadOfEndpoint(
  described: Described,
  endpoint: EntryEndpoint,
  surroundings: WorkloadSurroundings,
  { place, gatewayOf }: EndpointPlace,
): Workload {
  const network = endpoint.network || place.network, networkGateway = gatewayOf(network);
  const ip = parseIp(endpoint.address);
  const tunnel = tunnelOf(described.labels, described.annotations);
  return {
    uid: described.uid,
    name: described.name,
    namespace: described.namespace,
    addresses: ip === undefined ? [] : [ip],
    hostname: ip === undefined ? endpoint.address : "",
    network,
    tunnelProtocol: tunnel.hbone ? TunnelProtocol.HBONE : TunnelProtocol.NONE,
    trustDomain: place.trustDomain,
    serviceAccount: endpoint.serviceAccount,
    ...boundFields(surroundings.binding),
    ...(networkGateway && { networkGateway }),
    node: "",
    canonicalName: canonicalNameOf(described.labels, described.workloadName),
    canonicalRevision: canonicalRevisionOf(described.labels),
    workloadType: WorkloadType.POD,
    workloadName: described.workloadName,
    nativeTunnel: tunnel.native,
    authorizationPolicies: surroundings.policies,
    healthy: true,
    clusterId: place.clusterId,
    locality: localityOfText(endpoint.locality),
    services: surroundings.services,
    hostNetwork: false,
    capacity: endpoint.weight > 0 ? endpoint.weight : 1,
  };
}

/** A WorkloadEntry as a workload; `labels` are {@link mergedLabels}. */
export function workloadOfEntry(
  object: WorkloadEntryObject,
  labels: Labels,
  surroundings: WorkloadSurroundings,
  where: EndpointPlace,
): Outcome<Workload> {
  const { name, namespace, annotations } = object.meta;
  if (object.spec.address === "" && object.spec.network === "") {
    const message = "it has neither an address nor a network; it is left out";
    return { items: [], problems: [{ object: keyOf(object), reason: "BadAddress", message }] };
  }
  const workloadName = annotations.get("istio.io/autoRegistrationGroup") ||
    labels.get("service.istio.io/workload-name") || name;
  const uid = `${where.place.clusterId}/networking.istio.io/WorkloadEntry/${namespace}/${name}`;
  const described = { uid, name, namespace, labels, annotations, workloadName };
  const workload = workloadOfEndpoint(described, object.spec, surroundings, where);
  return { items: [[uid, workload]], problems: workloadProblems(keyOf(object), surroundings.binding) };
}

/** Resolutions under which a host without endpoints is its own endpoint (CP-213). */
const RESOLVED_BY_NAME: readonly string[] = ["DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"];

const NO_ENDPOINT: EntryEndpoint = {
  address: "",
  ports: new Map(),
  labels: new Map(),
  network: "",
  locality: "",
  weight: 0,
  serviceAccount: "",
};

/**
 * The endpoints of a ServiceEntry, written or implied, as workloads; none if it won none of its hosts. `won` has the
 * hosts for which this object won, and its claim to each (CP-235).
 */
export function workloadsOfServiceEntry(
  object: ServiceEntryObject,
  won: ReadonlyMap<string, ServiceCandidate>,
  { policies, bind }: {
    /** Of an endpoint that is bound so and stands behind these. */
    readonly policies: (binding: WorkloadBinding, candidates: readonly ServiceCandidate[]) => readonly string[];
    /** By the labels of an endpoint. */
    readonly bind: (labels: Labels) => WorkloadBinding;
  },
  where: EndpointPlace,
): Outcome<Workload> {
  const { name, namespace, labels, annotations } = object.meta;
  const items = new Map<string, Workload>(), problems: Problem[] = [];
  const add = (endpoint: EntryEndpoint, candidates: readonly ServiceCandidate[], binding: WorkloadBinding) => {
    const address = canonicalAddress(endpoint.address);
    const uid = `${where.place.clusterId}/networking.istio.io/ServiceEntry/${namespace}/${name}/${address}`;
    if (items.has(uid)) {
      const message = `endpoint ${JSON.stringify(endpoint.address)} is written twice; the first counts`;
      problems.push({ object: keyOf(object), reason: "DuplicateEndpoint", message });
      return;
    }
    const described = { uid, name, namespace, labels, annotations, workloadName: name };
    const mapped: Services = new Map(candidates.map((it) => [claimedKey(it), portsOnEntry(it, endpoint)]));
    const surroundings = { services: mapped, policies: policies(binding, candidates), binding };
    items.set(uid, workloadOfEndpoint(described, endpoint, surroundings, where));
  };
  if (won.size > 0) {
    for (const endpoint of object.endpoints) {
      add(endpoint, [...won.values()], bind(endpoint.labels));
    }
  }
  const implied = object.endpoints.length === 0 && object.selector === undefined &&
    RESOLVED_BY_NAME.includes(object.resolution);
  if (implied) {
    for (const [host, candidate] of won) add({ ...NO_ENDPOINT, address: host }, [candidate], NO_WORKLOAD_BINDING);
  }
  return { items: [...items], problems };
}

/** The endpoints of a slice that are no pods, as workloads of its service (CP-214). */
export function workloadsOfSlice(
  object: EndpointSliceObject,
  services: Services,
  place: Place,
): Outcome<Workload> {
  const { name, namespace } = object.meta;
  const items = new Map<string, Workload>(), problems: Problem[] = [];
  for (const endpoint of object.endpoints) {
    if (endpoint.target?.kind === "Pod") continue;
    const { ips, bad } = parseIps(endpoint.addresses);
    if (bad !== undefined || ips.length === 0) {
      const message = `${JSON.stringify(bad ?? "")} is not an address; its endpoint is left out`;
      problems.push({ object: keyOf(object), reason: "BadAddress", message });
      continue;
    }
    const address = canonicalAddress(endpoint.addresses[0]!);
    const uid = `${place.clusterId}/discovery.k8s.io/EndpointSlice/${namespace}/${name}/${address}`;
    if (items.has(uid)) continue; // A slice may name one address under several targets; they are one workload.
    items.set(uid, {
      ...BARE_WORKLOAD,
      uid,
      name,
      namespace,
      addresses: ips,
      hostname: "",
      network: place.network,
      trustDomain: place.trustDomain,
      serviceAccount: "",
      healthy: endpoint.ready,
      clusterId: place.clusterId,
      locality: NO_LOCALITY,
      services,
      // As the host's network: such an address is never looked up as a pod's own.
      hostNetwork: true,
    });
  }
  return { items: [...items], problems };
}
