/** The PROXY protocol's header, version 2: who a connection is from and for, told to an application before its first byte (ZT-095). */
import { type IpWords, isIpv4 } from "../base/address.ts";
import { writeUint16, writeUint32 } from "./bytes.ts";

/** An address and a port. */
export interface ProxyAddress {
  readonly ip: IpWords;
  readonly port: number;
}

const SIGNATURE = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a);
const VERSION_2_PROXY = 0x21;
/** Address family and transport: TCP over IPv4, TCP over IPv6, and unspecified, for what is neither. */
const FAMILY = { TCP4: 0x11, TCP6: 0x21, UNSPECIFIED: 0x00 } as const;
const HEAD_BYTES = 16, TLV_HEAD_BYTES = 3;
/** The peer's SPIFFE identity, in Istio's own range of types. */
const TLV_IDENTITY = 0xd0;

/** How long a header is at most, for identities of `identityLength` characters. */
export function proxyHeaderBytesMax(identityLength: number): number {
  return HEAD_BYTES + 36 + TLV_HEAD_BYTES + identityLength;
}

/**
 * Writes a header for a TCP connection. Addresses of different families cannot be told; the header then has none.
 * @param identity the peer's SPIFFE URI, ASCII; empty: there is none, and nothing is said of it.
 * @returns The header's bytes, or -1 if the identity is too long for one.
 */
export function writeProxyHeader(
  target: Uint8Array,
  source: ProxyAddress,
  destination: ProxyAddress,
  identity: string,
): number {
  const v4 = isV4(source.ip), same = v4 === isV4(destination.ip);
  const addressBytes = !same ? 0 : v4 ? 12 : 36;
  const tlvBytes = identity === "" ? 0 : TLV_HEAD_BYTES + identity.length;
  if (addressBytes + tlvBytes > 0xffff) return -1;
  target.set(SIGNATURE);
  target[12] = VERSION_2_PROXY;
  target[13] = !same ? FAMILY.UNSPECIFIED : v4 ? FAMILY.TCP4 : FAMILY.TCP6;
  let at = writeUint16(target, 14, addressBytes + tlvBytes);
  if (same) {
    at = writeIp(target, at, source.ip, v4);
    at = writeIp(target, at, destination.ip, v4);
    at = writeUint16(target, at, source.port);
    at = writeUint16(target, at, destination.port);
  }
  if (identity === "") return at;
  target[at] = TLV_IDENTITY;
  at = writeUint16(target, at + 1, identity.length);
  for (let index = 0; index < identity.length; index++) target[at++] = identity.charCodeAt(index);
  return at;
}

function isV4(ip: IpWords): boolean {
  return isIpv4(ip[0], ip[1], ip[2]);
}

function writeIp(target: Uint8Array, at: number, ip: IpWords, v4: boolean): number {
  for (let word = v4 ? 3 : 0; word < 4; word++) at = writeUint32(target, at, ip[word]!);
  return at;
}
