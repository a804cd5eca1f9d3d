/** Names of record types for metrics and logs (IANA "Resource Record TYPEs"). */

const NAMES: ReadonlyMap<number, string> = new Map([
  [1, "a"],
  [2, "ns"],
  [5, "cname"],
  [6, "soa"],
  [12, "ptr"],
  [13, "hinfo"],
  [15, "mx"],
  [16, "txt"],
  [28, "aaaa"],
  [33, "srv"],
  [35, "naptr"],
  [43, "ds"],
  [46, "rrsig"],
  [47, "nsec"],
  [48, "dnskey"],
  [50, "nsec3"],
  [52, "tlsa"],
  [64, "svcb"],
  [65, "https"],
  [251, "ixfr"],
  [252, "axfr"],
  [255, "any"],
  [257, "caa"],
]);

/** In lower case. All types without a name share one, so that no pod can make 65,536 metrics. */
export function typeName(type: number): string {
  return NAMES.get(type) ?? "unknown";
}
