/** Plain data to typed objects: which kinds are known, in which versions, and what all of them share. */
import type { KubernetesObject, ObjectKind, ObjectMeta } from "../objects.ts";
import { decodeEndpointSlice, decodePod, decodeService } from "./core.ts";
import { decodeGateway, decodeGatewayClass } from "./gateway.ts";
import { decodeServiceEntry, decodeWorkloadEntry } from "./entries.ts";
import { decodeAuthorizationPolicy, decodePeerAuthentication } from "./security.ts";
import { decodeMeshConfigMap } from "./mesh_config.ts";
import type { Field } from "./field.ts";
import { label, subdomain, timestamp } from "./values.ts";

interface KindRow {
  readonly versions: readonly string[];
  /** Versions of another kind of the same name, which we ignore as any kind that we do not read. */
  readonly namesakes?: readonly string[];
  readonly namespaced: boolean;
  readonly name: (field: Field) => string;
  readonly decode: (root: Field, meta: ObjectMeta) => KubernetesObject;
}

const GATEWAY_GROUP = "gateway.networking.k8s.io";
const GATEWAY = [`${GATEWAY_GROUP}/v1`, `${GATEWAY_GROUP}/v1beta1`];
const NETWORKING = ["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
const SECURITY = ["security.istio.io/v1", "security.istio.io/v1beta1"];

/** Every kind that is read, by its name. */
const KINDS: Readonly<Record<ObjectKind, KindRow>> = {
  Namespace: { versions: ["v1"], namespaced: false, name: label, decode: (_, meta) => ({ kind: "Namespace", meta }) },
  Node: { versions: ["v1"], namespaced: false, name: subdomain, decode: (_, meta) => ({ kind: "Node", meta }) },
  ServiceAccount: {
    versions: ["v1"],
    namespaced: true,
    name: subdomain,
    decode: (_, meta) => ({ kind: "ServiceAccount", meta }),
  },
  Pod: { versions: ["v1"], namespaced: true, name: subdomain, decode: decodePod },
  Service: { versions: ["v1"], namespaced: true, name: label, decode: decodeService },
  EndpointSlice: { versions: ["discovery.k8s.io/v1"], namespaced: true, name: subdomain, decode: decodeEndpointSlice },
  WorkloadEntry: { versions: NETWORKING, namespaced: true, name: subdomain, decode: decodeWorkloadEntry },
  ServiceEntry: { versions: NETWORKING, namespaced: true, name: subdomain, decode: decodeServiceEntry },
  AuthorizationPolicy: { versions: SECURITY, namespaced: true, name: subdomain, decode: decodeAuthorizationPolicy },
  PeerAuthentication: { versions: SECURITY, namespaced: true, name: subdomain, decode: decodePeerAuthentication },
  Gateway: { versions: GATEWAY, namespaced: true, name: subdomain, decode: decodeGateway, namesakes: NETWORKING },
  GatewayClass: { versions: GATEWAY, namespaced: false, name: subdomain, decode: decodeGatewayClass },
  MeshConfig: { versions: ["v1"], namespaced: true, name: subdomain, decode: decodeMeshConfigMap },
};

/** The ConfigMap that holds the mesh's settings; every other one is none of ours. */
const MESH_CONFIG_MAP = "istio";

/** Which object a document is about, as far as it says; undefined when it does not, or is of a kind we do not read. */
export interface Identification {
  readonly kind: ObjectKind;
  readonly namespace: string;
  readonly name: string;
}

function rowOf(kind: string): KindRow | undefined {
  return Object.hasOwn(KINDS, kind) ? KINDS[kind as ObjectKind] : undefined;
}

/** The kind of a document, `undefined` if it is one we ignore. Throws FieldRefusal if there is none, or its version is unknown. */
export function kindOf(root: Field): ObjectKind | undefined {
  const kind = root.get("kind").required().text();
  const version = root.get("apiVersion").required().text();
  if (kind === "ConfigMap") {
    return root.get("metadata").get("name").text() === MESH_CONFIG_MAP ? "MeshConfig" : undefined;
  }
  const row = kind === "MeshConfig" ? undefined : rowOf(kind); // Only a ConfigMap holds that.
  if (row === undefined || row.namesakes?.includes(version) === true) return undefined;
  if (!row.versions.includes(version)) {
    root.get("apiVersion").fail(
      `must be ${row.versions.join(" or ")} for a ${kind}, is ${JSON.stringify(version.slice(0, 80))}`,
    );
  }
  return kind as ObjectKind; // A key of KINDS.
}

/** Who the object is. Throws FieldRefusal. */
export function identify(root: Field, kind: ObjectKind): Identification {
  const row = KINDS[kind], metadata = root.get("metadata").required();
  if (kind === "MeshConfig") return { kind, namespace: "", name: MESH_CONFIG_MAP }; // One for the mesh: MESH_CONFIG_KEY.
  const namespace = metadata.get("namespace");
  if (!row.namespaced && namespace.present && namespace.text() !== "") {
    namespace.fail(`must be absent: a ${kind} has no namespace`);
  }
  return {
    kind,
    // As kubectl without a namespace chosen.
    namespace: row.namespaced ? (namespace.present ? label(namespace) : "default") : "",
    name: row.name(metadata.get("name")),
  };
}

function decodeMeta(root: Field, who: Identification): ObjectMeta {
  const metadata = root.get("metadata");
  const controller = metadata.get("ownerReferences").items().find((owner) => owner.get("controller").boolean());
  return {
    name: who.name,
    namespace: who.namespace,
    labels: metadata.get("labels").textMap(),
    annotations: metadata.get("annotations").textMap(),
    uid: metadata.get("uid").text(),
    generation: metadata.get("generation").integer(0, Number.MAX_SAFE_INTEGER),
    createdAtMs: timestamp(metadata.get("creationTimestamp")),
    deleting: metadata.get("deletionTimestamp").present,
    generateName: metadata.get("generateName").text(),
    controller: controller && {
      kind: controller.get("kind").required().text(),
      name: controller.get("name").required().text(),
    },
  };
}

/** Decodes a document of a known kind, {@link identify} having succeeded. Throws FieldRefusal. */
export function decodeObject(root: Field, who: Identification): KubernetesObject {
  return KINDS[who.kind].decode(root, decodeMeta(root, who));
}
