/** The number by which eBPF programs know a network namespace: it is never given twice while the machine runs. */
import { accepted } from "./kernel.ts";
import * as libc from "../libc_cold.ts";
import { type Netns, withinNetns } from "../netns.ts";

const SOL_SOCKET = 1, SO_NETNS_COOKIE = 71;

/** Throws AMB7150 on a kernel before 5.14. */
export function netnsCookie(netns: Netns): bigint {
  return withinNetns(netns, () => {
    const fd = accepted(libc.socket(libc.AF.INET, libc.SOCK.DGRAM, 0), "make a socket in a network namespace");
    try {
      const cookie = new Uint8Array(8);
      accepted(libc.getSocketOption(fd, SOL_SOCKET, SO_NETNS_COOKIE, cookie), "ask for a network namespace's cookie");
      return new DataView(cookie.buffer).getBigUint64(0, true);
    } finally {
      libc.close(fd);
    }
  });
}
