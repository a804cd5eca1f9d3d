/** L4 authorization policies (proto istio.security.Authorization) and the decision over them (ZT section 6). */
import type { IpWords } from "../base/address.ts";

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
