/** The authority of a CONNECT request: an address or a hostname, always with a port (ZT-053, RFC 9113 §8.5). */
import { type IpWords, isIpv4, parseIp } from "../base/address.ts";

export type Authority =
  | { readonly kind: "address"; readonly ip: IpWords; readonly port: number }
  | { readonly kind: "hostname"; readonly hostname: string; readonly port: number };

/** A DNS name in text (RFC 1035 §3.1), and so the longest authority that means anything to us. */
const HOSTNAME_BYTES_MAX = 253;
const PORT = /^[0-9]{1,5}$/;
/** What Kubernetes and ServiceEntry hosts consist of; no user info, no percent escapes. */
const HOSTNAME = /^[A-Za-z0-9_*](?:[A-Za-z0-9._*-]*)$/;

/**
 * Reads `1.2.3.4:80`, `[2001:db8::1]:80` or `host:80`. An IPv4 address in mapped form is that IPv4 address (ZT-014).
 * @returns undefined for all else: answer 400, `no valid authority pseudo header: <text>`.
 */
export function parseAuthority(text: string): Authority | undefined {
  const colon = text.lastIndexOf(":");
  if (colon <= 0 || colon > HOSTNAME_BYTES_MAX) return undefined;
  const host = text.slice(0, colon), portText = text.slice(colon + 1), port = Number(portText);
  if (!PORT.test(portText) || port > 65535) return undefined;
  if (host.startsWith("[") && host.endsWith("]")) {
    const inside = host.slice(1, -1);
    const ip = inside.includes(":") ? parseIp(inside) : undefined;
    return ip === undefined ? undefined : { kind: "address", ip, port };
  }
  const ip = parseIp(host);
  if (ip !== undefined && isIpv4(ip[0], ip[1], ip[2]) && !host.includes(":")) return { kind: "address", ip, port };
  return HOSTNAME.test(host) ? { kind: "hostname", hostname: host, port } : undefined;
}
