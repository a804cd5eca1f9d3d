/** AuthorizationPolicy to the L4 policy that ztunnel enforces (CP-330 to CP-346). Pure. */
import {
  EMPTY_MATCH,
  type IpMatch,
  type Policy,
  PolicyAction,
  type PolicyMatch,
  type PolicyRule,
  PolicyScope,
  type ServiceAccountMatch,
  type StringMatch,
} from "../../mesh/policy.ts";
import { isIpv4, parseIp } from "../../base/address.ts";
import type { AuthorizationPolicyObject, AuthorizationRule, Labels, ValueLists, WhenCondition } from "../objects.ts";
import { parsePrefix } from "./addresses.ts";
import { parseBoolean } from "./labels.ts";
import type { AmbientOptions } from "./options.ts";

/** A condition for the object's status. */
export interface PolicyCondition {
  readonly type: "ZtunnelAccepted";
  readonly status: "True" | "False";
  readonly reason: "Accepted" | "UnsupportedValue";
  readonly message: string;
}

export interface ConvertedPolicy {
  /** Undefined: nothing is sent for this object. */
  readonly policy: Policy | undefined;
  /** Undefined for policies that are not ztunnel's (CP-331). */
  readonly condition: PolicyCondition | undefined;
  /** The object's selector; undefined without one. */
  readonly selector: Labels | undefined;
}

type Builder = { -readonly [K in keyof PolicyMatch]: PolicyMatch[K][number][] };

function emptyMatch(): Builder {
  return {
    namespaces: [],
    notNamespaces: [],
    principals: [],
    notPrincipals: [],
    serviceAccounts: [],
    notServiceAccounts: [],
    sourceIps: [],
    notSourceIps: [],
    destinationIps: [],
    notDestinationIps: [],
    destinationPorts: [],
    notDestinationPorts: [],
  };
}

/** A match of one clause; the fields not named stay empty. */
export function policyMatch(fields: Partial<PolicyMatch>): PolicyMatch {
  return { ...EMPTY_MATCH, ...fields };
}

function isEmpty(match: PolicyMatch): boolean {
  return Object.values(match).every((list) => list.length === 0);
}

/** `*` alone: presence; leading: suffix, also with one at both ends; trailing: prefix; else exact (CP-337). */
export function parseStringMatch(text: string): StringMatch {
  if (text === "*") return { kind: "presence", value: "" };
  if (text.startsWith("*")) return { kind: "suffix", value: text.slice(1) };
  if (text.endsWith("*")) return { kind: "prefix", value: text.slice(0, -1) };
  return { kind: "exact", value: text };
}

/** A bare address has its full length (CP-339). @returns undefined if it is no address. */
function parseIpMatch(text: string): IpMatch | undefined {
  const prefix = parsePrefix(text);
  if (prefix === undefined) return undefined;
  // As written, not masked: the evaluator compares under the mask.
  const ip = parseIp(text.split("/", 1)[0]!) ?? prefix.ip;
  return { ip, prefixLength: prefix.prefixLength ?? (isIpv4(ip[0], ip[1], ip[2]) ? 32 : 128) };
}

function parsePort(text: string): number | undefined {
  return /^\d{1,5}$/.test(text) && Number(text) <= 65535 ? Number(text) : undefined;
}

/** `ns/account`, or `account` of the policy's own namespace (CP-338). */
function parseServiceAccount(text: string, namespace: string): ServiceAccountMatch {
  const slash = text.indexOf("/");
  if (slash < 0) return { namespace, serviceAccount: text };
  return { namespace: text.slice(0, slash), serviceAccount: text.slice(slash + 1) };
}

type StringField = "namespaces" | "notNamespaces" | "principals" | "notPrincipals";
type IpField = "sourceIps" | "notSourceIps" | "destinationIps" | "notDestinationIps";
type PortField = "destinationPorts" | "notDestinationPorts";
type AccountField = "serviceAccounts" | "notServiceAccounts";
/** What values mean depends on the policy's namespace, and on the mesh's trust domains where those are expanded. */
interface ValueScope {
  readonly namespace: string;
  readonly trustDomains: readonly string[];
}
/** Adds values to a match. @returns false if it would match more than was written: as one that cannot be enforced (CP-339). */
type AddValues = (match: Builder, values: readonly string[], scope: ValueScope) => boolean;

