/** On which TCP ports a network namespace listens, asked of the kernel (sock_diag(7)): other sockets cost nothing. */
import * as libc from "../libc_cold.ts";
import type { Netns } from "../netns.ts";
import { NLM_F } from "./message.ts";
import { NetlinkError, NetlinkSocket } from "./socket.ts";

const NETLINK_SOCK_DIAG = 4, SOCK_DIAG_BY_FAMILY = 20;
const IPPROTO_TCP = 6, TCP_LISTEN = 10;
const SOURCE_PORT_AT = 4; // struct inet_diag_msg: u8 family, state, timer, retrans; then be16 source port

/** @returns undefined where the kernel has no such question. Throws AMB7010. */
export function listeningPorts(netns?: Netns): ReadonlySet<number> | undefined {
  using socket = NetlinkSocket.open(NETLINK_SOCK_DIAG, netns);
  const ports = new Set<number>();
  try {
    for (const family of [libc.AF.INET, libc.AF.INET6]) {
      const request = new Uint8Array(56); // struct inet_diag_req_v2, whose socket id is all zero: any
      request.set([family, IPPROTO_TCP]);
      new DataView(request.buffer).setUint32(4, 1 << TCP_LISTEN, true);
      for (const { payload } of socket.request(SOCK_DIAG_BY_FAMILY, NLM_F.DUMP, (writer) => void writer.raw(request))) {
        if (payload.length < SOURCE_PORT_AT + 2) continue;
        ports.add(payload[SOURCE_PORT_AT]! << 8 | payload[SOURCE_PORT_AT + 1]!);
      }
    }
  } catch (error) {
    if (error instanceof NetlinkError) return undefined; // A kernel without the module for it.
    throw error;
  }
  return ports;
}
