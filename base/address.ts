/** IP addresses as four 32-bit words (IPv4 in its mapped form), so that the hot path carries numbers, never objects. */

/** The third word of every IPv4 address in mapped form, `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2). */
export const IPV4_MAPPED_WORD = 0xffff;

/** An address off the hot path: four unsigned 32-bit words, most significant first. */
export type IpWords = readonly [number, number, number, number];

/** Whether the words are an IPv4 address in mapped form. */
export function isIpv4(word0: number, word1: number, word2: number): boolean {
  return word0 === 0 && word1 === 0 && word2 === IPV4_MAPPED_WORD;
}

/** Reads an address of 4 or 16 bytes (the workload API's form). @returns undefined for any other length (ZT-134). */
export function ipFromBytes(bytes: Uint8Array): IpWords | undefined {
  if (bytes.length !== 4 && bytes.length !== 16) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length === 4) return [0, 0, IPV4_MAPPED_WORD, view.getUint32(0)];
  return [view.getUint32(0), view.getUint32(4), view.getUint32(8), view.getUint32(12)];
}

/** The workload API's form: 4 bytes for IPv4, 16 for IPv6. */
export function ipToBytes(ip: IpWords): Uint8Array {
  const v4 = isIpv4(ip[0], ip[1], ip[2]);
  const bytes = new Uint8Array(v4 ? 4 : 16);
  const view = new DataView(bytes.buffer);
  if (v4) view.setUint32(0, ip[3]);
  else for (let at = 0; at < 4; at++) view.setUint32(at * 4, ip[at]!);
  return bytes;
}

const DOT = 0x2e, ZERO = 0x30;

/** Digit by digit: every CONNECT that comes in has an address, and taken apart by the platform it takes four times as long. */
function parseIpv4(text: string): number | undefined {
  let value = 0, part = 0, digits = 0, parts = 1;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at), digit = unit - ZERO;
    if (unit === DOT && digits > 0) {
      value = value * 256 + part;
      part = digits = 0;
      parts++;
      continue;
    }
    if (digit < 0 || digit > 9 || (digits > 0 && part === 0)) return undefined; // No part begins with a zero.
    part = part * 10 + digit;
    digits++;
    if (part > 255 || parts > 4) return undefined;
  }
  return parts === 4 && digits > 0 ? value * 256 + part : undefined;
}

function parseGroups(text: string): number[] | undefined {
  if (text === "") return [];
  const groups: number[] = [];
  const parts = text.split(":");
  for (const [index, part] of parts.entries()) {
    if (part.includes(".")) {
      const v4 = index === parts.length - 1 ? parseIpv4(part) : undefined;
      if (v4 === undefined) return undefined;
      groups.push(v4 >>> 16, v4 & 0xffff);
    } else if (/^[0-9a-fA-F]{1,4}$/.test(part)) groups.push(parseInt(part, 16));
    else return undefined;
  }
  return groups;
}

/** Parses dotted IPv4 or RFC 4291 IPv6 text without zone. @returns undefined if it is neither. */
export function parseIp(text: string): IpWords | undefined {
  if (!text.includes(":")) {
    const v4 = parseIpv4(text);
    return v4 === undefined ? undefined : [0, 0, IPV4_MAPPED_WORD, v4];
  }
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0]!), tail = halves.length === 2 ? parseGroups(halves[1]!) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const groups = [...head, ...new Array<number>(missing).fill(0), ...tail];
  const word = (at: number) => groups[at]! * 0x10000 + groups[at + 1]!;
  return [word(0), word(2), word(4), word(6)];
}

/** Text form: dotted IPv4, or RFC 5952 IPv6. */
export function formatIp(word0: number, word1: number, word2: number, word3: number): string {
  if (isIpv4(word0, word1, word2)) {
    return `${word3 >>> 24}.${(word3 >>> 16) & 255}.${(word3 >>> 8) & 255}.${word3 & 255}`;
  }
  const groups: number[] = [];
  for (const word of [word0, word1, word2, word3]) groups.push(word >>> 16, word & 0xffff);
  let bestStart = -1, bestLength = 1;
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0) length++;
    if (length > bestLength) [bestStart, bestLength] = [start, length];
  }
  const hex = (from: number, to: number) => groups.slice(from, to).map((group) => group.toString(16)).join(":");
  return bestStart < 0 ? hex(0, 8) : `${hex(0, bestStart)}::${hex(bestStart + bestLength, 8)}`;
}

/** `1.2.3.4:80` or `[2001:db8::1]:80`. */
export function formatSocketAddress(ip: IpWords, port: number): string {
  const text = formatIp(ip[0], ip[1], ip[2], ip[3]);
  return text.includes(":") ? `[${text}]:${port}` : `${text}:${port}`;
}

/** Parses what {@link formatSocketAddress} writes. @returns undefined if it is not an address with a port of 0 to 65535. */
export function parseSocketAddress(text: string): { ip: IpWords; port: number } | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  if (match === null || Number(match[3]) > 65535) return undefined;
  const ip = parseIp((match[1] ?? match[2])!);
  if (ip === undefined || (match[1] !== undefined) === isIpv4(ip[0], ip[1], ip[2])) return undefined;
  return { ip, port: Number(match[3]) };
}

/** Whether an address lies in a prefix; `prefixLength` counts from the family's first bit (0 to 32 or 0 to 128). Families never match each other. */
export function prefixContains(
  prefix: IpWords,
  prefixLength: number,
  word0: number,
  word1: number,
  word2: number,
  word3: number,
): boolean {
  const v4 = isIpv4(prefix[0], prefix[1], prefix[2]);
  if (v4 !== isIpv4(word0, word1, word2)) return false;
  let bits = v4 ? prefixLength + 96 : prefixLength;
  for (let at = 0; at < 4 && bits > 0; at++, bits -= 32) {
    const mask = bits >= 32 ? -1 : -1 << (32 - bits);
    const word = at === 0 ? word0 : at === 1 ? word1 : at === 2 ? word2 : word3;
    if (((prefix[at]! ^ word) & mask) !== 0) return false;
  }
  return true;
}

/** Whether the address is loopback: 127.0.0.0/8 or ::1. */
export function isLoopback(word0: number, word1: number, word2: number, word3: number): boolean {
  if (isIpv4(word0, word1, word2)) return word3 >>> 24 === 127;
  return word0 === 0 && word1 === 0 && word2 === 0 && word3 === 1;
}
