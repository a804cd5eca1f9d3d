/** Services and ServiceEntries as candidates for a (namespace, hostname) (CP-220 to CP-230). Pure. */
import {
  IpFamilies,
  type LoadBalancing,
  LoadBalancingMode,
  LoadBalancingScope,
  type Service,
  type ServiceAddress,
  serviceKey,
} from "../../mesh/service.ts";
import { keyOf, type Labels, type ObjectMeta, type ServiceEntryObject, type ServiceObject } from "../objects.ts";
import { appProtocolOfEntryPort, appProtocolOfPort } from "./app_protocol.ts";
import { parsePrefix } from "./addresses.ts";
import type { ClusterSuffix } from "./clusters.ts";
import type { AmbientOptions, Outcome } from "./options.ts";
import { bindingProblems, type BindingRefusal, type ServiceBinding } from "./waypoint_binding.ts";

/** A port as workloads need it to find their own (CP-210 to CP-212). */
export interface CandidatePort {
  readonly name: string;
  readonly port: number;
  /** A name (Kubernetes Service only), a number, or 0 for none given (ServiceEntry only). */
  readonly target: number | string;
}

/** What came of an object's waypoint labels, as its status says it. */
export interface CandidateBinding {
  /** `namespace/name` of the waypoint; undefined without one. */
  readonly waypoint: string | undefined;
  /** The same of its canary. */
  readonly canary: string | undefined;
  readonly ingress: boolean | undefined;
  readonly refusal: BindingRefusal | undefined;
}

/** One claim to a hostname in a namespace. */
export interface ServiceCandidate {
  /** Names the claim: `Service/ns/name` or `ServiceEntry/ns/name/host`, and the suffix of its cluster. */
  readonly key: string;
  /** Of its cluster; empty for the config cluster. */
  readonly suffix: ClusterSuffix;
  /** Whether it is one with its namesakes in other clusters (CP-111). */
  readonly global: boolean;
  readonly fromKubernetes: boolean;
  readonly createdAtMs: number;
  readonly objectName: string;
  /** Of the workloads behind it; undefined without one, or with an empty one. */
  readonly selector: Labels | undefined;
  readonly ports: readonly CandidatePort[];
  readonly binding: CandidateBinding;
  /** As it would be sent, `canonical` excepted. */
  readonly service: Service;
}

const { NETWORK, REGION, ZONE, SUBZONE, NODE } = LoadBalancingScope;
const SAME_ZONE: readonly LoadBalancingScope[] = [NETWORK, REGION, ZONE];
const SAME_NODE: readonly LoadBalancingScope[] = [NETWORK, REGION, ZONE, SUBZONE, NODE];

/** The scopes that a traffic distribution prefers; any value but these prefers none. */
const DISTRIBUTIONS: ReadonlyMap<string, readonly LoadBalancingScope[]> = new Map([
  ["PreferClose", SAME_ZONE],
  ["PreferSameZone", SAME_ZONE],
  ["PreferSameNode", SAME_NODE],
]);
const DISTRIBUTION_ANNOTATION = "networking.istio.io/traffic-distribution";

function distributionOf(stated: string, annotations: Labels, ofNamespace: Labels): LoadBalancing | undefined {
  const value = stated || annotations.get(DISTRIBUTION_ANNOTATION) || ofNamespace.get(DISTRIBUTION_ANNOTATION) || "";
  const scopes = DISTRIBUTIONS.get(value);
  return scopes && { routingPreference: scopes, mode: LoadBalancingMode.FAILOVER, allowUnhealthy: false };
}

function loadBalancingOf(service: ServiceObject, namespaceAnnotations: Labels): LoadBalancing | undefined {
  const chosen: LoadBalancing | undefined = service.internalTrafficPolicy === "Local"
    ? { routingPreference: [NODE], mode: LoadBalancingMode.STRICT, allowUnhealthy: false }
    : distributionOf(service.trafficDistribution, service.meta.annotations, namespaceAnnotations);
  if (!service.publishNotReadyAddresses) return chosen;
  return { routingPreference: [], mode: LoadBalancingMode.UNSPECIFIED, ...chosen, allowUnhealthy: true };
}

