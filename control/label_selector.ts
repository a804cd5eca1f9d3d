/** What Kubernetes' label selectors select. Pure. */
import type { LabelExpression, Labels, LabelSelector } from "./objects.ts";

function holds({ key, operator, values }: LabelExpression, labels: Labels): boolean {
  const value = labels.get(key);
  switch (operator) {
    case "In":
      return value !== undefined && values.includes(value);
    case "NotIn": // As Kubernetes has it: also where the label is absent.
      return value === undefined || !values.includes(value);
    case "Exists":
      return value !== undefined;
    case "DoesNotExist":
      return value === undefined;
  }
}

/** Whether labels satisfy all of the selector; one with nothing in it selects everything. */
export function selectorMatches({ matchLabels, matchExpressions }: LabelSelector, labels: Labels): boolean {
  for (const [key, value] of matchLabels) if (labels.get(key) !== value) return false;
  return matchExpressions.every((expression) => holds(expression, labels));
}

/** Whether discovery selectors let a namespace of these labels in: any of them, or there are none (CP-104). */
export function anySelectorMatches(selectors: readonly LabelSelector[], labels: Labels): boolean {
  return selectors.length === 0 || selectors.some((selector) => selectorMatches(selector, labels));
}
