/** The status of Gateways of our classes for waypoints, east-west and remote gateways (CP-555, CP-570 to CP-573). Pure. */
import { parseIp } from "../../base/address.ts";
import {
  type EndpointSliceObject,
  type GatewayAddressEntry,
  type GatewayListener,
  type GatewayObject,
  keyOf,
  type ObjectKey,
  type ServiceObject,
} from "../objects.ts";
import type { WantedCondition } from "../status/conditions.ts";
import { type ListenerConflict, listenerConflicts } from "./listener_conflicts.ts";

export interface WantedListenerStatus {
  readonly name: string;
  readonly supportedKinds: readonly { readonly group: string; readonly kind: string }[];
  readonly conditions: readonly WantedCondition[];
}

/** All that is said of a Gateway; addresses that it had stay in it, since they are never withdrawn (CP-572). */
export interface WantedGatewayStatus {
  readonly object: ObjectKey;
  readonly resource: { readonly kind: string; readonly namespace: string; readonly name: string };
  readonly addresses: readonly GatewayAddressEntry[];
  readonly conditions: readonly WantedCondition[];
  readonly listeners: readonly WantedListenerStatus[];
}

/** What a Gateway's addresses are found in, all of its namespace. */
export interface GatewaySurroundings {
  /** Of the Gateway's class; undefined without one. */
  readonly controller: string | undefined;
  readonly clusterDomain: string;
  readonly serviceOf: (name: string) => ServiceObject | undefined;
  readonly slicesOf: (serviceName: string) => readonly EndpointSliceObject[];
}

const MESH_CONTROLLER = "istio.io/mesh-controller";
const EAST_WEST_CONTROLLER = "istio.io/eastwest-controller";
const REMOTE_CONTROLLER = "istio.io/unmanaged-gateway";

const HBONE_PORT = 15008;
const GATEWAY_GROUP = "gateway.networking.k8s.io";
const NAME_OVERRIDE = "gateway.istio.io/name-override";
const ADDRESS_TYPE = "networking.istio.io/address-type";

interface Verdict {
  readonly status: "True" | "False";
  readonly reason: string;
  readonly message: string;
}

const yes = (reason: string, message: string): Verdict => ({ status: "True", reason, message });
const no = (reason: string, message: string): Verdict => ({ status: "False", reason, message });

/** @returns undefined for a Gateway that is none of ours: nothing is said of it. */
export function gatewayStatusOf(
  gateway: GatewayObject,
  surroundings: GatewaySurroundings,
): WantedGatewayStatus | undefined {
  const { controller } = surroundings, { namespace, name, generation } = gateway.meta;
  const said = (type: string, verdict: Verdict): WantedCondition => ({
    type,
    ...verdict,
    observedGeneration: generation,
  });
  const wanted = { object: keyOf(gateway), resource: { kind: "Gateway", namespace, name } };
  if (controller === REMOTE_CONTROLLER) {
    const programmed = yes("Programmed", "it is of another cluster, which programs it");
    const conditions = [said("Accepted", yes("Accepted", "accepted")), said("Programmed", programmed)];
    return { ...wanted, addresses: gateway.addresses, conditions, listeners: [] };
  }
  if (controller !== MESH_CONTROLLER && controller !== EAST_WEST_CONTROLLER) return undefined;
  const conflicts = listenerConflicts(gateway.listeners), { listeners } = gateway;
  // A listener that is merely not what the class expects is served all the same (CP-571).
  const valid = listeners.filter((it) => KNOWN_PROTOCOLS.has(it.protocol) && !conflicts.has(it.name));
  const placement = placementOf(gateway, [...new Set(valid.map(({ port }) => port))], surroundings);
  return {
    ...wanted,
    addresses: placement.addresses.length > 0 ? placement.addresses : gateway.statusAddresses,
    conditions: [
      said("Accepted", acceptedOf(placement, { all: listeners.length, valid: valid.length })),
      said("Programmed", placement.programmed),
      said("ResolvedRefs", yes("ResolvedRefs", "all references are resolved")),
    ],
    listeners: listeners.map((listener) => ({
      name: listener.name,
      supportedKinds: (KNOWN_PROTOCOLS.get(listener.protocol) ?? []).map((kind) => ({ group: GATEWAY_GROUP, kind })),
      conditions: verdictsOf(listener, conflicts.get(listener.name), controller).map(([type, it]) => said(type, it)),
    })),
  };
}