/** What `cluster.local` stands for in a principal, whatever the mesh's own trust domain is. */
const TRUST_DOMAIN_POINTER = "cluster.local";

/**
 * A principal of one of the mesh's trust domains, or of the pointer to them, in each of them (CP-344); any other as
 * written. Without trust domains to expand to nothing is expanded.
 */
export function expandPrincipal(text: string, trustDomains: readonly string[]): readonly string[] {
  const slash = text.indexOf("/"), trustDomain = slash < 0 ? "" : text.slice(0, slash);
  const known = trustDomain === TRUST_DOMAIN_POINTER || trustDomains.includes(trustDomain);
  if (!known || trustDomains.length === 0) return [text];
  return trustDomains.map((it) => it + text.slice(slash));
}

const strings = (field: StringField): AddValues => (match, values) => {
  match[field].push(...values.map(parseStringMatch));
  return true;
};
const principals = (field: StringField): AddValues => (match, values, { trustDomains }) => {
  match[field].push(...values.flatMap((value) => expandPrincipal(value, trustDomains)).map(parseStringMatch));
  return true;
};
/** Of an exception none may be missing: what it excepts would be let in (CP-339). */
const complete = (field: string, read: readonly unknown[], values: readonly unknown[]) =>
  field.startsWith("not") ? read.length === values.length : read.length > 0;
const ips = (field: IpField): AddValues => (match, values) => {
  const read = values.map(parseIpMatch).filter((value) => value !== undefined);
  match[field].push(...read);
  return complete(field, read, values);
};
const ports = (field: PortField): AddValues => (match, values) => {
  const read = values.map(parsePort).filter((value) => value !== undefined);
  match[field].push(...read);
  return complete(field, read, values);
};
const accounts = (field: AccountField): AddValues => (match, values, { namespace }) => {
  match[field].push(...values.map((value) => parseServiceAccount(value, namespace)));
  return true;
};

/** What ztunnel can enforce of `source` and `operation` (CP-336); whatever is not here needs a waypoint (CP-340, CP-343). */
const ENTRY_FIELDS: ReadonlyMap<string, AddValues> = new Map([
  ["principals", principals("principals")],
  ["notPrincipals", principals("notPrincipals")],
  ["namespaces", strings("namespaces")],
  ["notNamespaces", strings("notNamespaces")],
  ["serviceAccounts", accounts("serviceAccounts")],
  ["notServiceAccounts", accounts("notServiceAccounts")],
  ["ipBlocks", ips("sourceIps")],
  ["notIpBlocks", ips("notSourceIps")],
  ["ports", ports("destinationPorts")],
  ["notPorts", ports("notDestinationPorts")],
]);

/** The same for the keys of `when`: of values, and of notValues. */
const WHEN_FIELDS: ReadonlyMap<string, readonly [AddValues, AddValues]> = new Map([
  ["source.ip", [ips("sourceIps"), ips("notSourceIps")]],
  ["source.namespace", [strings("namespaces"), strings("notNamespaces")]],
  ["source.principal", [principals("principals"), principals("notPrincipals")]],
  ["destination.ip", [ips("destinationIps"), ips("notDestinationIps")]],
  ["destination.port", [ports("destinationPorts"), ports("notDestinationPorts")]],
]);

interface ConvertedRule {
  readonly rule: PolicyRule;
  /** Names of attributes that ztunnel cannot enforce. */
  readonly unsupported: readonly string[];
}

