/** Checks of single values that Kubernetes' own validation makes, for sources that have no API server before them. */
import { isIpv4, parseIp } from "../../base/address.ts";
import type { Field } from "./field.ts";

const LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** RFC 1123 label: what namespaces and services are called. */
export function label(field: Field): string {
  const text = field.required().text();
  if (!LABEL.test(text)) {
    field.fail("must be 1 to 63 lower-case letters, digits or '-', with a letter or digit at both ends");
  }
  return text;
}

/** RFC 1123 subdomain: what most objects are called. */
export function subdomain(field: Field): string {
  const text = field.required().text();
  if (text.length > 253 || !text.split(".").every((part) => LABEL.test(part))) {
    field.fail(
      "must be 1 to 253 lower-case letters, digits, '-' or '.', with a letter or digit at both ends of each part",
    );
  }
  return text;
}

/** A host of a ServiceEntry: a DNS name whose first label may be `*`. */
export function host(field: Field): string {
  const text = field.required().text();
  const bare = text.startsWith("*.") ? text.slice(2) : text;
  if (text.length > 253 || !/^[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?$/.test(bare)) {
    field.fail("must be a DNS name; only its first part may be *");
  }
  return text;
}

export function ip(field: Field): string {
  const text = field.required().text();
  if (parseIp(text) === undefined) field.fail("must be an IPv4 or IPv6 address");
  return text;
}

/** An address, or an address and a prefix length. */
export function ipOrPrefix(field: Field): string {
  const text = field.required().text();
  if (parsePrefix(text) === undefined) field.fail("must be an IP address or a prefix such as 10.0.0.0/8");
  return text;
}

/** @returns undefined if the text is neither an address nor a prefix. */
export function parsePrefix(text: string): { address: string; prefixLength: number | undefined } | undefined {
  const slash = text.indexOf("/");
  const address = slash < 0 ? text : text.slice(0, slash);
  const ip = parseIp(address);
  if (ip === undefined) return undefined;
  if (slash < 0) return { address, prefixLength: undefined };
  const bits = text.slice(slash + 1), v6 = address.includes(":");
  if (v6 && isIpv4(ip[0], ip[1], ip[2])) return undefined; // ::ffff:10.0.0.0/8: of which of the two families?
  if (!/^(0|[1-9]\d{0,2})$/.test(bits) || Number(bits) > (v6 ? 128 : 32)) return undefined;
  return { address, prefixLength: Number(bits) };
}

/** A port written as a string, as AuthorizationPolicy has it. */
export function portText(field: Field): string {
  const text = field.required().text();
  if (!/^(0|[1-9]\d{0,4})$/.test(text) || Number(text) > 65535) field.fail("must be a port of 0 to 65535");
  return text;
}

/** RFC 3339, in milliseconds since the epoch; 0 if absent. */
export function timestamp(field: Field): number {
  if (!field.present) return 0;
  const at = Date.parse(field.text());
  if (Number.isNaN(at)) field.fail("must be a time such as 2026-01-31T12:00:00Z");
  return at;
}
