/** Applications that are told by a PROXY header who speaks to them (ZT-095 to ZT-097): where they are reached, and the header. */
import { type IpWords, isIpv4 } from "../../base/address.ts";
import { type ProxyAddress, proxyHeaderBytesMax, writeProxyHeader } from "../../wire/proxy_protocol.ts";
import { SCRATCH_BYTES } from "./buffers.ts";
import type { Shard } from "./shard.ts";

const LOOPBACK_IPV4: IpWords = [0, 0, 0xffff, 0x7f00_0001], LOOPBACK_IPV6: IpWords = [0, 0, 0, 1];

/** The loopback address of an address' family: where an application tunnel of the same pod is reached (ZT-097). */
export function loopbackOf(ip: IpWords): IpWords {
  return isIpv4(ip[0], ip[1], ip[2]) ? LOOPBACK_IPV4 : LOOPBACK_IPV6;
}

/** The header's bytes. @returns undefined if the identity is too long for one. */
export function proxyHeader(source: ProxyAddress, destination: ProxyAddress, identity: string): Uint8Array | undefined {
  const target = new Uint8Array(proxyHeaderBytesMax(identity.length));
  const bytes = writeProxyHeader(target, source, destination, identity);
  return bytes < 0 || bytes > SCRATCH_BYTES ? undefined : target.subarray(0, bytes);
}

/**
 * Sends a header as the first bytes of a fresh connection, whose empty buffer takes all of it. They are not counted as
 * the downstream's. @returns 0 or -errno; a kernel that takes less than a header has no memory: -ENOBUFS.
 */
export function sendHeader(shard: Shard, fd: number, header: Uint8Array): number {
  const { os, buffers } = shard;
  os.memory.u8.set(header, buffers.scratchAt);
  const sent = os.send(fd, os.memory.base + buffers.scratchAt, header.length);
  return sent < 0 ? sent : sent < header.length ? -105 : 0;
}
