/** Which waypoint an object is bound to, and why it is not (CP-262 to CP-268, CP-230). Pure: the caller looks them up. */
import type { Service } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import { selectorMatches } from "../../kube/label_selector.ts";
import type { Labels, ObjectKey, ObjectMeta } from "../objects.ts";
import { parseBoolean } from "./labels.ts";
import type { Problem } from "./options.ts";
import { type Waypoint, waypointKey } from "./waypoint.ts";

/** Finds a usable waypoint by `namespace/name`. */
export type FindWaypoint = (key: string) => Waypoint | undefined;

export type BindingReason =
  | "WaypointIsNotReady"
  | "AttachmentDenied"
  | "UnsupportedTrafficType"
  | "CrossNamespaceWaypointForbidden"
  | "CanarySameAsPrimary"
  | "CanaryInvalidWeight";

/** Why a waypoint that was asked for is not used. */
export interface BindingRefusal {
  readonly reason: BindingReason;
  readonly message: string;
}

/** A waypoint, why there is none although one is asked for, or neither. */
interface Found {
  readonly waypoint?: Waypoint;
  readonly refusal?: BindingRefusal;
}

/** What came of a service's labels. */
export interface ServiceBinding {
  readonly waypoint: Waypoint | undefined;
  /** `namespace/name` of a canary that is usable. */
  readonly canary: string | undefined;
  /** The primary and the canary with their weights; empty without a canary that is usable. */
  readonly weighted: Service["weightedWaypoints"];
  /** What istio.io/ingress-use-waypoint says; undefined without the label, or without a waypoint. */
  readonly ingress: boolean | undefined;
  /** Of the waypoint; with one, of its canary. */
  readonly refusal: BindingRefusal | undefined;
}

/** What came of a workload's labels. */
export interface WorkloadBinding {
  readonly waypoint: Waypoint | undefined;
  /** For an instance of a Gateway with an inbound binding (CP-266). */
  readonly tunnel: Workload["applicationTunnel"];
  readonly refusal: BindingRefusal | undefined;
  /** Whether the refusal is of a label of the workload's own. */
  readonly own: boolean;
}

/** What is bound: an object of these labels, in this namespace. */
export interface Bindable {
  readonly namespace: string;
  readonly labels: Labels;
  readonly annotations: Labels;
}

export const NO_SERVICE_BINDING: ServiceBinding = {
  waypoint: undefined,
  canary: undefined,
  weighted: [],
  ingress: undefined,
  refusal: undefined,
};
export const NO_WORKLOAD_BINDING: WorkloadBinding = {
  waypoint: undefined,
  tunnel: undefined,
  refusal: undefined,
  own: false,
};

const USE_WAYPOINT = "istio.io/use-waypoint";
const USE_WAYPOINT_NAMESPACE = "istio.io/use-waypoint-namespace";
const USE_CANARY = "istio.io/use-waypoint-canary";
const USE_CANARY_NAMESPACE = "istio.io/use-waypoint-canary-namespace";
const CANARY_WEIGHT = "istio.io/use-waypoint-canary-weight";
const INGRESS_USE_WAYPOINT = "istio.io/ingress-use-waypoint";
const MANAGED = "gateway.istio.io/managed";
/** The label by which a pod, or anything else with labels, is an instance of a Gateway of its namespace. */
export const GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name";
/** Services of these are waypoints and east-west gateways themselves. */
const GATEWAY_CONTROLLERS = ["istio.io-mesh-controller", "istio.io-eastwest-controller"];
const NO_LABELS: Labels = new Map();

function refuse(reason: BindingReason, message: string): Found {
  return { refusal: { reason, message } };
}

/** Whether objects of the namespace may attach (CP-265). */
function admits(waypoint: Waypoint, namespace: string, labels: Labels): boolean {
  switch (waypoint.from) {
    case "All":
      return true;
    case "Same":
      return waypoint.namespace === namespace;
    case "Selector":
      return waypoint.selector !== undefined && selectorMatches(waypoint.selector, labels);
    case "None":
      return false;
  }
}

function attach(key: string, object: Bindable, namespace: ObjectMeta | undefined, find: FindWaypoint): Found {
  const waypoint = find(key);
  if (waypoint === undefined) {
    return refuse("WaypointIsNotReady", `waypoint ${key} is not ready: traffic goes without it`);
  }
  if (!admits(waypoint, object.namespace, namespace?.labels ?? NO_LABELS)) {
    const message = `waypoint ${key} does not let objects of namespace ${object.namespace} attach; see allowedRoutes ` +
      "of its listener";
    return refuse("AttachmentDenied", message);
  }
  return { waypoint };
}

/** The object's own label, else its namespace's; what is refused is not made up for by the other (CP-262). */
function findFor(object: Bindable, namespace: ObjectMeta | undefined, find: FindWaypoint): Found {
  const labels = object.labels.has(USE_WAYPOINT) ? object.labels : namespace?.labels;
  const name = labels?.get(USE_WAYPOINT);
  if (labels === undefined || name === undefined || name === "none") return {};
  return attach(waypointKey(labels.get(USE_WAYPOINT_NAMESPACE) ?? object.namespace, name), object, namespace, find);
}

function serving({ waypoint, refusal }: Found, traffic: "service" | "workload"): Found {
  if (waypoint === undefined || waypoint.serves === traffic || waypoint.serves === "all") return { waypoint, refusal };
  const message = `waypoint ${waypoint.key} takes traffic for ${JSON.stringify(waypoint.serves)}, not for a ${traffic}`;
  return refuse("UnsupportedTrafficType", message);
}

