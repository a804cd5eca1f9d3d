/** Who a stream says it is, and whether its credentials bear that out (CP-401, CP-431). */
import { parseIdentity } from "../../mesh/identity.ts";
import type { DiscoveryNode } from "../../mesh/proto/discovery_codec.ts";

/** A client's node, as far as it is used. */
export interface ClientNode {
  readonly type: string;
  readonly ip: string;
  readonly pod: string;
  readonly namespace: string;
  /** `pod.namespace`, from which connection ids are made. */
  readonly name: string;
  /** Empty if the metadata does not say. */
  readonly serviceAccount: string;
  readonly node: string;
  readonly clusterId: string;
  readonly version: string;
  /** Of the pod, as the client says them. */
  readonly labels: Readonly<Record<string, string>>;
  /** What of its metadata debug pages show (CP-401). */
  readonly metadata: Readonly<Record<string, string>>;
}

const NODE_TYPES = ["sidecar", "router", "waypoint", "ztunnel", "agentgateway"];
const NODE_ID_LENGTH_MAX = 1_024; // a pod's and a namespace's name are at most 253 and 63 long
const SHOWN_METADATA =
  "NAME NAMESPACE INSTANCE_IPS NODE_NAME CLUSTER_ID SERVICE_ACCOUNT NETWORK ISTIO_VERSION MESH_ID OWNER"
    .split(" ");
const USED_METADATA = ["NAMESPACE", "SERVICE_ACCOUNT", "NODE_NAME", "CLUSTER_ID", "ISTIO_VERSION"];
const SHOWN_LENGTH_MAX = 1_024; // what a client says of itself is kept as long as its stream, so it is bounded
const LABELS_MAX = 64;

/** Reads a node. @returns What is wrong with its id as `{ invalid }`. */
export function parseNode(node: DiscoveryNode | undefined): ClientNode | { invalid: string } {
  if (node === undefined || node.id === "") return { invalid: "the first request names no node" };
  const parts = node.id.length <= NODE_ID_LENGTH_MAX ? node.id.split("~") : [];
  const [type, ip, name] = parts;
  if (parts.length !== 4 || type === undefined || ip === undefined || name === undefined) {
    return { invalid: "the node id is not TYPE~IP~POD.NAMESPACE~DOMAIN" };
  }
  if (!NODE_TYPES.includes(type)) return { invalid: `node type ${JSON.stringify(type)} is unknown` };
  const dot = name.lastIndexOf("."); // A namespace has no dots, a pod's name may.
  if (dot < 0) return { invalid: "the node id does not name POD.NAMESPACE" };
  const member = (key: string) => Object.hasOwn(node.metadata, key) ? node.metadata[key] : undefined;
  const text = (key: string): string => {
    const value = member(key);
    return typeof value === "string" ? value : "";
  };
  const long = USED_METADATA.find((key) => text(key).length > SHOWN_LENGTH_MAX);
  if (long !== undefined) return { invalid: `${long} of the node's metadata is too long` };
  return {
    type,
    ip,
    pod: name.slice(0, dot),
    namespace: text("NAMESPACE") || name.slice(dot + 1),
    name,
    serviceAccount: text("SERVICE_ACCOUNT"),
    node: text("NODE_NAME"),
    clusterId: text("CLUSTER_ID"),
    version: text("ISTIO_VERSION"),
    labels: shown(Object.entries(member("LABELS") ?? {}).slice(0, LABELS_MAX)),
    metadata: shown(SHOWN_METADATA.map((key) => [key, text(key)])),
  };
}

/** The entries that are text and not too long. */
function shown(entries: readonly (readonly [string, unknown])[]): Readonly<Record<string, string>> {
  const kept = entries.filter(([key, value]) =>
    typeof value === "string" && value !== "" && key.length + value.length <= SHOWN_LENGTH_MAX
  );
  return Object.fromEntries(kept) as Record<string, string>;
}

/** Whether one of the identities is of the node's namespace and, if it names one, of its service account. */
export function identityFits(node: ClientNode, identities: readonly string[]): boolean {
  return identities.some((uri) => {
    const identity = parseIdentity(uri);
    if (identity?.namespace !== node.namespace) return false;
    return node.serviceAccount === "" || identity.serviceAccount === node.serviceAccount;
  });
}
