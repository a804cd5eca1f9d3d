/** Where ztunnel's settings come from besides flags and their own variables (ZT-007, ZT-009), and what must not be set together (ZT-008). */
import type { Given } from "../../base/config.ts";
import { MeshError } from "../../base/errors.ts";
import type { DiscoveryNode } from "../../mesh/proto/discovery_codec.ts";
import { type ProxyConfig, readProxyConfig } from "./proxy_config.ts";
import type { PodFacts } from "./state.ts";

type Environment = Readonly<Record<string, string>>;
type Metadata = DiscoveryNode["metadata"];

const META_PREFIX = "ISTIO_META_", META_JSON_PREFIX = "ISTIO_METAJSON_";
const IN_CLUSTER = "https://istiod.istio-system.svc:15012";

/** All that is below flags: the environment, and what stands below that. */
export class SettingsSources {
  readonly #environment: Environment;
  readonly #proxyConfig: ProxyConfig;

  /** @param meshText the mesh file, if there is one. @throws MeshError AMB0323 */
  constructor(environment: Environment, meshText: string | undefined) {
    this.#environment = environment;
    this.#proxyConfig = readProxyConfig(meshText, environment);
  }

  /** A variable's value. The cluster has two, of which Istio's own wins. */
  readonly environment = (name: string): string | undefined => {
    if (name === "CLUSTER_ID") return this.#environment["ISTIO_META_CLUSTER_ID"] || this.#environment[name];
    return this.#environment[name];
  };

  /** What holds for a variable that is not set, by the variable's name; undefined: the default of the table. */
  readonly below = (name: string): Given | undefined => {
    const config = this.#proxyConfig,
      ofConfig = (text: string | number | undefined, field: string) =>
        text === undefined || text === "" ? undefined : { text: String(text), source: `proxy config ${field}` };
    switch (name) {
      case "XDS_ADDRESS":
        return ofConfig(config.discoveryAddress, "discoveryAddress") ?? this.#inCluster();
      case "CA_ADDRESS":
        return this.#inCluster();
      case "AMBIT_ADMIN_PORT":
        return ofConfig(config.proxyAdminPort, "proxyAdminPort");
      case "AMBIT_STATS_PORT":
        return ofConfig(config.statsPort, "statsPort");
      case "ZTUNNEL_WORKER_THREADS":
        return ofConfig(config.concurrency, "concurrency");
      case "CONNECTION_TERMINATION_DEADLINE":
        return this.#drainDeadline();
    }
    return name.startsWith(META_PREFIX)
      ? ofConfig(config.metadata.get(name.slice(META_PREFIX.length)), `proxyMetadata ${name}`)
      : undefined;
  };

  /** What istiod is told of us besides name and node (ZT-128). @throws MeshError AMB0324 */
  nodeMetadata(): Metadata {
    const metadata: Record<string, Metadata[string]> = Object.fromEntries(this.#proxyConfig.metadata);
    for (const [name, text] of Object.entries(this.#environment)) {
      if (!name.startsWith(META_JSON_PREFIX)) continue;
      try {
        metadata[name.slice(META_JSON_PREFIX.length)] = JSON.parse(text);
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        throw invalidVariable(name, text, "it is no JSON");
      }
    }
    return metadata;
  }

  /** The version of Istio that this ztunnel was installed with: what metrics show as `tag`; else our own. */
  buildTag(own: string): string {
    return this.#proxyConfig.metadata.get("ISTIO_VERSION") || own;
  }

  /** Further metadata of calls: XDS_HEADER_x and CA_HEADER_x. @throws MeshError AMB0324 for what no header may hold */
  headers(service: "xds" | "ca"): Readonly<Record<string, string>> {
    const prefix = service === "xds" ? "XDS_HEADER_" : "CA_HEADER_", headers: Record<string, string> = {};
    for (const [name, value] of Object.entries(this.#environment)) {
      if (!name.startsWith(prefix)) continue;
      const key = name.slice(prefix.length).toLowerCase();
      // Names with the ending -bin hold base64, which a variable would have to be decoded from.
      if (!/^[a-z0-9_.-]+$/.test(key) || key.endsWith("-bin")) {
        throw invalidVariable(name, value, "no name of a header");
      }
      if (!/^[\x20-\x7e]*$/.test(value)) throw invalidVariable(name, value, "not printable ASCII");
      headers[key] = value;
    }
    return headers;
  }

  #inCluster(): Given | undefined {
    if (this.#environment["KUBERNETES_SERVICE_HOST"] === undefined) return undefined;
    return { text: IN_CLUSTER, source: "KUBERNETES_SERVICE_HOST" };
  }

  /** Some seconds less than Kubernetes leaves us, so that we end connections and not the kernel. */
  #drainDeadline(): Given | undefined {
    const name = "TERMINATION_GRACE_PERIOD_SECONDS", text = this.#environment[name] ?? "";
    if (text === "") return undefined;
    if (!/^\d{1,9}$/.test(text)) throw invalidVariable(name, text, "not a whole number of seconds");
    const seconds = Number(text);
    return { text: `${seconds > 10 ? seconds - 5 : Math.max(seconds - 1, 1)}s`, source: name };
  }
}

/** ZT-008's form of what is wrong with a variable. */
export function invalidVariable(name: string, value: string, why: string): MeshError {
  return new MeshError("AMB0324", `invalid env var ${name}=${value.slice(0, 100)} (${why})`, {
    remedy: "correct or unset the variable",
  });
}

/** Settings that only make sense together. @throws MeshError AMB0325 */
export function checkServers(settings: { proxy: boolean; dns: boolean; onDemand: boolean }): void {
  if (settings.dns && settings.onDemand) {
    throw new MeshError("AMB0325", "DNS proxy does not currently support on-demand mode", {
      remedy: "set ISTIO_META_DNS_CAPTURE=false, or unset XDS_ON_DEMAND",
    });
  }
  if (!settings.proxy && !settings.dns) {
    throw new MeshError("AMB0325", "ztunnel run without any servers enabled", {
      remedy: "unset ENABLE_PROXY or ISTIO_META_DNS_CAPTURE",
    });
  }
}

/** The one workload of a dedicated ztunnel: `NAMESPACE/NAME/SERVICE-ACCOUNT` (ZT-002). @throws MeshError AMB0326 */
export function dedicatedWorkload(setting: string): PodFacts {
  const remedy = "set PROXY_WORKLOAD_INFO to the workload that this process serves";
  if (setting === "") {
    throw new MeshError("AMB0326", "PROXY_MODE=dedicated requires PROXY_WORKLOAD_INFO to be set", { remedy });
  }
  const [namespace = "", name = "", ...rest] = setting.split("/"), serviceAccount = rest.join("/");
  if (namespace === "" || name === "" || serviceAccount === "" || rest.length > 1) {
    throw new MeshError(
      "AMB0326",
      `PROXY_WORKLOAD_INFO must match the format 'namespace/name/service-account' (got ${setting})`,
      { remedy },
    );
  }
  return { namespace, name, serviceAccount };
}