type Verdicts = readonly (readonly [type: string, verdict: Verdict])[];

function verdictsOf(listener: GatewayListener, conflict: ListenerConflict | undefined, controller: string): Verdicts {
  const resolved = ["ResolvedRefs", yes("ResolvedRefs", "all references are resolved")] as const;
  if (conflict !== undefined) {
    const message = "a listener before it has the same port, and they cannot be told apart";
    return [
      ["Accepted", no(conflict, message)],
      ["Conflicted", yes(conflict, message)],
      ["Programmed", no("Invalid", message)],
      resolved,
    ];
  }
  const flaw = listenerFlaw(listener, controller);
  return [
    ["Accepted", flaw === undefined ? yes("Accepted", "accepted") : no("UnsupportedProtocol", flaw)],
    ["Conflicted", no("NoConflicts", "no conflicts")],
    ["Programmed", yes("Programmed", "programmed")],
    resolved,
  ];
}

/** Protocols that a proxy of ours can be given, and the routes that attach to a listener of each. */
const KNOWN_PROTOCOLS: ReadonlyMap<string, readonly string[]> = new Map([
  ["HBONE", []],
  ["HTTP", ["HTTPRoute", "GRPCRoute"]],
  ["HTTPS", ["HTTPRoute", "GRPCRoute"]],
  ["TCP", ["TCPRoute"]],
  ["TLS", ["TLSRoute"]],
]);

/** What is wrong with a listener, if anything (CP-571). */
function listenerFlaw({ port, protocol, tlsMode }: GatewayListener, controller: string): string | undefined {
  const hbone = protocol === "HBONE" && port === HBONE_PORT;
  if (controller === MESH_CONTROLLER) {
    return hbone ? undefined : `a waypoint has one listener: port ${HBONE_PORT}, protocol HBONE`;
  }
  const fits = port === HBONE_PORT ? hbone && tlsMode === "Terminate" : protocol === "TLS" && tlsMode === "Passthrough";
  if (fits) return undefined;
  return `an east-west gateway has listeners of port ${HBONE_PORT}, protocol HBONE and TLS mode Terminate, or of TLS ` +
    "mode Passthrough";
}

function acceptedOf({ unsupported }: Placement, { all, valid }: { all: number; valid: number }): Verdict {
  if (unsupported.length > 0) {
    return no("UnsupportedAddress", `of several addresses only hostnames count: ${unsupported.join(", ")} are ignored`);
  }
  if (all > 0 && valid === 0) return no("ListenersNotValid", "none of its listeners is valid");
  return valid < all ? yes("ListenersNotValid", "not all of its listeners are valid") : yes("Accepted", "accepted");
}

interface Placement {
  readonly addresses: readonly GatewayAddressEntry[];
  readonly programmed: Verdict;
  /** Addresses that were asked for and cannot be given. */
  readonly unsupported: readonly string[];
}

/** The Services that carry a Gateway: made for it, or named by it (CP-555). */
function hostsOf(
  { meta, addresses }: GatewayObject,
  clusterDomain: string,
): { hosts: string[]; unsupported: string[]; managed: boolean } {
  const full = (name: string) => name.includes(".") ? name : `${name}.${meta.namespace}.svc.${clusterDomain}`;
  const managed = addresses.length === 0 || (addresses.length === 1 && addresses[0]?.type === "IPAddress");
  if (managed) return { hosts: [full(meta.annotations.get(NAME_OVERRIDE) ?? meta.name)], unsupported: [], managed };
  return {
    hosts: addresses.filter(({ type }) => type === "Hostname").map(({ value }) => full(value)),
    unsupported: addresses.filter(({ type }) => type !== "Hostname").map(({ value }) => value),
    managed,
  };
}

