/** What a policy applies to, checked: selectors of workloads and references to targets (CP-694, CP-695). */
import type { Field } from "../decode/field.ts";
import type { Findings } from "./findings.ts";

/** A selector by labels: no wildcards, no empty key; none at all is most likely a mistake. */
export function checkSelector(selector: Field, findings: Findings, name = "matchLabels"): void {
  if (!selector.present) return;
  const labels = selector.get(name), entries = labels.entries();
  if (entries.length === 0) findings.warn(selector, "has no labels, so that it selects every workload it can");
  for (const [key, field] of entries) {
    findings.refuseIf(key === "", labels, "holds an empty key");
    const value = findings.attempt(() => field.text()) ?? "";
    findings.refuseIf(key.includes("*") || value.includes("*"), field, "must not hold a wildcard");
  }
}

/** Groups by kind. */
const TARGETS: Readonly<Record<string, readonly string[]>> = {
  Service: ["", "core"],
  ServiceEntry: ["networking.istio.io"],
  Gateway: ["gateway.networking.k8s.io"],
  GatewayClass: ["gateway.networking.k8s.io"],
};

/** A policy is attached in one way at most: by a selector, by `targetRef`, or by `targetRefs`. */
export function checkAttachment(spec: Field, findings: Findings): void {
  const single = spec.get("targetRef"), list = spec.get("targetRefs");
  const several = findings.attempt(() => list.items()) ?? [];
  const ways = [spec.get("selector").present, single.present, several.length > 0].filter((is) => is).length;
  findings.refuseIf(ways > 1, spec, "may hold only one of selector, targetRef and targetRefs");
  for (const target of [...single.present ? [single] : [], ...several]) checkTarget(target, findings);
}

function checkTarget(target: Field, findings: Findings): void {
  findings.attempt(() => {
    const kind = target.get("kind").text(), group = target.get("group").text(), groups = TARGETS[kind];
    if (groups === undefined || !Object.hasOwn(TARGETS, kind) || !groups.includes(group)) {
      target.fail(`must be a ${Object.keys(TARGETS).join(", ")} of its own group, is ${kind} of "${group}"`);
    }
    if (target.get("name").text() === "") target.get("name").fail("must be set");
    if (target.get("namespace").text() !== "") {
      target.get("namespace").fail("must be absent: a policy's target is in its own namespace");
    }
  });
}
