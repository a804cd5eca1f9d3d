/** Hears of changes in a network namespace: rules of nf_tables, or routes, rules and addresses (netlink(7), multicast groups). */
import { MeshError } from "../../base/errors.ts";
import * as libc from "../libc_cold.ts";
import { type Netns, withinNetns } from "../netns.ts";
import { NETLINK } from "./socket.ts";

/** What is listened to: the protocol, and its groups as a mask whose bit n-1 is group n. */
const TOPICS = {
  firewall: { protocol: NETLINK.NETFILTER, groups: 1 << 6 }, // NFNLGRP_NFTABLES is 7
  // RTNLGRP_IPV4_IFADDR 5, IPV4_ROUTE 7, IPV4_RULE 8, IPV6_IFADDR 9, IPV6_ROUTE 11, IPV6_RULE 19
  routes: { protocol: NETLINK.ROUTE, groups: 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 },
} as const;
export type ChangeTopic = keyof typeof TOPICS;

const DATAGRAMS_MAX = 256; // of one look; what is left is ready in the next one
const DATAGRAM_BYTES = 8; // What it says is not read: that there was a change is all.

/** Belongs for its whole life to the namespace it was opened in. */
export class NetlinkListener implements Disposable {
  readonly fd: number;
  readonly #scratch = new Uint8Array(DATAGRAM_BYTES);
  #open = true;

  /** In `netns`, or the namespace of this thread. Throws AMB7180. */
  constructor(topic: ChangeTopic, netns?: Netns) {
    const { protocol, groups } = TOPICS[topic];
    const make = () => libc.socket(libc.AF.NETLINK, libc.SOCK.RAW | libc.SOCK.NONBLOCK, protocol);
    this.fd = netns === undefined ? make() : withinNetns(netns, make);
    const bound = this.fd < 0 ? this.fd : libc.bind(this.fd, addressOf(groups));
    if (bound >= 0) return;
    if (this.fd >= 0) libc.close(this.fd);
    throw new MeshError("AMB7180", `cannot listen to changes of ${topic}: ${libc.errnoName(bound)}`, {
      remedy: "run with CAP_NET_ADMIN in the namespace, and raise the limit of open files",
    });
  }

  /** Takes what has come. @returns Whether anything had; that some of it was lost counts too. */
  drain(): boolean {
    let heard = false;
    for (let count = 0; count < DATAGRAMS_MAX; count++) {
      const received = libc.receive(this.fd, this.#scratch, libc.MSG.DONTWAIT);
      if (received === -libc.Errno.EAGAIN) break;
      if (received < 0 && received !== -libc.Errno.ENOBUFS) break;
      heard = true;
    }
    return heard;
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    libc.close(this.fd);
  }
}

/** struct sockaddr_nl: family, padding, port (the kernel's choice), groups. */
function addressOf(groups: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12), view = new DataView(bytes.buffer);
  view.setUint16(0, libc.AF.NETLINK, true);
  view.setUint32(8, groups, true);
  return bytes;
}