/** Addresses of a service, or the text that is none. */
function addressesOf(
  texts: readonly string[],
  network: string,
): { addresses: ServiceAddress[]; bad: string | undefined } {
  const addresses: ServiceAddress[] = [];
  for (const text of texts) {
    const prefix = parsePrefix(text);
    if (prefix === undefined) return { addresses, bad: text };
    addresses.push({
      network,
      ip: prefix.ip,
      ...(prefix.prefixLength === undefined ? {} : { prefixLength: prefix.prefixLength }),
    });
  }
  return { addresses, bad: undefined };
}

function familiesOf(families: readonly string[]): IpFamilies {
  if (families.length > 1) return IpFamilies.DUAL;
  if (families.length === 0) return IpFamilies.AUTOMATIC;
  return families[0] === "IPv6" ? IpFamilies.IPV6_ONLY : IpFamilies.IPV4_ONLY;
}

function badAddress(object: ServiceObject | ServiceEntryObject, text: string): Outcome<ServiceCandidate> {
  const message = `${JSON.stringify(text)} is not an address; the object is left out`;
  return { items: [], problems: [{ object: keyOf(object), reason: "BadAddress", message }] };
}

/** What a service needs beyond its own object. */
export interface ServiceSurroundings {
  readonly namespace: ObjectMeta | undefined;
  readonly binding: ServiceBinding;
}

/** What a Kubernetes Service needs besides: its cluster. */
export interface ClusterSurroundings extends ServiceSurroundings {
  readonly suffix: ClusterSuffix;
  readonly global: boolean;
}

/** The fields of a service that its binding decides. */
function boundFields({ waypoint, weighted, ingress }: ServiceBinding) {
  const ingressUseWaypoint = ingress === true;
  return { ...(waypoint && { waypoint: waypoint.address }), weightedWaypoints: weighted, ingressUseWaypoint };
}

function summaryOf({ waypoint, canary, ingress, refusal }: ServiceBinding): CandidateBinding {
  return { waypoint: waypoint?.key, canary, ingress, refusal };
}

/** A Kubernetes Service as a candidate; ExternalName ones are not part of the mesh (CP-220). */
export function candidateOfService(
  object: ServiceObject,
  { namespace, binding, suffix, global }: ClusterSurroundings,
  options: Pick<AmbientOptions, "network" | "clusterDomain">,
): Outcome<ServiceCandidate> {
  if (object.type === "ExternalName") return { items: [], problems: [] };
  const { meta } = object;
  const texts = object.clusterIps.filter((text) => text !== "" && text !== "None");
  const { addresses, bad } = addressesOf(texts, options.network);
  if (bad !== undefined) return badAddress(object, bad);
  const key = keyOf(object) + suffix;
  const candidate: ServiceCandidate = {
    key,
    suffix,
    global,
    fromKubernetes: true,
    createdAtMs: meta.createdAtMs,
    objectName: meta.name,
    selector: object.selector.size > 0 ? object.selector : undefined,
    ports: object.ports.map((port) => ({ name: port.name, port: port.port, target: port.targetPort })),
    binding: summaryOf(binding),
    service: {
      name: meta.name,
      namespace: meta.namespace,
      hostname: hostnameOf(meta.name, meta.namespace, options),
      addresses,
      ports: object.ports.map((port) => ({
        servicePort: port.port,
        targetPort: typeof port.targetPort === "number" ? port.targetPort : 0,
        ...appProtocolOfPort(port),
      })),
      subjectAltNames: [],
      ...boundFields(binding),
      loadBalancing: loadBalancingOf(object, namespace?.annotations ?? new Map()),
      ipFamilies: familiesOf(object.ipFamilies),
      canonical: false,
      namespaceOnly: false,
    },
  };
  return { items: [[key, candidate]], problems: bindingProblems(key, binding.refusal) };
}

