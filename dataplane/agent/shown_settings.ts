/** The settings as the config dump shows them, in the forms that tools know from Istio's ztunnel (ZT-214). */
import type { ZtunnelConfig } from "../config.ts";
import { ZTUNNEL_CONFIG } from "../config.ts";
import type { Json } from "./config_dump.ts";
import { parseRootSource } from "./control_channel.ts";

/** Every setting but secrets. */
export function shownSettings(config: ZtunnelConfig): Json {
  const shown: Record<string, Json> = {};
  for (const [key, setting] of Object.entries(ZTUNNEL_CONFIG.table)) {
    if ("secret" in setting && setting.secret) continue;
    const value = config[key as keyof ZtunnelConfig];
    shown[key] = setting.kind.placeholder === "DURATION" && typeof value === "number" ? duration(value) : value as Json;
  }
  const { ipv6, adminPort, statsPort, readinessPort } = config, wildcard = ipv6 ? "[::]" : "0.0.0.0";
  return {
    ...shown,
    xdsRootCa: rootShown(config.xdsRootCa),
    caRootCa: rootShown(config.caRootCa),
    adminAddr: { Localhost: [ipv6, adminPort] },
    statsAddr: { SocketAddr: `${wildcard}:${statsPort}` },
    readinessAddr: { SocketAddr: `${wildcard}:${readinessPort}` },
  };
}

function duration(ms: number): Json {
  return { secs: Math.floor(ms / 1_000), nanos: (ms % 1_000) * 1_000_000 };
}

/** Of a text that is the certificate itself no more is said than that. */
function rootShown(value: string): Json {
  const source = parseRootSource(value);
  return source.kind === "file" ? { File: source.path } : source.kind === "pem" ? "Static" : "Default";
}
