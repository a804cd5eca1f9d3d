/** Debug pages of connected clients: who they are, how far they are, and what they would be sent (CP-015, CP-018, CP-020). */
import { type ClientConfig, ConfigStatus, type TypeStatus } from "../../mesh/proto/client_status_codec.ts";
import type { StreamStatus } from "../xds/stream.ts";
import type { DebugReader } from "./access.ts";
import { jsonPage, type Page, type PageAnswer, type PageRequest, textPage } from "./page.ts";

/** The part of the xDS service that pages need. */
export interface Streams {
  status(): readonly StreamStatus[];
  /** Sends every client what a change of the whole mesh's settings would. @returns How many clients there are. */
  pushAll(): number;
  disconnect(connectionId: string): boolean;
}

const ENVOY = "type.googleapis.com/envoy.config";
/** Types that have keys of their own in a row, by the keys' beginning. */
const ENVOY_TYPES: readonly (readonly [string, string])[] = [
  ["cluster", `${ENVOY}.cluster.v3.Cluster`],
  ["listener", `${ENVOY}.listener.v3.Listener`],
  ["route", `${ENVOY}.route.v3.RouteConfiguration`],
  ["endpoint", `${ENVOY}.endpoint.v3.ClusterLoadAssignment`],
  ["extensionconfig", `${ENVOY}.core.v3.TypedExtensionConfig`],
];
const NEVER = "0001-01-01T00:00:00Z"; // what readers of these pages take for no time at all

/** The clients a reader may hear of, in the order of their ids. */
function shownStreams(streams: Streams, reader: DebugReader): StreamStatus[] {
  return streams.status().filter(({ node }) => reader.shows(node.namespace))
    .sort((left, right) => left.connectionId < right.connectionId ? -1 : 1);
}

/** A connected proxy by its connection's id or as POD.NAMESPACE, the newest of several connections. */
export function findStream(streams: Streams, proxyId: string, reader: DebugReader): StreamStatus | undefined {
  return shownStreams(streams, reader).filter(({ connectionId, node }) =>
    connectionId === proxyId || node.name === proxyId
  ).sort((left, right) => right.connectedAtMs - left.connectedAtMs)[0];
}

/** Answers for the one proxy that the query names: 400 without a name, 404 if it is not connected here (CP-015). */
export function proxyPage(streams: Streams, answer: (stream: StreamStatus, request: PageRequest) => PageAnswer): Page {
  return (request) => {
    const proxyId = request.query.get("proxyID") ?? "";
    if (proxyId === "") return textPage(400, "You must provide a proxyID in the query string");
    const stream = findStream(streams, proxyId, request.reader);
    // Tools look for these very words, and then ask the next replica.
    const elsewhere = "Proxy not connected to this Pilot instance. It may be connected to another instance.";
    return stream === undefined ? textPage(404, elsewhere) : answer(stream, request);
  };
}

/** A row a client: nonces tell whether it is in step, and the last refusal stands beside them. */
export function synczPage(streams: Streams, clusterId: string): Page {
  return (request) => {
    const namespace = request.query.get("namespace") ?? "";
    const rows = shownStreams(streams, request.reader).filter(({ node }) =>
      namespace === "" || node.namespace === namespace
    );
    return jsonPage(request, rows.map((stream) => synchronization(stream, clusterId)));
  };
}

function synchronization({ node, watches }: StreamStatus, clusterId: string): Record<string, unknown> {
  const row: Record<string, unknown> = { cluster_id: node.clusterId || clusterId, proxy: node.name };
  row.proxy_type = node.type;
  if (node.version !== "") row.istio_version = node.version;
  for (const [key, typeUrl] of ENVOY_TYPES) {
    const watch = watches.find((it) => it.typeUrl === typeUrl);
    if (watch?.sentNonce) row[`${key}_sent`] = watch.sentNonce;
    if (watch?.acknowledgedNonce) row[`${key}_acked`] = watch.acknowledgedNonce;
  }
  row.resources = Object.fromEntries(watches.map((watch) => [watch.typeUrl, {
    ...watch.sentNonce !== "" && { sent: watch.sentNonce },
    ...watch.acknowledgedNonce !== "" && { acked: watch.acknowledgedNonce },
    sentTime: watch.sentAtMs === undefined ? NEVER : new Date(watch.sentAtMs).toISOString(),
    ...watch.lastError !== "" && { lastError: watch.lastError },
    ...watch.waiting > 0 && { waiting: watch.waiting }, // Ours: changes that wait for it to keep up.
  }]));
  return row;
}

/** The same as tools of another kind read it: data planes alone, not whoever else is connected. */
export function clientConfigs(streams: Streams, clusterId: string, reader: DebugReader): ClientConfig[] {
  const planes = shownStreams(streams, reader).filter(({ node, watches }) =>
    node.type === "ztunnel" || watches.length > 0
  );
  return planes.map(({ node, watches }) => ({
    node: {
      id: node.name,
      metadata: {
        CLUSTER_ID: node.clusterId || clusterId,
        NAMESPACE: node.namespace,
        ...node.version !== "" && { ISTIO_VERSION: node.version },
      },
    },
    types: watches.map(typeStatus).sort((left, right) => left.typeUrl < right.typeUrl ? -1 : 1),
  }));
}

function typeStatus(watch: StreamStatus["watches"][number]): TypeStatus {
  const { typeUrl, sentNonce, acknowledgedNonce, lastError, sentAtMs } = watch;
  const status = lastError !== ""
    ? ConfigStatus.ERROR
    : sentNonce === ""
    ? ConfigStatus.NOT_SENT
    : sentNonce === acknowledgedNonce
    ? ConfigStatus.SYNCED
    : ConfigStatus.STALE;
  return { typeUrl, status, lastUpdatedMs: sentAtMs, error: lastError };
}

export function connectionsPage(streams: Streams): Page {
  return (request) => {
    const clients = shownStreams(streams, request.reader).map(shortly);
    return jsonPage(request, { totalClients: clients.length, clients });
  };
}

function shortly({ connectionId, connectedAtMs, address }: StreamStatus): Record<string, unknown> {
  return { connectionId, connectedAt: new Date(connectedAtMs).toISOString(), address };
}

/** Clients with what they say of themselves and what they watch; with `push` everybody is pushed to instead. */
export function adszPage(streams: Streams): Page {
  return (request) => {
    if (request.query.get("push")) return textPage(200, `Pushed to ${streams.pushAll()} servers`);
    const one = proxyPage(streams, (stream) => jsonPage(request, { totalClients: 1, clients: [fully(stream)] }));
    if (request.query.get("proxyID")) return one(request);
    const clients = shownStreams(streams, request.reader).map(fully);
    return jsonPage(request, { totalClients: clients.length, clients });
  };
}

function fully(stream: StreamStatus): Record<string, unknown> {
  const { node, watches } = stream;
  return {
    ...shortly(stream),
    labels: node.labels,
    metadata: node.metadata,
    watches: Object.fromEntries(
      watches.map(({ typeUrl, wildcard, names }) => [typeUrl, wildcard ? ["*"] : [`${names} names`]]),
    ),
  };
}

/** Ends a client's stream; where that is not let, the page is not there. */
export function disconnectPage(streams: Streams, allowed: boolean): Page {
  const end = proxyPage(streams, ({ connectionId }) => {
    streams.disconnect(connectionId);
    return textPage(200, "OK");
  });
  return (request) => allowed ? end(request) : textPage(404, "not found");
}
