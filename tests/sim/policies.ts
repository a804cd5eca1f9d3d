/** A small mesh's policies, and what they mean, worked out anew: the oracle for the real verdicts. */
import { ipv4, policyOf } from "../../dataplane/tables/testing.ts";
import { EMPTY_MATCH, type Policy, PolicyAction, PolicyScope } from "../../mesh/policy.ts";
import type { Chance } from "./chance.ts";
import type { SimPod } from "./exchange.ts";

/** A policy: these accounts, at that target. */
export interface PolicyFact {
  readonly name: string;
  readonly deny: boolean;
  /** undefined: the whole mesh. */
  readonly ns: string | undefined;
  /** Names of pods; each has an account of its own. */
  readonly accounts: readonly string[];
}

/** A policy about some of the pods. */
export function drawPolicy(chance: Chance, number: number, pods: readonly SimPod[]): PolicyFact {
  const subjects = pods.filter(() => chance.often(40)).map((pod) => `${pod.ns}/${pod.account}`);
  return {
    name: `p${number}`,
    deny: chance.often(70),
    ns: chance.often(50) ? "default" : chance.often(50) ? "other" : undefined,
    accounts: subjects,
  };
}

/** As the control plane sends it. */
export function policyFrom(fact: PolicyFact): Policy {
  const principals = fact.accounts.map((account) => {
    const [ns, name] = account.split("/") as [string, string];
    return { kind: "exact" as const, value: `cluster.local/ns/${ns}/sa/${name}` };
  });
  const nobody = { ...EMPTY_MATCH, sourceIps: [{ ip: ipv4(0xfffffffe), prefixLength: 32 }] };
  const matches = principals.length === 0 ? nobody : { ...EMPTY_MATCH, principals };
  return policyOf(`${fact.ns ?? "istio-system"}/${fact.name}`, {
    scope: fact.ns === undefined ? PolicyScope.GLOBAL : PolicyScope.NAMESPACE,
    action: fact.deny ? PolicyAction.DENY : PolicyAction.ALLOW,
    rules: [{ clauses: [[matches]] }],
  });
}

/** Whether a connection of `client` to `server` is let in. A client without proxy proves no identity. */
export function isAllowed(policies: readonly PolicyFact[], client: SimPod, server: SimPod): boolean {
  const account = client.enrolled ? `${client.ns}/${client.account}` : "";
  const here = policies.filter((policy) => policy.ns === undefined || policy.ns === server.ns);
  if (here.some((policy) => policy.deny && policy.accounts.includes(account))) return false;
  const allows = here.filter((policy) => !policy.deny);
  return allows.length === 0 || allows.some((policy) => policy.accounts.includes(account));
}
