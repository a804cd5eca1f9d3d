/** Every debug page by its name, for HTTP and for the debug types of xDS, which show the same (CP-015, CP-021). */
import { AUTHORIZATION_TYPE_URL, decodeAuthorization } from "../../mesh/proto/authorization_codec.ts";
import type { ClientConfig } from "../../mesh/proto/client_status_codec.ts";
import type { DiscoveryResource } from "../../mesh/proto/discovery_codec.ts";
import { ADDRESS_TYPE_URL, decodeAddress } from "../../mesh/proto/workload_codec.ts";
import type { AmbientIndex } from "../ambient/index.ts";
import type { DebugSource } from "../xds/debug_types.ts";
import { type Resource, SERVED_TYPES, WORKLOAD_TYPE_URL } from "../xds/resources.ts";
import type { StreamStatus } from "../xds/stream.ts";
import type { DebugAccess } from "./access.ts";
import * as mesh from "./mesh_pages.ts";
import { absentPage, jsonPage, type Page, type PageAnswer, type PageRequest, textPage } from "./page.ts";
import { policyJson, serviceJson, wireAddress, workloadJson } from "./proto_json.ts";
import * as streams from "./stream_pages.ts";

export interface DebugPagesOptions {
  readonly ads: streams.Streams & {
    /** What a connected client would be sent of a type, were it to ask anew. */
    resourcesOf(connectionId: string, typeUrl: string): readonly Resource[];
  };
  readonly index: AmbientIndex;
  readonly clusterId: string;
  readonly readiness: {
    readonly ready: boolean;
    /** What readiness hangs on, line by line. */
    describe(): string;
  };
  /** Names of the objects that were read, by kind. */
  readonly objects: () => readonly string[];
  /** The settings of the mesh that are in force. */
  readonly settings: () => unknown;
  /** Clusters that objects come from, with how far each is. */
  readonly clusters: () => unknown;
  /** Who leads among several istiods, for each lock. */
  readonly leaders: () => unknown;
  /** Whether clients may be disconnected by whoever reads these pages. */
  readonly disconnects: boolean;
}

/** Pages that upstream has and we have nothing to show on: no sidecars, no injection, no imported services. */
const ABSENT: readonly (readonly [string, string])[] = [
  ["sidecarz", "sidecars and their scopes"],
  ["telemetryz", "Telemetry resources"],
  ["inject", "injection templates"],
  ["mcsz", "services of the multi-cluster API"],
  ["push_status", "diagnostics of pushes to sidecars"],
];

export class DebugPages implements DebugSource {
  readonly #options: DebugPagesOptions;
  readonly #pages: ReadonlyMap<string, Page>;

