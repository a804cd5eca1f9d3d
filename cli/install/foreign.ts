/** Istio's own parts have the names of ours: what they run is neither overwritten nor deleted. */
import { MeshError } from "../../base/errors.ts";
import type { KubeApi, KubeObject } from "../../kube/api.ts";
import { attempt } from "./calls.ts";
import { placeText, typeOf } from "./kinds.ts";

interface Container {
  readonly name: string;
  readonly image?: string;
  readonly args?: readonly string[];
}

/** Throws AMB0291 when a Deployment or DaemonSet of these names runs another program than ours. */
export async function refuseForeign(api: KubeApi, objects: readonly KubeObject[], doing: string): Promise<void> {
  const foreign: string[] = [];
  for (const object of objects.filter(({ kind }) => kind === "Deployment" || kind === "DaemonSet")) {
    const { name, namespace = "" } = object.metadata;
    const found = await attempt(`look at ${placeText(object)}`, () => api.get(typeOf(object), { namespace, name }));
    if (found === undefined || isOurs(found, object)) continue;
    const images = containersOf(found).map(({ image = "no image" }) => image);
    foreign.push(`${placeText(object)} (${images.join(", ").slice(0, 200)})`);
  }
  if (foreign.length === 0) return;
  throw new MeshError("AMB0291", `${doing} nothing: another mesh is there, with ${foreign.join(", ")}`, {
    remedy:
      "See docs/from_istio.md for replacing Istio; for another cluster give --context, for another namespace --namespace.",
  });
}

/** Ours run the image's entry point, and the role is its first argument, whatever else somebody has changed. Pure. */
export function isOurs(found: KubeObject, wanted: KubeObject): boolean {
  return containersOf(wanted).every(({ name, args }) =>
    containersOf(found).some((it) => it.name === name && it.args?.[0] === args?.[0])
  );
}

function containersOf(object: KubeObject): readonly Container[] {
  const spec = object.spec as { template?: { spec?: { containers?: readonly Container[] } } } | undefined;
  return spec?.template?.spec?.containers ?? [];
}
