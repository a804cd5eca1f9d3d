/** What kinds of eBPF maps there are, and what makes two maps alike. */
export const MapType = {
  HASH: 1,
  PER_CPU_ARRAY: 6,
  LRU_HASH: 9,
  LPM_TRIE: 11,
  SOCKMAP: 15,
} as const;
export type MapType = (typeof MapType)[keyof typeof MapType];

export interface MapShape {
  readonly name: string;
  readonly type: MapType;
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly entriesMax: number;
}
