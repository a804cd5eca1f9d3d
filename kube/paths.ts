/** Where the API serves what, and as what: paths, queries and encodings. Pure. */
import type { ObjectPlace, ResourceType, Scope } from "./api.ts";

/** A query; what is undefined is left out. */
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

/** `/api/v1/namespaces/n/pods`; without a namespace that of all. */
export function collectionPath(type: ResourceType, namespace: string | undefined): string {
  const root = type.group === "" ? `/api/${type.version}` : `/apis/${type.group}/${type.version}`;
  const within = type.namespaced && namespace !== undefined && namespace !== "";
  return within ? `${root}/namespaces/${segment(namespace)}/${type.plural}` : `${root}/${type.plural}`;
}

/** `/apis/apps/v1/namespaces/n/deployments/name/status`. */
export function objectPath(type: ResourceType, { namespace, name, subresource }: ObjectPlace): string {
  const path = `${collectionPath(type, namespace)}/${segment(name)}`;
  return subresource === undefined ? path : `${path}/${segment(subresource)}`;
}

/** Names come from objects, so none may lead elsewhere. */
function segment(text: string): string {
  if (text === "" || text === "." || text === "..") throw new RangeError(`"${text}" is no name of an object`);
  return encodeURIComponent(text);
}

export function withQuery(path: string, query: Query): string {
  const parts = Object.entries(query).flatMap(([name, value]) =>
    value === undefined || value === "" ? [] : [`${name}=${encodeURIComponent(String(value))}`]
  );
  return parts.length === 0 ? path : `${path}?${parts.join("&")}`;
}

export function scopeQuery(scope: Scope): Query {
  return { labelSelector: scope.labelSelector, fieldSelector: scope.fieldSelector };
}

const JSON_TYPE = "application/json", PROTO_TYPE = "application/vnd.kubernetes.protobuf";

/**
 * The types that are asked for, the most welcome first: a server that has neither protobuf of a kind, as of custom
 * resources, nor its metadata alone still answers, by whole objects in JSON.
 */
export function acceptOf(what: "list" | "watch", { fields, metadataOnly = false }: Scope): string {
  const ofMetadata = `;as=PartialObjectMetadata${what === "list" ? "List" : ""};g=meta.k8s.io;v=v1`;
  const types = [...fields === undefined ? [] : [PROTO_TYPE], JSON_TYPE];
  const wanted = metadataOnly ? types.map((it) => it + ofMetadata) : types;
  if (wanted.length === 1 && !metadataOnly) return JSON_TYPE;
  return [...wanted.filter((it) => it !== JSON_TYPE), `${JSON_TYPE};q=0.9`].join(",");
}

export function isJson(contentType: string): boolean {
  return /^application\/json(;|$)/.test(contentType.trim());
}

export function isProto(contentType: string): boolean {
  return /^application\/vnd\.kubernetes\.protobuf(;|$)/.test(contentType.trim());
}

/** Whether the answer is of a type that was asked for. */
export function isAccepted(contentType: string, accept = JSON_TYPE): boolean {
  return isJson(contentType) || isProto(contentType) && accept.startsWith(PROTO_TYPE);
}
