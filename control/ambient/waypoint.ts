/** Which waypoint an object asks for, and why it has none (CP-260 to CP-264). Pure. */
import type { Labels, ObjectKey, ObjectMeta } from "../objects.ts";
import type { Problem } from "./options.ts";

/** The waypoint that labels ask for. */
export interface WaypointWish {
  readonly namespace: string;
  readonly name: string;
}

function wishOf(labels: Labels, namespace: string): WaypointWish | "none" | undefined {
  const name = labels.get("istio.io/use-waypoint");
  if (name === undefined) return undefined;
  if (name === "none") return "none";
  return { namespace: labels.get("istio.io/use-waypoint-namespace") ?? namespace, name };
}

const GATEWAY_CONTROLLERS = ["istio.io-mesh-controller", "istio.io-eastwest-controller"];

/**
 * Which waypoint an object asks for: its own label first, else its namespace's; `none` asks for none (CP-262). What is
 * itself a waypoint or an east-west gateway never has one (CP-263).
 */
export function waypointWish(labels: Labels, namespace: string, namespaceLabels: Labels): WaypointWish | undefined {
  if (GATEWAY_CONTROLLERS.includes(labels.get("gateway.istio.io/managed") ?? "")) return undefined;
  const wish = wishOf(labels, namespace) ?? wishOf(namespaceLabels, namespace);
  return wish === "none" ? undefined : wish;
}

const NO_LABELS: Labels = new Map();

/**
 * What keeps an object from its waypoint: Gateways are no input yet, so that none is ever ready, and the namespace's is
 * not tried instead (CP-262). Leave `namespaceLabels` out for workloads: only a label of their own is worth a word (CP-264).
 */
export function waypointProblems(object: ObjectKey, meta: ObjectMeta, namespaceLabels = NO_LABELS): Problem[] {
  const wish = waypointWish(meta.labels, meta.namespace, namespaceLabels);
  if (wish === undefined) return [];
  const message = `waypoint ${wish.namespace}/${wish.name} is not ready: traffic goes without it`;
  return [{ object, reason: "WaypointIsNotReady", message }];
}
