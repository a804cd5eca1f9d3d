/** What the mesh's settings say of one object: who sees a ServiceEntry, and how far a Service reaches. Pure. */
import { selectorMatches } from "../../kube/label_selector.ts";
import type { Labels, ServiceEntryVisibility, ServiceScopeRule, Visibility } from "../objects.ts";

/** Who sees the ServiceEntries of a namespace: by the first policy whose rules all hold, else the default (CP-112). */
export function visibilityOf(setting: ServiceEntryVisibility | undefined, namespaceLabels: Labels): Visibility {
  const policy = setting?.policies.find(({ namespaces }) =>
    namespaces.every((selector) => selector !== undefined && selectorMatches(selector, namespaceLabels))
  );
  return policy?.visibility ?? setting?.fallback ?? "PUBLIC";
}

/** Whether a Service is one with its namesakes in other clusters: some rule that says so matches both selectors (CP-111). */
export function isGlobal(rules: readonly ServiceScopeRule[], labels: Labels, namespaceLabels: Labels): boolean {
  return rules.some(({ global, services, namespaces }) =>
    global && selectorMatches(services, labels) && selectorMatches(namespaces, namespaceLabels)
  );
}