  constructor(options: DebugPagesOptions) {
    this.#options = options;
    const { ads, index, clusterId, readiness, objects, settings, clusters, disconnects } = options;
    const envoyDump = streams.proxyPage(ads, (_stream, request) => jsonPage(request, {})); // Nobody here is sent any.
    const shards = mesh.endpointzPage(index), authorization = mesh.authorizationzPage(index);
    const list: Page = (request) => jsonPage(request, this.names());
    this.#pages = new Map<string, Page>([
      ["adsz", streams.adszPage(ads)],
      ["ambientz", mesh.ambientzPage(index)],
      ["analyzez", mesh.analyzezPage(index)],
      ["authorizationz", authorization],
      ["cachez", mesh.cachezPage(index, SERVED_TYPES)],
      ["clusterz", (request) => jsonPage(request, clusters())],
      ["config_dump", streams.proxyPage(ads, (stream, request) => this.#configDump(stream, request))],
      ["configz", (request) => jsonPage(request, objects())],
      ["connections", streams.connectionsPage(ads)],
      ["ecdsz", envoyDump],
      ["edsz", envoyDump],
      ["endpointShardz", shards],
      ["endpointz", shards],
      ["force_disconnect", streams.disconnectPage(ads, disconnects)],
      ["instancesz", (request) => this.#instances(request)],
      ["krtz", mesh.krtzPage(index)],
      ["leaderz", (request) => jsonPage(request, options.leaders())],
      ["list", list],
      ["mesh", (request) => jsonPage(request, settings())],
      ["ndsz", envoyDump],
      ["networkz", mesh.networkzPage(index)],
      ["pushcontext", authorization],
      ["readyz", () => ({ status: readiness.ready ? 200 : 503, text: readiness.describe(), json: false })],
      ["registryz", mesh.registryzPage(index)],
      ["resourcesz", (request) => jsonPage(request, kindsOf(objects()))],
      ["syncz", streams.synczPage(ads, clusterId)],
      ...ABSENT.map(([name, what]) => [name, absentPage(what)] as const),
    ]);
  }

  /** Names of the pages that show something, without the list itself. */
  names(): string[] {
    const hidden = new Set(["list", ...ABSENT.map(([name]) => name)]);
    if (!this.#options.disconnects) hidden.add("force_disconnect");
    return [...this.#pages.keys()].filter((name) => !hidden.has(name)).sort();
  }

  /** One page. 401 without an identity, 403 with one that may not read it (CP-016, CP-017). */
  answer(name: string, query: URLSearchParams, access: DebugAccess): PageAnswer {
    if (access === "nobody") return textPage(401, "authentication required");
    if (!access.allows(name)) return textPage(403, "not for this identity");
    const page = this.#pages.get(name);
    return page === undefined ? textPage(404, "not found") : page({ query, reader: access });
  }

  page(pathAndQuery: string, access: DebugAccess): string {
    const at = pathAndQuery.indexOf("?");
    const [name, query] = at < 0 ? [pathAndQuery, ""] : [pathAndQuery.slice(0, at), pathAndQuery.slice(at + 1)];
    return this.answer(name, new URLSearchParams(query), access).text;
  }

  clients(access: DebugAccess): readonly ClientConfig[] {
    return access === "nobody" ? [] : streams.clientConfigs(this.#options.ads, this.#options.clusterId, access);
  }

  configOf(proxyId: string, access: DebugAccess): readonly DiscoveryResource[] | undefined {
    const stream = access === "nobody" ? undefined : streams.findStream(this.#options.ads, proxyId, access);
    if (stream === undefined) return undefined;
    const of = (typeUrl: string) =>
      this.#options.ads.resourcesOf(stream.connectionId, typeUrl).map((it) => ({ ...it, typeUrl }));
    return of(ADDRESS_TYPE_URL);
  }

  /** What a client is sent: addresses, or the types that the query names by their short names. */
  #configDump({ connectionId }: StreamStatus, request: PageRequest): PageAnswer {
    const wanted = (request.query.get("types") ?? "").toLowerCase().split(",").filter((it) => it !== "");
    const types = wanted.length === 0
      ? [ADDRESS_TYPE_URL]
      : [...SERVED_TYPES].filter(([, short]) => wanted.includes(short)).map(([typeUrl]) => typeUrl);
    const configs = types.flatMap((typeUrl) =>
      this.#options.ads.resourcesOf(connectionId, typeUrl).map((resource) => ({
        "@type": typeUrl,
        ...bodyJson(typeUrl, resource),
      }))
    );
    return jsonPage(request, configs.length === 0 ? {} : { configs });
  }

  /** Which services the workload at each client's own address stands behind. */
  #instances(request: PageRequest): PageAnswer {
    const byClient = this.#options.ads.status().filter(({ node }) => request.reader.shows(node.namespace))
      .map(({ node }) => {
        const workload = this.#options.index.graph.workloads.get(
          `${node.clusterId || this.#options.clusterId}//Pod/${node.namespace}/${node.pod}`,
        );
        return [node.name, [...workload?.services.keys() ?? []]] as const;
      });
    return jsonPage(request, Object.fromEntries(byClient));
  }
}

function bodyJson(typeUrl: string, { name, bytes }: Resource): Readonly<Record<string, unknown>> {
  if (typeUrl === AUTHORIZATION_TYPE_URL) return policyJson(decodeAuthorization(bytes, name), wireAddress);
  if (typeUrl === WORKLOAD_TYPE_URL) return { name };
  const { workload, service } = decodeAddress(bytes);
  return workload === undefined
    ? { service: serviceJson(service, wireAddress) }
    : { workload: workloadJson(workload, wireAddress) };
}

/** Kinds among object keys, which begin with theirs. */
function kindsOf(keys: readonly string[]): string[] {
  return [...new Set(keys.map((key) => key.slice(0, key.indexOf("/"))))].sort();
}
