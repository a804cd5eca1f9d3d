/** Addresses as objects write them, as the domain holds them, and as resource names spell them. */
import { formatIp, type IpWords, isIpv4, parseIp } from "../../base/address.ts";

/** An address with a prefix length where it is a real range (CP-221). */
export interface Prefix {
  readonly ip: IpWords;
  readonly prefixLength: number | undefined;
}

/** Parses an address or a prefix and masks its host bits: 10.0.0.5/24 is 10.0.0.0/24. @returns undefined if it is neither. */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf("/");
  const ip = parseIp(slash < 0 ? text : text.slice(0, slash));
  if (ip === undefined) return undefined;
  if (slash < 0) return { ip, prefixLength: undefined };
  const bits = text.slice(slash + 1), full = isIpv4(ip[0], ip[1], ip[2]) ? 32 : 128;
  if (!/^(0|[1-9]\d{0,2})$/.test(bits) || Number(bits) > full) return undefined;
  const prefixLength = Number(bits);
  return { ip: mask(ip, prefixLength + 128 - full), prefixLength: prefixLength === full ? undefined : prefixLength };
}

function mask(ip: IpWords, bits: number): IpWords {
  const word = (at: number) => {
    const kept = Math.min(Math.max(bits - at * 32, 0), 32);
    return kept === 0 ? 0 : (ip[at]! & (-1 << (32 - kept))) >>> 0;
  };
  return [word(0), word(1), word(2), word(3)];
}

/** The addresses, or the text that is none. */
export function parseIps(texts: readonly string[]): { ips: IpWords[]; bad: string | undefined } {
  const ips: IpWords[] = [];
  for (const text of texts) {
    const ip = parseIp(text);
    if (ip === undefined) return { ips, bad: text };
    ips.push(ip);
  }
  return { ips: ips.slice(), bad: undefined }; // A copy: a list that grew has room for many more, and workloads keep it.
}

/** `network/ip`, or `network/ip/length`: the alias under which clients look an address up (CP table 3.1). */
export function addressAlias(network: string, ip: IpWords, prefixLength?: number): string {
  const alias = `${network}/${formatIp(ip[0], ip[1], ip[2], ip[3])}`;
  return prefixLength === undefined ? alias : `${alias}/${prefixLength}`;
}

/** An address as resource names spell it: canonical if it is one (CP-201), else as written. */
export function canonicalAddress(text: string): string {
  const ip = parseIp(text);
  return ip === undefined ? text : formatIp(ip[0], ip[1], ip[2], ip[3]);
}

/** The aliases of all ranges that hold the address of `network/ip`, the longest first; none for a name that is no address. */
export function* rangeAliases(name: string): Iterable<string> {
  const slash = name.lastIndexOf("/"), ip = parseIp(name.slice(slash + 1));
  if (slash < 0 || ip === undefined) return;
  const network = name.slice(0, slash), full = isIpv4(ip[0], ip[1], ip[2]) ? 32 : 128;
  for (let length = full - 1; length >= 0; length--) yield addressAlias(network, mask(ip, length + 128 - full), length);
}
