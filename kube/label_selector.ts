/** What Kubernetes' label selectors select. Pure. */

/** Labels to look up: a map, or whatever stands for one. */
export interface LabelLookup {
  get(key: string): string | undefined;
}

/** One condition of a label selector that is not plain equality. */
export interface LabelExpression {
  readonly key: string;
  readonly operator: "In" | "NotIn" | "Exists" | "DoesNotExist";
  readonly values: readonly string[];
}

/** A selector as Kubernetes writes it; all of it must hold, and nothing in it selects everything. */
export interface LabelSelector {
  readonly matchLabels: ReadonlyMap<string, string>;
  readonly matchExpressions: readonly LabelExpression[];
}

function holds({ key, operator, values }: LabelExpression, labels: LabelLookup): boolean {
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
export function selectorMatches({ matchLabels, matchExpressions }: LabelSelector, labels: LabelLookup): boolean {
  for (const [key, value] of matchLabels) if (labels.get(key) !== value) return false;
  return matchExpressions.every((expression) => holds(expression, labels));
}

/** Whether discovery selectors let a namespace of these labels in: any of them, or there are none (CP-104). */
export function anySelectorMatches(selectors: readonly LabelSelector[], labels: LabelLookup): boolean {
  return selectors.length === 0 || selectors.some((selector) => selectorMatches(selector, labels));
}
