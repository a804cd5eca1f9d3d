/** The DNS proxy's part of ztunnel's settings. */
import { type Kind, toggle } from "../../../base/config.ts";
import type { Logger } from "../../../base/log.ts";
import { MeshError } from "../../../base/errors.ts";
import { parseName } from "../../../wire/dns/name.ts";
import type { ZtunnelConfig } from "../../config.ts";
import type { DnsProxyOptions } from "./proxy.ts";
import { ResolvConf } from "./resolv_conf.ts";

/** On, unless the text is anything but `true`: so says Istio of this one variable. */
export function captureSwitch(): Kind<boolean> {
  return { ...toggle(), range: "true, or anything else for false", parse: (it) => ({ value: /^(true)?$/i.test(it) }) };
}

/** @throws MeshError AMB2412 for a cluster domain that is no name. */
export function dnsSettings(
  config: ZtunnelConfig,
  log: Logger,
): Pick<DnsProxyOptions, "answers" | "upstreams" | "reusePort"> {
  const clusterDomain = parseName(config.clusterDomain);
  if (clusterDomain === undefined || clusterDomain === "") {
    throw new MeshError("AMB2412", `${JSON.stringify(config.clusterDomain)} is no domain`, {
      remedy: "set CLUSTER_DOMAIN to a name such as cluster.local",
    });
  }
  const resolvConf = new ResolvConf(config.resolvConf, log), upstreams = () => resolvConf.read();
  return {
    answers: {
      clusterDomain,
      // In dedicated mode the workload's resolver has our settings (ZT-180).
      search: config.proxyMode === "dedicated" ? upstreams().search : undefined,
      preferredNamespace: config.preferredServiceNamespace,
      ipv6: config.ipv6,
    },
    upstreams,
    reusePort: config.inpodPortReuse,
  };
}
