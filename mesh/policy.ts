/** L4 authorization policies (proto istio.security.Authorization) and the decision over them (ZT section 6). */
import { type IpWords, prefixContains } from "../base/address.ts";
import type { Identity } from "./identity.ts";

export const PolicyScope = { GLOBAL: 0, NAMESPACE: 1, WORKLOAD_SELECTOR: 2 } as const;
export type PolicyScope = (typeof PolicyScope)[keyof typeof PolicyScope];

export const PolicyAction = { ALLOW: 0, DENY: 1 } as const;
export type PolicyAction = (typeof PolicyAction)[keyof typeof PolicyAction];

export interface StringMatch {
  readonly kind: "exact" | "prefix" | "suffix" | "presence";
  /** Empty for `presence`. */
  readonly value: string;
}

export interface IpMatch {
  readonly ip: IpWords;
  readonly prefixLength: number;
}

export interface ServiceAccountMatch {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** Field pairs that must all hold: positive list (empty: true; else any) and negative list (empty: true; else none) (ZT-113). */
export interface PolicyMatch {
  readonly namespaces: readonly StringMatch[];
  readonly notNamespaces: readonly StringMatch[];
  readonly principals: readonly StringMatch[];
  readonly notPrincipals: readonly StringMatch[];
  readonly serviceAccounts: readonly ServiceAccountMatch[];
  readonly notServiceAccounts: readonly ServiceAccountMatch[];
  readonly sourceIps: readonly IpMatch[];
  readonly notSourceIps: readonly IpMatch[];
  readonly destinationIps: readonly IpMatch[];
  readonly notDestinationIps: readonly IpMatch[];
  readonly destinationPorts: readonly number[];
  readonly notDestinationPorts: readonly number[];
}

const NONE: readonly never[] = Object.freeze([]);

/** A match with no fields, which never matches (ZT-112); spread it and add what is wanted. */
export const EMPTY_MATCH: PolicyMatch = Object.freeze({
  namespaces: NONE,
  notNamespaces: NONE,
  principals: NONE,
  notPrincipals: NONE,
  serviceAccounts: NONE,
  notServiceAccounts: NONE,
  sourceIps: NONE,
  notSourceIps: NONE,
  destinationIps: NONE,
  notDestinationIps: NONE,
  destinationPorts: NONE,
  notDestinationPorts: NONE,
});

/** Rules are OR-ed; clauses of a rule AND-ed; matches of a clause OR-ed (ZT-110, ZT-111). */
export interface PolicyRule {
  readonly clauses: readonly (readonly PolicyMatch[])[];
}

export interface Policy {
  /** `namespace/name`. */
  readonly key: string;
  readonly name: string;
  readonly namespace: string;
  readonly scope: PolicyScope;
  readonly action: PolicyAction;
  readonly rules: readonly PolicyRule[];
  readonly dryRun: boolean;
}

/** What policies judge of a connection (ZT-093, ZT-100). Flat, so that a worker can fill the same object again. */
export interface ConnectionFacts {
  /** Whom the client proved to be; undefined for plaintext (ZT-102). */
  readonly identity: Identity | undefined;
  /** `principalOf(identity)`; undefined for plaintext. */
  readonly principal: string | undefined;
  readonly source0: number;
  readonly source1: number;
  readonly source2: number;
  readonly source3: number;
  readonly destination0: number;
  readonly destination1: number;
  readonly destination2: number;
  readonly destination3: number;
  /** The application's port, never 15008 (ZT-118). */
  readonly destinationPort: number;
}

export interface Verdict {
  readonly allowed: boolean;
  /** Why, as logs say it after `connection closed due to policy rejection: ` (ZT-107). */
  readonly by: string;
  /** The policy that decided; undefined if it was their absence. */
  readonly policyKey: string | undefined;
}

const NO_ALLOW_POLICY: Verdict = Object.freeze({ allowed: true, by: "no allow policies", policyKey: undefined });
const NO_ALLOW_MATCH: Verdict = Object.freeze({
  allowed: false,
  by: "allow policies exist, but none allowed",
  policyKey: undefined,
});

/**
 * Decides as Istio's AuthorizationPolicy: a DENY match refuses; else, with no ALLOW policy, all pass; else one must match
 * (ZT-107). Dry runs are judged apart, by {@link dryRunVerdicts}. Allocates nothing but the verdict.
 * @param policies those in force for the destination workload, in any order (ZT-106).
 */
export function authorize(policies: readonly Policy[], facts: ConnectionFacts): Verdict {
  let allowPolicies = 0, allowedBy: Policy | undefined;
  for (const policy of policies) {
    if (policy.dryRun) continue;
    if (policy.action === PolicyAction.ALLOW) {
      allowPolicies++;
      if (allowedBy === undefined && policyMatches(policy, facts)) allowedBy = policy;
    } else if (policyMatches(policy, facts)) {
      return { allowed: false, by: `explicitly denied by: ${policy.namespace}/${policy.name}`, policyKey: policy.key };
    }
  }
  if (allowPolicies === 0) return NO_ALLOW_POLICY;
  if (allowedBy === undefined) return NO_ALLOW_MATCH;
  return { allowed: true, by: `allowed by: ${allowedBy.namespace}/${allowedBy.name}`, policyKey: allowedBy.key };
}

/** What a dry-run policy would have done: for the log, never obeyed (ZT-109). */
export interface DryRunVerdict {
  readonly text: "dry-run: deny policy match" | "dry-run: allow policy match" | "dry-run: no allow policies match";
  readonly policyKey: string | undefined;
}

const NO_DRY_RUNS: readonly DryRunVerdict[] = Object.freeze([]);

/** Every dry-run DENY that matches; then the first dry-run ALLOW that does, or that none of them did. */
export function dryRunVerdicts(policies: readonly Policy[], facts: ConnectionFacts): readonly DryRunVerdict[] {
  if (!policies.some((policy) => policy.dryRun)) return NO_DRY_RUNS;
  const verdicts: DryRunVerdict[] = [];
  let allowPolicies = 0, allowedBy: Policy | undefined;
  for (const policy of policies) {
    if (!policy.dryRun) continue;
    const matched = policyMatches(policy, facts);
    if (policy.action === PolicyAction.ALLOW) {
      allowPolicies++;
      if (matched) allowedBy ??= policy;
    } else if (matched) verdicts.push({ text: "dry-run: deny policy match", policyKey: policy.key });
  }
  if (allowedBy !== undefined) verdicts.push({ text: "dry-run: allow policy match", policyKey: allowedBy.key });
  else if (allowPolicies > 0) verdicts.push({ text: "dry-run: no allow policies match", policyKey: undefined });
  return verdicts;
}

/** Whether any rule matches; without rules none does (ZT-110). */
export function policyMatches(policy: Policy, facts: ConnectionFacts): boolean {
  for (const rule of policy.rules) if (ruleMatches(rule, facts)) return true;
  return false;
}

/** All clauses; a clause is any of its matches, and an empty clause holds (ZT-111). */
function ruleMatches(rule: PolicyRule, facts: ConnectionFacts): boolean {
  for (const clause of rule.clauses) {
    let holds = clause.length === 0;
    for (let at = 0; at < clause.length && !holds; at++) holds = matchHolds(clause[at]!, facts);
    if (!holds) return false;
  }
  return true;
}

/** Every pair: one of the positive list, if it has any, and none of the negative (ZT-113). An empty match never holds (ZT-112). */
function matchHolds(match: PolicyMatch, facts: ConnectionFacts): boolean {
  if (isEmpty(match)) return false;
  // Without identity the namespace reads as empty (ZT-115), principal and account match nothing (ZT-114, ZT-116).
  const namespace = facts.identity === undefined ? "" : facts.identity.namespace;
  return (match.destinationPorts.length === 0 || match.destinationPorts.includes(facts.destinationPort)) &&
    !match.notDestinationPorts.includes(facts.destinationPort) &&
    (match.namespaces.length === 0 || anyText(match.namespaces, namespace)) &&
    !anyText(match.notNamespaces, namespace) &&
    (match.principals.length === 0 || anyText(match.principals, facts.principal)) &&
    !anyText(match.notPrincipals, facts.principal) &&
    (match.serviceAccounts.length === 0 || anyAccount(match.serviceAccounts, facts.identity)) &&
    !anyAccount(match.notServiceAccounts, facts.identity) &&
    (match.sourceIps.length === 0 || anySource(match.sourceIps, facts)) &&
    !anySource(match.notSourceIps, facts) &&
    (match.destinationIps.length === 0 || anyDestination(match.destinationIps, facts)) &&
    !anyDestination(match.notDestinationIps, facts);
}

function isEmpty(match: PolicyMatch): boolean {
  return match.destinationPorts.length === 0 && match.notDestinationPorts.length === 0 &&
    match.namespaces.length === 0 && match.notNamespaces.length === 0 &&
    match.principals.length === 0 && match.notPrincipals.length === 0 &&
    match.serviceAccounts.length === 0 && match.notServiceAccounts.length === 0 &&
    match.sourceIps.length === 0 && match.notSourceIps.length === 0 &&
    match.destinationIps.length === 0 && match.notDestinationIps.length === 0;
}

function anyText(matches: readonly StringMatch[], text: string | undefined): boolean {
  if (text === undefined) return false;
  for (const match of matches) {
    const holds = match.kind === "exact"
      ? text === match.value
      : match.kind === "prefix"
      ? text.startsWith(match.value)
      : match.kind === "suffix"
      ? text.endsWith(match.value)
      : text !== "";
    if (holds) return true;
  }
  return false;
}

function anyAccount(matches: readonly ServiceAccountMatch[], identity: Identity | undefined): boolean {
  if (identity === undefined) return false;
  for (const match of matches) {
    if (match.serviceAccount === identity.serviceAccount && match.namespace === identity.namespace) return true;
  }
  return false;
}

function anySource(matches: readonly IpMatch[], facts: ConnectionFacts): boolean {
  for (const { ip, prefixLength } of matches) {
    if (prefixContains(ip, prefixLength, facts.source0, facts.source1, facts.source2, facts.source3)) return true;
  }
  return false;
}

function anyDestination(matches: readonly IpMatch[], facts: ConnectionFacts): boolean {
  const { destination0, destination1, destination2, destination3 } = facts;
  for (const { ip, prefixLength } of matches) {
    if (prefixContains(ip, prefixLength, destination0, destination1, destination2, destination3)) return true;
  }
  return false;
}
