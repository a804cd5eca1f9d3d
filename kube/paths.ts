/** Where the API serves what: paths and queries. */
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