/** The hostname of a Kubernetes Service. */
export function hostnameOf(
  name: string,
  namespace: string,
  options: Pick<AmbientOptions, "clusterDomain">,
): string {
  return `${name}.${namespace}.svc.${options.clusterDomain}`;
}

/** The candidate's key for one host of a ServiceEntry. */
export function entryCandidateKey(object: ServiceEntryObject, host: string): string {
  return `${keyOf(object)}/${host}`;
}

/** A ServiceEntry as one candidate per host. */
export function candidatesOfServiceEntry(
  object: ServiceEntryObject,
  { namespace, binding, namespaceOnly }: ServiceSurroundings & { readonly namespaceOnly: boolean },
  options: Pick<AmbientOptions, "network">,
): Outcome<ServiceCandidate> {
  const { meta } = object;
  const stated = addressesOf(object.addresses, options.network);
  if (stated.bad !== undefined) return badAddress(object, stated.bad);
  const loadBalancing: LoadBalancing | undefined = object.resolution === "NONE"
    ? { routingPreference: [], mode: LoadBalancingMode.PASSTHROUGH, allowUnhealthy: true }
    : distributionOf("", meta.annotations, namespace?.annotations ?? new Map());
  const items: [string, ServiceCandidate][] = [];
  for (const host of new Set(object.hosts)) {
    const allocated = object.allocated.filter((it) => it.host === host).map((it) => it.value);
    const assigned = addressesOf(object.addresses.length > 0 ? [] : allocated, options.network);
    if (assigned.bad !== undefined) return badAddress(object, assigned.bad);
    const key = entryCandidateKey(object, host);
    const candidate: ServiceCandidate = {
      key,
      suffix: "",
      global: false,
      fromKubernetes: false,
      createdAtMs: meta.createdAtMs,
      objectName: meta.name,
      selector: object.selector !== undefined && object.selector.size > 0 ? object.selector : undefined,
      ports: object.ports.map((port) => ({ name: port.name, port: port.port, target: port.targetPort })),
      binding: summaryOf(binding),
      service: {
        name: meta.name,
        namespace: meta.namespace,
        hostname: host,
        addresses: [...stated.addresses, ...assigned.addresses],
        ports: object.ports.map((port) => ({
          servicePort: port.port,
          targetPort: port.targetPort || port.port,
          ...appProtocolOfEntryPort(port.protocol),
        })),
        subjectAltNames: object.subjectAltNames,
        ...boundFields(binding),
        loadBalancing,
        ipFamilies: IpFamilies.AUTOMATIC,
        canonical: false,
        namespaceOnly,
      },
    };
    items.push([key, candidate]);
  }
  return { items, problems: bindingProblems(keyOf(object), binding.refusal) };
}

/** Which of two claims comes first: a Kubernetes Service, then the oldest, then by namespace and name (CP-235). */
function precedes(left: ServiceCandidate, right: ServiceCandidate): boolean {
  if (left.fromKubernetes !== right.fromKubernetes) return left.fromKubernetes;
  if (left.createdAtMs !== right.createdAtMs) return left.createdAtMs < right.createdAtMs;
  const a = left.service.namespace, b = right.service.namespace;
  return a === b ? left.objectName < right.objectName : a < b;
}

/** The claim that wins; undefined among none. */
export function winnerOf(candidates: readonly ServiceCandidate[]): ServiceCandidate | undefined {
  let best: ServiceCandidate | undefined;
  for (const candidate of candidates) if (best === undefined || precedes(candidate, best)) best = candidate;
  return best;
}

/** The key under which claims compete. */
export function claimedKey(candidate: ServiceCandidate): string {
  return serviceKey(candidate.service.namespace, candidate.service.hostname);
}