function convertRule(rule: AuthorizationRule, scope: ValueScope): ConvertedRule {
  const clauses: (readonly PolicyMatch[])[] = [], unsupported: string[] = [];
  const convertEntry = (lists: ValueLists): PolicyMatch => {
    const match = emptyMatch();
    for (const [name, values] of lists) {
      if (values.length > 0 && ENTRY_FIELDS.get(name)?.(match, values, scope) !== true) unsupported.push(name);
    }
    return match;
  };
  const convertWhen = (condition: WhenCondition): PolicyMatch => {
    const match = emptyMatch(), add = WHEN_FIELDS.get(condition.key);
    const done = add !== undefined &&
      (condition.values.length === 0 || add[0](match, condition.values, scope)) &&
      (condition.notValues.length === 0 || add[1](match, condition.notValues, scope));
    if (!done) unsupported.push(condition.key);
    return match;
  };
  const addClause = (matches: readonly PolicyMatch[]) => {
    const kept = matches.filter((match) => !isEmpty(match));
    // One empty match never matches, and so the clause and its rule never do (CP-330, CP-342).
    clauses.push(kept.length > 0 ? kept : [emptyMatch()]);
  };
  if (rule.to.length > 0) addClause(rule.to.map(convertEntry));
  if (rule.from.length > 0) addClause(rule.from.map(convertEntry));
  for (const condition of rule.when) addClause([convertWhen(condition)]);
  return { rule: { clauses }, unsupported };
}

/** Whether a rule can ever match. */
function isEnforceable(rule: PolicyRule): boolean {
  return rule.clauses.every((clause) => clause.some((match) => !isEmpty(match)));
}

function accepted(reason: PolicyCondition["reason"], message: string): PolicyCondition {
  return { type: "ZtunnelAccepted", status: "True", reason, message };
}

function leftoverMessage(attributes: readonly string[], action: PolicyAction, rules: readonly PolicyRule[]): string {
  const names = [...new Set(attributes)].sort().join(", ");
  const opening = `ztunnel does not support these attributes, which need a waypoint: ${names}. `;
  if (action === PolicyAction.ALLOW) {
    return `${opening}Within an ALLOW policy, rules that use them are omitted: the policy is more restrictive than written.`;
  }
  if (rules.some(isEnforceable)) {
    return `${opening}Within a DENY policy, these HTTP parts are omitted: the policy is more restrictive than written.`;
  }
  return `${opening}Nothing of this DENY policy is left: it has no effect at ztunnel. Use a targetRef to a waypoint.`;
}

/** What a policy's conversion depends on beside itself. */
export interface PolicyOptions extends Pick<AmbientOptions, "rootNamespace" | "dryRunPolicies"> {
  /** Where principals of one of these hold for all of them; none as long as principals are taken as written (CP-344). */
  readonly trustDomains?: readonly string[];
}

/** Converts a policy for ztunnel. */
export function convertAuthorizationPolicy(
  object: AuthorizationPolicyObject,
  options: PolicyOptions,
): ConvertedPolicy {
  const { selector, meta } = object;
  const nothing = (condition?: PolicyCondition): ConvertedPolicy => ({ policy: undefined, condition, selector });
  const refused = (message: string) =>
    nothing({ type: "ZtunnelAccepted", status: "False", reason: "UnsupportedValue", message });
  if (object.targets.length > 0) return nothing();
  const dryRun = parseBoolean(meta.annotations.get("istio.io/dry-run")) === true;
  if (dryRun && !options.dryRunPolicies) return refused("ztunnel does not support the istio.io/dry-run annotation");
  if (object.action !== "ALLOW" && object.action !== "DENY") {
    return refused(`ztunnel does not support the ${object.action} action`);
  }
  const action = PolicyAction[object.action];
  const scope = { namespace: meta.namespace, trustDomains: options.trustDomains ?? [] };
  const converted = object.rules.map((rule) => convertRule(rule, scope));
  const unsupported = converted.flatMap((it) => it.unsupported);
  const rules = converted
    .filter((it) => action === PolicyAction.DENY || it.unsupported.length === 0)
    .map((it) => it.rule);
  const policy: Policy = {
    key: `${meta.namespace}/${meta.name}`,
    name: meta.name,
    namespace: meta.namespace,
    scope: selector !== undefined
      ? PolicyScope.WORKLOAD_SELECTOR
      : meta.namespace === options.rootNamespace
      ? PolicyScope.GLOBAL
      : PolicyScope.NAMESPACE,
    action,
    rules,
    dryRun,
  };
  const condition = unsupported.length === 0
    ? accepted("Accepted", "attached to ztunnel")
    : accepted("UnsupportedValue", leftoverMessage(unsupported, action, rules));
  return { policy, condition, selector };
}
