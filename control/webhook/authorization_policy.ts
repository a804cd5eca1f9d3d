/** AuthorizationPolicy on its way in (CP-694): what would be refused, or would do something else than its author thinks. */
import { decodeAuthorizationPolicy } from "../decode/security.ts";
import type { Field } from "../decode/field.ts";
import { NO_META } from "../decode/no_meta.ts";
import type { Findings } from "./findings.ts";
import { checkAttachment, checkSelector } from "./selectors.ts";

/** Keys of `when`; those that end in `[` name a member, as `request.headers[x]`. */
const WHEN_KEYS = [
  "request.headers[",
  "source.ip",
  "remote.ip",
  "source.namespace",
  "source.serviceAccount",
  "source.principal",
  "source.trustDomain",
  "request.auth.principal",
  "request.auth.audiences",
  "request.auth.presenter",
  "request.auth.claims[",
  "destination.ip",
  "destination.port",
  "connection.sni",
  "experimental.envoy.filters.",
];

/** Of a source: what an external authorizer is asked without, so that CUSTOM may not match it. */
const NOT_WITH_CUSTOM = [
  "namespaces",
  "notNamespaces",
  "serviceAccounts",
  "notServiceAccounts",
  "trustDomains",
  "notTrustDomains",
  "principals",
  "notPrincipals",
  "requestPrincipals",
  "notRequestPrincipals",
];
const WHEN_NOT_WITH_CUSTOM = /^(source\.(namespace|serviceAccount|trustDomain|principal)$|request\.auth\.)/;

const ACCOUNTS = ["serviceAccounts", "notServiceAccounts"];
const NOT_WITH_ACCOUNTS = ["principals", "notPrincipals", "namespaces", "notNamespaces"];

/** Of a source: what is known of any connection. The rest is known of HTTP requests alone. */
const TCP_SOURCE = [
  ...NOT_WITH_ACCOUNTS,
  ...ACCOUNTS,
  "ipBlocks",
  "notIpBlocks",
  "remoteIpBlocks",
  "notRemoteIpBlocks",
  "trustDomains",
  "notTrustDomains",
];
const TCP_OPERATION = ["ports", "notPorts"];

/** What a DENY does that says nothing of a connection itself, by who enforces it. */
const BLIND_AT_WAYPOINT =
  "names HTTP attributes alone: of TCP it denies everything; name ports to say which traffic is HTTP";
const BLIND_AT_ZTUNNEL =
  "names HTTP attributes alone, so that ztunnel denies nothing by it: name ports, all of whose traffic it then denies, or a waypoint in targetRefs, which judges requests";

export function checkAuthorizationPolicy(root: Field, findings: Findings): void {
  const spec = root.get("spec");
  findings.attempt(() => decodeAuthorizationPolicy(root, NO_META));
  checkAttachment(spec, findings);
  checkSelector(spec.get("selector"), findings);
  const bound = spec.get("targetRef").present || spec.get("targetRefs").present;
  const action = spec.get("action").value ?? "ALLOW", rules = findings.attempt(() => spec.get("rules").items()) ?? [];
  checkAction(spec, { action, rules }, findings);
  for (const rule of rules) {
    const sources = partsOf(rule, "from", "source", findings), operations = partsOf(rule, "to", "operation", findings);
    for (const source of sources) checkSource(source, { custom: action === "CUSTOM" }, findings);
    for (const operation of operations) checkOperation(operation, findings);
    for (const condition of findings.attempt(() => rule.get("when").items()) ?? []) {
      checkCondition(condition, { custom: action === "CUSTOM" }, findings);
    }
    const blind = sources.length > 0 && !sources.some((it) => has(it, TCP_SOURCE)) ||
      operations.length > 0 && !operations.some((it) => has(it, TCP_OPERATION));
    if (action === "DENY" && blind) {
      findings.warn(rule, bound ? BLIND_AT_WAYPOINT : BLIND_AT_ZTUNNEL);
    }
  }
}

function partsOf(rule: Field, list: string, inner: string, findings: Findings): Field[] {
  const parts = findings.attempt(() => rule.get(list).items().map((entry) => entry.get(inner))) ?? [];
  return parts.filter((part) => part.present);
}

function has(part: Field, names: readonly string[]): boolean {
  return names.some((name) => part.get(name).present);
}

function checkAction(
  spec: Field,
  { action, rules }: { action: unknown; rules: readonly Field[] },
  findings: Findings,
): void {
  const provider = spec.get("provider");
  if (action === "DENY" || action === "CUSTOM") {
    const remedy = "add an empty rule, {}, to match everything";
    findings.refuseIf(rules.length === 0, spec.get("rules"), `${action} without rules would never match: ${remedy}`);
  }
  if (action === "CUSTOM") {
    const name = findings.attempt(() => provider.get("name").text()) ?? "";
    findings.refuseIf(name === "", provider.get("name"), "must be set: CUSTOM asks that provider");
  } else findings.refuseIf(provider.present, provider, "must be absent unless the action is CUSTOM");
}

function checkSource(source: Field, { custom }: { custom: boolean }, findings: Findings): void {
  findings.attempt(() => {
    const both = has(source, ACCOUNTS) && has(source, NOT_WITH_ACCOUNTS);
    findings.refuseIf(both, source, "may not hold serviceAccounts beside principals or namespaces");
    for (const name of custom ? NOT_WITH_CUSTOM : []) {
      findings.refuseIf(source.get(name).present, source.get(name), "cannot be matched by CUSTOM");
    }
  });
}

function checkOperation(operation: Field, findings: Findings): void {
  for (const name of ["paths", "notPaths"]) {
    const paths = findings.attempt(() => operation.get(name).items()) ?? [];
    for (const path of paths) {
      const wrong = typeof path.value === "string" ? templateProblem(path.value) : undefined;
      if (wrong !== undefined) findings.refuse(path, wrong);
    }
  }
}

/** What is wrong with a path that holds `{*}` or `{**}`, or undefined. A path without braces is no template. */
function templateProblem(path: string): string | undefined {
  if (!/[{}]/.test(path)) return undefined;
  const segments = path.split("/");
  if (segments[0] !== "") return "must begin with / to hold {*} or {**}";
  const templates = segments.filter((segment) => /[{}]/.test(segment));
  if (!templates.every((segment) => segment === "{*}" || segment === "{**}")) {
    return "may hold {*} and {**} only, each a whole segment between slashes";
  }
  if (segments.some((segment) => segment.includes("*") && !/[{}]/.test(segment))) {
    return "may not hold * beside {*} or {**}";
  }
  const rest = segments.indexOf("{**}");
  if (rest >= 0 && segments.slice(rest + 1).includes("{*}")) return "may not hold {*} after {**}";
  if (templates.filter((segment) => segment === "{**}").length > 1) return "may hold {**} once";
  return undefined;
}

function checkCondition(condition: Field, { custom }: { custom: boolean }, findings: Findings): void {
  findings.attempt(() => {
    const key = condition.get("key"), text = key.text();
    if (!WHEN_KEYS.some((known) => isKey(text, known))) key.fail(`is not known; known are ${WHEN_KEYS.join(" ")}`);
    if (custom && WHEN_NOT_WITH_CUSTOM.test(text)) key.fail("cannot be matched by CUSTOM");
  });
}

function isKey(text: string, known: string): boolean {
  if (known.endsWith("[")) return text.startsWith(known) && text.endsWith("]") && text.length > known.length + 1;
  return known.endsWith(".") ? text.startsWith(known) && text.length > known.length : text === known;
}
