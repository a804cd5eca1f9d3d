/** Whatever the environment asks for is obeyed or told of: the whole list of variables that operators know. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { MeshError } from "../../base/errors.ts";
import { ZTUNNEL_CONFIG } from "../config.ts";
import { checkMissingSettings, MISSING_SETTINGS } from "./missing_settings.ts";
import { SettingsSources } from "./settings_sources.ts";

function check(environment: Readonly<Record<string, string>>): string[] {
  const lines: string[] = [];
  checkMissingSettings(
    (name) => environment[name],
    new Logger("test", { json: true, sink: (line) => lines.push(line) }),
  );
  return lines.map((line) => (JSON.parse(line) as { name: string }).name);
}

Deno.test("checkMissingSettings() tells of what merely adds, and only where it is asked for", () => {
  assertEquals(check({ FAKE_CA: "true" }), ["FAKE_CA"]);
  assertEquals(check({ TLS12_ENABLED: "true", FAKE_CA: "false" }), []); // ZT-079
});

Deno.test("checkMissingSettings() tells of windows and frames other than ours, and refuses what is no size (ZT-061, ZT-008)", () => {
  const ours = {
    HTTP2_STREAM_WINDOW_SIZE: "4194304",
    HTTP2_CONNECTION_WINDOW_SIZE: "16777216",
    HTTP2_FRAME_SIZE: "1048576",
  };
  assertEquals(check(ours), []);
  for (const name of Object.keys(ours)) {
    assertEquals(check({ ...ours, [name]: "65536" }), [name]);
    assertThrows(() => check({ [name]: "4MiB" }), MeshError, `invalid env var ${name}=4MiB (`);
  }
});

/** ZT section 1, name by name; each with a value that differs from its default. */
const VARIABLES: Readonly<Record<string, string>> = {
  PROXY_MODE: "dedicated",
  PROXY_WORKLOAD_INFO: "ns/name/sa",
  ENABLE_PROXY: "false",
  ISTIO_META_DNS_CAPTURE: "no",
  ISTIO_META_DNS_PROXY_ADDR: "127.0.0.2:53",
  NODE_NAME: "n1",
  NETWORK: "net1",
  ISTIO_META_CLUSTER_ID: "c1",
  CLUSTER_ID: "c1",
  CLUSTER_DOMAIN: "example.org",
  TRUST_DOMAIN: "example.org",
  XDS_ADDRESS: "https://a:1",
  CA_ADDRESS: "https://a:1",
  XDS_ROOT_CA: "SYSTEM",
  CA_ROOT_CA: "SYSTEM",
  ALT_XDS_HOSTNAME: "alt",
  ALT_CA_HOSTNAME: "alt",
  AUTH_TOKEN: "/token",
  XDS_HEADER_colour: "red",
  CA_HEADER_colour: "red",
  XDS_ON_DEMAND: "true",
  LOCAL_XDS_PATH: "/local.yaml",
  LOCAL_XDS: "services: []",
  SECRET_TTL: "1h",
  FAKE_CA: "true",
  PREFERED_SERVICE_NAMESPACE: "ns",
  INPOD_UDS: "/socket",
  INPOD_PORT_REUSE: "false",
  PACKET_MARK: "7",
  ENABLE_ORIG_SRC: "true",
  KEEPALIVE_ENABLED: "false",
  KEEPALIVE_TIME: "7s",
  KEEPALIVE_INTERVAL: "7s",
  KEEPALIVE_RETRIES: "7",
  USER_TIMEOUT_ENABLED: "true",
  POOL_MAX_STREAMS_PER_CONNECTION: "7",
  POOL_UNUSED_RELEASE_TIMEOUT: "7s",
  HTTP2_STREAM_WINDOW_SIZE: "65536",
  HTTP2_CONNECTION_WINDOW_SIZE: "65536",
  HTTP2_FRAME_SIZE: "65536",
  CONNECTION_TERMINATION_DEADLINE: "7s",
  TERMINATION_GRACE_PERIOD_SECONDS: "30",
  LOCALHOST_APP_TUNNEL: "false",
  ENABLE_RESPONSE_BAGGAGE: "false",
  CRL_PATH: "/crl",
  TLS12_ENABLED: "true",
  COMPLIANCE_POLICY: "pqc",
  IPV6_ENABLED: "false",
  UNSTABLE_ENABLE_SOCKS5: "true",
  RUST_LOG: "debug",
  LOG_FORMAT: "json",
  AUTHZ_POLICY_INFO_LOGGING: "true",
  POD_NAME: "p",
  POD_NAMESPACE: "ns",
  SERVICE_ACCOUNT: "sa",
  INSTANCE_IP: "192.0.2.1",
  ISTIO_META_ISTIO_VERSION: "1.2.3",
  PROXY_CONFIG: "statsPort: 7",
  ZTUNNEL_WORKER_THREADS: "7",
  ZTUNNEL_CPU_LIMIT: "7",
  ZTUNNEL_RESOURCE_CPU_LIMIT: "7",
  ZTUNNEL_RESOURCE_CPU_REQUEST: "7",
};

/** All that the environment can bring about. */
function effect(environment: Readonly<Record<string, string>>): string {
  const sources = new SettingsSources(environment, undefined);
  const { config } = ZTUNNEL_CONFIG.parse([], sources.environment, sources.below);
  return JSON.stringify([config, sources.headers("xds"), sources.headers("ca"), sources.buildTag("ours")]);
}

Deno.test("every variable of Istio's ztunnel changes something or is told of (ZT-007)", () => {
  for (const [name, value] of Object.entries(VARIABLES)) {
    if (MISSING_SETTINGS.includes(name)) assertEquals(check({ [name]: value }), [name]);
    else assert(effect({ [name]: value }) !== effect({}), `${name} is ignored without a word`);
  }
});
