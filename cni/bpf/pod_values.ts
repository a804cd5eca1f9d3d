/** A pod's entries in the node's maps, as bytes. */
import type { IpWords } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { parseCidr } from "../../mesh/enrolment.ts";
import { ENROLLED, EnrolledFlag, writeAddress } from "../../os/bpf/shared_maps.ts";
import type { BpfMap } from "../../os/bpf/maps.ts";
import { u32Bytes } from "../../os/bpf/maps.ts";
import { CIDR_KEY, CidrReason, type NodeMapKey, PORT_KEY, PortDirection } from "./maps.ts";
import type { PodFacts } from "./pod_facts.ts";

const COOKIE_BITS = 64, ADDRESS_BITS = 128, IPV4_BITS = 32;

export interface EnrolledOptions {
  readonly dns: boolean;
  readonly ingress: boolean;
  /** Whether something is left out of capture. */
  readonly exceptions: boolean;
}

/** The value of `enrolled`, but for the generation. */
export function enrolledValue(facts: PodFacts, options: EnrolledOptions): Uint8Array<ArrayBuffer> {
  const value = new Uint8Array(ENROLLED.bytes), view = new DataView(value.buffer);
  const exceptions = options.exceptions || facts.ipv4.length > 1 || facts.ipv6.length > 1;
  view.setUint32(
    ENROLLED.flags,
    (options.dns ? EnrolledFlag.DNS : 0) | (options.ingress ? EnrolledFlag.INGRESS : 0) |
      (exceptions ? EnrolledFlag.EXCEPTIONS : 0),
    true,
  );
  if (facts.ipv4[0] !== undefined) writeAddress(value, ENROLLED.ipv4, facts.ipv4[0]);
  if (facts.ipv6[0] !== undefined) writeAddress(value, ENROLLED.ipv6, facts.ipv6[0]);
  return value;
}

/** Keys of the pod's further addresses in the trie of exceptions, with why they are there. */
export function ownAddressEntries(cookie: bigint, facts: PodFacts): [Uint8Array<ArrayBuffer>, number][] {
  return [...facts.ipv4.slice(1), ...facts.ipv6.slice(1)].map((
    ip,
  ) => [cidrKey(cookie, ip, ADDRESS_BITS), CidrReason.OWN]);
}

/** Keys of the ranges that are left out. Asserts that they were parsed before. */
export function excludedEntries(cookie: bigint, cidrs: readonly string[]): [Uint8Array<ArrayBuffer>, number][] {
  return cidrs.map((text) => {
    const range = parseCidr(text);
    assert(range !== undefined, "an excluded range is one");
    const mappedBits = range.family === "ipv4" ? ADDRESS_BITS - IPV4_BITS : 0;
    return [cidrKey(cookie, range.ip, mappedBits + range.prefixLength), CidrReason.EXCLUDED];
  });
}

/** Makes the entries of excluded ports of this namespace those that are wanted. */
export function syncPorts(
  maps: Readonly<Record<NodeMapKey, BpfMap>>,
  cookie: bigint,
  outbound: readonly number[],
): void {
  for (const port of outbound) maps.ports.update(portKey(cookie, port), u32Bytes(1));
  for (const key of maps.ports.keys()) {
    const view = new DataView(key.buffer), ours = view.getBigUint64(PORT_KEY.cookie, true) === cookie;
    if (ours && !outbound.includes(view.getUint32(PORT_KEY.port, true))) maps.ports.delete(key);
  }
}

function portKey(cookie: bigint, port: number): Uint8Array<ArrayBuffer> {
  const key = new Uint8Array(PORT_KEY.bytes), view = new DataView(key.buffer);
  view.setBigUint64(PORT_KEY.cookie, cookie, true);
  view.setUint32(PORT_KEY.port, port, true);
  view.setUint32(PORT_KEY.direction, PortDirection.OUTBOUND, true);
  return key;
}

function cidrKey(cookie: bigint, ip: IpWords, bits: number): Uint8Array<ArrayBuffer> {
  const key = new Uint8Array(CIDR_KEY.bytes), view = new DataView(key.buffer);
  view.setUint32(CIDR_KEY.prefixBits, COOKIE_BITS + bits, true);
  view.setBigUint64(CIDR_KEY.cookie, cookie, true);
  writeAddress(key, CIDR_KEY.address, ip);
  return key;
}

/** Makes the trie's entries of this namespace those that are wanted. */
export function syncExceptions(
  maps: Readonly<Record<NodeMapKey, BpfMap>>,
  cookie: bigint,
  wanted: readonly [Uint8Array<ArrayBuffer>, number][],
): void {
  for (const [key, reason] of wanted) maps.cidrs.update(key, u32Bytes(reason));
  const names = new Set(wanted.map(([key]) => key.join()));
  for (const key of maps.cidrs.keys()) {
    const ours = new DataView(key.buffer).getBigUint64(CIDR_KEY.cookie, true) === cookie;
    if (ours && !names.has(key.join())) maps.cidrs.delete(key);
  }
}

/** Whether two values say the same; the generation is not looked at. */
export function sameEnrolment(one: Uint8Array, other: Uint8Array): boolean {
  const counts = (_: number, at: number) => at < ENROLLED.generation || at >= ENROLLED.generation + 4;
  return one.filter(counts).join() === other.filter(counts).join();
}
