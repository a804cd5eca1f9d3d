/** The maps of eBPF redirection that ztunnel does not know: exceptions, what a socket was meant for, counters (cni.md appendix B). */
import { MapType } from "../../os/bpf/map_shape.ts";
import { ORIGINAL, SHARED_MAPS } from "../../os/bpf/shared_maps.ts";

/** Addresses that are not captured: the bits that count, the namespace's cookie, the address. */
export const CIDR_KEY = { prefixBits: 0, cookie: 4, address: 12, bytes: 28 } as const;
/** Why an address is in the trie: excluded by whoever enrolled, or one more of the pod's own. */
export const CidrReason = { EXCLUDED: 1, OWN: 2 } as const;
/** Ports that are not captured: the namespace's cookie, the port (a number), the direction. */
export const PORT_KEY = { cookie: 0, port: 8, direction: 12, bytes: 16 } as const;
export const PortDirection = { OUTBOUND: 0, INBOUND: 1 } as const;

/** What the programs count. */
export const Counter = {
  CAPTURED: 0,
  DNS: 1,
  MARKED: 2,
  EXCLUDED: 3,
  REFUSED: 4,
  INBOUND: 5,
  NO_LISTENER: 6,
  GUARD: 7,
} as const;
export type Counter = (typeof Counter)[keyof typeof Counter];
const COUNTERS_MAX = 8;

export const NODE_MAPS = {
  ...SHARED_MAPS,
  cidrs: { name: "excl_cidr", type: MapType.LPM_TRIE, keyBytes: CIDR_KEY.bytes, valueBytes: 4, entriesMax: 16_384 },
  ports: { name: "excl_port", type: MapType.HASH, keyBytes: PORT_KEY.bytes, valueBytes: 4, entriesMax: 16_384 },
  byCookie: {
    name: "orig_by_cookie",
    type: MapType.LRU_HASH,
    keyBytes: 8,
    valueBytes: ORIGINAL.bytes,
    entriesMax: 65_536,
  },
  stats: { name: "stats", type: MapType.PER_CPU_ARRAY, keyBytes: 4, valueBytes: 8, entriesMax: COUNTERS_MAX },
} as const;
export type NodeMapKey = keyof typeof NODE_MAPS;

/** Descriptors of the maps, for instructions that name them. */
export type NodeMapFds = Readonly<Record<NodeMapKey, number>>;
