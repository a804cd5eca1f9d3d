/** The maps of eBPF redirection that the node agent's programs and ztunnel both know, and where they are pinned (cni.md appendix B). */
import type { IpWords } from "../../base/address.ts";
import { MapType } from "./map_shape.ts";

/** Where everything is pinned, unless a setting says otherwise (CNI-214). */
export const PIN_FOLDER = "/sys/fs/bpf/istio-ambient";

const COOKIE_BYTES = 8, ADDRESS_BYTES = 16;

/** An address that a connection was meant for: 16 bytes (IPv4 in mapped form), port in network order, family, the workload's number. */
export const ORIGINAL = { address: 0, port: 16, family: 18, workload: 20, bytes: 24 } as const;
/** Which connection: cookie of the network namespace, address and port (a number) of the end that connected. */
export const TUPLE = { cookie: 0, address: 8, port: 24, bytes: 28 } as const;
/** What is known of an enrolled network namespace; the addresses are zero where there is none of the family. */
export const ENROLLED = { flags: 0, generation: 4, workload: 8, ipv4: 16, ipv6: 32, bytes: 48 } as const;

/** Bits of `ENROLLED.flags`. */
export const EnrolledFlag = { DNS: 1, INGRESS: 2, EXCEPTIONS: 4 } as const;

export const SHARED_MAPS = {
  enrolled: {
    name: "enrolled",
    type: MapType.HASH,
    keyBytes: COOKIE_BYTES,
    valueBytes: ENROLLED.bytes,
    entriesMax: 4096, // pods of a node, some times over
  },
  byTuple: {
    name: "by_tuple",
    type: MapType.LRU_HASH,
    keyBytes: TUPLE.bytes,
    valueBytes: ORIGINAL.bytes,
    entriesMax: 65_536,
  },
} as const;

/** Slots of a pod's sockmap of listeners, by the family of who connects. */
export const ListenerSlot = { IPV4: 0, IPV6: 1 } as const;

export const LISTENERS_SHAPE = {
  name: "listeners",
  type: MapType.SOCKMAP,
  keyBytes: 4,
  valueBytes: 8, // What is read back is the socket's cookie.
  entriesMax: 4, // two spare, for a hand-over
} as const;

/** A netns cookie as the key of a map. */
export function cookieKey(cookie: bigint): Uint8Array<ArrayBuffer> {
  return new Uint8Array(BigUint64Array.of(cookie).buffer);
}

/** The folder of a pod's own pins. */
export function podPinFolder(folder: string, cookie: bigint): string {
  return `${folder}/pod_${cookie}`;
}

/** Writes an address in network order. */
export function writeAddress(target: Uint8Array<ArrayBuffer>, at: number, ip: IpWords): void {
  const view = new DataView(target.buffer, target.byteOffset);
  ip.forEach((word, index) => view.setUint32(at + 4 * index, word));
}

export const ADDRESS_LENGTH = ADDRESS_BYTES;
