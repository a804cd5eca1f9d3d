/** Whether a node's proxy may have a certificate of one of its pods' identities (CP-480 to CP-485). Decided on what is known. */
import { parseIdentity } from "../../mesh/identity.ts";
import type { Caller, CallerToken } from "./caller.ts";
import type { PodView } from "./node_pods.ts";

export interface ImpersonationRules {
  /** `namespace/service account` of the proxies that may ask: CA_TRUSTED_NODE_ACCOUNTS. */
  readonly trustedAccounts: ReadonlySet<string>;
  /** Whether identities of this trust domain are signed: the mesh's own and its aliases (CP-484). */
  readonly isOurs: (trustDomain: string) => boolean;
  /** Whether a namespace counts in the caller's cluster (CP-481). */
  readonly selects: (namespace: string) => boolean;
}

export interface Verdict {
  /** Why not, for the log; undefined if the caller may impersonate. */
  readonly refused: string | undefined;
  /** What newer knowledge could change it: the caller's own pod, or the pods of this node. */
  readonly missing?: { readonly kind: "caller" } | { readonly kind: "node"; readonly node: string };
}

const no = (refused: string): Verdict => ({ refused });

/** Decides. */
export function judgeImpersonation(
  caller: Caller,
  requested: string,
  { rules, pods }: { rules: ImpersonationRules; pods: PodView },
): Verdict {
  const { token } = caller;
  if (rules.trustedAccounts.size === 0) return no("no account may impersonate: CA_TRUSTED_NODE_ACCOUNTS is empty");
  if (token === undefined) return no("the caller showed no token of a pod, so it cannot impersonate");
  const account = `${token.namespace}/${token.serviceAccount}`;
  if (!rules.trustedAccounts.has(account)) return no(`${account} is not among CA_TRUSTED_NODE_ACCOUNTS`);
  const identity = parseIdentity(requested);
  if (identity === undefined || identity.namespace === "" || identity.serviceAccount === "") {
    return no("the requested identity is not spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT");
  }
  if (!rules.isOurs(identity.trustDomain)) return no(`trust domain ${identity.trustDomain} is not ours`);
  const node = nodeOf(token, pods, rules);
  if (typeof node !== "string") return node;
  const { namespace, serviceAccount } = identity;
  if (rules.selects(namespace) && pods.runs(node, namespace, serviceAccount)) return { refused: undefined };
  return {
    refused: `no pod of ${namespace}/${serviceAccount} is bound to node ${node}`,
    missing: { kind: "node", node },
  };
}

/** The node that the caller's pod is bound to. */
function nodeOf(token: CallerToken, pods: PodView, { selects }: ImpersonationRules): string | Verdict {
  const unknown = (refused: string): Verdict => ({ refused, missing: { kind: "caller" } });
  const pod = pods.named(token.namespace, token.pod);
  if (token.node === "") { // Only the pod's object knows the node: it has to be there, and to be the very pod.
    if (token.pod === "" || token.podUid === "") return no("the token is not bound to a pod");
    if (!selects(token.namespace)) return no("the caller's namespace is outside the discovery selectors");
    if (pod === undefined) return unknown(`the caller's pod ${token.namespace}/${token.pod} does not exist`);
    if (pod.meta.uid !== token.podUid) return unknown("the caller's pod has another uid");
    if (pod.serviceAccountName !== token.serviceAccount) return no("the caller's pod has another service account");
    return pod.nodeName === "" ? unknown("the caller's pod is bound to no node") : pod.nodeName;
  }
  // A node outside Kubernetes runs its proxy without a Pod object: then the token, which we signed, speaks for it.
  if (pod === undefined) return token.node;
  if (pod.serviceAccountName !== token.serviceAccount) return no("the caller's pod has another service account");
  if (pod.nodeName !== token.node) return no(`the caller's pod is bound to node ${JSON.stringify(pod.nodeName)}`);
  if (token.podUid !== "" && pod.meta.uid !== token.podUid) return no("the caller's pod has another uid");
  return token.node;
}
