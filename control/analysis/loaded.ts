/** Objects to analyse, once read from a folder or a cluster, with what is wrong with each by itself (CP-699). */
import { chain, MeshError } from "../../base/errors.ts";
import { isFields, type Plain } from "../../base/plain.ts";
import {
  type KubeApi,
  KubeError,
  type KubeObject,
  KubeUnreachable,
  type ResourceType,
  type Scope,
} from "../../kube/api.ts";
import { CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, NETWORK_POLICIES } from "../../kube/resource_types.ts";
import { decodeKubeObject } from "../cluster/decode.ts";
import { GATEWAY_API_MIN, tooOldVersion } from "../cluster/definitions.ts";
import { resourceName, WATCHED_KINDS } from "../cluster/kinds.ts";
import { configMapName } from "../cluster/mesh_config_watch.ts";
import { Field, FieldRefusal, formatPath } from "../decode/field.ts";
import { listFolder } from "../folder/listing.ts";
import { EMPTY_FILE, FILE_BYTES_MAX, readFileState } from "../folder/file_state.ts";
import { parseJson, parseYaml, splitDocuments, YamlRefusal } from "../folder/yaml.ts";
import { keyOf, type KubernetesObject, type ObjectChange, objectKey } from "../objects.ts";
import { judgeObject } from "../webhook/judge.ts";
import type { Finding } from "./findings.ts";
import type { Network } from "./network_checks.ts";
import { decodeNetworkPolicy, type NetworkPolicy } from "./network_policy.ts";
import { NetworkPods } from "./network_pods.ts";

export interface Loaded {
  readonly changes: readonly ObjectChange[];
  readonly findings: readonly Finding[];
  /** What decides who reaches whom besides the mesh. */
  readonly network: Network;
}

const PAGE_OBJECTS = 500;

const JUDGED_GROUPS = ["security.istio.io", "networking.istio.io", "telemetry.istio.io", "extensions.istio.io"];

/** What the webhook would say of an object of Istio's; of others the API server itself judges. */
function judged(value: Plain, object: string): Finding[] {
  if (!isFields(value)) return [];
  const { apiVersion, kind } = value, group = String(apiVersion ?? "").split("/")[0]!;
  if (!JUDGED_GROUPS.includes(group)) return [];
  const { problems, warnings } = judgeObject(group, String(kind), value as Plain);
  return [
    ...problems.map((it): Finding => ({ code: "IST0106", object, message: `Schema validation error: ${it}` })),
    ...warnings.map((it): Finding => ({ code: "IST0133", object, message: `Schema validation warning: ${it}` })),
  ];
}

function changeOf(object: KubernetesObject): ObjectChange {
  return { kind: object.kind, key: keyOf(object), object };
}

/** What NetworkPolicies are judged by, as it is come by. */
class NetworkView {
  readonly policies: NetworkPolicy[] = [];
  readonly pods = new NetworkPods();

  /** @returns What is wrong with the object, if it is a NetworkPolicy that says nothing that can be understood. */
  add(kind: string, value: unknown, namespace: string): Finding[] {
    if (!isFields(value)) return [];
    if (kind === "Namespace") this.pods.addNamespace(value);
    if (kind === "Pod") this.pods.addPod(value);
    if (kind !== "NetworkPolicy") return [];
    const root = new Field(value as Plain);
    try {
      this.policies.push(decodeNetworkPolicy(root, namespace));
      return [];
    } catch (error) {
      if (!(error instanceof FieldRefusal)) throw error;
      const message = `Schema validation error: ${formatPath(error.path)}: ${error.message}`;
      return [{
        code: "IST0106",
        object: objectKey(kind, namespace, root.get("metadata").get("name").text()),
        message,
      }];
    }
  }
}

/** Reads files, every file below folders, and standard input by the name `-`. @throws MeshError AMB0830 for what cannot be read. */
export async function loadFiles(paths: readonly string[]): Promise<Loaded> {
  const changes: ObjectChange[] = [], findings: Finding[] = [], network = new NetworkView();
  for (const path of paths) {
    for await (const { file, bytes } of filesOf(path)) {
      const { held, refusals } = readFileState(file, bytes, EMPTY_FILE);
      for (const { object } of held.values()) changes.push(changeOf(object));
      for (const { key, line, field, reason } of refusals) {
        const message = `Schema validation error: ${file}:${line}: ${field === "" ? reason : `${field}: ${reason}`}`;
        findings.push({ code: "IST0106", object: key ?? file, message });
      }
      const refused = new Set(refusals.flatMap(({ key }) => key ?? []));
      for (const document of documentsOf(file, bytes)) {
        const object = nameOf(document) ?? file, [kind = "", namespace = ""] = object.split("/");
        findings.push(...network.add(kind, document, namespace));
        if (!refused.has(object)) findings.push(...judged(document, object));
      }
    }
  }
  return { changes, findings, network };
}

async function* filesOf(path: string): AsyncIterable<{ readonly file: string; readonly bytes: Uint8Array }> {
  try {
    if (path === "-") yield { file: "standard input", bytes: await readInput() };
    else if ((await Deno.stat(path)).isDirectory) {
      for (const file of (await listFolder(path)).files.keys()) {
        yield { file, bytes: await Deno.readFile(`${path}/${file}`) };
      }
    } else yield { file: path, bytes: await Deno.readFile(path) };
  } catch (cause) {
    if (!(cause instanceof Error)) throw cause;
    throw new MeshError("AMB0830", `reading ${path} for analysis`, {
      remedy: "name files or folders of Kubernetes objects in YAML or JSON that can be read, or - for standard input",
      cause,
    });
  }
}

