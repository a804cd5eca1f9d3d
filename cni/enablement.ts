/** Whether a pod belongs into the mesh: its labels, its namespace's, and what rules it out (CNI section 3). Pure. */
import { isFields } from "../base/plain.ts";
import { type LabelExpression, type LabelSelector, selectorMatches } from "../kube/label_selector.ts";

/** Labels or annotations. */
export type Texts = Readonly<Record<string, string>>;

/** Either selector with nothing in it selects everything. */
interface EnablementSelector {
  readonly podSelector: LabelSelector;
  readonly namespaceSelector: LabelSelector;
}

export interface Enablement {
  /** The first that matches enrols (CNI-070). */
  readonly selectors: readonly EnablementSelector[];
  readonly excludedNamespaces: readonly string[];
}

/** What of a pod the decision depends on. */
export interface EnablementFacts {
  readonly namespace: string;
  readonly namespaceLabels: Texts;
  readonly labels: Texts;
  readonly annotations: Texts;
  readonly hostNetwork: boolean;
}

const MODE = "istio.io/dataplane-mode", AMBIENT = "ambient", NONE = "none";
const SIDECAR_STATUS = "sidecar.istio.io/status";
const EVERYTHING: LabelSelector = { matchLabels: new Map(), matchExpressions: [] };
const OPERATORS = ["In", "NotIn", "Exists", "DoesNotExist"] as const;

/** CNI-070: the pod's own label, or the namespace's unless the pod says none. */
export const DEFAULT_SELECTORS: readonly EnablementSelector[] = [
  { podSelector: { matchLabels: new Map([[MODE, AMBIENT]]), matchExpressions: [] }, namespaceSelector: EVERYTHING },
  {
    podSelector: { matchLabels: new Map(), matchExpressions: [{ key: MODE, operator: "NotIn", values: [NONE] }] },
    namespaceSelector: { matchLabels: new Map([[MODE, AMBIENT]]), matchExpressions: [] },
  },
];

/** {@link DEFAULT_SELECTORS} as configurations write them: a plugin of another make knows none by itself (CNI-006). */
export const DEFAULT_SELECTORS_WRITTEN = [
  { podSelector: { matchLabels: { [MODE]: AMBIENT } } },
  {
    podSelector: { matchExpressions: [{ key: MODE, operator: "NotIn", values: [NONE] }] },
    namespaceSelector: { matchLabels: { [MODE]: AMBIENT } },
  },
] as const;

/** Labels as a selector looks them up: an object's own, never what every object has. */
function matches(selector: LabelSelector, labels: Texts): boolean {
  return selectorMatches(selector, { get: (key) => Object.hasOwn(labels, key) ? labels[key] : undefined });
}

/** Whether the pod is to be in the mesh (section 3's table, CNI-070). */
export function wantsMesh(pod: EnablementFacts, { selectors, excludedNamespaces }: Enablement): boolean {
  if (pod.hostNetwork || Object.hasOwn(pod.annotations, SIDECAR_STATUS)) return false;
  if (Object.hasOwn(pod.labels, MODE) && pod.labels[MODE] === NONE) return false; // It wins over every selector.
  if (excludedNamespaces.includes(pod.namespace)) return false;
  return selectors.some(({ podSelector, namespaceSelector }) =>
    matches(podSelector, pod.labels) && matches(namespaceSelector, pod.namespaceLabels)
  );
}

/** Whether a namespace of these labels may have pods in the mesh through a selector of its own (CNI-071). */
export function isEnabledNamespace(labels: Texts, { selectors }: Enablement): boolean {
  return selectors.some(({ namespaceSelector }) => {
    const { matchLabels, matchExpressions } = namespaceSelector;
    if (matchLabels.size === 0 && matchExpressions.length === 0) return false;
    return matches(namespaceSelector, labels);
  });
}

/** Reads selectors from plain data; absent means the default ones. @returns What is wrong, as a phrase, if something is. */
export function parseEnablement(value: unknown, excludedNamespaces: readonly string[]): Enablement | { wrong: string } {
  if (value === undefined || value === null) return { selectors: DEFAULT_SELECTORS, excludedNamespaces };
  if (!Array.isArray(value)) return { wrong: "a list of selectors" };
  const selectors: EnablementSelector[] = [];
  for (const item of value) {
    if (!isFields(item)) return { wrong: "a list of maps with podSelector and namespaceSelector" };
    const podSelector = parseSelector(item.podSelector), namespaceSelector = parseSelector(item.namespaceSelector);
    if (podSelector === undefined || namespaceSelector === undefined) return { wrong: "made of label selectors" };
    selectors.push({ podSelector, namespaceSelector });
  }
  return { selectors, excludedNamespaces };
}

function parseSelector(value: unknown): LabelSelector | undefined {
  if (value === undefined || value === null) return EVERYTHING;
  if (!isFields(value)) return undefined;
  const matchLabels = value.matchLabels ?? {}, expressions = value.matchExpressions ?? [];
  if (!isFields(matchLabels) || Object.values(matchLabels).some((it) => typeof it !== "string")) return undefined;
  if (!Array.isArray(expressions)) return undefined;
  const matchExpressions = expressions.map(parseExpression);
  if (matchExpressions.some((it) => it === undefined)) return undefined;
  return {
    matchLabels: new Map(Object.entries(matchLabels as Texts)),
    matchExpressions: matchExpressions as LabelExpression[],
  };
}

function parseExpression(value: unknown): LabelExpression | undefined {
  if (!isFields(value) || typeof value.key !== "string") return undefined;
  const operator = OPERATORS.find((it) => it === value.operator), values = value.values ?? [];
  if (operator === undefined || !Array.isArray(values) || values.some((it) => typeof it !== "string")) return undefined;
  const wantsValues = operator === "In" || operator === "NotIn";
  if (wantsValues !== values.length > 0) return undefined; // As the API server refuses it.
  return { key: value.key, operator, values: values as string[] };
}
