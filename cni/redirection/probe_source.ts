/** What the node's probes come from: Istio's link-local addresses, others, or the node's own where link-local sources are dropped (CNI-189). Pure. */
import { formatIp, isIpv4, parseIp } from "../../base/address.ts";
import { MeshError } from "../../base/errors.ts";
import { PROBE_ADDRESS, type ProbeSource } from "../nft_rules.ts";

/** What an operator can say instead of an address. */
const NODE_IP = "node-ip";

export interface ProbeSettings {
  readonly probeAddress: string | undefined;
  readonly probeAddressIpv6: string | undefined;
  readonly nodeIps: readonly string[];
}

/** @returns undefined where nothing was said. Throws AMB7146. */
export function probeSourceOf(settings: ProbeSettings): ProbeSource | undefined {
  const { probeAddress, probeAddressIpv6 } = settings;
  if (probeAddress === undefined && probeAddressIpv6 === undefined) return undefined;
  return {
    ipv4: addressOf(probeAddress, "ipv4", settings.nodeIps),
    ipv6: addressOf(probeAddressIpv6 ?? (probeAddress === NODE_IP ? NODE_IP : undefined), "ipv6", settings.nodeIps),
  };
}

/** A node without an address of a family keeps Istio's for it: none of its probes is of that family. */
function addressOf(said: string | undefined, family: keyof ProbeSource, nodeIps: readonly string[]): string {
  if (said === undefined) return PROBE_ADDRESS[family];
  const own = nodeIps.find((ip) => familyOf(ip) === family);
  const wanted = said === NODE_IP ? own ?? (nodeIps.length > 0 ? PROBE_ADDRESS[family] : undefined) : said;
  const ip = wanted === undefined || familyOf(wanted) !== family ? undefined : parseIp(wanted);
  if (ip !== undefined) return formatIp(...ip);
  const what = said === NODE_IP
    ? "node-ip, and --node-ips names none"
    : `${JSON.stringify(said)}, no address of ${family}`;
  throw new MeshError("AMB7146", `the address that the node's probes come from is ${what}`, {
    remedy:
      "Give an address of the family to --host-probe-snat-ip or --host-probe-snat-ipv6, or node-ip with HOST_IPS from status.hostIPs.",
  });
}

function familyOf(text: string): keyof ProbeSource | undefined {
  const ip = parseIp(text);
  return ip === undefined ? undefined : isIpv4(ip[0], ip[1], ip[2]) ? "ipv4" : "ipv6";
}
