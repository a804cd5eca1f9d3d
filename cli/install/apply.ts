/** Puts the mesh into a cluster: server-side apply, one object after the other, then waits until all of it runs. */
import { MeshError } from "../../base/errors.ts";
import type { KubeApi, KubeObject } from "../../kube/api.ts";
import { CUSTOM_RESOURCE_DEFINITIONS } from "../../kube/resource_types.ts";
import { AGENT, selectingAgain } from "./agent_selector.ts";
import { attempt } from "./calls.ts";
import { refuseForeign } from "./foreign.ts";
import { placeText, typeOf } from "./kinds.ts";

export const FIELD_MANAGER = "ambit-install";
/** What policies are written in; without them the mesh runs, and nobody can say who may connect to whom. */
const CRDS = ["authorizationpolicies.security.istio.io", "peerauthentications.security.istio.io"];
const LOOK_MS = 1_000;

export interface ApplyOptions {
  readonly waitMs: number;
  readonly say: (line: string) => void;
  readonly sleep: (ms: number) => Promise<void>;
  readonly now: () => number;
}

/** Throws AMB0291 before it changes anything of Istio's, AMB7173 for what cannot be applied, AMB7174 for what does not run in time. */
export async function applyAll(api: KubeApi, objects: readonly KubeObject[], options: ApplyOptions): Promise<void> {
  await refuseForeign(api, objects, "applied");
  for (const name of CRDS) {
    const found = await attempt(
      `look for ${name}`,
      () => api.get(CUSTOM_RESOURCE_DEFINITIONS, { namespace: "", name }),
    );
    if (found === undefined) options.say(`note: there is no CRD ${name}; apply Istio's CRDs to write policies`);
  }
  for (const object of objects) {
    const { name, namespace = "" } = object.metadata, type = typeOf(object);
    const applied = await attempt(
      `apply ${placeText(object)}`,
      () => api.apply(type, { namespace, name }, object, { fieldManager: FIELD_MANAGER, force: true }),
    );
    options.say(`applied ${placeText(object)}`);
    const again = name === AGENT && object.kind === "DaemonSet" ? selectingAgain(applied) : undefined;
    if (again === undefined) continue;
    await attempt(`change ${placeText(object)}`, () => api.replace(type, { namespace, name }, again));
    options.say("node agents select pods again, which an uninstallation had told them not to");
  }
  const running = objects.filter(({ kind }) => kind === "Deployment" || kind === "DaemonSet");
  const deadlineMs = options.now() + options.waitMs;
  for (const object of running) await untilReady(api, object, deadlineMs, options);
}

async function untilReady(
  api: KubeApi,
  object: KubeObject,
  deadlineMs: number,
  { say, sleep, now }: ApplyOptions,
): Promise<void> {
  const { name, namespace = "" } = object.metadata;
  let said = "";
  while (true) {
    const found = await attempt(`look at ${placeText(object)}`, () => api.get(typeOf(object), { namespace, name }));
    const state = found === undefined ? "it is gone" : rolloutOf(found);
    if (state === undefined) return say(`ready   ${placeText(object)}`);
    if (state !== said) say(`waiting for ${placeText(object)}: ${state}`);
    said = state;
    if (now() >= deadlineMs) {
      throw new MeshError("AMB7174", `${placeText(object)} is not ready: ${state}`, {
        remedy:
          `See kubectl -n ${namespace} describe ${object.kind?.toLowerCase()} ${name}, and the events of its pods; ` +
          "installing again goes on where this stopped.",
      });
    }
    await sleep(LOOK_MS);
  }
}

/** @returns undefined when all of it is of the newest kind and ready, else how far it is. */
export function rolloutOf(object: KubeObject): string | undefined {
  const { generation = 0 } = object.metadata as { generation?: number };
  const status = (object.status ?? {}) as Record<string, number | undefined>;
  if ((status.observedGeneration ?? 0) < generation) return "it is not taken up yet";
  const isDaemonSet = object.kind === "DaemonSet";
  const wanted = isDaemonSet
    ? status.desiredNumberScheduled ?? 0
    : (object.spec as { replicas?: number } | undefined)?.replicas ?? 1;
  const updated = (isDaemonSet ? status.updatedNumberScheduled : status.updatedReplicas) ?? 0;
  const ready = (isDaemonSet ? status.numberReady : status.readyReplicas) ?? 0;
  if (isDaemonSet && status.observedGeneration === undefined) return "it is not taken up yet";
  return updated >= wanted && ready >= wanted ? undefined : `${Math.min(updated, ready)} of ${wanted} ready`;
}