/** The Gateways that labels name as waypoints, the canary too; of an object, or of a namespace for all in it. */
export function waypointAskedFor(namespace: string, labels: Labels): { namespace: string; name: string }[] {
  const named = [[USE_WAYPOINT, USE_WAYPOINT_NAMESPACE], [USE_CANARY, USE_CANARY_NAMESPACE]] as const;
  return named.flatMap(([label, place]) => {
    const name = labels.get(label) ?? "";
    return name === "" || name === "none" ? [] : [{ namespace: labels.get(place) ?? namespace, name }];
  });
}

/** The canary is declared where the waypoint is: on the namespace only if the object names no waypoint (CP-268). */
function canaryOf(object: Bindable, namespace: ObjectMeta | undefined): { key: string; weight: string } | undefined {
  const inherits = object.labels.get(USE_WAYPOINT) === undefined;
  const level = object.labels.has(USE_CANARY) ? object.labels : inherits ? namespace?.labels : undefined;
  const name = level?.get(USE_CANARY) ?? "";
  if (level === undefined || name === "" || name === "none") return undefined;
  const inherited = inherits ? namespace?.annotations.get(CANARY_WEIGHT) : undefined;
  return {
    key: waypointKey(level.get(USE_CANARY_NAMESPACE) ?? object.namespace, name),
    weight: object.annotations.get(CANARY_WEIGHT) ?? inherited ?? "0",
  };
}

/** The waypoint of a Service or a ServiceEntry. @param namespaceOnly whether only its own namespace sees it (CP-112). */
export function bindService(
  object: Bindable,
  namespace: ObjectMeta | undefined,
  { find, namespaceOnly }: { readonly find: FindWaypoint; readonly namespaceOnly: boolean },
): ServiceBinding {
  if (GATEWAY_CONTROLLERS.includes(object.labels.get(MANAGED) ?? "")) return NO_SERVICE_BINDING;
  const { waypoint, refusal } = serving(findFor(object, namespace, find), "service");
  if (waypoint === undefined) return refusal === undefined ? NO_SERVICE_BINDING : { ...NO_SERVICE_BINDING, refusal };
  if (namespaceOnly && waypoint.namespace !== object.namespace) {
    const message = `waypoint ${waypoint.key} is in another namespace, where a ServiceEntry of NAMESPACE visibility ` +
      "must not be seen";
    return { ...NO_SERVICE_BINDING, refusal: { reason: "CrossNamespaceWaypointForbidden", message } };
  }
  const label = object.labels.get(INGRESS_USE_WAYPOINT) ?? namespace?.labels.get(INGRESS_USE_WAYPOINT);
  const ingress = label === undefined ? undefined : parseBoolean(label) === true;
  const canary = canaryOf(object, namespace);
  if (canary === undefined) return { waypoint, canary: undefined, weighted: [], ingress, refusal: undefined };
  return { waypoint, ingress, ...weigh(waypoint, canary, { object, namespace, find }) };
}

function weigh(
  primary: Waypoint,
  { key, weight }: { readonly key: string; readonly weight: string },
  { object, namespace, find }: {
    readonly object: Bindable;
    readonly namespace: ObjectMeta | undefined;
    readonly find: FindWaypoint;
  },
): Pick<ServiceBinding, "canary" | "weighted" | "refusal"> {
  const refused = (refusal: BindingRefusal | undefined) => ({ canary: undefined, weighted: [], refusal });
  if (key === primary.key) {
    return refused({ reason: "CanarySameAsPrimary", message: `canary waypoint ${key} is the waypoint itself` });
  }
  const share = /^\+?\d{1,9}$/.test(weight) ? Number(weight) : Infinity;
  if (share > 100) {
    const message = `canary waypoint ${key} must have a weight of 0 to 100, has ${JSON.stringify(weight)}`;
    return refused({ reason: "CanaryInvalidWeight", message });
  }
  const { waypoint: canary, refusal } = serving(attach(key, object, namespace, find), "service");
  if (canary === undefined) return refused(refusal);
  const weighted = [
    { destination: primary.address, weight: 100 - share },
    { destination: canary.address, weight: share },
  ];
  return { canary: key, weighted, refusal: undefined };
}

/** The waypoint of a workload; an instance of a usable Gateway has none, and its Gateway's inbound binding (CP-266). */
export function bindWorkload(
  object: Bindable,
  namespace: ObjectMeta | undefined,
  find: FindWaypoint,
): WorkloadBinding {
  const instanceOf = object.labels.get(GATEWAY_NAME) ?? "";
  const gateway = instanceOf === "" ? undefined : find(waypointKey(object.namespace, instanceOf));
  if (gateway !== undefined) return { ...NO_WORKLOAD_BINDING, tunnel: gateway.binding };
  const own = object.labels.has(USE_WAYPOINT);
  const { waypoint, refusal } = serving(findFor(object, namespace, find), "workload");
  // A namespace's waypoint may be for its services alone: that is no error of its workloads (CP-264).
  if (refusal?.reason === "UnsupportedTrafficType" && !own) return NO_WORKLOAD_BINDING;
  if (waypoint === undefined && refusal === undefined) return NO_WORKLOAD_BINDING;
  return { waypoint, tunnel: undefined, refusal, own };
}

/** A refusal for the log; of workloads only one that they asked for themselves. */
export function bindingProblems(object: ObjectKey, refusal: BindingRefusal | undefined): Problem[] {
  return refusal === undefined ? [] : [{ object, ...refusal }];
}
