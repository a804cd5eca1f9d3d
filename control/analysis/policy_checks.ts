/** Policies that say less than they seem to: they select nothing, or what they select does not enforce them (CP-699). Pure. */
import type { AmbientGraph } from "../ambient/graph.ts";
import { selects } from "../ambient/labels.ts";
import { GATEWAY_NAME } from "../ambient/waypoint_binding.ts";
import { mergedLabels } from "../ambient/workload_pod.ts";
import { keyOf, type Labels, objectKey, type TargetReference } from "../objects.ts";
import type { Finding } from "./findings.ts";

/** Whoever a selector may choose: a pod or a WorkloadEntry. */
interface Selectable {
  readonly namespace: string;
  readonly labels: Labels;
}

/** Policies of the graph, with whom they are for; an empty selector is no selector here. */
interface Selecting {
  readonly object: string;
  readonly namespace: string;
  readonly selector: Labels;
}

const NO_LABELS: Labels = new Map();

export function* checkPolicies(graph: AmbientGraph): Iterable<Finding> {
  yield* checkSelectors(graph);
  yield* checkTargets(graph);
  for (const [key, { condition }] of graph.converted.entries()) {
    if (condition?.status === "True" && condition.reason === "UnsupportedValue") {
      yield { code: "IST0167", object: key, message: `The policy has no impact as written: ${condition.message}` };
    }
  }
}

function* checkSelectors(graph: AmbientGraph): Iterable<Finding> {
  const byNamespace = selectables(graph), rootNamespace = graph.mesh.rootNamespace.value;
  const ofNamespace = (namespace: string) =>
    namespace === rootNamespace ? [...byNamespace.values()].flat() : byNamespace.get(namespace) ?? [];
  for (const { object, namespace, selector } of selecting(graph)) {
    const matched = ofNamespace(namespace).filter(({ labels }) => selects(selector, labels));
    if (matched.length === 0) {
      const labels = [...selector].map(([key, value]) => `${key}=${value}`).join(",");
      const message = `No matching workloads for this resource with the following labels: ${labels}`;
      yield { code: "IST0127", object, message };
    }
    for (const gateway of new Set(matched.flatMap(({ labels }) => labels.get(GATEWAY_NAME) ?? []))) {
      const message = `Ineffective selector on Kubernetes Gateway ${gateway}. Use the targetRefs field instead.`;
      yield { code: "IST0166", object, message };
    }
  }
}

/** By namespace, all pods and WorkloadEntries. */
function selectables({ sources }: AmbientGraph): ReadonlyMap<string, readonly Selectable[]> {
  const found = new Map<string, Selectable[]>();
  const add = (namespace: string, labels: Labels) => {
    const already = found.get(namespace);
    if (already === undefined) found.set(namespace, [{ namespace, labels }]);
    else already.push({ namespace, labels });
  };
  for (const [, { meta }] of sources.Pod.entries()) add(meta.namespace, meta.labels);
  for (const [, { meta, spec }] of sources.WorkloadEntry.entries()) {
    add(meta.namespace, mergedLabels(spec.labels, meta.labels));
  }
  return found;
}

function* selecting({ sources }: AmbientGraph): Iterable<Selecting> {
  const kinds = [sources.AuthorizationPolicy, sources.PeerAuthentication];
  for (const kind of kinds) {
    for (const [, object] of kind.entries()) {
      const { selector = NO_LABELS, meta: { namespace } } = object;
      if (selector.size > 0) yield { object: keyOf(object), namespace, selector };
    }
  }
}

/** What targets name and is not there: kind by kind, where it would be. */
function* checkTargets({ sources }: AmbientGraph): Iterable<Finding> {
  const isThere = ({ kind, name }: TargetReference, namespace: string) => {
    switch (kind) {
      case "GatewayClass":
        return sources.GatewayClass.get(objectKey(kind, "", name)) !== undefined;
      case "Gateway":
      case "Service":
      case "ServiceEntry":
        return sources[kind].get(objectKey(kind, namespace, name)) !== undefined;
      default:
        return true; // What kind of thing that is, the webhook says.
    }
  };
  for (const [, policy] of sources.AuthorizationPolicy.entries()) {
    for (const target of policy.targets) {
      if (isThere(target, policy.meta.namespace)) continue;
      const message = `Referenced ${target.kind} not found: "${target.name}"`;
      yield { code: "IST0101", object: keyOf(policy), message };
    }
  }
}
