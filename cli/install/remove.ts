/** Takes the mesh out of a cluster, in the order that leaves nodes clean (CNI-047 to CNI-050). */
import { MeshError } from "../../base/errors.ts";
import type { KubeApi, KubeObject } from "../../kube/api.ts";
import { CONFIG_MAPS, DAEMON_SETS, NAMESPACES, PODS } from "../../kube/resource_types.ts";
import { type ApplyOptions, rolloutOf } from "./apply.ts";
import { AGENT, selectingNothing } from "./agent_selector.ts";
import { attempt } from "./calls.ts";
import { refuseForeign } from "./foreign.ts";
import { placeText, typeOf } from "./kinds.ts";

const ANNOTATION = "ambient.istio.io/redirection";
const LOOK_MS = 1_000, PAGE = 500;
const ROOTS = "istio-ca-root-cert";

export interface RemoveOptions extends ApplyOptions {
  readonly namespace: string;
  /** Take every pod out of the mesh first: their rules go, and what they say is plain from then on. */
  readonly unmeshPods: boolean;
  /** The namespace and the roots that istiod wrote into all namespaces go, too: with them the CA's key. */
  readonly purge: boolean;
}

/** First what would refuse or restart the rest, then the node agents, which clean their nodes, then what they lean on. */
const ORDER = [
  "ValidatingWebhookConfiguration",
  "HorizontalPodAutoscaler",
  "DaemonSet/istio-cni-node",
  "DaemonSet",
  "Deployment",
];

/** Pure: the objects in the order in which they go; the rest backwards, namespaces not at all. */
export function removalOrder(objects: readonly KubeObject[]): KubeObject[] {
  const rank = ({ kind, metadata }: KubeObject) => {
    const own = ORDER.indexOf(`${kind}/${metadata.name}`), any = ORDER.indexOf(kind ?? "");
    return own >= 0 ? own : any >= 0 ? any : ORDER.length;
  };
  return [...objects].reverse().filter(({ kind }) => kind !== "Namespace").sort((one, other) =>
    rank(one) - rank(other)
  );
}

/** Throws AMB0291 before it deletes anything of Istio's, AMB7173, and AMB7174 where nodes do not get clean in time. */
export async function removeAll(api: KubeApi, objects: readonly KubeObject[], options: RemoveOptions): Promise<void> {
  const { say, namespace } = options, deadlineMs = options.now() + options.waitMs;
  await refuseForeign(api, objects, "deleted");
  if (options.unmeshPods) await unmeshPods(api, options, deadlineMs);
  else if (await meshedPods(api) > 0) {
    say(
      "note: pods that are in the mesh stay captured, and are refused without ztunnel, until they are restarted; --unmesh-pods takes them out first",
    );
  }
  for (const object of removalOrder(objects)) {
    const { name, namespace: own = "" } = object.metadata, type = typeOf(object);
    await attempt(`delete ${placeText(object)}`, () => api.delete(type, { namespace: own, name }));
    say(`deleted ${placeText(object)}`);
    if (object.kind === "DaemonSet") await untilGone(api, object, deadlineMs, options); // The agents clean their nodes as they end.
  }
  if (!options.purge) {
    say(
      `kept    namespace/${namespace}, with the CA's key, and configmap/${ROOTS} of all namespaces; --purge deletes them`,
    );
    return;
  }
  for (const { metadata } of await listAll(api, CONFIG_MAPS)) {
    if (metadata.name !== ROOTS) continue;
    const place = { namespace: metadata.namespace!, name: ROOTS };
    await attempt(`delete configmap/${ROOTS} in ${place.namespace}`, () => api.delete(CONFIG_MAPS, place));
  }
  if (namespace === "default" || namespace.startsWith("kube-")) {
    return say(`kept    namespace/${namespace}: it is the cluster's own`);
  }
  const place = { namespace: "", name: namespace };
  await attempt(`delete namespace/${namespace}`, () => api.delete(NAMESPACES, place));
  await until(options, deadlineMs, async () => {
    const left = await attempt(`look at namespace/${namespace}`, () => api.get(NAMESPACES, place));
    return left === undefined ? undefined : `namespace/${namespace} is there still`; // Until then nothing can be installed into it.
  });
  say(`deleted namespace/${namespace}, and configmap/${ROOTS} of all namespaces`);
}

/**
 * The node agents are told to select nothing: one node after the other they restart, and take each pod of theirs out of the
 * mesh, rules first and annotation last. Nobody's labels are touched.
 */
async function unmeshPods(api: KubeApi, options: RemoveOptions, deadlineMs: number): Promise<void> {
  const place = { namespace: options.namespace, name: AGENT };
  const daemonSet = await attempt(`look at daemonset/${AGENT}`, () => api.get(DAEMON_SETS, place));
  if (daemonSet === undefined) {
    options.say(`note: there is no daemonset/${AGENT} in ${options.namespace} to take pods out of the mesh`);
    return;
  }
  await attempt(`change daemonset/${AGENT}`, () => api.replace(DAEMON_SETS, place, selectingNothing(daemonSet)));
  options.say("taking all pods out of the mesh, node by node");
  await until(options, deadlineMs, async () => {
    const now = await attempt(`look at daemonset/${AGENT}`, () => api.get(DAEMON_SETS, place));
    const rollout = now === undefined ? undefined : rolloutOf(now), left = await meshedPods(api);
    if (rollout !== undefined) return `agents: ${rollout}`;
    return left === 0 ? undefined : `${left} pods are in the mesh still`;
  });
}

async function meshedPods(api: KubeApi): Promise<number> {
  const pods = await listAll(api, PODS);
  const said = ({ metadata }: KubeObject) =>
    (metadata as { annotations?: Readonly<Record<string, string>> }).annotations?.[ANNOTATION] ?? "none";
  return pods.filter((pod) => said(pod) !== "none").length;
}

async function listAll(api: KubeApi, type: typeof PODS): Promise<KubeObject[]> {
  const found: KubeObject[] = [];
  let continueToken: string | undefined;
  do {
    const page = await attempt(
      `list ${type.plural}`,
      () => api.list(type, { metadataOnly: true }, { limit: PAGE, continueToken }),
    );
    found.push(...page.items);
    continueToken = page.continueToken === "" ? undefined : page.continueToken;
  } while (continueToken !== undefined);
  return found;
}

/** The pods of a DaemonSet, which end after it. */
async function untilGone(api: KubeApi, object: KubeObject, deadlineMs: number, options: RemoveOptions): Promise<void> {
  const labels = (object.spec as { selector: { matchLabels: Record<string, string> } }).selector.matchLabels;
  const labelSelector = Object.entries(labels).map(([key, value]) => `${key}=${value}`).join(",");
  const scope = { namespace: object.metadata.namespace, labelSelector };
  await until(options, deadlineMs, async () => {
    const { items } = await attempt("list pods", () => api.list(PODS, scope, { limit: PAGE }));
    return items.length === 0 ? undefined : `${items.length} pods of ${placeText(object)} are there still`;
  });
}

async function until(
  { say, sleep, now }: RemoveOptions,
  deadlineMs: number,
  look: () => Promise<string | undefined>,
): Promise<void> {
  let said = "";
  for (let state = await look(); state !== undefined; state = await look()) {
    if (state !== said) say(`waiting: ${state}`);
    said = state;
    if (now() >= deadlineMs) {
      throw new MeshError("AMB7174", `the nodes are not clean in time: ${state}`, {
        remedy: "See the agents' logs; uninstalling again goes on where this stopped.",
      });
    }
    await sleep(LOOK_MS);
  }
}
