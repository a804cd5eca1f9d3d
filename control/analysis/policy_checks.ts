/** Policies that say less than they seem to: they select nothing, or what they select does not enforce them (CP-699). Pure. */
import type { AmbientGraph } from "../ambient/graph.ts";
import { selects } from "../ambient/labels.ts";
import { GATEWAY_NAME } from "../ambient/waypoint_binding.ts";
import { mergedLabels } from "../ambient/workload_pod.ts";
import { keyOf, type Labels, objectKey, type TargetReference } from "../objects.ts";
import type { Finding } from "./findings.ts";

/** Policies of the graph, with whom they are for; an empty selector is no selector here. */
interface Selecting {
  readonly object: string;
  readonly namespace: string;
  readonly selector: Labels;
}

const NO_LABELS: Labels = new Map();
const NO_MAPS: ReadonlySet<Labels> = new Set();

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
  const { byNamespace, everywhere } = labelsOfAll(graph), rootNamespace = graph.mesh.rootNamespace.value;
  for (const { object, namespace, selector } of selecting(graph)) {
    const among = namespace === rootNamespace ? everywhere : byNamespace.get(namespace) ?? NO_MAPS;
    const matched = [...among].filter((labels) => selects(selector, labels));
    if (matched.length === 0) {
      const labels = [...selector].map(([key, value]) => `${key}=${value}`).join(",");
      const message = `No matching workloads for this resource with the following labels: ${labels}`;
      yield { code: "IST0127", object, message };
    }
    for (const gateway of new Set(matched.flatMap((labels) => labels.get(GATEWAY_NAME) ?? []))) {
      const message = `Ineffective selector on Kubernetes Gateway ${gateway}. Use the targetRefs field instead.`;
      yield { code: "IST0166", object, message };
    }
  }
}

/**
 * The labels of all pods and WorkloadEntries, whom a selector may choose. Pods of one template have theirs in common, so
 * that a policy looks at templates, not at pods.
 */
function labelsOfAll({ sources }: AmbientGraph) {
  const byNamespace = new Map<string, Set<Labels>>(), everywhere = new Set<Labels>();
  const add = (namespace: string, labels: Labels) => {
    everywhere.add(labels);
    const already = byNamespace.get(namespace);
    if (already === undefined) byNamespace.set(namespace, new Set([labels]));
    else already.add(labels);
  };
  for (const [, { meta }] of sources.Pod.entries()) add(meta.namespace, meta.labels);
  for (const [, { meta, spec }] of sources.WorkloadEntry.entries()) {
    add(meta.namespace, mergedLabels(spec.labels, meta.labels));
  }
  return { byNamespace, everywhere };
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
