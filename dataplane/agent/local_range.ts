/** Ranges of addresses in a local file. */
import { type IpWords, isIpv4, parseIp } from "../../base/address.ts";
import type { Field } from "./yaml_fields.ts";

/** `ADDRESS/LENGTH`; a bare address is a range of one. */
export function rangeOf(field: Field): { ip: IpWords; prefixLength: number } {
  const match = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(field.text());
  const ip = match === null ? undefined : parseIp(match[1]!);
  if (match === null || ip === undefined) return field.fail(`${field.text()} is no range such as 10.0.0.0/8`);
  const full = isIpv4(ip[0], ip[1], ip[2]) ? 32 : 128;
  const prefixLength = match[2] === undefined ? full : Number(match[2]);
  if (prefixLength > full) field.fail(`a length of ${prefixLength} is over ${full}`);
  return { ip, prefixLength };
}
