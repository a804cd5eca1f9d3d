/** Why the agent stops: it is replaced, or it goes from this node for good (CNI-046). */
import { chain } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { isFields } from "../../base/plain.ts";
import { type KubeApi, KubeError, type KubeObject, KubeUnreachable } from "../../kube/api.ts";
import { DAEMON_SETS, NODES } from "../../kube/resource_types.ts";

const DAEMON_SET = "istio-cni-node";
const OWNED_RETRIES = 2, RETRY_MS = 1_000; // With a file of our own, whose loss would let pods pass; without it none.

export type Leaving = "replaced" | "uninstalled";

export interface LeavingOptions {
  readonly api: Pick<KubeApi, "get">;
  readonly namespace: string;
  readonly nodeName: string;
  /** Whether the configuration is a file of our own. */
  readonly owned: boolean;
  readonly log: Logger;
  readonly sleep?: (ms: number) => Promise<void>;
}

/** Asks for our DaemonSet. What the API server does not answer is asked again, and then settled by what fails closed. */
export async function whyLeaving(options: LeavingOptions): Promise<Leaving> {
  const { owned, log, sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms)) } = options;
  for (let attempt = 0;; attempt++) {
    try {
      return await ask(options);
    } catch (error) {
      if (!(error instanceof KubeError || error instanceof KubeUnreachable)) throw error;
      // Our rights went before us: that is how installations are taken away.
      if (error instanceof KubeError && (error.status === 401 || error.status === 403)) return "uninstalled";
      if (attempt === (owned ? OWNED_RETRIES : 0)) {
        const leaving = owned ? "replaced" : "uninstalled";
        log.warn("cannot tell an upgrade from an uninstallation", { taken: leaving, error: chain(error) });
        return leaving;
      }
    }
    await sleep(RETRY_MS);
  }
}

async function ask({ api, namespace, nodeName }: LeavingOptions): Promise<Leaving> {
  const set = await api.get(DAEMON_SETS, { namespace, name: DAEMON_SET });
  if (set === undefined || set.metadata.deletionTimestamp !== undefined) return "uninstalled";
  const terms = requiredTerms(set);
  if (terms === undefined) return "replaced";
  const node = await api.get(NODES, { namespace: "", name: nodeName });
  // A node that is gone runs nothing; a set that does not want this node any more goes from it for good.
  return node === undefined || terms.some((term) => termMatches(term, node)) ? "replaced" : "uninstalled";
}

type Fields = Readonly<Record<string, unknown>>;

function at(value: unknown, ...path: readonly string[]): unknown {
  return path.reduce<unknown>((inner, key) => isFields(inner) ? inner[key] : undefined, value);
}

/** The node selector terms that a pod of the set must meet one of; undefined where it asks for none. */
function requiredTerms(set: KubeObject): readonly Fields[] | undefined {
  const spec = at(set, "spec", "template", "spec");
  const required = at(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution");
  const terms = at(required, "nodeSelectorTerms");
  return Array.isArray(terms) ? terms.filter(isFields) : undefined;
}

/** A term without any requirement matches nothing, as the scheduler has it. */
function termMatches(term: Fields, node: KubeObject): boolean {
  const labels = isFields(node.metadata.labels) ? node.metadata.labels : {};
  const label = (key: string) => Object.hasOwn(labels, key) ? String(labels[key]) : undefined;
  const field = (key: string) => key === "metadata.name" ? node.metadata.name : undefined;
  const expressions = listOf(term.matchExpressions), fields = listOf(term.matchFields);
  return expressions.length + fields.length > 0 && expressions.every((it) => requirementHolds(it, label)) &&
    fields.every((it) => requirementHolds(it, field));
}

function requirementHolds({ key, operator, values }: Fields, read: (key: string) => string | undefined): boolean {
  const value = read(String(key)), list = Array.isArray(values) ? values.map(String) : [];
  switch (operator) {
    case "In":
      return value !== undefined && list.includes(value);
    case "NotIn":
      return value === undefined || !list.includes(value);
    case "Exists":
      return value !== undefined;
    case "DoesNotExist":
      return value === undefined;
    case "Gt":
      return value !== undefined && Number(value) > Number(list[0]);
    case "Lt":
      return value !== undefined && Number(value) < Number(list[0]);
    default:
      return true; // An operator of later: not for us to take the plugin away for.
  }
}

function listOf(value: unknown): readonly Fields[] {
  return Array.isArray(value) ? value.filter(isFields) : [];
}
