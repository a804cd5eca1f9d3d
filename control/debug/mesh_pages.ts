/** Debug pages of the mesh: its objects, what was derived from them, and by which settings. */
import { formatIp } from "../../base/address.ts";
import type { Workload } from "../../mesh/workload.ts";
import { analyse } from "../analysis/analyse.ts";
import { jsonOf } from "../analysis/findings.ts";
import { describePolicy, describeService } from "../ambient/describe.ts";
import type { AmbientIndex } from "../ambient/index.ts";
import { jsonPage, type Page } from "./page.ts";
import { policyJson, serviceJson, textAddress, workloadJson } from "./proto_json.ts";

function sorted<T>(entries: Iterable<readonly [string, T]>): (readonly [string, T])[] {
  return [...entries].sort(([left], [right]) => left < right ? -1 : 1);
}

/** Workloads, services and policies as messages; addresses as text in base64, as upstream writes them here. */
export function ambientzPage({ graph }: AmbientIndex): Page {
  return (request) =>
    jsonPage(request, {
      workloads: sorted(graph.workloads.entries()).map(([, it]) => workloadJson(it, textAddress)),
      services: sorted(graph.services.entries()).map(([, it]) => serviceJson(it, textAddress)),
      policies: sorted(graph.policies.entries()).map(([, it]) => policyJson(it, textAddress)),
    });
}

/** Every collection of the derivation with its keys; with `?collection=` one of them with its items as well. */
export function krtzPage(index: AmbientIndex): Page {
  return (request) => {
    const only = request.query.get("collection");
    const collections = index.collections().filter(({ name }) => only === null || name === only);
    return jsonPage(
      request,
      collections.map((collection) => {
        const entries = sorted(collection.entries());
        const items = only === null ? entries.map(([key]) => key) : Object.fromEntries(entries.map(plainEntry));
        return { name: collection.name, size: collection.size, items };
      }),
    );
  };
}

function plainEntry([key, item]: readonly [string, unknown]): readonly [string, unknown] {
  return [key, plain(item)];
}

/** An item as JSON can show it: maps as objects, bytes as their number. */
function plain(value: unknown): unknown {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, it]) => [String(key), plain(it)]));
  if (value instanceof Set) return [...value].map(plain);
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, it]) => [key, plain(it)]));
}

/** What analysis finds wrong with the mesh as it is now (CP-699). */
export function analyzezPage({ graph }: AmbientIndex): Page {
  return (request) => jsonPage(request, analyse(graph).map(jsonOf));
}

export function registryzPage({ graph }: AmbientIndex): Page {
  return (request) => jsonPage(request, sorted(graph.services.entries()).map(([, it]) => describeService(it)));
}

/** Who stands behind each service, by cluster. */
export function endpointzPage({ graph }: AmbientIndex): Page {
  return (request) => {
    const shards: Record<string, Record<string, unknown[]>> = {};
    for (const [, workload] of sorted(graph.workloads.entries())) {
      for (const service of workload.services.keys()) {
        ((shards[service] ??= {})[workload.clusterId] ??= []).push(endpoint(workload, service));
      }
    }
    return jsonPage(request, Object.fromEntries(sorted(Object.entries(shards))));
  };
}

function endpoint(workload: Workload, service: string): Record<string, unknown> {
  return {
    workload: workload.uid,
    addresses: workload.addresses.map(([a, b, c, d]) => formatIp(a, b, c, d)),
    ports: workload.services.get(service) ?? [],
    network: workload.network,
    healthy: workload.healthy,
  };
}

export function authorizationzPage({ graph }: AmbientIndex): Page {
  return (request) => {
    const policies: Record<string, unknown[]> = {};
    for (const [, policy] of sorted(graph.policies.entries())) {
      (policies[policy.namespace] ??= []).push(describePolicy(policy));
    }
    const conditions = sorted(graph.converted.entries()).flatMap(([key, { condition }]) =>
      condition === undefined ? [] : [[key, condition] as const]
    );
    return jsonPage(request, { authorization_policies: policies, conditions: Object.fromEntries(conditions) });
  };
}

/** Where addresses of other networks are reached, as far as any workload needs it. */
export function networkzPage({ graph }: AmbientIndex): Page {
  return (request) => {
    const gateways = new Map<string, unknown>();
    for (const [, { network, networkGateway }] of graph.workloads.entries()) {
      if (networkGateway === undefined) continue;
      const shown = { network, ...plain(networkGateway) as Record<string, unknown> };
      gateways.set(JSON.stringify(shown), shown);
    }
    return jsonPage(request, sorted(gateways).map(([, it]) => it));
  };
}

/** How many resources of each kind there are, and their bytes as they go to clients. */
export function cachezPage(index: AmbientIndex, types: ReadonlyMap<string, string>): Page {
  return (request) => {
    const sizes = request.query.has("sizes");
    return jsonPage(
      request,
      Object.fromEntries([...types.keys()].map((typeUrl) => {
        const resources = [...index.all(typeUrl)];
        const bytes = resources.reduce((sum, it) => sum + it.bytes.length, 0);
        return [typeUrl, sizes ? { resources: resources.length, bytes } : resources.map(({ name }) => name).sort()];
      })),
    );
  };
}