function placementOf(
  gateway: GatewayObject,
  ports: readonly number[],
  { clusterDomain, serviceOf, slicesOf }: GatewaySurroundings,
): Placement {
  const { hosts, unsupported, managed } = hostsOf(gateway, clusterDomain),
    suffix = `.${gateway.meta.namespace}.svc.${clusterDomain}`;
  const internal: string[] = [], ips = new Set<string>(), external = new Set<string>(), hostnames = new Set<string>();
  const pending: string[] = [], unusable: string[] = [];
  for (const host of hosts) {
    const service = host.endsWith(suffix) ? serviceOf(host.slice(0, -suffix.length)) : undefined;
    if (service === undefined) {
      if (managed) return { addresses: [], programmed: notDeployed(host), unsupported };
      unusable.push(`there is no Service for ${host} in namespace ${gateway.meta.namespace}`);
      continue;
    }
    const slices = slicesOf(service.meta.name);
    for (const port of ports) {
      const name = service.ports.find((it) => it.port === port)?.name;
      if (name === undefined) unusable.push(`${host} has no port ${port}`);
      else if (!hasReadyEndpoint(slices, name)) pending.push(`no endpoint of ${host} is ready on port ${port}`);
      else {
        internal.push(`${host}:${port}`);
        for (const ip of service.clusterIps) if (parseIp(ip) !== undefined) ips.add(ip);
        for (const address of service.ingress) external.add(address);
        const waits = service.type === "LoadBalancer" && service.ingress.length === 0;
        if (waits) pending.push(`${host} has no address from its load balancer yet`);
        else hostnames.add(host);
      }
    }
  }
  const addresses = external.size > 0 ? [...external] : ownAddresses(gateway, { ips, hostnames });
  return {
    addresses: addresses.map(entryOf),
    programmed: programmedOf({ hosts, internal, pending, unusable }),
    unsupported,
  };
}

/** Of our own: Gateway API has no reason for proxies that nobody deploys. */
function notDeployed(host: string): Verdict {
  const message =
    `Ambit does not deploy waypoints yet: run the proxy behind a Service ${host}, or name your own Service ` +
    "in spec.addresses with type Hostname";
  return no("NotDeployed", message);
}

/** By number and by name, unless the Gateway's annotation asks for one of them. */
function ownAddresses(
  gateway: GatewayObject,
  { ips, hostnames }: { ips: ReadonlySet<string>; hostnames: ReadonlySet<string> },
): string[] {
  const type = gateway.meta.annotations.get(ADDRESS_TYPE);
  return [...type === "Hostname" ? [] : [...ips].sort(), ...type === "IPAddress" ? [] : hostnames];
}

function entryOf(value: string): GatewayAddressEntry {
  return { type: parseIp(value) === undefined ? "Hostname" : "IPAddress", value };
}

function hasReadyEndpoint(slices: readonly EndpointSliceObject[], portName: string): boolean {
  return slices.some(({ ports, endpoints }) =>
    ports.some(({ name, port }) => name === portName && port > 0) && endpoints.some(({ ready }) => ready)
  );
}

function programmedOf(
  { hosts, internal, pending, unusable }: Readonly<Record<"hosts" | "internal" | "pending" | "unusable", string[]>>,
): Verdict {
  if (hosts.length === 0) return no("UnsupportedAddress", "none of the addresses asked for can be given");
  const missing = [...new Set([...unusable, ...pending])];
  if (missing.length > 0) {
    return no(unusable.length > 0 ? "AddressNotUsable" : "AddressNotAssigned", missing.join("; "));
  }
  return yes("Programmed", internal.length === 0 ? "programmed" : `programmed, at ${internal.join(", ")}`);
}
