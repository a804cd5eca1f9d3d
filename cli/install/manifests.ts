/** The objects of deploy/kubernetes, in the order in which they are applied, made to fit a cluster. Pure but for reading them. */
import { parse, parseAll } from "@std/yaml";
import { MeshError } from "../../base/errors.ts";
import type { KubeObject } from "../../kube/api.ts";
import type { PlatformProfile } from "./profiles.ts";

const FOLDER = new URL("../../deploy/kubernetes/", import.meta.url);
/** As the manifests have them. */
export const DEFAULT_NAMESPACE = "istio-system", DEFAULT_IMAGE = "localhost/ambit:0.1.0";

export interface ManifestOptions {
  readonly namespace: string;
  readonly image: string;
  readonly profile: PlatformProfile;
}

type Plain = null | boolean | number | string | readonly Plain[] | { readonly [key: string]: Plain };
type Fields = { readonly [key: string]: Plain };

/** As shipped: kustomization.yaml says which files, in which order. Throws AMB7171 when they are not there. */
export function readManifests(folder: URL = FOLDER): KubeObject[] {
  try {
    const { resources } = parse(Deno.readTextFileSync(new URL("kustomization.yaml", folder))) as {
      resources: string[];
    };
    return resources.flatMap((file) => parseAll(Deno.readTextFileSync(new URL(file, folder))) as KubeObject[])
      .filter((object) => object !== null);
  } catch (cause) {
    throw new MeshError("AMB7171", "the manifests are not where this program expects them", {
      remedy: "Run it from a whole clone, or take the compiled program of `deno task compile`.",
      cause,
    });
  }
}

/** Another namespace, image and platform in all objects. */
export function fitManifests(objects: readonly KubeObject[], options: ManifestOptions): KubeObject[] {
  const { profile } = options, [namespace, ...rest] = objects;
  const all = namespace === undefined ? [] : [namespace, ...profile.objects ?? [], ...rest]; // Rights before who needs them.
  return all.map((object) => {
    const fitted = fitNames(object as unknown as Plain, options) as Fields;
    return (fitted.kind === "DaemonSet" ? fitDaemonSet(fitted, profile) : fitted) as unknown as KubeObject;
  });
}

/** The namespace stands in names, subjects and addresses; the image under its key. */
function fitNames(value: Plain, options: ManifestOptions): Plain {
  if (typeof value === "string") {
    return value === DEFAULT_IMAGE ? options.image : value.replaceAll(DEFAULT_NAMESPACE, options.namespace);
  }
  if (Array.isArray(value)) return value.map((it) => fitNames(it, options));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, it]) => [key, fitNames(it, options)]));
}

const VOLUMES = { conf: "confDir", bin: "binDir", netns: "netnsDir" } as const;

function fitDaemonSet(daemonSet: Fields, profile: PlatformProfile): Fields {
  const spec = daemonSet.spec as Fields, template = spec.template as Fields, pod = template.spec as Fields;
  const isAgent = (daemonSet.metadata as Fields).name === "istio-cni-node", { seLinuxType } = profile;
  const volumes = (pod.volumes as readonly Fields[]).map((volume) => {
    const path = isAgent ? profile[VOLUMES[volume.name as keyof typeof VOLUMES]] : undefined;
    return path === undefined ? volume : { ...volume, hostPath: { ...volume.hostPath as Fields, path } };
  });
  const added = isAgent ? Object.entries(profile.environment ?? {}).map(([name, value]) => ({ name, value })) : [];
  const containers = (pod.containers as readonly Fields[]).map((container) => ({
    ...container,
    env: [...container.env as readonly Fields[], ...added],
    ...(seLinuxType === undefined
      ? {}
      : { securityContext: { ...container.securityContext as Fields, seLinuxOptions: { type: seLinuxType } } }),
  }));
  return { ...daemonSet, spec: { ...spec, template: { ...template, spec: { ...pod, volumes, containers } } } };
}
