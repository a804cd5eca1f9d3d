/** The schema of a label selector: matchLabels and matchExpressions. */
import type { LabelExpression, LabelSelector } from "../../kube/label_selector.ts";
import type { Field } from "./field.ts";

const OPERATORS = ["In", "NotIn", "Exists", "DoesNotExist"] as const;

function decodeExpression(field: Field): LabelExpression {
  field.required().only("key", "operator", "values");
  const operator = field.get("operator").required().oneOf(OPERATORS, "In"), values = field.get("values").texts();
  const needsValues = operator === "In" || operator === "NotIn";
  if (needsValues && values.length === 0) field.get("values").fail(`must hold at least one value for ${operator}`);
  if (!needsValues && values.length > 0) field.get("values").fail(`must be absent for ${operator}`);
  return { key: field.get("key").required().text(), operator, values };
}

/** Throws FieldRefusal. An unknown field is refused, since without it the selector would select more. */
export function decodeLabelSelector(field: Field): LabelSelector {
  field.only("matchLabels", "matchExpressions");
  return {
    matchLabels: field.get("matchLabels").textMap(),
    matchExpressions: field.get("matchExpressions").items().map(decodeExpression),
  };
}
