/** Whether a node's proxy may have a certificate of one of its pods' identities (CP-480 to CP-485). */
import { parseIdentity } from "../../mesh/identity.ts";
import type { Caller } from "./caller.ts";
import type { NodePods } from "./node_pods.ts";

export interface ImpersonationRules {
  /** `namespace/service account` of the proxies that may ask: CA_TRUSTED_NODE_ACCOUNTS. */
  readonly trustedAccounts: ReadonlySet<string>;
  readonly trustDomain: string;
}

/** @returns Why not, for the log; undefined if the caller may impersonate. */
export function refuseImpersonation(
  caller: Caller,
  requested: string,
  { rules, pods }: { rules: ImpersonationRules; pods: NodePods },
): string | undefined {
  const { token } = caller;
  if (rules.trustedAccounts.size === 0) return "no account may impersonate: CA_TRUSTED_NODE_ACCOUNTS is empty";
  if (token === undefined) return "a client certificate names no pod, so it cannot impersonate";
  const account = `${token.namespace}/${token.serviceAccount}`;
  if (!rules.trustedAccounts.has(account)) return `${account} is not among CA_TRUSTED_NODE_ACCOUNTS`;
  const identity = parseIdentity(requested);
  if (identity === undefined) return "the requested identity is not spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT";
  if (identity.trustDomain !== rules.trustDomain) return `trust domain ${identity.trustDomain} is not ours`;
  const pod = pods.named(token.namespace, token.pod);
  // A node outside Kubernetes runs its proxy without a Pod object: then the token, which we signed, speaks for it.
  if (pod !== undefined) {
    if (pod.serviceAccountName !== token.serviceAccount) return "the caller's pod has another service account";
    if (pod.nodeName !== token.node) return `the caller's pod is bound to node ${JSON.stringify(pod.nodeName)}`;
    if (token.podUid !== "" && pod.meta.uid !== token.podUid) return "the caller's pod has another uid";
  }
  if (pods.runs(token.node, identity.namespace, identity.serviceAccount)) return undefined;
  return `no pod of ${identity.namespace}/${identity.serviceAccount} is bound to node ${token.node}`;
}
