/** Gateways as waypoints: what each is reached by, serves and lets attach (CP-260, CP-261, CP-265, CP-266). Pure. */
import type { LabelSelector } from "../../kube/label_selector.ts";
import { parseIp } from "../../base/address.ts";
import { ApplicationTunnelProtocol, type GatewayAddress } from "../../mesh/workload.ts";
import {
  type GatewayClassObject,
  type GatewayListener,
  type GatewayObject,
  keyOf,
  type RouteNamespaces,
} from "../objects.ts";
import type { Outcome, Problem } from "./options.ts";

/** How a node's proxy hands a waypoint's instances what arrives for them; port 0 is the one that was called. */
export interface InboundBinding {
  readonly protocol: ApplicationTunnelProtocol;
  readonly port: number;
}

/** A Gateway that objects can be bound to. */
export interface Waypoint {
  /** `namespace/name`. */
  readonly key: string;
  readonly namespace: string;
  readonly address: GatewayAddress;
  /** `service`, `workload`, `all` or `none`; anything else serves nothing. */
  readonly serves: string;
  readonly binding: InboundBinding | undefined;
  /** Whose objects may attach: of all namespaces, its own, or those that the selector matches. */
  readonly from: RouteNamespaces;
  readonly selector: LabelSelector | undefined;
}

/** Every waypoint takes HBONE here, whatever its listeners say (CP-260). */
const HBONE_PORT = 15008;
const WAYPOINT_FOR = "istio.io/waypoint-for";
const INBOUND_BINDING = "ambient.istio.io/waypoint-inbound-binding";

export function waypointKey(namespace: string, name: string): string {
  return `${namespace}/${name}`;
}

/** The first hostname, else the first address that is one: names outlive the addresses behind them. */
function addressOf({ meta, statusAddresses }: GatewayObject, network: string): GatewayAddress | undefined {
  const named = statusAddresses.find(({ type, value }) => type === "Hostname" && value !== "");
  if (named !== undefined) {
    return { hostname: { namespace: meta.namespace, hostname: named.value }, hboneMtlsPort: HBONE_PORT };
  }
  for (const { type, value } of statusAddresses) {
    const ip = type === "IPAddress" ? parseIp(value) : undefined;
    if (ip !== undefined) return { address: { network, ip }, hboneMtlsPort: HBONE_PORT };
  }
  return undefined;
}

/** `NONE`, `PROXY` or `PROXY/port`. @returns undefined for anything else. */
export function parseInboundBinding(text: string): InboundBinding | undefined {
  const [, name, port] = /^(NONE|PROXY)(?:\/(\d{1,5}))?$/.exec(text) ?? [];
  if (name === undefined || Number(port ?? 0) > 65535) return undefined;
  const protocol = name === "PROXY" ? ApplicationTunnelProtocol.PROXY : ApplicationTunnelProtocol.NONE;
  return { protocol, port: Number(port ?? 0) };
}

/** The listener whose allowedRoutes count: the bound one, else HBONE's (CP-265). */
function listenerOf(
  listeners: readonly GatewayListener[],
  binding: InboundBinding | undefined,
): GatewayListener | undefined {
  const bound = binding === undefined
    ? undefined
    : listeners.find(({ port, protocol }) =>
      binding.port !== 0
        ? port === binding.port
        : binding.protocol === ApplicationTunnelProtocol.PROXY && protocol === "istio.io/PROXY"
    );
  return bound ?? listeners.find(({ port, protocol }) => protocol === "HBONE" && port === HBONE_PORT);
}

/** A Gateway of any class as a waypoint, once its status has an address; what it does not say, its class may. */
export function waypointOf(
  gateway: GatewayObject,
  gatewayClass: GatewayClassObject | undefined,
  network: string,
): Outcome<Waypoint> {
  const { namespace, name, labels, annotations } = gateway.meta, problems: Problem[] = [], object = keyOf(gateway);
  if (gateway.statusAddresses.length === 0) return { items: [], problems };
  const address = addressOf(gateway, network);
  if (address === undefined) {
    const message = "none of the addresses in its status is a hostname or an IP address; nothing can be bound to it";
    return { items: [], problems: [{ object, reason: "BadAddress", message }] };
  }
  const written = annotations.get(INBOUND_BINDING) ?? gatewayClass?.meta.annotations.get(INBOUND_BINDING);
  const binding = written === undefined ? undefined : parseInboundBinding(written);
  if (written !== undefined && binding === undefined) {
    const message = `${INBOUND_BINDING} must be NONE, PROXY or PROXY/port, is ${JSON.stringify(written)}: ignored`;
    problems.push({ object, reason: "BadInboundBinding", message });
  }
  const listener = listenerOf(gateway.listeners, binding), key = waypointKey(namespace, name);
  const waypoint: Waypoint = {
    key,
    namespace,
    address,
    serves: labels.get(WAYPOINT_FOR) ?? gatewayClass?.meta.labels.get(WAYPOINT_FOR) ?? "service",
    binding,
    from: listener?.from ?? "Same",
    selector: listener?.selector,
  };
  return { items: [[key, waypoint]], problems };
}
