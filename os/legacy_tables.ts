/** Which tables of the old iptables a network namespace has in use, as the kernel tells without that program. */
import * as libc from "./libc_cold.ts";
import { type Netns, withinNetns } from "./netns.ts";

const FILE = { ipv4: "ip_tables_names", ipv6: "ip6_tables_names" } as const;
const BYTES_MAX = 4096; // five names at most

/** Names such as `nat`; none when the kernel does not know the old iptables at all. */
export function legacyTableNames(netns: Netns, family: "ipv4" | "ipv6"): string[] {
  return withinNetns(netns, () => {
    const fd = libc.open(`/proc/thread-self/net/${FILE[family]}`, libc.O.RDONLY);
    if (fd < 0) return [];
    const target = new Uint8Array(BYTES_MAX), count = libc.read(fd, target);
    libc.close(fd);
    return new TextDecoder().decode(target.subarray(0, Math.max(count, 0))).split("\n").filter((it) => it !== "");
  });
}
