/** Services, ServiceEntries and waypoints that do not do what they ask for (CP-699). Pure. */
import type { AmbientGraph } from "../ambient/graph.ts";
import { suffixOf } from "../ambient/clusters.ts";
import { waypointAskedFor } from "../ambient/waypoint_binding.ts";
import { keyOf, type KubernetesObject, objectKey, type ServiceEntryObject } from "../objects.ts";
import type { WantedCondition } from "../status/conditions.ts";
import type { Finding } from "./findings.ts";

export function* checkObjects(graph: AmbientGraph): Iterable<Finding> {
  yield* checkReferences(graph);
  yield* checkEntries(graph);
  yield* checkConditions(graph);
  for (const [, { object, reason, message }] of graph.problems.entries()) {
    if (reason === "PortsDiffer") yield { code: "IST0170", object, message };
  }
}

/** Waypoints that labels name, and classes that Gateways name. */
function* checkReferences({ sources }: AmbientGraph): Iterable<Finding> {
  const kinds = [sources.Namespace, sources.Service, sources.ServiceEntry, sources.WorkloadEntry, sources.Pod];
  for (const kind of kinds) {
    for (const [key, object] of kind.entries() as IterableIterator<[string, KubernetesObject]>) {
      const { namespace, name, labels } = object.meta, suffix = suffixOf(key);
      for (const asked of waypointAskedFor(object.kind === "Namespace" ? name : namespace, labels)) {
        const { namespace: place, name: waypoint } = asked;
        if (sources.Gateway.get(objectKey("Gateway", place, waypoint) + suffix) !== undefined) continue;
        yield {
          code: "IST0101",
          object: keyOf(object),
          message: `Referenced Gateway not found: "${place}/${waypoint}"`,
        };
      }
    }
  }
  for (const [key, gateway] of sources.Gateway.entries()) {
    if (suffixOf(key) !== "" || sources.GatewayClass.get(objectKey("GatewayClass", "", gateway.className))) continue;
    const message = `Referenced GatewayClass not found: "${gateway.className}"`;
    yield { code: "IST0101", object: keyOf(gateway), message };
  }
}

/** A protocol without a name in it that requests carry: such a port is told from others by its address alone. */
const isPlainTcp = (protocol: string) => protocol === "" || protocol.toUpperCase() === "TCP";

function* checkEntries({ sources }: AmbientGraph): Iterable<Finding> {
  const byPort = new Map<string, ServiceEntryObject[]>();
  for (const [, entry] of sources.ServiceEntry.entries()) {
    const addressed = entry.addresses.length > 0 || entry.allocated.length > 0;
    if (!addressed && entry.ports.some(({ protocol }) => isPlainTcp(protocol))) {
      const message = "ServiceEntry addresses are required for this protocol.";
      yield { code: "IST0134", object: keyOf(entry), message };
    }
    for (const host of entry.hosts) {
      for (const { port } of entry.ports) {
        const place = `${host} ${port}`;
        byPort.set(place, [...byPort.get(place) ?? [], entry]);
      }
    }
  }
  for (const [place, entries] of byPort) {
    const [host = "", port = ""] = place.split(" ");
    const protocols = new Set(entries.map((it) => protocolOf(it, Number(port))));
    if (protocols.size < 2) continue;
    const names = entries.map(({ meta }) => `${meta.namespace}/${meta.name}`).sort().join(", ");
    const message = `Multiple ServiceEntries (${names}) define the same host "${host}" and port ${port} ` +
      `with conflicting protocols (${[...protocols].sort().join(", ")}).`;
    for (const entry of entries) yield { code: "IST0177", object: keyOf(entry), message };
  }
}

function protocolOf({ ports }: ServiceEntryObject, port: number): string {
  return ports.find((it) => it.port === port)?.protocol.toUpperCase() || "TCP";
}

/** Conditions that say that something asked for is not so, by the status that says it. */
const NEGATIVE: Readonly<Record<string, WantedCondition["status"]>> = {
  "istio.io/WaypointBound": "False",
  "istio.io/WaypointMissing": "True",
  "ambit/InMesh": "False",
  ZtunnelAccepted: "False",
  WaypointAccepted: "False",
  Accepted: "False",
  Programmed: "False",
  ResolvedRefs: "False",
};

/** By what is said in status, or would be where nobody writes. */
function* checkConditions({ conditions, gatewayStatuses }: AmbientGraph): Iterable<Finding> {
  const all = [...conditions.entries(), ...gatewayStatuses.entries()];
  for (const [, { object, conditions: said }] of all) {
    for (const { type, status, reason, message } of said) {
      // Of several targets some are not bound: the condition is true, and yet not what was asked for.
      const partly = type === "WaypointAccepted" && reason === "PartiallyInvalid";
      if (NEGATIVE[type] !== status && !partly) continue;
      const text = `A condition with a negative status is present: type=${type}, reason=${reason}, message=${message}.`;
      yield { code: "IST0171", object, message: text };
    }
  }
}
