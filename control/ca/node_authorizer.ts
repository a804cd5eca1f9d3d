/** Impersonation judged in the caller's own cluster: on what the informer knows, then on what the API server says (CP-482, CP-483). */
import { chain } from "../../base/errors.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";
import type { PodObject } from "../objects.ts";
import type { Caller, Refused } from "./caller.ts";
import type { CallerCluster, CallerClusters } from "./caller_clusters.ts";
import { type ImpersonationRules, judgeImpersonation, type Verdict } from "./impersonation.ts";
import { LivePods } from "./live_pods.ts";
import { type PodView, runsAmong } from "./node_pods.ts";

export interface NodeAuthorizerOptions extends Omit<ImpersonationRules, "selects"> {
  readonly clusters: CallerClusters;
}

export class NodeAuthorizer {
  readonly #options: NodeAuthorizerOptions;
  readonly #live = new WeakMap<CallerCluster, LivePods>();

  constructor(options: NodeAuthorizerOptions) {
    this.#options = options;
  }

  /** @returns Why the caller may not have a certificate of that identity; undefined if it may. Never throws. */
  async refusal(caller: Caller, requested: string): Promise<Refused | undefined> {
    const { clusters, trustedAccounts, isOurs } = this.#options;
    // Of a caller without a token nothing is looked up: it is refused whatever the cluster.
    const cluster = caller.token === undefined ? undefined : clusters.named([caller.token.cluster]);
    if (caller.token !== undefined && cluster === undefined) return { refused: "the caller's cluster is unknown" };
    const rules = { trustedAccounts, isOurs, selects: cluster?.selects ?? (() => false) };
    const judge = (pods: PodView) => judgeImpersonation(caller, requested, { rules, pods });
    const known: PodView = cluster?.pods ?? NO_PODS;
    const verdict = judge(known);
    if (verdict.refused === undefined) return undefined;
    if (verdict.missing === undefined || cluster?.api === undefined) return { refused: verdict.refused };
    return await this.#judgeLive(cluster, { caller, known, verdict, judge });
  }

  /** Asks for what was missing, each thing once: the caller's pod first, then its node. */
  async #judgeLive(
    cluster: CallerCluster,
    { caller, known, verdict, judge }: {
      caller: Caller;
      known: PodView;
      verdict: Verdict;
      judge: (pods: PodView) => Verdict;
    },
  ): Promise<Refused | undefined> {
    const live = this.#live.get(cluster) ?? new LivePods(cluster.api!);
    this.#live.set(cluster, live);
    const { namespace, pod } = caller.token!;
    let view = known, current = verdict;
    try {
      if (current.missing?.kind === "caller") {
        const found = await live.named(namespace, pod);
        if (found === "busy") return BUSY;
        view = { named: () => found, runs: (...where) => known.runs(...where) };
        current = judge(view);
      }
      if (current.missing?.kind === "node") {
        const found: readonly PodObject[] | "busy" = await live.onNode(current.missing.node);
        if (found === "busy") return BUSY;
        const before = view;
        view = { named: (...who) => before.named(...who), runs: (_node, ...account) => runsAmong(found, ...account) };
        current = judge(view);
      }
    } catch (error) {
      if (!(error instanceof KubeError) && !(error instanceof KubeUnreachable)) throw error;
      return { refused: `${current.refused}, and the API server does not say: ${chain(error)}`, unavailable: true };
    }
    return current.refused === undefined ? undefined : { refused: current.refused };
  }
}

const BUSY: Refused = { refused: "too many pods are being looked up", unavailable: true };
const NO_PODS: PodView = { named: () => undefined, runs: () => false };