async function readInput(): Promise<Uint8Array> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  for await (const part of Deno.stdin.readable) {
    bytes += part.length;
    if (bytes > FILE_BYTES_MAX) throw new Error(`it is longer than ${FILE_BYTES_MAX} bytes; give a folder of files`);
    parts.push(part);
  }
  return await new Blob(parts).bytes();
}

/** The documents of a file that are such; the others are refused already. */
function documentsOf(file: string, bytes: Uint8Array): Plain[] {
  const text = new TextDecoder().decode(bytes), json = file.endsWith(".json");
  return (json ? [{ text }] : splitDocuments(text)).flatMap((document) => {
    try {
      const value = json ? parseJson(document.text) : parseYaml(document.text);
      return isFields(value) && value.kind === "List" && Array.isArray(value.items) ? value.items as Plain[] : [value];
    } catch (error) {
      if (!(error instanceof YamlRefusal)) throw error;
      return [];
    }
  });
}

function nameOf(value: Plain): string | undefined {
  if (!isFields(value) || !isFields(value.metadata) || typeof value.metadata.name !== "string") return undefined;
  const { namespace, name } = value.metadata;
  return objectKey(String(value.kind), typeof namespace === "string" ? namespace : "default", name);
}

/** Reads every kind that the mesh is derived from, once. @throws MeshError AMB0831 for one that may not be listed, AMB0841 if nobody answers. */
export async function loadCluster(
  api: KubeApi,
  { systemNamespace, revision }: { readonly systemNamespace: string; readonly revision: string },
): Promise<Loaded> {
  const changes: ObjectChange[] = [], findings: Finding[] = [], network = new NetworkView();
  for (const { kind, type, scope } of WATCHED_KINDS) {
    for await (const given of listed(api, type, scope)) {
      const { object, refusal } = decodeKubeObject(kind, given);
      network.add(kind, given, given.metadata.namespace ?? "");
      if (object !== undefined) changes.push(changeOf(object));
      const key = objectKey(kind, given.metadata.namespace ?? "", given.metadata.name);
      if (refusal !== undefined) {
        const message = `Schema validation error: ${refusal.field}: ${refusal.reason}`;
        findings.push({ code: "IST0106", object: key, message });
      } else {
        const apiVersion = type.group === "" ? type.version : `${type.group}/${type.version}`;
        findings.push(...judged({ ...given, apiVersion, kind } as Plain, key)); // A list's items may be without both.
      }
    }
  }
  const settings = { namespace: systemNamespace, fieldSelector: `metadata.name=${configMapName(revision)}` };
  for await (const given of listed(api, CONFIG_MAPS, settings)) {
    const { object } = decodeKubeObject("MeshConfig", given);
    if (object !== undefined) changes.push(changeOf(object));
  }
  for await (const given of listed(api, CUSTOM_RESOURCE_DEFINITIONS, { metadataOnly: true })) {
    const version = tooOldVersion(given), { name } = given.metadata;
    if (version === undefined) continue;
    const message =
      `Gateway API CRD "${name}" is at version "${version}" but at least "${GATEWAY_API_MIN}" is required; ` +
      "resources of this kind are not read. Upgrade the Gateway API's CRDs.";
    findings.push({ code: "IST0176", object: objectKey("CustomResourceDefinition", "", name), message });
  }
  return { changes, findings: [...findings, ...await readNetworkPolicies(api, network)], network };
}

function unreachable(resource: string, cause: KubeUnreachable): MeshError {
  return new MeshError("AMB0841", `the API server does not answer: listing ${resource} for analysis`, {
    remedy:
      "see that the kubeconfig's server is up and reached from here, or choose another by --context or --kubeconfig",
    cause,
  });
}

/** istiod's own account need not read these, and the rest is worth telling without. */
async function readNetworkPolicies(api: KubeApi, network: NetworkView): Promise<Finding[]> {
  const findings: Finding[] = [];
  try {
    for await (const given of listed(api, NETWORK_POLICIES, {})) {
      findings.push(...network.add("NetworkPolicy", given, given.metadata.namespace ?? ""));
    }
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    const message = `NetworkPolicies were not looked at: ${chain(error)}; ${error.remedy}.`;
    findings.push({ object: objectKey("NetworkPolicy", "", "*"), message, code: "AMBIT003" });
  }
  return findings;
}

async function* listed(api: KubeApi, type: ResourceType, scope: Scope): AsyncIterable<KubeObject> {
  let continueToken = "";
  do {
    try {
      const page = await api.list(type, scope, { limit: PAGE_OBJECTS, continueToken });
      yield* page.items;
      continueToken = page.continueToken;
    } catch (error) {
      if (error instanceof KubeError && error.status === 404) return; // The cluster does not have the kind.
      if (error instanceof KubeUnreachable) throw unreachable(resourceName(type), error);
      if (!(error instanceof KubeError)) throw error;
      throw new MeshError("AMB0831", `listing ${resourceName(type)} for analysis: ${chain(error).slice(0, 300)}`, {
        remedy: `use an account that may list ${resourceName(type)} in all namespaces`,
      });
    }
  } while (continueToken !== "");
}
