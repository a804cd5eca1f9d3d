/** What telemetry says of a connection, as one text: the worker writes it, the agent takes it apart for metrics and logs. */
import type { Service } from "../../mesh/service.ts";
import type { Workload } from "../../mesh/workload.ts";
import { formatIdentity } from "../../mesh/identity.ts";
import { Direction, LABEL_BYTES_MAX } from "./layout.ts";

/** The fields of a label, in their order. Empty means unknown. */
export const FLOW_FIELDS = [
  "reporter",
  "sourceName", // the pod's, for the access log
  "sourceWorkload",
  "sourceCanonicalService",
  "sourceCanonicalRevision",
  "sourceNamespace",
  "sourcePrincipal",
  "sourceApp",
  "sourceCluster",
  "destinationService",
  "destinationServiceNamespace",
  "destinationServiceName",
  "destinationName",
  "destinationWorkload",
  "destinationCanonicalService",
  "destinationCanonicalRevision",
  "destinationNamespace",
  "destinationPrincipal",
  "destinationApp",
  "destinationCluster",
  "securityPolicy",
  "hasLocality", // "1": the four locality labels are written even if empty (ZT-193)
  "sourceRegion",
  "sourceZone",
  "destinationRegion",
  "destinationZone",
] as const;
export type FlowField = (typeof FLOW_FIELDS)[number];

/** A label taken apart. Version labels are not in it: they always equal the canonical revision (ZT-194). */
export type FlowLabel = Readonly<Record<FlowField, string>>;

/** What baggage says of a side that we do not know ourselves (ZT-055). Empty: not said. */
export interface BaggageLabel {
  readonly cluster: string;
  readonly namespace: string;
  readonly workloadName: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly region: string;
  readonly zone: string;
}

const SEPARATOR = "\u0001"; // no name in Kubernetes or SPIFFE may hold it
const encoder = new TextEncoder();

/**
 * The label text of a connection. `sourceIdentity` only if it is a real mTLS identity (ZT-194), else empty; a known
 * source workload outweighs baggage, while baggage of the destination (double HBONE, ZT-047) outweighs the workload.
 */
export function flowLabelOf(
  direction: number,
  mutualTls: boolean,
  source: Workload | undefined,
  sourceIdentity: string,
  sourceBaggage: BaggageLabel | undefined,
  destination: Workload | undefined,
  destinationIdentity: string,
  destinationBaggage: BaggageLabel | undefined,
  service: Service | undefined,
): string {
  const from = source === undefined ? sideOfBaggage(sourceBaggage) : sideOfWorkload(source);
  const to = destinationBaggage === undefined && destination !== undefined
    ? sideOfWorkload(destination)
    : sideOfBaggage(destinationBaggage);
  const toIdentity = destinationBaggage === undefined && destination !== undefined
    ? formatIdentity(destination)
    : destinationIdentity;
  const anySide = source !== undefined || destination !== undefined || sourceBaggage !== undefined ||
    destinationBaggage !== undefined || sourceIdentity !== "";
  const fields = [
    direction === Direction.OUTBOUND ? "source" : "destination",
    ...from.slice(0, 5),
    sourceIdentity,
    from[5]!,
    from[6]!,
    service?.hostname ?? "",
    service?.namespace ?? "",
    service?.name ?? "",
    destinationBaggage === undefined ? to[0]! : to[1]!, // Of a destination its workload's name is said (ZT-047).
    ...to.slice(1, 5),
    toIdentity,
    to[5]!,
    to[6]!,
    mutualTls ? "mutual_tls" : "",
    anySide ? "1" : "",
    from[7]!,
    from[8]!,
    to[7]!,
    to[8]!,
  ];
  return boundedLabel(fields);
}

/** Takes a label apart. */
export function parseFlowLabel(text: string): FlowLabel {
  const parts = text.split(SEPARATOR);
  return Object.fromEntries(FLOW_FIELDS.map((field, at) => [field, parts[at] ?? ""])) as Record<FlowField, string>;
}

/** name, workload, canonical service, revision, namespace, app, cluster, region, zone */
type Side = readonly string[];

function sideOfWorkload(workload: Workload): Side {
  const { name, workloadName, canonicalName, canonicalRevision, namespace, clusterId, locality } = workload;
  return [
    name,
    workloadName,
    canonicalName,
    canonicalRevision,
    namespace,
    canonicalName,
    clusterId,
    locality.region,
    locality.zone,
  ];
}

function sideOfBaggage(baggage: BaggageLabel | undefined): Side {
  if (baggage === undefined) return ["", "", "", "", "", "", "", "", ""];
  const { workloadName, canonicalName, canonicalRevision, namespace, cluster, region, zone } = baggage;
  // In the log an unknown pod goes by its canonical service (ZT-202), and app is the workload's name (ZT-194).
  return [
    canonicalName,
    workloadName,
    canonicalName,
    canonicalRevision,
    namespace,
    workloadName,
    cluster,
    region,
    zone,
  ];
}

/** Joined fields; where they are too long for a row, the longest are cut until they fit. Names of objects never are that long. */
function boundedLabel(fields: string[]): string {
  for (let longest = 256;; longest = Math.floor(longest / 2)) {
    const text = fields.join(SEPARATOR);
    // A UTF-16 unit takes at most three bytes, which spares nearly every text the encoding.
    if (text.length * 3 <= LABEL_BYTES_MAX || encoder.encode(text).length <= LABEL_BYTES_MAX) return text;
    for (let at = 0; at < fields.length; at++) fields[at] = fields[at]!.slice(0, longest);
  }
}
